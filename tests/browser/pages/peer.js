// What a test asks of a page. What was received is read from getStats() here, not through stube.js.

import { Call } from '/web/stube.js';
import * as lipSync from './lips.js';
import { landscape, talker } from './scenes.js';
import { seal } from './seal.js';

const SMALL = { width: 320, height: 180, frameRate: 15 };
const PLAIN_AUDIO = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

let call = null;
let inbox = [];
let states = [];
let heard = [];
let screen = null;
let loopback = null;

globalThis.peer = {
  /** Joins with fake devices; `devices` names those to open. */
  async join({ url, token, devices = ['microphone', 'camera'], picture = SMALL, talks = false, camera = {}, slots, tcpOnly, onePath, iceServers, relayOnly, lips, sealed, audioCodecs }) {
    if (relayOnly) keepRelays();
    if (tcpOnly) keepOnly(([, , protocol]) => protocol === 'tcp');
    if (onePath) keepOnly(isIpv4OverUdp);
    if (lips) lipSync.install(lips);
    if (sealed) seal(sealed);
    if (audioCodecs) preferAudio(audioCodecs);
    const publish = [];
    for (const source of devices) {
      const track = talks && source === 'microphone' ? talker() : await open(source, picture);
      publish.push({ source, track, ...(source === 'camera' && camera) });
    }
    call = new Call({ url, token, publish, slots, iceServers });
    call.on('message', (message) => inbox.push(message));
    call.on('state', (state) => states.push(state));
    for (const type of ['slots', 'publish', 'speakers']) call.on(type, (message) => heard.push({ at: now(), ...message }));
    call.on('welcome', play);
    const start = performance.now();
    await call.join();
    if (lips && publish.length > 0) loopback = await lipSync.loopback(publish.map(({ track }) => track));
    return performance.now() - start;
  },

  leave: () => call.leave(),
  state: () => call.state,
  states: () => states,
  closedBy: () => call.closedBy,
  inbox: () => inbox,
  me: () => call.me,
  others: () => [...call.participants.values()].map(({ identity }) => identity),
  everyone: () => [...call.participants.values()],
  tracksOf: (identity) => someone(identity)?.tracks ?? [],
  setMuted: ({ source, muted }) => call.setMuted(source, muted),
  isMuted: (source) => call.publications.get(source).muted,
  /** What the server has said of slots, needs and speakers, each with its time. */
  heard: (type) => heard.filter((message) => message.type === type),
  now: () => now(),
  send: ({ topic, data, to }) => call.sendMessage(topic, data, to),
  want: (wish) => call.want(wish),
  restartIce: () => call.restartIce(),
  summary: async () => {
    const summary = await call.getStats();
    return { ...summary, slots: [...summary.slots] };
  },
  addSlots: ({ kind, count }) => call.addSlots(kind, count),
  slots: () => [...call.slots.values()].map(({ stream, ...slot }) => slot),
  unpublish: (source) => call.unpublish(source),
  localUfrag: () => call.peerConnection.localDescription.sdp.match(/a=ice-ufrag:(\S+)/)[1],
  answer: () => call.peerConnection.remoteDescription.sdp,
  iceServers: () => call.peerConnection.getConfiguration().iceServers,

  async publish({ source, picture = SMALL, options }) {
    await call.publish(source, await open(source, picture), options);
  },

  /** Shares the screen as a user would. */
  async shareScreen() {
    screen = await navigator.mediaDevices.getDisplayMedia({ video: { width: 640, height: 360, frameRate: 5 } });
    await call.publish('screen_share', screen.getVideoTracks()[0]);
  },

  async stopScreen() {
    await call.unpublish('screen_share');
    for (const track of screen.getTracks()) track.stop();
  },

  /** What comes in, by the owner of each filled slot. */
  async received() {
    const reports = [...(await call.peerConnection.getStats()).values()];
    const transceivers = new Map(call.peerConnection.getTransceivers().map((line) => [line.mid, line]));
    return [...call.slots.values()].filter((slot) => slot.track !== null).map((slot) => {
      const { id } = transceivers.get(slot.mid).receiver.track;
      const stats = reports.find(({ type, trackIdentifier }) => type === 'inbound-rtp' && trackIdentifier === id);
      const participant = call.participants.get(slot.participant);
      const codec = reports.find((report) => report.id === stats?.codecId);
      return {
        mid: slot.mid,
        kind: slot.kind,
        state: slot.state,
        identity: participant?.identity ?? null,
        source: participant?.tracks.find(({ sid }) => sid === slot.track)?.source ?? null,
        frames: stats?.framesDecoded ?? 0,
        packets: stats?.packetsReceived ?? 0,
        samples: stats?.totalSamplesReceived ?? 0,
        energy: stats?.totalAudioEnergy ?? 0,
        width: stats?.frameWidth ?? 0,
        height: stats?.frameHeight ?? 0,
        codec: codec?.mimeType ?? null,
      };
    });
  },

  /** What goes out, one entry for each encoding. */
  async sent() {
    const reports = [...(await call.peerConnection.getStats()).values()];
    return reports.filter(({ type }) => type === 'outbound-rtp').map(({ kind, mid, rid, framesEncoded, bytesSent, frameHeight }) => (
      { kind, mid, rid: rid ?? '', framesEncoded: framesEncoded ?? 0, bytesSent, frameHeight }
    ));
  },

  /**
   * Milliseconds until the picture of this line has a height that fits, by the statistics of the browser: since the frame
   * was decoded, or a little later.
   */
  async awaitHeight({ mid, least = 0, most = Infinity, withinMs }) {
    const begin = now();
    for (;;) {
      const { frameHeight: height } = await inbound(mid);
      const took = now() - begin;
      if (height >= least && height <= most) return took;
      if (took > withinMs) throw new Error(`the picture is ${height} lines high after ${Math.round(took)} ms`);
      await pause(20);
    }
  },

  /** One line of the statistics. */
  inbound: (mid) => inbound(mid),

  /** The audio levels (RFC 6464) of what comes in on a line, in dBov, each with its time: one every 20 ms or so. */
  async levels({ mid, forMs }) {
    const { receiver } = call.peerConnection.getTransceivers().find((line) => line.mid === mid);
    const levels = [];
    for (const end = now() + forMs; now() < end;) {
      const [source] = receiver.getSynchronizationSources();
      if (source && source.rtpTimestamp !== levels.at(-1)?.timestamp) {
        levels.push({ timestamp: source.rtpTimestamp, at: source.timestamp, level: 20 * Math.log10(source.audioLevel) });
      }
      await pause(8);
    }
    return levels;
  },

  /** All statistics, as the browser gives them. */
  reports: async () => [...(await call.peerConnection.getStats()).values()].map((report) => ({ ...report })),

  /** How far apart sound and picture are; see lips.js. */
  watchLips: (options) => lipSync.watch(call.peerConnection, options),
  /** The same without the server, for who publishes. */
  watchLoopback: (options) => lipSync.watch(loopback, options),

  /** Joins to watch only; milliseconds from the request to the first decoded frame. */
  async timeToFirstFrame({ url, token }) {
    call = new Call({ url, token });
    let posted = 0;
    const { fetch } = globalThis;
    globalThis.fetch = (...request) => {
      posted ||= performance.now();
      return fetch(...request);
    };
    try {
      await call.join();
    } finally {
      globalThis.fetch = fetch;
    }
    play();
    for (;;) {
      const reports = [...(await call.peerConnection.getStats()).values()];
      if (reports.some(({ type, framesDecoded }) => type === 'inbound-rtp' && framesDecoded > 0)) {
        return performance.now() - posted;
      }
      await new Promise((done) => { setTimeout(done, 5); });
    }
  },
};

