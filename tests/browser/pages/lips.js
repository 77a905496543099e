// Measures how far apart a publisher's sound and picture are where they are played. Chromium only.
//
// Each encoded frame carries the time of day of its capture, behind its payload, as far as the publisher's page can tell;
// the receiving page takes it off again and remembers it by RTP timestamp. So what is played can be dated without the
// server's word for it, and that be compared with the server's word.

const STAMP_BYTES = 8;
const EVERY_MS = 100;
/** What was played longer ago says nothing: sound comes every 10 ms, pictures every 67 ms. */
const FRESH_MS = 100;
/** Sound is encoded when the last sample of a frame is there; the timestamp is that of the first. */
const AUDIO_FRAME_MS = 20;

/** Runs in a worker, beside the encoders and decoders. */
const WORKER = `
const epochMs = () => performance.timeOrigin + performance.now();

onrtctransform = ({ transformer: { readable, writable, options } }) => {
  const transform = options.track ? unstamp(options.track) : stamp(options);
  readable.pipeThrough(new TransformStream({ transform }, undefined, { highWaterMark: 100 })).pipeTo(writable);
};

/** Stamps frames, then holds them back for so long: they are late for a reason only the publisher's reports tell. */
function stamp({ tookMs, lateMs }) {
  return (frame, controller) => {
    const data = new Uint8Array(frame.data.byteLength + ${STAMP_BYTES});
    data.set(new Uint8Array(frame.data));
    new DataView(data.buffer).setFloat64(frame.data.byteLength, epochMs() - tookMs);
    frame.data = data.buffer;
    if (lateMs === 0) controller.enqueue(frame);
    else setTimeout(() => controller.enqueue(frame), lateMs);
  };
}

function unstamp(track) {
  return (frame, controller) => {
    const size = frame.data.byteLength - ${STAMP_BYTES};
    if (size > 0) {
      postMessage({ track, timestamp: frame.getMetadata().rtpTimestamp, capturedAt: new DataView(frame.data).getFloat64(size) });
      frame.data = frame.data.slice(0, size);
    }
    controller.enqueue(frame);
  };
}
`;

/** When what is played was captured: by track, then by RTP timestamp. */
const stamps = new Map();
let worker;

/** Must come before the connection is made. @param {{videoLateMs: number}} options */
export function install({ videoLateMs }) {
  worker = new Worker(URL.createObjectURL(new Blob([WORKER], { type: 'text/javascript' })));
  worker.onmessage = ({ data: { track, timestamp, capturedAt } }) => {
    if (!stamps.has(track)) stamps.set(track, new Map());
    const known = stamps.get(track);
    known.set(timestamp, capturedAt);
    if (known.size > 2_000) known.delete(known.keys().next().value);
  };
  const { addTransceiver, setRemoteDescription } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.addTransceiver = function add(what, init) {
    const line = addTransceiver.call(this, what, init);
    const { track } = line.receiver;
    if (init.direction === 'sendonly') {
      const isVideo = track.kind === 'video';
      const options = { tookMs: isVideo ? 0 : AUDIO_FRAME_MS, lateMs: isVideo ? videoLateMs : 0 };
      line.sender.transform = new RTCRtpScriptTransform(worker, options);
    } else {
      line.receiver.transform = new RTCRtpScriptTransform(worker, { track: track.id });
    }
    return line;
  };
  // One stream for the first sound and the first picture: Chromium keeps in step what is in one stream.
  RTCPeerConnection.prototype.setRemoteDescription = function set({ type, sdp }) {
    const first = new Set(['audio', 'video']);
    const sections = sdp.split(/^(?=m=)/m).map((section) => {
      const kind = section.match(/^m=(\w+)/)?.[1];
      if (!/^a=sendonly\r$/m.test(section) || !first.delete(kind)) return section;
      return section.replace(/^(a=(?:ssrc:\d+ )?msid:)\S+/gm, '$1lips');
    });
    return setRemoteDescription.call(this, { type, sdp: sections.join('') });
  };
}

/**
 * Sends the same tracks to this page itself, without a server: what the browser's own reports are worth on this machine.
 * A fake microphone that is kept waiting, say, dates its sound seconds too early. @param {MediaStreamTrack[]} tracks
 */
export async function loopback(tracks) {
  const [from, to] = [new RTCPeerConnection(), new RTCPeerConnection()];
  from.onicecandidate = ({ candidate }) => to.addIceCandidate(candidate);
  to.onicecandidate = ({ candidate }) => from.addIceCandidate(candidate);
  to.ontrack = ({ receiver, track }) => {
    receiver.transform = new RTCRtpScriptTransform(worker, { track: track.id });
    const player = document.createElement(track.kind);
    Object.assign(player, { srcObject: new MediaStream([track]), autoplay: true, muted: track.kind === 'video' });
    document.body.append(player);
  };
  for (const track of tracks) from.addTransceiver(track.clone(), { direction: 'sendonly' });
  await from.setLocalDescription();
  await to.setRemoteDescription(from.localDescription);
  await to.setLocalDescription();
  await from.setRemoteDescription(to.localDescription);
  return to;
}

/**
 * Watches what is played, in milliseconds, each a median of so many samples, for the page's clock stutters on a busy
 * machine. `reports`: how much later than the sound the picture was captured by the server's sender reports, for sound
 * and picture captured together. `lips`: how much older the picture is than the sound when they are played.
 */
export async function watch(pc, { count, withinMs }) {
  const samples = [];
  for (const end = performance.now() + withinMs; samples.length < count && performance.now() < end;) {
    const { audio, video } = await played(pc);
    if (audio && video) samples.push({ reports: video.reported - audio.reported, lips: video.age - audio.age });
    await new Promise((done) => { setTimeout(done, EVERY_MS); });
  }
  const median = (key) => samples.map((sample) => sample[key]).sort((one, other) => one - other)[samples.length >> 1];
  return { samples: samples.length, reports: median('reports'), lips: median('lips') };
}

/** What is played now, by kind: its age, and the error of when it was captured by the reports (of an unknown epoch). */
async function played(pc) {
  const reports = [...(await pc.getStats()).values()];
  const [audio, video] = ['audio', 'video'].map((kind) => {
    const { receiver } = pc.getTransceivers()
      .find(({ direction, receiver: { track } }) => track.kind === kind && direction === 'recvonly');
    const stats = reports.find(({ type, trackIdentifier }) => type === 'inbound-rtp' && trackIdentifier === receiver.track.id);
    const [source] = receiver.getSynchronizationSources();
    const capturedAt = stamps.get(receiver.track.id)?.get(source?.rtpTimestamp);
    if (capturedAt === undefined || stats?.estimatedPlayoutTimestamp === undefined) return null;
    // While playing stands still, the browser extends what it knew last, which is no longer true.
    if (stats.timestamp - source.timestamp > FRESH_MS) return null;
    const age = source.timestamp - capturedAt;
    // The browser extends the time of capture to that of its statistics; so do we.
    return { age, reported: stats.estimatedPlayoutTimestamp - (stats.timestamp - age) };
  });
  return { audio, video };
}
