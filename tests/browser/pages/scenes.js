// Cameras and microphones that are harder on encoders and detectors than the browsers' fake ones.

const FRAMES = 24;
const PAN = 3;
const GRAIN = 14;

/**
 * A camera that pans over a landscape in bad light: an encoder has to spend what it may on it. The pictures are made
 * beforehand, so that sending them costs next to nothing. Chromium only.
 * @param {{width: number, height: number, frameRate: number}} picture
 */
export function landscape({ width, height, frameRate }) {
  const track = new MediaStreamTrackGenerator({ kind: 'video' });
  const writer = track.writable.getWriter();
  const frames = Array.from({ length: FRAMES }, (_, index) => paint(width, height, index));
  let count = 0;
  const send = () => {
    // There and back again, so that no frame is a cut.
    const place = count % (2 * FRAMES - 2);
    const data = frames[place < FRAMES ? place : 2 * FRAMES - 2 - place];
    const frame = new VideoFrame(data, {
      format: 'I420', codedWidth: width, codedHeight: height, timestamp: Math.round(performance.now() * 1_000),
    });
    count += 1;
    writer.write(frame).catch(() => clearInterval(timer));
  };
  const timer = setInterval(send, 1_000 / frameRate);
  return track;
}

function paint(width, height, index) {
  const data = new Uint8Array((width * height * 3) / 2).fill(128);
  const random = generator(index + 1);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const far = x + index * PAN;
      const hills = 40 * Math.sin(far / 37) + 30 * Math.sin((y + far / 3) / 23) + 20 * Math.sin((far * y) / 9_000);
      data[y * width + x] = 128 + hills + (random() - 0.5) * 2 * GRAIN;
    }
  }
  return data;
}

/** Random and always the same (xorshift). */
function generator(seed) {
  let state = seed * 2_654_435_761 >>> 0;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

const SYLLABLE_S = 0.18;
const GAP_S = 0.07;
const SYLLABLES = 6;
const BREATH_S = 0.4;

/** A microphone into which someone talks: words of some syllables, with pauses between. */
export function talker() {
  const context = new AudioContext();
  const voice = new OscillatorNode(context, { type: 'sawtooth', frequency: 140 });
  const mouth = new BiquadFilterNode(context, { type: 'lowpass', frequency: 900 });
  const loudness = new GainNode(context, { gain: 0 });
  const out = context.createMediaStreamDestination();
  voice.connect(mouth).connect(loudness).connect(out);
  voice.start();
  let said = context.currentTime;
  const talk = () => {
    // Two seconds ahead of the clock: timers of a busy page come late.
    while (said < context.currentTime + 2) {
      for (let syllable = 0; syllable < SYLLABLES; syllable += 1) {
        loudness.gain.setTargetAtTime(0.25 + 0.1 * (syllable % 3), said, 0.02);
        voice.frequency.setValueAtTime(120 + 25 * ((syllable * 2) % 5), said);
        loudness.gain.setTargetAtTime(0, said + SYLLABLE_S, 0.015);
        said += SYLLABLE_S + GAP_S;
      }
      said += BREATH_S;
    }
  };
  talk();
  setInterval(talk, 500);
  return out.stream.getAudioTracks()[0];
}
