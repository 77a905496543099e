// Other people's WHIP and WHEP clients: the npm package whip-whep in Chromium.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { eventually } from './harness/eventually.js';
import { Peer } from './harness/peer.js';
import { useWorld } from './harness/world.js';

describe('whip-whep', () => {
  const world = useWorld('whip');

  async function page() {
    const made = await world.browser.page();
    await made.goto(`${world.site.url}/pages/whip.html`);
    await eventually('the page has loaded', () => made.evaluate(() => Boolean(globalThis.whip)));
    return made;
  }

  test('publishes what a participant sees and hears', async () => {
    const room = await world.server.room('whip');
    const viewer = await Peer.join(world, room, 'viewer', { devices: [] });
    const publisher = await page();
    await publisher.evaluate(([url, token]) => globalThis.whip.publish(url, token), [
      `${world.server.base}/whip`,
      await world.server.token(room, 'studio'),
    ]);
    await viewer.hears('studio', 'camera');
    await viewer.hears('studio', 'microphone');
    await viewer.keepsHearing('studio', 'camera');
    await publisher.evaluate(() => globalThis.whip.stop());
    await eventually('the publisher is gone', async () => (await viewer.others()).length === 0, 2_000);
    await Promise.all([viewer.leave(), publisher.close()]);
  });

  test('plays what a participant publishes', async () => {
    const room = await world.server.room('whep');
    const speaker = await Peer.join(world, room, 'speaker');
    const player = await page();
    await player.evaluate(([url, token]) => globalThis.whip.play(url, token), [
      `${world.server.base}/whep?participant=speaker`,
      await world.server.token(room, 'player'),
    ]);
    const read = () => player.evaluate(() => globalThis.whip.received());
    await eventually('picture and sound play', async () => {
      const { frames, energy } = await read();
      return frames > 0 && energy > 0;
    });
    const before = await read();
    await eventually('the picture goes on', async () => (await read()).frames > before.frames + 5);
    const status = await player.evaluate(() => globalThis.whip.stop());
    assert.equal(status, 'stopped');
    await Promise.all([speaker.leave(), player.close()]);
  });
});
