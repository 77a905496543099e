/** Camera, microphone and screen of this computer. */

import { explainDevice } from './words.js';

const MICROPHONE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
const CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30, max: 30 } };

/**
 * Opens what is there of what is wanted.
 * @param {{microphone: boolean, camera: boolean}} wanted
 * @returns {Promise<{microphone: MediaStreamTrack|null, camera: MediaStreamTrack|null, problems: string[]}>}
 */
export async function openDevices({ microphone, camera }) {
  const found = { microphone: null, camera: null, problems: [] };
  if (!navigator.mediaDevices) {
    if (microphone || camera) found.problems.push('This page needs HTTPS to use camera and microphone.');
    return found;
  }
  try {
    // Both in one question where both are wanted: the browser then asks the user once.
    if (microphone && camera) return take(found, await ask({ audio: MICROPHONE, video: CAMERA }));
  } catch {
    // One of them is missing or refused; asking for each tells which.
  }
  if (microphone) await one(found, 'microphone', { audio: MICROPHONE });
  if (camera) await one(found, 'camera', { video: CAMERA });
  return found;
}

/**
 * Asks the user for a screen, window or tab; null when they change their mind.
 * @returns {Promise<{video: MediaStreamTrack, audio: MediaStreamTrack|null}|null>}
 */
export async function openScreen() {
  try {
    const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { max: 15 } }, audio: true });
    const [video] = stream.getVideoTracks();
    // Text must stay sharp; smoothness can suffer.
    video.contentHint = 'detail';
    return { video, audio: stream.getAudioTracks()[0] ?? null };
  } catch (error) {
    if (error.name === 'NotAllowedError') return null;
    throw error;
  }
}

/** Calls back with a microphone's loudness, 0 to 1, until the returned function is called. */
export function watchLevel(track, show) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    show(Math.min(1, Math.sqrt(power) * 4));
  }, 100);
  return () => {
    clearInterval(timer);
    context.close();
  };
}

function ask(constraints) {
  return navigator.mediaDevices.getUserMedia(constraints);
}

async function one(found, device, constraints) {
  try {
    take(found, await ask(constraints));
  } catch (error) {
    found.problems.push(explainDevice(device, error));
  }
}

function take(found, stream) {
  found.microphone = stream.getAudioTracks()[0] ?? found.microphone;
  found.camera = stream.getVideoTracks()[0] ?? found.camera;
  return found;
}
