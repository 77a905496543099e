// A call as people have it: three Chromium pages and one Firefox in a room, through stube.js.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startFirefox } from './harness/browsers.js';
import { eventually, pause } from './harness/eventually.js';
import { Peer, assertFullMesh } from './harness/peer.js';
import { useWorld } from './harness/world.js';

const GONE_WITHIN_MS = 2_000;

describe('three Chromium and one Firefox in a room', () => {
  const world = useWorld('call');
  let firefox;
  let room;
  let ada;
  let grace;
  let linus;
  let frida;

  before(async () => {
    room = await world.server.room('call');
    firefox = await startFirefox();
    [ada, grace, linus] = await Promise.all(['ada', 'grace', 'linus'].map((name) => Peer.join(world, room, name)));
  });
  after(() => firefox?.close());

  test('three decode each other', () => assertFullMesh([ada, grace, linus]));

  test('a late joiner sees and hears everyone at once', async () => {
    frida = await Peer.join({ ...world, browser: firefox }, room, 'frida', { camera: { simulcast: true } });
    await Promise.all(['ada', 'grace', 'linus'].map((name) => frida.hears(name, 'camera', 5_000)));
  });

  test('four decode each other, in both browsers', () => assertFullMesh([ada, grace, linus, frida]));

  test('a muted microphone is silent for all, and heard again', async () => {
    await ada.do('setMuted', { source: 'microphone', muted: true });
    await eventually('everyone sees ada muted', async () => {
      const tracks = await Promise.all([grace, frida].map((peer) => peer.do('tracksOf', 'ada')));
      return tracks.every((list) => list.find(({ source }) => source === 'microphone').muted);
    });
    await Promise.all([grace.hearsNo('ada', 'microphone'), frida.hearsNo('ada', 'microphone')]);
    await ada.do('setMuted', { source: 'microphone', muted: false });
    await Promise.all([grace.keepsHearing('ada', 'microphone'), frida.keepsHearing('ada', 'microphone')]);
  });

  test('a muted camera stops, and is seen again', async () => {
    await frida.do('setMuted', { source: 'camera', muted: true });
    await eventually('ada sees frida muted', async () => (
      (await ada.do('tracksOf', 'frida')).find(({ source }) => source === 'camera').muted
    ));
    await ada.hearsNo('frida', 'camera');
    await frida.do('setMuted', { source: 'camera', muted: false });
    await Promise.all([ada, grace, linus].map((peer) => peer.keepsHearing('frida', 'camera')));
  });

  test('the server mutes someone', async () => {
    const { sid } = (await ada.do('tracksOf', 'grace')).find(({ source }) => source === 'microphone');
    await world.server.api('PUT', `/v1/rooms/${room}/participants/grace/tracks/${sid}/muted`, { muted: true });
    await eventually('grace knows', () => grace.do('isMuted', 'microphone'));
    await ada.hearsNo('grace', 'microphone');
    await grace.do('setMuted', { source: 'microphone', muted: false });
    await ada.keepsHearing('grace', 'microphone');
  });

  test('a shared screen reaches everyone and goes away', async () => {
    await linus.do('shareScreen');
    await Promise.all([ada, grace, frida].map((peer) => peer.hears('linus', 'screen_share')));
    assert.ok(await ada.keepsHearing('linus', 'camera'), 'the camera goes on beside the screen');
    await linus.do('stopScreen');
    await eventually('the screen is gone for all', async () => {
      const tracks = await Promise.all([ada, grace, frida].map((peer) => peer.do('tracksOf', 'linus')));
      return tracks.flat().every(({ source }) => source !== 'screen_share');
    });
    await linus.do('shareScreen');
    await ada.hears('linus', 'screen_share');
    await linus.do('stopScreen');
  });

  test('statistics make sense in both browsers', async () => {
    for (const peer of [ada, frida]) {
      await peer.do('summary');
      await pause(1_000);
      const summary = await peer.do('summary');
      assert.ok(summary.bitrateIn > 10_000, `${peer.identity} receives ${summary.bitrateIn} bit/s`);
      assert.ok(summary.bitrateOut > 10_000, `${peer.identity} sends ${summary.bitrateOut} bit/s`);
      assert.ok(summary.roundTripMs >= 0 && summary.roundTripMs < 10_000, `round trip ${summary.roundTripMs} ms`);
      assert.equal(summary.transport, 'udp');
      const mids = (await peer.received()).map(({ mid }) => mid);
      const slots = new Map(summary.slots);
      assert.ok(mids.every((mid) => slots.get(mid).bitrate > 0 && slots.get(mid).codec), JSON.stringify(summary.slots));
      assert.ok(summary.sent.some(({ kind, framesEncoded }) => kind === 'video' && framesEncoded > 0));
    }
  });

  test('media is sealed with an AEAD in both browsers', async (context) => {
    for (const peer of [ada, frida]) {
      const ciphers = (await peer.reports('transport')).map(({ srtpCipher }) => srtpCipher);
      // Firefox does not say before version 153.
      const said = ciphers.filter(Boolean);
      context.diagnostic(`${peer.identity}: ${said.length > 0 ? said : 'does not say'}`);
      assert.ok(said.length > 0 || peer === frida, 'Chromium says');
      assert.ok(said.every((cipher) => /AEAD_AES_(128|256)_GCM$/.test(cipher)), `${ciphers}`);
    }
  });

  test('messages reach everyone, or those named', async () => {
    await frida.do('send', { topic: 'chat', data: { text: 'hello' } });
    await linus.do('send', { topic: 'chat', data: { text: 'psst' }, to: ['ada'] });
    await eventually('ada has both', async () => (await ada.do('inbox')).length === 2);
    await eventually('grace has one', async () => (await grace.do('inbox')).length === 1);
    await pause(300);
    const inboxes = await Promise.all([ada, grace, linus, frida].map((peer) => peer.do('inbox')));
    const heard = inboxes.map((inbox) => inbox.map(({ from, topic, data }) => `${from} ${topic} ${data.text}`).sort());
    assert.deepEqual(heard, [['frida chat hello', 'linus chat psst'], ['frida chat hello'], ['frida chat hello'], []]);
  });

  test('who leaves is gone for the others within two seconds', async () => {
    await grace.leave();
    await eventually('grace is gone', async () => {
      const lists = await Promise.all([ada, linus, frida].map((peer) => peer.others()));
      return lists.every((list) => !list.includes('grace'));
    }, GONE_WITHIN_MS);
    assert.ok((await ada.received()).every(({ identity }) => identity !== 'grace'), 'no slot carries grace');
    assert.ok(await ada.keepsHearing('frida', 'camera'));
  });

  test('who closes the page is gone within two seconds', async () => {
    await linus.page.close({ runBeforeUnload: false });
    await eventually('linus is gone', async () => !(await ada.others()).includes('linus'), GONE_WITHIN_MS);
    assert.deepEqual(await ada.others(), ['frida']);
  });

  test('who is removed is told so', async () => {
    await world.server.api('DELETE', `/v1/rooms/${room}/participants/frida`);
    await eventually('frida is out', async () => (await frida.do('state')) === 'closed');
    assert.equal(await frida.do('closedBy'), 'participant_removed');
    await eventually('ada is alone', async () => (await ada.others()).length === 0, GONE_WITHIN_MS);
  });
});

