// One who watches one camera, what was seen of it, and what the server and the publisher had to do with that.

import assert from 'node:assert/strict';
import { eventually, pause } from './eventually.js';

/** No picture may stand still for so long; on a busy machine every browser stutters. */
const STILL_MS = 3_000;
/** On a link that stays as it is, the picture may change its size so often in 30 s. */
const SWITCHES_MAX = 3;
/** So often a picture is looked at, and where every frame counts. */
const OFTEN_MS = { plain: 250, close: 50 };

export class Viewer {
  /** What the server thought of the network, second by second. */
  #diary = [];

  #server;
  #room;

  /**
   * @param {import('./peer.js').Peer} peer
   * @param {import('./peer.js').Peer} publisher
   * @param {{server: import('./server.js').Server, room: string}} where
   */
  constructor(peer, publisher, { server, room }) {
    this.peer = peer;
    this.publisher = publisher;
    this.#server = server;
    this.#room = room;
  }

  async want(height) {
    const track = await eventually(`${this.peer.identity} hears of the camera`, async () => (
      (await this.peer.do('tracksOf', this.publisher.identity)).find(({ source }) => source === 'camera')?.sid
    ));
    await this.peer.do('want', { video: [{ track, height }] });
    this.mid = (await this.peer.do('slots')).find(({ kind }) => kind === 'video').mid;
  }

  /** @returns {Promise<number>} milliseconds */
  async awaitHeight(options) {
    try {
      return Math.round(await this.peer.do('awaitHeight', { mid: this.mid, ...options }));
    } catch (error) {
      throw new Error(`${this.peer.identity}: ${error.message}; ${await this.story()}; ${await storyOf(this.publisher)}`);
    }
  }

  /** What the server says of this one's quality. */
  async #quality() {
    const { participants } = await this.#server.api('GET', `/v1/rooms/${this.#room}/stats`);
    return participants.find(({ identity }) => identity === this.peer.identity);
  }

  /** How often the slot has gone to another encoding or spatial layer, by the server's count. */
  async #switches() {
    const { switches_up: up, switches_down: down } = (await this.#quality()).received.find(({ mid }) => mid === this.mid);
    return { up, down };
  }

  /** Notes each second what the server thinks of the network; returns what ends it. */
  keepDiary() {
    const note = async () => {
      const { estimate_bps, demand_bps, spent_bps, loss_ratio } = (await this.#quality()) ?? {};
      const kbit = [estimate_bps, demand_bps, spent_bps].map((bps) => Math.round((bps ?? 0) / 1_000)).join('/');
      this.#diary.push(`${kbit}${loss_ratio ? ` −${Math.round(loss_ratio * 100)} %` : ''}`);
    };
    const timer = setInterval(() => note().catch(() => {}), 1_000);
    return () => clearInterval(timer);
  }

  /** Asks for another height and looks closely at the picture for a while, in which it has to come. */
  async turnTo(height, withinMs) {
    const [tookMs, sight] = await Promise.all([
      this.want(height).then(() => this.awaitHeight({ least: height, most: height, withinMs })),
      this.watch(withinMs, OFTEN_MS.close),
    ]);
    return { tookMs, sight };
  }

  /** Looks at the picture for a while. */
  async watch(forMs, everyMs = OFTEN_MS.plain) {
    const before = await this.#switches();
    const samples = [];
    for (const end = performance.now() + forMs; performance.now() < end;) {
      samples.push(await this.peer.do('inbound', this.mid));
      await pause(everyMs);
    }
    const after = await this.#switches();
    return new Sight(this.peer.identity, samples, { up: after.up - before.up, down: after.down - before.down });
  }

  /** What the server has said of the slot, as seconds and layers. */
  async story() {
    const heard = (await this.peer.do('heard', 'slots')).flatMap(({ at, slots }) => (
      slots.filter(({ mid }) => mid === this.mid).map((slot) => ({ at, ...slot }))
    ));
    const now = await this.peer.do('now');
    const told = heard.map(({ at, state, layer }) => (
      `${((at - now) / 1_000).toFixed(1)} s ${state}${layer ? ` ${layer.rid ?? ''}s${layer.spatial ?? '-'}t${layer.temporal ?? '-'}` : ''}`
    ));
    return `slot: ${told.slice(-15).join(', ')}; estimate/demand/spent each second until now: ${this.#diary.slice(-40).join(', ')}`;
  }
}

