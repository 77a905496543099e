// A call of three in Chromium through an installed server that runs as it was shipped, under all its unit's restrictions.

import { startChromium } from '../browser/harness/browsers.js';
import { Peer, assertFullMesh } from '../browser/harness/peer.js';
import { Server } from '../browser/harness/server.js';
import { startSite } from '../browser/harness/site.js';

/** systemd started it, and stops it. It has the ports and the key of `config.toml`. */
class Installed extends Server {
  base = 'http://127.0.0.1:7880';

  admin = 'http://127.0.0.1:6789';
}

const began = performance.now();
const world = { server: new Installed(), site: await startSite(), browser: await startChromium() };
try {
  const room = await world.server.room('browser');
  const people = await Promise.all(['ada', 'bob', 'cyd'].map((name) => Peer.join(world, room, name)));
  await assertFullMesh(people);
  await Promise.all(people.map((peer) => peer.leave()));
} finally {
  await world.browser.close();
  world.site.close();
}
console.log(`three in Chromium saw and heard each other in ${((performance.now() - began) / 1000).toFixed(1)} s`);
process.exit(0);
