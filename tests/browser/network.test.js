// Trouble on the way: ICE restarts, TCP only, other NAT mappings, a server that comes back.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { eventually, pause } from './harness/eventually.js';
import { Firewall } from './harness/firewall.js';
import { measured } from './harness/host.js';
import { Peer, assertFullMesh } from './harness/peer.js';
import { useWorld } from './harness/world.js';

/** Below Linux' ephemeral ports, so that nobody is given it meanwhile; nothing is bound to it. */
const FREE_PORT = 21_370;
/** How long the server is away, and how soon after it callers have to be back. */
const DOWN_MS = 5_000;
const BACK_MAX_MS = 3_000;

describe('the way to the server', () => {
  const world = useWorld('network', { STUBE__ROOMS__AUTO_CREATE: 'true' });

  test('the client reads the ICE servers of the answer', async () => {
    const page = await world.browser.page();
    await page.goto(`${world.site.url}/pages/peer.html`);
    const servers = await page.evaluate(async () => {
      const { parseIceServers } = await import('/web/stube-session.js');
      return parseIceServers('<stun:a.example:3478>; rel="ice-server", </other>; rel="next", '
        + '<turn:b.example?transport=tcp>; rel="ice-server"; username="u:1"; credential="p="; credential-type="password"');
    });
    assert.deepEqual(servers, [
      { urls: 'stun:a.example:3478' },
      { urls: 'turn:b.example?transport=tcp', username: 'u:1', credential: 'p=' },
    ]);
    await page.close();
  });

  test('an ICE restart keeps the call', async () => {
    const room = await world.server.room('restart');
    const [ada, grace] = await Promise.all(['ada', 'grace'].map((name) => Peer.join(world, room, name)));
    await assertFullMesh([ada, grace]);
    const me = (await ada.do('me')).sid;
    for (let turn = 0; turn < 2; turn += 1) {
      const ufrag = await ada.do('localUfrag');
      await ada.do('restartIce');
      assert.notEqual(await ada.do('localUfrag'), ufrag);
      assert.equal(await ada.do('state'), 'connected');
      await assertFullMesh([ada, grace]);
    }
    assert.equal((await ada.do('me')).sid, me, 'the same participant all along');
    assert.deepEqual(await grace.others(), ['ada']);
    await Promise.all([ada.leave(), grace.leave()]);
  });

  test('new lines can be added after an ICE restart', async () => {
    const room = await world.server.room('later');
    const ada = await Peer.join(world, room, 'ada', { devices: ['microphone'] });
    const grace = await Peer.join(world, room, 'grace', { devices: [], slots: { audio: 1, video: 0 } });
    await ada.do('restartIce');
    await ada.do('publish', { source: 'camera' });
    await grace.do('restartIce');
    await grace.do('addSlots', { kind: 'video', count: 2 });
    await grace.hears('ada', 'camera');
    await Promise.all([ada.leave(), grace.leave()]);
  });

  test('media flows over TCP where UDP is blocked', async () => {
    const room = await world.server.room('tcp');
    const [ada, grace] = await Promise.all([
      Peer.join(world, room, 'ada', { tcpOnly: true }),
      Peer.join(world, room, 'grace'),
    ]);
    await assertFullMesh([ada, grace]);
    assert.equal((await ada.do('summary')).transport, 'tcp');
    assert.equal((await grace.do('summary')).transport, 'udp');
    await Promise.all([ada.leave(), grace.leave()]);
  });

  test('another NAT mapping is followed at once, without an ICE restart', async (context) => {
    const room = await world.server.room('rebind');
    // With one path each: Chromium would take another one if it had it.
    const ada = await Peer.join(world, room, 'ada', { onePath: true });
    const grace = await Peer.join(world, room, 'grace', { devices: [], onePath: true });
    await grace.hears('ada', 'camera');
    const firewall = await Firewall.start();
    try {
      for (const [peer, alias] of [[grace, FREE_PORT], [ada, FREE_PORT + 1]]) {
        const { own, server } = await peer.ports();
        await firewall.rebind(own, server, alias);
        const begin = performance.now();
        const { frames } = await grace.flowOf('ada', 'camera');
        // Chromium asks for consent every 2.5 s; until then nobody can know.
        await eventually('the picture goes on', async () => (await grace.flowOf('ada', 'camera')).frames > frames + 3, 6_000);
        context.diagnostic(`${peer.identity}'s mapping changed: on after ${Math.round(performance.now() - begin)} ms`);
        await eventually('the server answers at the new port', async () => (await peer.ports()).own === alias);
        assert.deepEqual(await peer.do('states'), ['connecting', 'connected'], 'no ICE restart');
        await grace.keepsHearing('ada', 'camera');
        await grace.keepsHearing('ada', 'microphone');
      }
    } finally {
      await firewall.stop();
    }
    await Promise.all([ada.leave(), grace.leave()]);
  });

  for (const end of ['stop', 'kill']) {
    test(`a server that comes back after ${end} gets its callers back`, measured(async () => {}, async () => {
      const settings = { name: `phoenix-${end}-${Date.now()}`, max_participants: 7, metadata: 'of ashes' };
      const room = await world.server.api('POST', '/v1/rooms', settings);
      const [ada, grace] = await Promise.all(['ada', 'grace'].map((name) => Peer.join(world, room.name, name)));
      await assertFullMesh([ada, grace]);
      const both = async (state) => (await ada.do('state')) === state && (await grace.do('state')) === state;
      if (end === 'stop') assert.equal(await world.server.stop(), 0, 'SIGTERM ends the server with code 0');
      else await world.server.kill();
      // Nobody says goodbye for a server that was killed: its silence has to be noticed.
      await eventually('both notice', () => both('reconnecting'), 40_000);
      // Long enough for the pauses between their attempts to grow.
      await pause(DOWN_MS);
      await world.server.run();
      const began = performance.now();
      await eventually('both are back', () => both('connected'), 20_000);
      const took = performance.now() - began;
      console.log(`back ${Math.round(took)} ms after the server was`);
      assert.ok(took < BACK_MAX_MS, `back after ${took} ms`);
      await assertFullMesh([ada, grace]);
      const again = await world.server.api('GET', `/v1/rooms/${room.name}`);
      for (const field of ['sid', 'created_at', 'max_participants', 'metadata']) assert.equal(again[field], room[field], field);
      await Promise.all([ada.leave(), grace.leave()]);
    }));
  }
});
