// Redundant audio (RED): it is passed on to who takes it, and made plain Opus for who does not.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { eventually, pause } from './harness/eventually.js';
import { Peer } from './harness/peer.js';
import { useWorld } from './harness/world.js';

/** How much each one listens to. */
const LISTEN_PACKETS = 200;
/** 20 ms at 48 kHz. */
const PACKET_SAMPLES = 960;
/** The part of the samples that may be made up although their packets came. */
const CONCEALED_MAX = 0.02;
/** How long that may take: a machine kept busy by others makes less sound than it should. */
const LISTEN_MAX_MS = 20_000;
/** What came before from somebody else is played by then. */
const SETTLE_MS = 2_000;

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

  // Chromium's statistics name Opus as the codec of RED too, and count no redundancy; it shows in the bytes.
  for (const [sends, audioCodecs] of [['red', ['red', 'opus']], ['opus', ['opus', 'red']]]) {
    test(`who sends ${sends} is heard by all`, async () => {
      const publisher = await Peer.join(world, room, `${sends}-sender`, { devices: ['microphone'], talks: true, audioCodecs });
      const order = sends === 'red' ? '63 111' : '111 63';
      assert.match(await publisher.do('answer'), new RegExp(`^m=audio \\S+ \\S+ ${order}\r$`, 'm'));
      const [red, plain] = await Promise.all([...viewers].map(([name, viewer]) => listen(viewer, `${sends}-sender`, name)));
      const ratio = (red.bytes / red.packets) / (plain.bytes / plain.packets);
      assert.ok(sends === 'red' ? ratio > 1.6 : ratio < 1.2, `who takes RED gets ${ratio} times the bytes of who does not`);
      await publisher.leave();
    });
  }
});

/**
 * What arrives of somebody's microphone in a while. It sounds as it should: what comes is decoded, and nothing has to be
 * made up. What a machine that stood still did not send in time is made up by every player, and says nothing of RED.
 * Nor do packets that count as lost: of a sender of RED some do now and then, and no sound is missing.
 */
async function listen(viewer, identity, name) {
  const { mid } = await viewer.hears(identity, 'microphone');
  await pause(SETTLE_MS);
  const before = await viewer.do('inbound', mid);
  let after;
  await eventually(`${name} listens to ${identity}`, async () => {
    after = await viewer.do('inbound', mid);
    return after.packetsReceived - before.packetsReceived >= LISTEN_PACKETS;
  }, LISTEN_MAX_MS);
  const grown = (key) => (after[key] ?? 0) - (before[key] ?? 0);
  const got = {
    packets: grown('packetsReceived'),
    lost: grown('packetsLost'),
    bytes: grown('bytesReceived'),
    played: grown('totalSamplesReceived'),
    decoded: grown('jitterBufferEmittedCount'),
    concealed: grown('concealedSamples') - grown('silentConcealedSamples'),
    energy: grown('totalAudioEnergy'),
  };
  const figures = `${identity} to ${name}: ${JSON.stringify(got)}`;
  console.log(figures);
  const came = got.packets * PACKET_SAMPLES;
  const late = Math.max(0, got.played - came);
  assert.ok(got.energy > 1e-4 && got.decoded > 0.9 * came, figures);
  assert.ok(got.concealed - late < CONCEALED_MAX * came, figures);
  return got;
}
