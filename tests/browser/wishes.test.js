// The client's part in the quality: it asks for no more than it shows, and sends no more than is needed.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { startFirefox } from './harness/browsers.js';
import { eventually, pause } from './harness/eventually.js';
import { Peer } from './harness/peer.js';
import { useWorld } from './harness/world.js';

describe('what clients ask for and obey', () => {
  const world = useWorld('wishes');
  let firefox;
  after(() => firefox?.close());

  /** Runs in a page: which encodings are active after each of some messages, of simulcast and of a single encoding. */
  async function obey() {
    const { Publication } = await import('/web/stube-publication.js');
    const canvas = document.createElement('canvas');
    canvas.getContext('2d').fillRect(0, 0, 1, 1);
    const [track] = canvas.captureStream(1).getVideoTracks();
    const needs = (...rids) => ['q', 'h', 'f'].map((rid) => ({ rid, active: rids.includes(rid) }));
    const results = {};
    for (const [name, options, messages] of [
      ['simulcast', { simulcast: true }, [needs('q'), needs(), needs('q', 'h', 'f'), needs('f')]],
      ['single', {}, [[{ rid: '', active: false }], [{ rid: '', active: true }]]],
    ]) {
      const pc = new RTCPeerConnection();
      const publication = new Publication('camera', track, options);
      publication.addTo(pc);
      await pc.setLocalDescription();
      const { sender } = publication.transceiver;
      const active = () => sender.getParameters().encodings.filter((encoding) => encoding.active)
        .map(({ rid }) => rid ?? '(all)').join('');
      const after = [active()];
      for (const message of messages) {
        await publication.apply(message);
        after.push(active());
      }
      // Several at once: the last one counts.
      await Promise.all(messages.map((message) => publication.apply(message)));
      after.push(active());
      await publication.apply(messages[0]);
      await publication.resume(publication.transceiver);
      after.push(active());
      results[name] = after;
      pc.close();
    }
    return results;
  }

  for (const [name, start] of [['Chromium', () => world.browser], ['Firefox', async () => { firefox = await startFirefox(); return firefox; }]]) {
    test(`${name} sends what is needed, and a resumed publication everything`, async () => {
      const page = await (await start()).page();
      await page.goto(`${world.site.url}/pages/peer.html`);
      const { simulcast, single } = await page.evaluate(obey);
      assert.deepEqual(simulcast, ['qhf', 'q', '', 'qhf', 'f', 'f', 'qhf']);
      assert.deepEqual(single, ['(all)', '', '(all)', '(all)', '(all)']);
      await page.close();
    });
  }

  test('the page asks for tiles as high as they are, in pixels of the screen, once a change is over', async (context) => {
    const room = `wishes-${Date.now()}`;
    const page = await world.browser.page();
    await page.addInitScript(() => {
      globalThis.wishes = [];
      const { send } = RTCDataChannel.prototype;
      RTCDataChannel.prototype.send = function tap(text) {
        const message = JSON.parse(text);
        if (message.type === 'want') globalThis.wishes.push(message.video.map(({ height }) => height));
        return send.call(this, text);
      };
    });
    const screen = await page.context().newCDPSession(page);
    const resize = (width, height, deviceScaleFactor) => (
      screen.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor, mobile: false })
    );
    await page.goto(`${world.server.base}/?room=${room}&name=Ada`);
    await resize(1280, 800, 1);
    await page.click('[data-testid="join"]');
    await page.waitForSelector('[data-testid="tile"]');
    const grace = await Peer.join(world, room, 'grace');
    await page.bringToFront();
    const steps = [90, 180, 360, 540, 720, 1080, 1440, 2160];
    const tile = page.locator('[data-testid="tile"][data-me="false"]');
    let told = 0;
    // Emulation tells the page of another density only with another size.
    for (const size of [[1280, 800, 1], [1270, 790, 2], [640, 400, 2], [1600, 1000, 1.5]]) {
      const [width, height, scale] = size;
      // As dragging the corner of a window does.
      for (let part = 0; part < 10; part += 1) await resize(width - 10 + part, height - 10 + part, scale);
      await resize(...size);
      const wishes = await eventually('the wish fits', async () => {
        const pixels = await tile.evaluate((element) => element.clientHeight * devicePixelRatio);
        const all = await page.evaluate(() => globalThis.wishes);
        assert.equal(all.at(-1).join(), String(steps.find((step) => step >= pixels)), `${pixels} pixels`);
        return all;
      });
      await pause(500);
      assert.deepEqual(await page.evaluate(() => globalThis.wishes), wishes, 'nothing follows');
      context.diagnostic(`${size.join('×')}: ${JSON.stringify(wishes.slice(told))}`);
      assert.ok(wishes.length - told <= 3, 'asked too often');
      told = wishes.length;
    }
    await grace.leave();
    await page.close();
  });
});
