// What an operator reads: the log of a whole call holds nothing personal at INFO and above.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { test } from 'node:test';
import { Peer } from './harness/peer.js';
import { useWorld } from './harness/world.js';

const world = useWorld('logs', { STUBE__LOG__FORMAT: 'json', STUBE__LOG__LEVEL: 'info' });

test('the log of a call names nobody and nothing personal', async () => {
  const { server } = world;
  const room = await server.room('canary-room');
  const tokens = [await server.token(room, 'canary-spare')];
  const ada = await Peer.join(world, room, 'canary-ada');
  const linus = await Peer.join(world, room, 'canary-linus');
  await ada.hears('canary-linus', 'camera');
  await linus.do('send', { topic: 'canary-topic', data: { text: 'canary-text' } });
  await ada.do('setMuted', { source: 'microphone', muted: true });
  await ada.do('restartIce');
  // What goes wrong is logged as sparingly as what goes well.
  const refused = await fetch(server.sessions, {
    method: 'POST',
    headers: { Authorization: 'Bearer canary-token', 'Content-Type': 'application/sdp' },
    body: 'v=0 canary-sdp',
  });
  assert.equal(refused.status, 401);
  const unreadable = await fetch(server.sessions, {
    method: 'POST',
    headers: { Authorization: `Bearer ${tokens[0]}`, 'Content-Type': 'application/sdp' },
    body: 'v=0\r\na=canary-sdp\r\n',
  });
  assert.equal(unreadable.status, 400);
  await server.api('DELETE', `/v1/rooms/${room}/participants/canary-linus`);
  await Promise.all([ada.leave(), linus.page.close()]);
  await server.stop();

  const log = readFileSync(server.logPath, 'utf8');
  const lines = log.split('\n').filter((line) => line.startsWith('{'));
  assert.ok(lines.length >= 2, `the server logs something: ${log}`);
  const addresses = Object.values(networkInterfaces()).flat().map(({ address }) => address);
  const forbidden = ['canary', ...tokens, 'candidate:', 'ice-ufrag', 'ice-pwd', 'fingerprint', 'Mozilla', ...addresses];
  for (const line of lines) {
    JSON.parse(line);
    for (const word of forbidden) assert.ok(!line.includes(word), `${word} in: ${line}`);
    assert.doesNotMatch(line, /\b\d{1,3}(\.\d{1,3}){3}\b/, 'an IPv4 address');
  }
});