function someone(identity) {
  return [...call.participants.values()].find((participant) => participant.identity === identity);
}

/** @returns {Promise<RTCInboundRtpStreamStats|{}>} */
async function inbound(mid) {
  const reports = [...(await call.peerConnection.getStats()).values()];
  const { id } = call.peerConnection.getTransceivers().find((line) => line.mid === mid).receiver.track;
  return { ...reports.find(({ type, trackIdentifier }) => type === 'inbound-rtp' && trackIdentifier === id) };
}

const now = () => performance.timeOrigin + performance.now();

function pause(ms) {
  return new Promise((done) => { setTimeout(done, ms); });
}

async function open(source, picture) {
  if (source === 'camera' && picture.landscape) return landscape(picture);
  const wanted = source === 'microphone' ? { audio: PLAIN_AUDIO } : { video: picture };
  return (await navigator.mediaDevices.getUserMedia(wanted)).getTracks()[0];
}

/** A browser decodes only what is played. */
function play() {
  const players = [...call.slots.values()].map(({ kind, stream }) => {
    const player = document.createElement(kind);
    Object.assign(player, { srcObject: stream, autoplay: true, muted: kind === 'video' });
    return player;
  });
  document.body.replaceChildren(...players);
}

/** Hides server candidates from the browser; the server learns none of ours, for we send none. */
function keepOnly(isKept) {
  const { setRemoteDescription } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.setRemoteDescription = function set({ type, sdp }) {
    const kept = sdp.split(/(?<=\n)/).filter((line) => !line.startsWith('a=candidate:') || isKept(line.toLowerCase().split(' ')));
    return setRemoteDescription.call(this, { type, sdp: kept.join('') });
  };
}

/** The browser may go no way but through TURN servers. */
function keepRelays() {
  const Plain = RTCPeerConnection;
  globalThis.RTCPeerConnection = class extends Plain {
    constructor(configuration) {
      super({ ...configuration, iceTransportPolicy: 'relay' });
    }
  };
}

/** Every audio line offers these codecs only, by their names after `audio/`, in this order. */
function preferAudio(names) {
  const { setLocalDescription } = RTCPeerConnection.prototype;
  const known = RTCRtpReceiver.getCapabilities('audio').codecs;
  const chosen = names.map((name) => known.find(({ mimeType }) => mimeType === `audio/${name}`));
  RTCPeerConnection.prototype.setLocalDescription = function set(...description) {
    const lines = this.getTransceivers().filter(({ receiver }) => receiver.track.kind === 'audio');
    for (const line of lines) line.setCodecPreferences(chosen);
    return setLocalDescription.apply(this, description);
  };
}

/** Not over loopback, where Chromium has no candidate. */
function isIpv4OverUdp([, , protocol, , address]) {
  return protocol === 'udp' && address.includes('.') && !address.startsWith('127.');
}
