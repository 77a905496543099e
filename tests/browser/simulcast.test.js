// Three encodings by RID of the codecs whose pages mostly send something else: everyone gets the size they ask for, and
// the picture goes on while it changes. VP8's are in adaptation.test.js, and spatial layers of VP9 and AV1.
//
// Nobody's link is narrow here, so what a viewer sees is what they ask for.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { startFirefox } from './harness/browsers.js';
import { eventually } from './harness/eventually.js';
import { measured } from './harness/host.js';
import { Peer } from './harness/peer.js';
import { Viewer, storyOf } from './harness/viewer.js';
import { useWorld } from './harness/world.js';

/** One that is easily encoded: a machine that falls behind with three encoders is no switch that stutters. */
const PICTURE = { width: 640, height: 360, frameRate: 15 };
/** What each encoding is divided by, and what it may cost. */
const ENCODINGS = { q: [4, 150_000], h: [2, 500_000], f: [1, 1_700_000] };
const RIDS = Object.keys(ENCODINGS);
/** Without a mode for each, Chromium takes several encodings of VP9 and AV1 for the spatial layers of one stream. */
const MODES = { H264: undefined, VP9: 'L1T3', AV1: 'L1T3' };
/** For H.264 Firefox has only a decoder that it would fetch from its maker. */
const FIREFOX_DECODES = ['VP9', 'AV1'];
const SLOTS = { audio: 0, video: 1 };
/** Until then the publisher's own estimate of its uplink has to allow all three: an easy picture raises it slowly. */
const START_MS = 40_000;
/** How long a size is watched from the moment it is asked for, and how soon it has to be there. */
const TURN_MS = 3_000;
/**
 * How long the picture may stand still over a change of size: seven frames of this camera. The old encoding flows until
 * the new one can be decoded, so nobody waits for the keyframe that has to be asked for, which takes up to a second.
 */
const STILL_MS = 500;

const heightOf = (rid) => PICTURE.height / ENCODINGS[rid][0];

