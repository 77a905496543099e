// End-to-end encryption as far as the server can tell: an encoded transform that makes frames unreadable on their way.

/** Turns every bit that tells a keyframe. */
const KEY = 0xa5;
/** What a VP8 frame begins with, and applications leave readable for receivers that look at it (RFC 6386, 9.1). */
const VP8_HEADER = { key: 10, delta: 3 };

const WORKER = `
onrtctransform = ({ transformer: { readable, writable, options: { clear, kind } } }) => {
  readable.pipeThrough(new TransformStream({
    transform(frame, controller) {
      const data = new Uint8Array(frame.data);
      const from = kind === 'video' && clear ? (${JSON.stringify(VP8_HEADER)})[frame.type] : 0;
      for (let at = from; at < data.length; at += 1) data[at] ^= ${KEY};
      frame.data = data.buffer;
      controller.enqueue(frame);
    },
  })).pipeTo(writable);
};
`;

/**
 * Must come before the connection is made. Sealing and unsealing are the same.
 * @param {{clear: boolean}} options  whether VP8's header stays readable
 */
export function seal({ clear }) {
  const worker = new Worker(URL.createObjectURL(new Blob([WORKER], { type: 'text/javascript' })));
  const { addTransceiver } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.addTransceiver = function add(what, init) {
    const line = addTransceiver.call(this, what, init);
    const { kind } = line.receiver.track;
    const end = init.direction === 'sendonly' ? line.sender : line.receiver;
    end.transform = new RTCRtpScriptTransform(worker, { clear, kind });
    return line;
  };
}
