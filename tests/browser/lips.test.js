// Sound and picture of one publisher stay together, whatever time each has taken on its way.
//
// What is measured: a browser dates what it plays (`estimatedPlayoutTimestamp`) by the sender reports it gets, which are
// the server's, and keeps lips in sync by nothing else. We date the same frames by a stamp within them (pages/lips.js),
// and the two must differ by the same for sound and for picture. Grace's picture is held back after encoding, as a slow
// path or a pacer would do: by her reports it is as old as it is, by its arrival a quarter of a second younger. So a
// server that made its reports from arrival times would be found out with her, and one that kept to the mapping of
// whom the slot showed before, when the slot changes.
//
// The publisher's page also sends the same to itself, without a server. What is found there is the browser's own error:
// on a machine kept busy by others, a fake microphone has been seen to date its sound by seconds too early, and the page
// that plays it by tenths. So CI leaves this out; that the server's reports date every packet by its publisher's clock is
// held to the millisecond in tests/sim/dating.rs.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { pause } from './harness/eventually.js';
import { NEEDS_QUIET } from './harness/left-out.js';
import { Peer } from './harness/peer.js';
import { useWorld } from './harness/world.js';

const LATE_MS = 250;
/** People notice sound that comes 45 ms early or 125 ms late (ITU-R BT.1359). */
const APART_MAX_MS = 40;
const SETTLE_MS = 4_000;
const SAMPLES = { count: 40, withinMs: 45_000 };

describe('lip sync', NEEDS_QUIET, () => {
  const world = useWorld('lips');
  const publishers = {};
  let viewer;

  before(async () => {
    const room = await world.server.room('lips');
    const camera = { codecs: ['VP8'] };
    publishers.ada = await Peer.join(world, room, 'ada', { camera, lips: { videoLateMs: 0 } });
    publishers.grace = await Peer.join(world, room, 'grace', { camera, lips: { videoLateMs: LATE_MS } });
    const slots = { audio: 1, video: 1 };
    viewer = await Peer.join(world, room, 'viewer', { devices: [], slots, lips: { videoLateMs: 0 } });
  });

  for (const [identity, what] of [
    ['ada', 'sound and picture are captured together'],
    ['grace', 'a late picture keeps its time of capture, in the slots of another publisher'],
    ['ada', 'so does one that is in time again'],
  ]) {
    test(what, async (context) => {
      const tracks = await viewer.do('tracksOf', identity);
      const sid = (source) => tracks.find((track) => track.source === source).sid;
      await viewer.do('want', { video: [{ track: sid('camera'), height: 180 }], audio: [sid('microphone')] });
      await Promise.all(['camera', 'microphone'].map((source) => viewer.hears(identity, source, 20_000)));
      await pause(SETTLE_MS);
      const [apart, without] = await Promise.all([
        viewer.do('watchLips', SAMPLES),
        publishers[identity].do('watchLoopback', SAMPLES),
      ]);
      context.diagnostic(JSON.stringify({ apart, without }));
      for (const { samples } of [apart, without]) assert.ok(samples === SAMPLES.count, `${samples} samples`);
      const error = apart.reports - without.reports;
      assert.ok(Math.abs(error) <= APART_MAX_MS, `${error} ms apart by the sender reports`);
    });
  }
});
