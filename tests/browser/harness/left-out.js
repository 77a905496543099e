// What is left out where CI is set, and said to be: `scripts/test browser` plays it elsewhere.

const inCi = (reason) => ({ skip: process.env.CI ? `${reason}: run scripts/test browser without CI set` : false });

/** CI has 40 minutes for everything, on slow machines. */
export const LONG = inCi('takes long');
/** Measures the browser as much as the server, whose part a test of its own holds. */
export const NEEDS_QUIET = inCi('needs a machine that keeps up');
