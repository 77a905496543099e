// Waiting for what must come true.

const EVERY_MS = 100;

/**
 * Asks again and again until the answer is neither false nor an exception; fails with the last reason.
 * @template T
 * @param {string} what  a sentence for the failure
 * @param {() => T|Promise<T>} ask
 */
export async function eventually(what, ask, withinMs = 10_000) {
  const deadline = performance.now() + withinMs;
  let last = 'it was false';
  for (;;) {
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      if (error.fatal) throw error;
      last = error.message;
    }
    if (performance.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what} (${last})`);
    await pause(EVERY_MS);
  }
}

export function pause(ms) {
  return new Promise((done) => { setTimeout(done, ms); });
}
