// docs/examples/: the page without our module, served by the Node backend, in Chromium.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { eventually } from './harness/eventually.js';
import { useWorld } from './harness/world.js';

const EXAMPLES = resolve(import.meta.dirname, '../../docs/examples');
const BACKEND = resolve(EXAMPLES, 'backend.mjs');

describe('the example of a browser page', () => {
  const world = useWorld('examples');
  let backend;
  let url;

  before(async () => {
    const env = { ...process.env, PORT: '0', STUBE_URL: world.server.base };
    backend = spawn(process.execPath, [BACKEND], { env, stdio: ['ignore', 'pipe', 'inherit'] });
    ({ value: url } = await createInterface({ input: backend.stdout })[Symbol.asyncIterator]().next());
  });
  after(() => backend?.kill());

  async function open(identity) {
    const page = await world.browser.page();
    // What the page tells the server.
    await page.addInitScript(() => {
      globalThis.told = [];
      const { send } = RTCDataChannel.prototype;
      RTCDataChannel.prototype.send = function note(text) {
        globalThis.told.push(JSON.parse(text));
        return send.call(this, text);
      };
    });
    await page.goto(`${url}?room=map&identity=${identity}`);
    await page.bringToFront();
    return page;
  }

  /** Whom the page shows, with what plays of them. */
  const shown = (page) => page.evaluate(() => [...document.querySelectorAll('audio, video')]
    .filter(({ hidden }) => !hidden)
    .map((player) => ({
      kind: player.localName,
      title: player.title,
      frames: player.getVideoPlaybackQuality?.().totalVideoFrames ?? 0,
      time: player.currentTime,
    })));

  test('shows and plays the other, says what it wants, and forgets who leaves', async () => {
    const ada = await open('ada');
    const bob = await open('bob');
    for (const [page, other] of [[ada, 'bob'], [bob, 'ada']]) {
      await eventually(`${other} is seen and heard`, async () => {
        const players = await shown(page);
        if (!players.every(({ title }) => title === other)) throw new Error(JSON.stringify(players));
        return players.some(({ kind, frames }) => kind === 'video' && frames > 10)
          && players.some(({ kind, time }) => kind === 'audio' && time > 0);
      }, 20_000);
    }
    const { participants } = await world.server.api('GET', '/v1/rooms/map/participants');
    const camera = participants.find(({ identity }) => identity === 'bob').tracks.find(({ kind }) => kind === 'video');
    const wants = await ada.evaluate(() => globalThis.told.filter(({ type }) => type === 'want'));
    assert.deepEqual(wants.at(-1).video, [{ track: camera.sid, height: 180 }]);
    await bob.close({ runBeforeUnload: true });
    await eventually('bob is gone', async () => (await shown(ada)).length === 0);
    const left = await world.server.api('GET', '/v1/rooms/map/participants');
    assert.deepEqual(left.participants.map(({ identity }) => identity), ['ada']);
    await ada.close();
  });
});

describe('the call in ten lines', () => {
  const world = useWorld('ten-lines');
  let site;

  before(async () => {
    site = createServer((request, response) => {
      response.writeHead(200, { 'Content-Type': 'text/html' }).end(readFileSync(resolve(EXAMPLES, 'ten-lines.html')));
    });
    await new Promise((ready) => { site.listen(0, '127.0.0.1', ready); });
  });
  after(() => site?.close());

  async function open(identity) {
    const env = { ...process.env, STUBE_URL: world.server.base };
    const said = execFileSync(process.execPath, [resolve(EXAMPLES, 'ten-lines.mjs'), 'ten', identity], { env, encoding: 'utf8' });
    const page = await world.browser.page();
    await page.goto(`http://127.0.0.1:${site.address().port}/#${encodeURIComponent(said.trim())}`);
    await page.bringToFront();
    return page;
  }

  /** How many play, and whether somebody is seen. */
  const playing = (page) => page.evaluate(() => [...document.querySelectorAll('audio, video')].map((player) => [
    player.localName, player.getVideoPlaybackQuality?.().totalVideoFrames ?? player.currentTime,
  ]));

  test('shows and plays the other', async () => {
    const pages = [await open('ada'), await open('bob')];
    for (const page of pages) {
      await eventually('the other is seen and heard', async () => {
        const players = await playing(page);
        return players.some(([kind, frames]) => kind === 'video' && frames > 10)
          && players.some(([kind, time]) => kind === 'audio' && time > 0);
      }, 20_000);
    }
    const { participants } = await world.server.api('GET', '/v1/rooms/ten/participants');
    assert.deepEqual(participants.map(({ identity }) => identity).sort(), ['ada', 'bob']);
  });
});
