// A server that is restarted while twenty people are in a call, as by an upgrade.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { eventually, pause } from './harness/eventually.js';
import { measured } from './harness/host.js';
import { useWorld } from './harness/world.js';

const PEOPLE = 20;
/** How soon everybody is back in the call once the server is. */
const BACK_MAX_MS = 3_000;
/** Someone whose newest packet is not older is being sent to. */
const FRESH_MS = 1_000;

describe('a restart', () => {
  const world = useWorld('restart');

  test(`gets all ${PEOPLE} people of a call back, who see each other`, { timeout: 180_000 }, measured(async () => {}, async (context) => {
    const room = await world.server.room('crowd');
    const names = Array.from({ length: PEOPLE }, (_, index) => `p${index}`);
    const tokens = await Promise.all(names.map((name) => world.server.token(room, name)));
    const page = await world.browser.page();
    await page.goto(`${world.site.url}/pages/crowd.html`);
    await page.bringToFront();
    await eventually('the page has loaded', () => page.evaluate(() => Boolean(globalThis.crowd)));
    const ask = (name, argument) => page.evaluate(([name, argument]) => globalThis.crowd[name](argument), [name, argument]);
    try {
      await ask('join', { url: world.server.sessions, tokens });
      const isBack = async () => {
        const [states, flowing] = [await ask('states'), await ask('flowing', FRESH_MS)];
        if (flowing === PEOPLE && states.every((state) => state === 'connected')) return true;
        throw new Error(`${flowing} of ${PEOPLE} see somebody; ${states}`);
      };
      await eventually('everybody sees somebody', isBack, 30_000);
      await pause(2_000);
      await ask('watch');
      const stopping = performance.timeOrigin + performance.now();
      assert.equal(await world.server.stop(), 0);
      await world.server.run();
      const ready = performance.timeOrigin + performance.now();
      await eventually('everybody is back', isBack, 30_000);
      const members = await ask('gaps');
      const back = Math.max(...members.map(({ backAt }) => backAt)) - ready;
      const gaps = members.map(({ longest }) => longest).sort((one, other) => one - other);
      context.diagnostic(`down for ${Math.round(ready - stopping)} ms; back ${Math.round(back)} ms after it was ready; without `
        + `media for ${gaps[0]} to ${gaps.at(-1)} ms, median ${gaps[PEOPLE / 2]} ms`);
      assert.ok(back < BACK_MAX_MS, `back after ${back} ms`);
      const participants = (await world.server.api('GET', `/v1/rooms/${room}/participants`)).participants;
      assert.deepEqual(participants.map(({ identity }) => identity).sort(), [...names].sort());
      await ask('leave');
      const finished = await eventually('all records are final', async () => {
        const { records } = await world.server.api('GET', `/v1/records?room=${room}`);
        return records.length === 2 * PEOPLE && records.every(({ final }) => final) && records;
      });
      assert.ok(finished.every(({ tx_bytes: sent }) => sent > 0));
    } finally {
      await page.close();
    }
  }));
});