describe('simulcast by RID', () => {
  const world = useWorld('simulcast');
  /** Whoever has joined in the test that runs. */
  const present = [];
  let firefox;
  let room;

  before(async () => {
    room = await world.server.room('simulcast');
    firefox = await startFirefox();
  });
  afterEach(startOver);
  after(() => firefox?.close());

  /** Everyone leaves. */
  async function startOver() {
    for (const peer of present.splice(0)) await peer.leave();
  }

  function leave(peer) {
    present.splice(present.indexOf(peer), 1);
    return peer.leave();
  }

  async function join(browser, identity, options) {
    const peer = await Peer.join({ ...world, browser }, room, identity, options);
    present.push(peer);
    return peer;
  }

  /** A camera in three encodings of a codec. */
  async function publish(codec) {
    const mode = MODES[codec] && { scalabilityMode: MODES[codec] };
    const encodings = RIDS.map((rid) => {
      const [scaleResolutionDownBy, maxBitrate] = ENCODINGS[rid];
      return { rid, scaleResolutionDownBy, maxBitrate, ...mode };
    });
    const publisher = await join(world.browser, codec, { devices: ['camera'], picture: PICTURE, camera: { codecs: [codec], encodings } });
    assert.match(await publisher.do('answer'), /^a=simulcast:recv q;h;f\r?$/m, 'the answer takes all three');
    return publisher;
  }

  /** Someone who watches a publisher's camera in the size of an encoding. */
  async function view(browser, identity, publisher, rid) {
    const viewer = new Viewer(await join(browser, identity, { devices: [], slots: SLOTS }), publisher, { ...world, room });
    await viewer.want(heightOf(rid));
    return viewer;
  }

  /** The viewer has the picture of an encoding, in the codec that is published. */
  async function assertShows(viewer, rid, codec) {
    const height = heightOf(rid);
    await viewer.awaitHeight({ least: height, most: height, withinMs: START_MS });
    // On its way up a slot may pass by this one.
    await eventually(`${viewer.peer.identity} keeps it`, async () => {
      const flow = await viewer.peer.flowOf(codec, 'camera');
      const [{ layer }] = await viewer.peer.do('slots');
      assert.deepEqual({ rid: layer.rid, height: flow.height, codec: flow.codec }, { rid, height, codec: `video/${codec}` });
      return true;
    });
  }

  /** The viewer asks for one encoding after the other, and the picture follows without a pause. */
  async function follow(context, viewer, rids, codec) {
    for (const rid of rids) {
      const { tookMs, sight } = await viewer.turnTo(heightOf(rid), TURN_MS);
      context.diagnostic(`${codec}: ${heightOf(rid)} lines after ${tookMs} ms; ${sight}`);
      await assertShows(viewer, rid, codec);
      sight.assertFlows(STILL_MS);
    }
  }

  test('Firefox can receive all of these but H.264', async () => {
    const page = await firefox.page();
    await page.goto(`${world.site.url}/pages/peer.html`);
    const types = await page.evaluate(() => RTCRtpReceiver.getCapabilities('video').codecs.map(({ mimeType }) => mimeType));
    assert.deepEqual(Object.keys(MODES).filter((codec) => types.includes(`video/${codec}`)), FIREFOX_DECODES);
    await page.close();
  });

  for (const codec of Object.keys(MODES)) {
    test(`${codec}: each viewer gets the size they ask for, and another when they ask for it`, measured(startOver, async (context) => {
      const publisher = await publish(codec);
      const viewers = await Promise.all(RIDS.map((rid) => view(world.browser, rid, publisher, rid)));
      const [small, ...others] = viewers;
      await assertKnown(small);
      await Promise.all(viewers.map((viewer, index) => assertShows(viewer, RIDS[index], codec)));
      await assertSends(context, publisher);
      const [, ...sights] = await Promise.all([
        follow(context, small, ['f', 'q'], codec),
        ...others.map((viewer) => viewer.watch(2 * TURN_MS)),
      ]);
      context.diagnostic(`${codec}: meanwhile ${sights.join('; ')}`);
      for (const sight of sights) {
        sight.assertFlows(STILL_MS);
        assert.equal(sight.switches, 0, `nobody else's size changes; ${sight}`);
      }
      // Once more with encodings that nobody has needed for a while, which their encoders have to start again.
      for (const viewer of others) await leave(viewer.peer);
      const stayed = [small];
      if (FIREFOX_DECODES.includes(codec)) stayed.push(await view(firefox, 'firefox', publisher, 'q'));
      await Promise.all(stayed.map((viewer) => assertShows(viewer, 'q', codec)));
      await awaitOnly(publisher, 'q');
      await Promise.all(stayed.map((viewer) => follow(context, viewer, ['h', 'f', 'q'], codec)));
      context.diagnostic(await storyOf(publisher));
    }));
  }
});

/** The server has read the sizes from the stream: by a guess viewers would get what is right for another camera. */
function assertKnown({ peer, publisher }) {
  return eventually('the server knows all sizes', async () => {
    const [{ layers }] = await peer.do('tracksOf', publisher.identity);
    assert.deepEqual(layers.map(({ rid, height }) => ({ rid, height })), RIDS.map((rid) => ({ rid, height: heightOf(rid) })));
    return true;
  }, START_MS);
}

/** The publisher is told that one encoding is needed and the others are not. */
function awaitOnly(publisher, needed) {
  return eventually(`${publisher.identity} sends ${needed} alone`, async () => {
    const told = (await publisher.do('heard', 'publish')).at(-1)?.layers;
    if (!told?.every(({ rid, active }) => active === (rid === needed))) throw new Error(await storyOf(publisher));
    return true;
  });
}

/** Each encoding is a stream of its own, of its size and without spatial layers. */
async function assertSends(context, publisher) {
  const sent = await eventually('all encodings are sent', async () => {
    const reports = (await publisher.reports('outbound-rtp')).filter(({ framesEncoded, frameHeight }) => framesEncoded > 0 && frameHeight);
    return reports.length === RIDS.length && reports;
  });
  for (const { rid, ssrc, frameHeight, scalabilityMode } of sent) {
    context.diagnostic(`${rid}: SSRC ${ssrc}, ${frameHeight} lines, ${scalabilityMode}`);
    assert.equal(frameHeight, heightOf(rid), rid);
    assert.match(scalabilityMode, /^L1T/, rid);
  }
  assert.equal(new Set(sent.map(({ ssrc }) => ssrc)).size, RIDS.length);
}
