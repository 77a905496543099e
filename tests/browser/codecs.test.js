// Every codec of the contract, each forced in turn, and simulcast.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { eventually } from './harness/eventually.js';
import { Peer } from './harness/peer.js';
import { useWorld } from './harness/world.js';

const CODECS = ['VP8', 'VP9', 'H264', 'AV1'];

describe('codecs', () => {
  const world = useWorld('codecs');
  let room;
  let viewer;

  before(async () => {
    room = await world.server.room('codecs');
    viewer = await Peer.join(world, room, 'viewer', { devices: [] });
  });

  for (const codec of CODECS) {
    test(`${codec} is decoded`, async () => {
      const publisher = await Peer.join(world, room, codec, { camera: { codecs: [codec] } });
      // The slot has shown another codec before, and statistics name it until the first frame of this one.
      await eventually(`${codec} reaches the decoder`, async () => (
        (await viewer.hears(codec, 'camera')).codec === `video/${codec}`
      ));
      await viewer.keepsHearing(codec, 'camera');
      await publisher.leave();
    });
  }

  test('three simulcast encodings are accepted and one is decoded', async () => {
    const publisher = await Peer.join(world, room, 'sim', {
      picture: { width: 640, height: 360, frameRate: 15 },
      camera: { simulcast: true },
    });
    assert.ok(/^a=simulcast:recv q;h;f\r?$/m.test(await publisher.do('answer')), 'the answer takes all three');
    await eventually('three encodings are sent', async () => (
      (await publisher.do('sent')).filter(({ kind }) => kind === 'video').map(({ rid }) => rid).sort().join() === 'f,h,q'
    ));
    await viewer.hears('sim', 'camera');
    await viewer.keepsHearing('sim', 'camera');
    const [camera] = (await viewer.do('tracksOf', 'sim')).filter(({ source }) => source === 'camera');
    assert.deepEqual(camera.layers.map(({ rid }) => rid), ['q', 'h', 'f']);
    await publisher.leave();
  });
});
