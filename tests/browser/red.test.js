// Redundant audio (RED): it is passed on to who takes it, and made plain Opus for who does not.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { pause } from './harness/eventually.js';
import { Peer } from './harness/peer.js';
import { useWorld } from './harness/world.js';

/** How long each one listens, and the part of the samples that may be made up in that time. */
const LISTEN_MS = 5_000;
/** What came before from somebody else is played by then. */
const SETTLE_MS = 2_000;
const CONCEALED_MAX = 0.02;

describe('red', () => {
  const world = useWorld('red');
  const viewers = new Map();
  let room;

  before(async () => {
    room = await world.server.room('red');
    for (const [name, audioCodecs] of [['red', ['opus', 'red']], ['plain', ['opus']]]) {
      viewers.set(name, await Peer.join(world, room, name, { devices: [], audioCodecs }));
    }
  });

  // Chromium's statistics name Opus as the codec of RED too, so it shows in the redundancy that comes, and in bytes.
  for (const [sends, audioCodecs] of [['red', ['red', 'opus']], ['opus', ['opus', 'red']]]) {
    test(`who sends ${sends} is heard by all`, async () => {
      const publisher = await Peer.join(world, room, sends, { devices: ['microphone'], talks: true, audioCodecs });
      assert.match(await publisher.do('answer'), sends === 'red' ? /^m=audio \S+ \S+ 63 111\r$/m : /^m=audio \S+ \S+ 111 63\r$/m);
      const [red, plain] = await Promise.all([...viewers].map(([name, viewer]) => listen(viewer, sends, name)));
      assert.equal(plain.redundant, 0);
      if (sends === 'red') {
        assert.ok(red.redundant > 0.9 * red.packets, 'redundancy is passed on');
        assert.ok(red.bytes / red.packets > 1.6 * plain.bytes / plain.packets, 'it is taken out for who does not take it');
      } else {
        assert.equal(red.redundant, 0);
      }
      await publisher.leave();
    });
  }
});

/** What arrives of somebody's microphone in a while. It sounds as it should. */
async function listen(viewer, identity, name) {
  const { mid } = await viewer.hears(identity, 'microphone');
  await pause(SETTLE_MS);
  const before = await viewer.do('inbound', mid);
  await pause(LISTEN_MS);
  const after = await viewer.do('inbound', mid);
  const grown = (key) => (after[key] ?? 0) - (before[key] ?? 0);
  const got = {
    packets: grown('packetsReceived'),
    bytes: grown('bytesReceived'),
    redundant: grown('fecPacketsReceived'),
    played: grown('totalSamplesReceived'),
    decoded: grown('jitterBufferEmittedCount'),
    concealed: grown('concealedSamples') - grown('silentConcealedSamples'),
    energy: grown('totalAudioEnergy'),
  };
  const figures = `${identity} to ${name}: ${JSON.stringify(got)}`;
  console.log(figures);
  assert.ok(got.packets > 200 && got.energy > 1e-4 && got.decoded > 0.9 * got.played, figures);
  assert.ok(got.concealed < CONCEALED_MAX * got.played, figures);
  return got;
}