/** What was seen of a picture over a while: samples of its statistics, and the server's count of switches. */
class Sight {
  #identity;
  #samples;
  #switches;

  constructor(identity, samples, switches) {
    this.#identity = identity;
    this.#samples = samples;
    this.#switches = switches;
  }

  /** The share of samples whose height fits. */
  share(fits) {
    return this.#samples.filter(({ frameHeight }) => fits(frameHeight ?? 0)).length / this.#samples.length;
  }

  /** The share of the time in which it was frozen, by the browser's count. */
  get frozen() {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    return ((last.totalFreezesDuration - first.totalFreezesDuration) * 1_000) / (last.timestamp - first.timestamp);
  }

  /** The longest time without a new frame, in milliseconds. */
  get still() {
    let longest = 0;
    let since = this.#samples[0];
    for (const sample of this.#samples) {
      if (sample.framesDecoded !== since.framesDecoded) since = sample;
      longest = Math.max(longest, sample.timestamp - since.timestamp);
    }
    return longest;
  }

  assertFlows(stillMaxMs = STILL_MS) {
    assert.ok(this.still < stillMaxMs, `${this.#identity}'s picture stood still for ${this.still} ms; ${this}`);
  }

  /** Heights one after the other, and how many samples each was seen in. */
  get heights() {
    const heights = [];
    for (const { frameHeight } of this.#samples) {
      if (heights.at(-1)?.frameHeight === frameHeight) heights.at(-1).count += 1;
      else heights.push({ frameHeight, count: 1 });
    }
    return heights;
  }

  /** How often the picture's size has changed. A short change is in no sample, but in the server's count. */
  get switches() {
    return Math.max(this.heights.length - 1, this.#switches.up + this.#switches.down);
  }

  /** Of a link that stays as it is, over 30 s. */
  assertSteady() {
    assert.ok(this.switches <= SWITCHES_MAX, `${this.#identity}'s picture changed its size ${this.switches} times; ${this}`);
  }

  toString() {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (!last.timestamp) return `${this.#identity}: no picture`;
    const grown = (key) => (last[key] ?? 0) - (first[key] ?? 0);
    const seconds = (last.timestamp - first.timestamp) / 1_000;
    const figures = {
      switches: this.switches,
      up: this.#switches.up,
      down: this.#switches.down,
      heights: this.heights.map(({ frameHeight, count }) => `${frameHeight}×${count}`).join(' '),
      fps: Number((grown('framesDecoded') / seconds).toFixed(1)),
      kbit: Math.round((grown('bytesReceived') * 8) / seconds / 1_000),
      freezes: grown('freezeCount'),
      frozen: Number(grown('totalFreezesDuration').toFixed(2)),
      stillMs: Math.round(this.still),
      pli: grown('pliCount'),
      nack: grown('nackCount'),
      retransmitted: grown('retransmittedPacketsReceived'),
      keyframes: grown('keyFramesDecoded'),
      lost: grown('packetsLost'),
    };
    return `${this.#identity} over ${seconds.toFixed(1)} s: ${JSON.stringify(figures)}`;
  }
}

/** What a publisher has been told to send, and sends: for whoever wants to know why a viewer has less. */
export async function storyOf(publisher) {
  const [heard, now, reports] = await Promise.all([
    publisher.do('heard', 'publish'), publisher.do('now'), publisher.reports('outbound-rtp'),
  ]);
  const told = heard.map(({ at, layers }) => (
    `${((at - now) / 1_000).toFixed(1)} s ${layers.filter(({ active }) => active).map(({ rid }) => rid || '(all)').join('') || 'nothing'}`
  ));
  const sent = reports.filter(({ kind }) => kind === 'video').map((report) => (
    `${report.rid ?? ''} ${report.active ? 'active' : 'stopped'} ${report.frameWidth}×${report.frameHeight} ${report.framesPerSecond} fps `
    + `${Math.round(report.targetBitrate / 1_000)} kbit/s ${report.scalabilityMode} ${report.qualityLimitationReason} ${report.bytesSent} bytes`
  ));
  const path = (await publisher.reports('candidate-pair')).find(({ availableOutgoingBitrate }) => availableOutgoingBitrate);
  const uplink = `estimates ${Math.round(path?.availableOutgoingBitrate / 1_000)} kbit/s`;
  return `${publisher.identity} is to send: ${told.slice(-10).join(', ')}; ${uplink}, sends: ${sent.join(', ')}`;
}
