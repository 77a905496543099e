// What the host of this machine takes from it: tests that measure in real time cannot tell that from a slow server.

import { readFileSync } from 'node:fs';

/** With less than this share of the time taken, a failure is ours. */
const STOLEN_MIN = 0.05;
const ATTEMPTS = 3;

/** Time of all cores since the machine started: what its host gave to others, and in all (proc_stat(5)). */
export function jiffies() {
  const [cores] = readFileSync('/proc/stat', 'utf8').split('\n', 1);
  const times = cores.split(/\s+/).slice(1, 9).map(Number);
  return { stolen: times[7], total: times.reduce((sum, time) => sum + time, 0) };
}

/** The share of the time that the host took since then. */
export function stolenSince(begin) {
  const now = jiffies();
  return (now.stolen - begin.stolen) / Math.max(1, now.total - begin.total);
}

/**
 * A test that measures: if it fails while the host takes time from this machine, it says so and measures once more, and
 * a third time at most.
 * @param {() => Promise<void>} startOver  what comes between two attempts
 * @param {(context: object) => Promise<void>} body
 */
export function measured(startOver, body) {
  return async (context) => {
    for (let attempt = 1; ; attempt += 1) {
      const begin = jiffies();
      try {
        return await body(context);
      } catch (error) {
        const stolen = stolenSince(begin);
        if (attempt === ATTEMPTS || stolen < STOLEN_MIN) throw error;
        context.diagnostic(`the host took ${Math.round(stolen * 100)} % of the time; once more after: ${error.message}`);
        await startOver();
      }
    }
  };
}
