// Everyone gets the quality that their network takes and their page shows, and nobody sends what nobody needs.
//
// Viewers are browsers in network namespaces, each with a link of its own, which `tbf` makes narrow and nftables lossy.
// The publisher is here, with a camera whose encodings use up their bitrates.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startChromium, startFirefox } from './harness/browsers.js';
import { eventually, pause } from './harness/eventually.js';
import { Namespace } from './harness/netns.js';
import { Peer } from './harness/peer.js';
import { Server, freeTcpPort } from './harness/server.js';
import { startSite } from './harness/site.js';

const NARROW_KBIT = 300;
const MIDDLE_KBIT = 2_000;
const JOINER_KBIT = 5_000;
const HEIGHT = 720;
const PICTURE = { width: 1280, height: HEIGHT, frameRate: 15, landscape: true };
const SIMULCAST = { simulcast: true, codecs: ['VP8'] };
/** How long the first estimates take. */
const SETTLE_MS = 20_000;
const WINDOW_MS = 20_000;
const FALL_MS = 5_000;
/** No picture may stand still for so long; on a busy machine every browser stutters. */
const STILL_MS = 3_000;
const SLOTS = { audio: 1, video: 1 };

describe('adaptive quality', () => {
  const homes = {};
  const browsers = {};
  let site;
  let server;
  let room;
  let firefoxPort;

  before(async () => {
    site = await startSite();
    for (const name of ['narrow', 'middle', 'free']) homes[name] = await Namespace.start();
    // After the namespaces, for it looks at the addresses it has when it starts.
    server = await Server.start('adaptation');
    firefoxPort = await freeTcpPort();
    await homes.narrow.letIn(firefoxPort);
    for (const home of Object.values(homes)) {
      for (const url of [site.url, server.base]) await home.letOut(Number(new URL(url).port));
    }
    browsers.publisher = await startChromium();
    for (const [name, home] of Object.entries(homes)) browsers[name] = await startChromium(home);
    room = await server.room('adaptation');
  });
  after(async () => {
    for (const browser of Object.values(browsers)) await browser.close();
    await server?.stop();
    for (const home of Object.values(homes)) await home.stop();
    site.close();
  });

  const join = (where, identity, options) => Peer.join({ site, server, browser: browsers[where] }, room, identity, options);
  const publish = (identity, options) => join('publisher', identity, { devices: ['camera'], picture: PICTURE, ...options });

  /** Someone who watches a publisher's camera at full size. */
  async function view(where, publisher, { as = where, ...options } = {}) {
    const peer = await join(where, as, { devices: [], slots: SLOTS, ...options });
    const viewer = new Viewer(peer, publisher);
    await viewer.want(HEIGHT);
    return viewer;
  }

  /** Viewers with links that take ever more. */
  async function viewAll(publisher) {
    await homes.narrow.narrow(NARROW_KBIT);
    await homes.middle.narrow(MIDDLE_KBIT);
    return Promise.all(['narrow', 'middle', 'free'].map((where) => view(where, publisher)));
  }

  describe('VP8 simulcast', () => {
    let publisher;
    let narrow;
    let middle;
    let free;

    before(async () => {
      publisher = await publish('ada', { camera: SIMULCAST });
      [narrow, middle, free] = await viewAll(publisher);
    });
    after(() => publisher?.leave());

    test('each link gets what it takes', (context) => assertEachGetsItsOwn(context, { narrow, middle, free, homes }));

    test('a link that becomes narrow gets less at once, and all again when it is free', async (context) => {
      await narrow.leave();
      await middle.leave();
      await homes.free.narrow(NARROW_KBIT);
      const fell = await free.awaitHeight({ most: HEIGHT - 1, withinMs: FALL_MS });
      context.diagnostic(`${NARROW_KBIT} kbit/s: smaller after ${fell} ms`);
      const seen = await free.watch(8_000);
      context.diagnostic(`narrow: ${seen}; queue ${JSON.stringify(await homes.free.queue())}`);
      await homes.free.widen();
      const rose = await free.awaitHeight({ least: HEIGHT, withinMs: 20_000 });
      context.diagnostic(`free again: full size after ${rose} ms; ${await free.story()}`);
      seen.assertFlows();
    });

    test('a small tile gets the small encoding, and the others stop', async (context) => {
      await free.want(HEIGHT / 4);
      const fell = await free.awaitHeight({ most: HEIGHT / 4, withinMs: 2_000 });
      const stopped = await eventually('the publisher is told', async () => {
        const layers = (await publisher.do('heard', 'publish')).at(-1)?.layers;
        return layers?.every(({ rid, active }) => active === (rid === 'q')) && layers;
      }, 8_000);
      context.diagnostic(`small after ${fell} ms; ${JSON.stringify(stopped)}`);
      await pause(500);
      const before = await encodings(publisher);
      await pause(2_000);
      const grown = Object.entries(await encodings(publisher)).map(([rid, bytes]) => [rid, bytes - before[rid]]);
      context.diagnostic(`bytes in 2 s: ${JSON.stringify(grown)}`);
      for (const [rid, bytes] of grown) assert.equal(bytes > 0, rid === 'q', `${rid} sends ${bytes} bytes`);
      await free.want(HEIGHT);
      const rose = await free.awaitHeight({ least: HEIGHT, withinMs: 5_000 });
      context.diagnostic(`full size after ${rose} ms; ${await free.story()}`);
      assert.ok(rose < 2_000, `${rose} ms`);
    });

    test('some loss is no reason for less', async (context) => {
      await homes.free.lose(2);
      try {
        const seen = await free.watch(12_000);
        context.diagnostic(`${seen}; ${JSON.stringify(await homes.free.counts())}; ${await free.story()}`);
        seen.assertFlows();
        assert.ok(seen.share((height) => height === HEIGHT) > 0.9, 'full size');
      } finally {
        await homes.free.calm();
      }
    });

    test('whoever joins on a good link soon has all', async (context) => {
      await homes.middle.narrow(JOINER_KBIT);
      const begin = performance.now();
      const joiner = await view('middle', publisher, { as: 'joiner' });
      await joiner.awaitHeight({ least: HEIGHT, withinMs: 8_000 });
      context.diagnostic(`full size after ${Math.round(performance.now() - begin)} ms; ${await joiner.story()}`);
      await joiner.leave();
    });

    test('Firefox on a narrow link gets a small picture that moves', async (context) => {
      const firefox = await startFirefox(homes.narrow, firefoxPort);
      try {
        browsers.firefox = firefox;
        const viewer = await view('firefox', publisher);
        await viewer.awaitHeight({ least: 1, most: HEIGHT / 2 - 1, withinMs: SETTLE_MS });
        const seen = await viewer.watch(12_000);
        context.diagnostic(`${seen}; ${await viewer.story()}`);
        seen.assertFlows();
        assert.ok(seen.share((height) => height < HEIGHT / 2) > 0.6, 'small');
      } finally {
        delete browsers.firefox;
        await firefox.close();
      }
      await free.leave();
    });
  });
});

