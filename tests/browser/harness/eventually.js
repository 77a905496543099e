// Waiting for what must come true.

import { jiffies, stolenSince } from './host.js';

const EVERY_MS = 100;
/** Hosts lend this machine's cores to others, at times nearly all. That time does not count, up to so many times as long. */
const LONGEST = 5;

/**
 * Asks again and again until the answer is neither false nor an exception; fails with the last reason.
 * @template T
 * @param {string} what  a sentence for the failure
 * @param {() => T|Promise<T>} ask
 */
export async function eventually(what, ask, withinMs = 10_000) {
  const begin = { at: performance.now(), ...jiffies() };
  let last = 'it was false';
  for (;;) {
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      if (error.fatal) throw error;
      last = error.message;
    }
    if (passedMs(begin) > withinMs) throw new Error(`not within ${withinMs} ms: ${what} (${last})`);
    await pause(EVERY_MS);
  }
}

/** How long this machine has had since then, in milliseconds. */
function passedMs(begin) {
  return (performance.now() - begin.at) * Math.max(1 - stolenSince(begin), 1 / LONGEST);
}

export function pause(ms) {
  return new Promise((done) => { setTimeout(done, ms); });
}
