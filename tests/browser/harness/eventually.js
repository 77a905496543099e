// Waiting for what must come true.

import { readFileSync } from 'node:fs';

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
  const elapsed = performance.now() - begin.at;
  const now = jiffies();
  const stolen = (now.stolen - begin.stolen) / Math.max(1, now.total - begin.total);
  return elapsed * Math.max(1 - stolen, 1 / LONGEST);
}

/** Time of all cores since the machine started: what its host gave to others, and in all (proc_stat(5)). */
function jiffies() {
  const [cores] = readFileSync('/proc/stat', 'utf8').split('\n', 1);
  const times = cores.split(/\s+/).slice(1, 9).map(Number);
  return { stolen: times[7], total: times.reduce((sum, time) => sum + time, 0) };
}

export function pause(ms) {
  return new Promise((done) => { setTimeout(done, ms); });
}