/** One who watches one camera. */
class Viewer {
  /** @param {Peer} peer @param {Peer} publisher */
  constructor(peer, publisher) {
    this.peer = peer;
    this.publisher = publisher;
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
      throw new Error(`${error.message}; ${await this.story()}`);
    }
  }

  /** Looks at the picture for a while. */
  async watch(forMs) {
    const samples = [];
    for (const end = performance.now() + forMs; performance.now() < end;) {
      samples.push(await this.peer.do('inbound', this.mid));
      await pause(250);
    }
    return new Sight(this.peer.identity, samples);
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
    return `slot of ${this.peer.identity}: ${told.slice(-15).join(', ')}`;
  }

  leave() {
    return this.peer.leave();
  }
}

/** What was seen of a picture over a while: samples of its statistics. */
class Sight {
  #identity;
  #samples;

  constructor(identity, samples) {
    this.#identity = identity;
    this.#samples = samples;
  }

  /** The share of samples whose height fits. */
  share(fits) {
    return this.#samples.filter(({ frameHeight }) => fits(frameHeight ?? 0)).length / this.#samples.length;
  }

  get still() {
    let longest = 0;
    let since = this.#samples[0];
    for (const sample of this.#samples) {
      if (sample.framesDecoded !== since.framesDecoded) since = sample;
      longest = Math.max(longest, sample.timestamp - since.timestamp);
    }
    return longest;
  }

  assertFlows() {
    assert.ok(this.still < STILL_MS, `${this.#identity}'s picture stood still for ${this.still} ms; ${this}`);
  }

  toString() {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    const grown = (key) => (last[key] ?? 0) - (first[key] ?? 0);
    const seconds = (last.timestamp - first.timestamp) / 1_000;
    const heights = [];
    for (const { frameHeight } of this.#samples) {
      if (heights.at(-1)?.frameHeight === frameHeight) heights.at(-1).count += 1;
      else heights.push({ frameHeight, count: 1 });
    }
    const figures = {
      heights: heights.map(({ frameHeight, count }) => `${frameHeight}×${count}`).join(' '),
      fps: Number((grown('framesDecoded') / seconds).toFixed(1)),
      kbit: Math.round((grown('bytesReceived') * 8) / seconds / 1_000),
      freezes: grown('freezeCount'),
      frozen: Number(grown('totalFreezesDuration').toFixed(2)),
      stillMs: Math.round(this.still),
      pli: grown('pliCount'),
      nack: grown('nackCount'),
      lost: grown('packetsLost'),
    };
    return `${this.#identity} over ${seconds.toFixed(1)} s: ${JSON.stringify(figures)}`;
  }
}

/** Links that take ever more get ever more, and every picture moves. */
async function assertEachGetsItsOwn(context, { narrow, middle, free, homes }) {
  const first = await free.awaitHeight({ least: HEIGHT, withinMs: SETTLE_MS });
  context.diagnostic(`unlimited: full size ${first} ms after all have joined`);
  await middle.awaitHeight({ least: HEIGHT / 2, withinMs: SETTLE_MS });
  await narrow.awaitHeight({ least: 1, most: HEIGHT / 2 - 1, withinMs: SETTLE_MS });
  const sights = await Promise.all([narrow, middle, free].map((viewer) => viewer.watch(WINDOW_MS)));
  for (const sight of sights) context.diagnostic(String(sight));
  for (const viewer of [narrow, middle, free]) context.diagnostic(await viewer.story());
  for (const name of ['narrow', 'middle']) context.diagnostic(`${name} queue: ${JSON.stringify(await homes[name].queue())}`);
  for (const sight of sights) sight.assertFlows();
  assert.ok(sights[0].share((height) => height < HEIGHT / 2) > 0.6, 'the narrow link carries the small picture');
  assert.ok(sights[1].share((height) => height >= HEIGHT / 2) > 0.9, 'the middle one half the height at least');
  assert.ok(sights[2].share((height) => height === HEIGHT) > 0.9, 'the free one all');
}

/** Bytes sent so far by RID. */
async function encodings(publisher) {
  const sent = await publisher.do('sent');
  return Object.fromEntries(sent.filter(({ kind }) => kind === 'video').map(({ rid, bytesSent }) => [rid, bytesSent]));
}
