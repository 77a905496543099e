// Debian's Chromium and Firefox ESR, headless, with fake devices. A browser that is not there is a failure.

import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';

const CHROMIUM = '/usr/bin/chromium';
const FIREFOX = '/usr/bin/firefox-esr';

const CHROMIUM_FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-dev-shm-usage',
  '--use-fake-ui-for-media-stream',
  '--use-fake-device-for-media-stream=fps=15',
  '--autoplay-policy=no-user-gesture-required',
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
  // All three layers however small the picture is: big ones cost too much here.
  '--force-fieldtrials=WebRTC-LegacySimulcastLayerLimit/Disabled/',
];

/** Fake devices, and nothing that calls home. */
const FIREFOX_PREFERENCES = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'media.gmp-manager.updateEnabled': false,
  'app.update.auto': false,
  'app.update.enabled': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
};

/**
 * @param {import('./netns.js').Namespace} [namespace]  where it runs, if not here
 * @param {string[]} [flags]
 * @returns {Promise<{page: () => Promise<import('playwright-core').Page>, close: () => Promise<void>}>}
 */
export async function startChromium(namespace, flags = []) {
  mustExist(CHROMIUM);
  const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), 'chromium-')), {
    executablePath: namespace?.executable(CHROMIUM) ?? CHROMIUM,
    headless: true,
    // With permission Chromium offers its addresses as they are, not as mDNS names.
    permissions: ['camera', 'microphone', 'clipboard-read', 'clipboard-write'],
    viewport: { width: 1280, height: 800 },
    args: [...CHROMIUM_FLAGS, ...flags],
  });
  return { page: () => context.newPage(), close: () => context.close() };
}

/**
 * @param {import('./netns.js').Namespace} [namespace]  where it runs, if not here
 * @param {number} [debuggingPort]  one that the namespace lets in, for Firefox is driven over TCP
 * @returns {Promise<{page: () => Promise<import('puppeteer-core').Page>, close: () => Promise<void>}>}
 */
export async function startFirefox(namespace, debuggingPort) {
  mustExist(FIREFOX);
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: namespace?.executable(FIREFOX) ?? FIREFOX,
    ...(debuggingPort && { debuggingPort }),
    headless: true,
    timeout: 120_000,
    protocolTimeout: 120_000,
    extraPrefsFirefox: FIREFOX_PREFERENCES,
  });
  return { page: () => browser.newPage(), close: () => browser.close() };
}

function mustExist(path) {
  if (!existsSync(path)) throw new Error(`${path} is missing: apt-get install chromium firefox-esr`);
}
