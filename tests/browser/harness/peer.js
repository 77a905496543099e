// One person in a call: a page with stube.js, driven from here.

import assert from 'node:assert/strict';
import { eventually, pause } from './eventually.js';

/** How long counters are watched to see whether they grow. */
const WATCH_MS = 1_500;

export class Peer {
  constructor(page, identity) {
    this.page = page;
    this.identity = identity;
  }

  /**
   * Opens a page and joins.
   * @param {{site: {url: string}, server: import('./server.js').Server, browser: {page: Function}}} world
   */
  static async join({ site, server, browser }, room, identity, options = {}) {
    const page = await browser.page();
    await page.goto(`${site.url}/pages/peer.html`);
    // Chromium plays no media in a tab that was never in front.
    await page.bringToFront();
    const peer = new Peer(page, identity);
    await eventually(`${identity}'s page has loaded`, () => page.evaluate(() => Boolean(globalThis.peer)));
    const token = await server.token(room, identity);
    await peer.do('join', { url: server.sessions, token, ...options });
    return peer;
  }

  /** Calls a function of pages/peer.js. */
  do(name, argument) {
    return this.page.evaluate(([name, argument]) => globalThis.peer[name](argument), [name, argument]);
  }

  /** What this one receives now, one entry for each filled slot. */
  received() {
    return this.do('received');
  }

  /** Waits until somebody's source arrives: decoded pictures, or sound that is not silence. */
  hears(identity, source, withinMs) {
    return eventually(`${this.identity} receives ${identity}'s ${source}`, async () => {
      const flow = await this.flowOf(identity, source);
      const flows = flow && (flow.kind === 'video' ? flow.frames > 0 : flow.packets > 0 && flow.energy > 0);
      if (!flows) throw new Error(`slots: ${JSON.stringify(await this.received())}`);
      return flow;
    }, withinMs);
  }

  /** Waits until somebody's source flows no more, although its track is still there. */
  hearsNo(identity, source) {
    return eventually(`${this.identity} receives nothing of ${identity}'s ${source}`, async () => {
      const before = await this.flowOf(identity, source);
      await pause(WATCH_MS);
      const after = await this.flowOf(identity, source);
      return !before || !after || !grew(before, after);
    });
  }

  /** Waits until somebody's source grows, from what it is now. */
  keepsHearing(identity, source, withinMs) {
    return eventually(`${this.identity} goes on receiving ${identity}'s ${source}`, async () => {
      const before = await this.flowOf(identity, source);
      await pause(WATCH_MS);
      const after = await this.flowOf(identity, source);
      return before && after && grew(before, after);
    }, withinMs);
  }

  async flowOf(identity, source) {
    return (await this.received()).find((flow) => flow.identity === identity && flow.source === source);
  }

  /** All statistics of one type, as the browser gives them. */
  async reports(type) {
    return (await this.do('reports')).filter((report) => report.type === type);
  }

  /** The two ends of the way this one's media takes: its own candidate and the server's. */
  async way() {
    const reports = await this.do('reports');
    const named = new Map(reports.map((report) => [report.id, report]));
    const chosen = named.get(reports.find(({ type }) => type === 'transport')?.selectedCandidatePairId)
      ?? reports.find(({ type, selected }) => type === 'candidate-pair' && selected);
    return [named.get(chosen.localCandidateId), named.get(chosen.remoteCandidateId)];
  }

  /** The UDP ports this one's media takes: its own and the server's. */
  async ports() {
    const ends = await this.way();
    assert.ok(ends.every(({ protocol }) => protocol === 'udp'), `not over UDP: ${JSON.stringify(ends)}`);
    return { own: ends[0].port, server: ends[1].port };
  }

  /** Whom this one knows of, sorted. */
  async others() {
    return (await this.do('others')).sort();
  }

  async leave() {
    await this.do('leave');
    await this.page.close();
  }
}

/** Everyone decodes everyone else's camera and microphone, and the counters go on growing. */
export async function assertFullMesh(peers) {
  await forEachPair(peers, (one, other) => Promise.all([
    one.hears(other.identity, 'camera', 20_000),
    one.hears(other.identity, 'microphone', 20_000),
  ]));
  await forEachPair(peers, (one, other) => Promise.all([
    one.keepsHearing(other.identity, 'camera'),
    one.keepsHearing(other.identity, 'microphone'),
  ]));
  for (const peer of peers) {
    const flows = await peer.received();
    assert.ok(flows.every((flow) => flow.identity !== peer.identity), `${peer.identity} receives itself`);
  }
}

async function forEachPair(peers, check) {
  await Promise.all(peers.flatMap((one) => peers.filter((other) => other !== one).map((other) => check(one, other))));
}

/** Sound has energy as long as it is no silence; a picture has frames. */
function grew(before, after) {
  if (after.kind === 'video') return after.frames > before.frames;
  return after.energy - before.energy > 1e-4 && after.packets > before.packets;
}
