// What every test file needs: server, site, Chromium.

import { after, before } from 'node:test';
import { startChromium } from './browsers.js';
import { Server } from './server.js';
import { startSite } from './site.js';

/**
 * Starts them before the file's tests and stops them afterwards.
 * @param {string} name
 * @param {Record<string, string>} [environment] of the server
 * @param {() => Promise<string>} [sections] of its configuration, beside those that are shipped
 * @returns {{server: Server, site: {url: string}, browser: {page: Function}}} filled in before the first test
 */
export function useWorld(name, environment, sections) {
  const world = {};
  before(async () => {
    // One after the other, so that what has started is stopped when the next does not.
    world.site = await startSite();
    world.server = await Server.start(name, environment, await sections?.());
    world.browser = await startChromium();
  });
  after(async () => {
    await world.browser?.close();
    await world.server?.stop();
    world.site.close();
  });
  return world;
}
