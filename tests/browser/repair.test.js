// A network that loses packets: what is missing is sent again (NACK, RFC 4585; RTX, RFC 4588), in both directions.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startFirefox } from './harness/browsers.js';
import { eventually, pause } from './harness/eventually.js';
import { Firewall } from './harness/firewall.js';
import { Peer } from './harness/peer.js';
import { useWorld } from './harness/world.js';

const LOSS_PERCENT = 5;
/** So many datagrams have to be lost, sound and picture, before we look: some 25 s. */
const LOST = 40;
const LOST_WITHIN_MS = 120_000;
/** Of the frames that the publisher encodes: on a busy machine those are few. */
const DECODED_MIN = 0.8;
/** Of silence nothing is sent, so that the picture has to bring the packets that are lost. */
const PICTURE = { width: 640, height: 360, frameRate: 30 };
/**
 * The picture may stand still for this share of the time, beside that in which the publisher's camera and encoder fell
 * behind. Browsers count what takes 150 ms longer than usual.
 */
const FROZEN_MAX = 0.3;
/** Keyframes asked for while packets are lost: without repair it would be one for nearly every loss. */
const KEYFRAMES_MAX = 3;

describe('lost packets', () => {
  const world = useWorld('repair');
  let firewall;
  let firefox;
  let room;
  let publisher;
  let chromium;

  before(async () => {
    firewall = await Firewall.start();
    firefox = await startFirefox();
    room = await world.server.room('repair');
    publisher = await Peer.join(world, room, 'publisher', { picture: PICTURE, camera: { codecs: ['VP8'] } });
    chromium = await Peer.join(world, room, 'chromium', { devices: [] });
  });
  after(async () => {
    await firewall?.stop();
    await firefox?.close();
  });

  /** What comes in, and which keyframes are asked for, while a share of the packets to or from a peer is lost. */
  async function lossy(viewer, peer, direction) {
    await viewer.hears('publisher', 'camera', 20_000);
    // The start is over: the estimate has risen, no keyframe is due, and ICE has settled on its path.
    await pause(3_000);
    const { own, server } = await peer.ports();
    await firewall.lose(LOSS_PERCENT, ...(direction === 'to' ? [server, own] : [own, server]));
    try {
      const before = await snapshot(viewer);
      const begin = performance.now();
      await eventually('enough is lost', async () => (await firewall.counts()).lost >= LOST, LOST_WITHIN_MS);
      const seconds = (performance.now() - begin) / 1_000;
      const network = await firewall.counts();
      const grown = growth(before, await snapshot(viewer));
      return { seconds, network, ...grown };
    } finally {
      await firewall.calm();
    }
  }

  async function snapshot(viewer) {
    const [video] = (await viewer.reports('inbound-rtp')).filter(({ kind, framesDecoded }) => kind === 'video' && framesDecoded > 0);
    const [sent] = (await publisher.reports('outbound-rtp')).filter(({ kind }) => kind === 'video');
    return { received: video, sent, forwarded: await rtpPackets(world.server) };
  }

  function assertWatchable({ seconds, sent, received }) {
    const frames = `${received.framesDecoded} of ${sent.framesEncoded} frames decoded`;
    assert.ok(received.framesDecoded > DECODED_MIN * sent.framesEncoded, frames);
    const behind = Math.max(0, seconds - sent.framesEncoded / PICTURE.frameRate);
    // Firefox 140 does not say; a picture that stood still would have decoded fewer frames.
    const { totalFreezesDuration = 0 } = received;
    const frozen = `${totalFreezesDuration} s frozen, ${behind} s behind at the publisher`;
    assert.ok(totalFreezesDuration < FROZEN_MAX * seconds + behind, frozen);
  }

  test('Chromium gets what it missed', async (context) => {
    const result = await lossy(chromium, chromium, 'to');
    context.diagnostic(JSON.stringify(result));
    assertWatchable(result);
    const { received } = result;
    assert.ok(received.nackCount > 0, 'it asks');
    assert.ok(received.retransmittedPacketsReceived > 0, 'it gets what it asked for, by RTX');
    assert.ok(received.pliCount + received.firCount <= KEYFRAMES_MAX, `${received.pliCount} keyframe requests`);
  });

  test('Firefox gets what it missed', async (context) => {
    const viewer = await Peer.join({ ...world, browser: firefox }, room, 'firefox', { devices: [] });
    const result = await lossy(viewer, viewer, 'to');
    context.diagnostic(JSON.stringify(result));
    assertWatchable(result);
    const { received } = result;
    assert.ok(received.nackCount > 0, 'it asks');
    assert.ok(received.pliCount + received.firCount <= KEYFRAMES_MAX, `${received.pliCount} keyframe requests`);
    await viewer.leave();
  });

  test('the server asks a publisher for what it missed', async (context) => {
    const result = await lossy(chromium, publisher, 'from');
    context.diagnostic(JSON.stringify(result));
    assertWatchable(result);
    const { sent, received } = result;
    assert.ok(sent.nackCount > 0, 'the server asks');
    assert.ok(sent.retransmittedPacketsSent > 0, 'the publisher sends again');
    assert.ok(sent.pliCount + sent.firCount <= KEYFRAMES_MAX, `${sent.pliCount} keyframe requests`);
    assert.ok(received.pliCount + received.firCount <= KEYFRAMES_MAX, `the viewer asks for ${received.pliCount} keyframes`);
  });
});

/** How much each counter has grown. */
function growth(before, after) {
  const grown = {};
  for (const [key, value] of Object.entries(after)) {
    if (value && typeof value === 'object') grown[key] = growth(before[key] ?? {}, value);
    else if (typeof value === 'number') grown[key] = value - (before[key] ?? 0);
  }
  return grown;
}

async function rtpPackets(server) {
  const text = await (await fetch(`${server.admin}/metrics`)).text();
  const metrics = text.matchAll(/^stube_rtp_packets_total\{direction="(\w+)",kind="(\w+)"\} (\d+)$/gm);
  return Object.fromEntries([...metrics].map(([, direction, kind, count]) => [`${kind} ${direction}`, Number(count)]));
}
