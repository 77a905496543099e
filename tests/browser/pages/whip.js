// The package's clients as its own examples use them.

import { WHIPClient } from '/whip-whep/whip.js';
import { WHEPClient } from '/whip-whep/whep.js';

let pc = null;
let client = null;

globalThis.whip = {
  async publish(url, token) {
    pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
      video: { width: 320, height: 180, frameRate: 15 },
    });
    for (const track of stream.getTracks()) pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
    client = new WHIPClient();
    await client.publish(pc, url, token);
  },

  async play(url, token) {
    pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    pc.addTransceiver('audio', { direction: 'recvonly' });
    pc.addTransceiver('video', { direction: 'recvonly' });
    pc.addEventListener('track', ({ track }) => {
      const player = document.createElement(track.kind);
      Object.assign(player, { srcObject: new MediaStream([track]), autoplay: true, muted: track.kind === 'video' });
      document.body.append(player);
    });
    client = new WHEPClient();
    await client.view(pc, url, token);
  },

  async received() {
    const reports = [...(await pc.getStats()).values()].filter(({ type }) => type === 'inbound-rtp');
    return {
      frames: Math.max(0, ...reports.map(({ framesDecoded }) => framesDecoded ?? 0)),
      energy: Math.max(0, ...reports.map(({ totalAudioEnergy }) => totalAudioEnergy ?? 0)),
    };
  },

  async stop() {
    await client.stop();
    return 'stopped';
  },
};