describe('rooms', () => {
  const world = useWorld('rooms');

  test('never see each other', async () => {
    const [kitchen, garden] = await Promise.all([world.server.room('kitchen'), world.server.room('garden')]);
    const [ada, grace, stranger] = await Promise.all([
      Peer.join(world, kitchen, 'ada'),
      Peer.join(world, kitchen, 'grace'),
      Peer.join(world, garden, 'stranger'),
    ]);
    await assertFullMesh([ada, grace]);
    await ada.do('send', { topic: 'chat', data: { text: 'only here' } });
    await eventually('grace has the message', async () => (await grace.do('inbox')).length === 1);
    await pause(500);
    assert.deepEqual(await stranger.others(), []);
    assert.deepEqual(await stranger.received(), []);
    assert.deepEqual(await stranger.do('inbox'), []);
    assert.deepEqual(await ada.others(), ['grace']);
  });

  test('join takes little time', async (context) => {
    const room = await world.server.room('fast');
    await Peer.join(world, room, 'publisher');
    const times = [];
    for (let turn = 0; turn < 5; turn += 1) {
      const page = await world.browser.page();
      await page.goto(`${world.site.url}/pages/peer.html`);
      const viewer = new Peer(page, `viewer-${turn}`);
      const token = await world.server.token(room, viewer.identity);
      await eventually('the page has loaded', () => page.evaluate(() => Boolean(globalThis.peer)));
      times.push(await viewer.do('timeToFirstFrame', { url: world.server.sessions, token }));
      await viewer.leave();
    }
    times.sort((one, other) => one - other);
    context.diagnostic(`POST to first decoded frame: ${times.map(Math.round).join(', ')} ms; median ${Math.round(times[2])}`);
    assert.ok(times[2] < 3_000, `median ${times[2]} ms`);
  });
});
