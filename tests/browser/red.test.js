// Redundant audio (RED): it is passed on to who takes it, and made plain Opus for who does not.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { eventually, pause } from './harness/eventually.js';
import { Peer } from './harness/peer.js';
import { useWorld } from './harness/world.js';

/** How long each one listens, and the part of the samples that may be made up in that time. */
const LISTEN_MS = 5_000;
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

  for (const [sends, audioCodecs, expected] of [
    ['audio/red', ['red', 'opus'], { red: 'audio/red', plain: 'audio/opus' }],
    ['audio/opus', ['opus', 'red'], { red: 'audio/opus', plain: 'audio/opus' }],
  ]) {
    test(`who sends ${sends} is heard by all`, async () => {
      const publisher = await Peer.join(world, room, sends, { devices: ['microphone'], talks: true, audioCodecs });
      await eventually(`${sends} is sent`, async () => (await codecs(publisher, 'outbound-rtp')).includes(sends));
      for (const [name, viewer] of viewers) {
        const { mid } = await viewer.hears(sends, 'microphone');
        await eventually(`${name} receives ${expected[name]}`, async () => (
          (await viewer.flowOf(sends, 'microphone')).codec === expected[name]
        ));
        const before = await viewer.do('inbound', mid);
        await pause(LISTEN_MS);
        const after = await viewer.do('inbound', mid);
        const grown = (key) => after[key] - before[key];
        const played = grown('totalSamplesReceived');
        const concealed = grown('concealedSamples') - grown('silentConcealedSamples');
        const figures = `${name}: ${grown('packetsReceived')} packets of ${grown('bytesReceived')} bytes, `
          + `${played} samples played, ${concealed} concealed, ${grown('jitterBufferEmittedCount')} from packets, `
          + `energy ${grown('totalAudioEnergy')}`;
        console.log(`${sends} → ${expected[name]}: ${figures}`);
        assert.ok(grown('packetsReceived') > 200 && grown('totalAudioEnergy') > 1e-4, figures);
        assert.ok(grown('jitterBufferEmittedCount') > 0.9 * played, figures);
        assert.ok(concealed < CONCEALED_MAX * played, figures);
      }
      await publisher.leave();
    });
  }
});

/** The codecs that a side's statistics name. */
async function codecs(peer, type) {
  const [streams, known] = [await peer.reports(type), await peer.reports('codec')];
  return streams.map(({ codecId }) => known.find(({ id }) => id === codecId)?.mimeType);
}
