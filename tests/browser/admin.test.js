// The operator's page, with a real call on the server. Screenshots stay in tests/artefacts for people to look at.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { eventually } from './harness/eventually.js';
import { blankPage } from './harness/page.js';
import { Peer } from './harness/peer.js';
import { ARTEFACTS, BINARY } from './harness/server.js';
import { useWorld } from './harness/world.js';

const run = promisify(execFile);
const PHONE = { width: 390, height: 800 };

describe('the operator\'s page', () => {
  const world = useWorld('admin', { STUBE__QUOTA__DEFAULT__MAX_ROOMS: '4' });

  const at = (name) => `[data-testid="${name}"]`;
  const shoot = (page, name) => page.screenshot({ path: join(ARTEFACTS, `${name}.png`), fullPage: true });

  /** Opens the page; whatever it complains of is a failure of the test. */
  async function visit(options) {
    const page = await blankPage(world.browser, options);
    await page.goto(`${world.server.admin}/`);
    return page;
  }

  /** The cells of somebody's row, by the head of their column. */
  const row = (page, name) => page.locator(`${at('participants')} tbody tr:has-text("${name}")`).evaluate((line) => (
    Object.fromEntries([...line.cells].map((cell) => [cell.dataset.label, cell.textContent]))
  ));

  test('shows a call, and drains the server', async () => {
    const { server } = world;
    const room = await server.room('operated');
    await server.room('quiet');
    const ada = await Peer.join(world, room, 'ada');
    const linus = await Peer.join(world, room, 'linus');
    await Promise.all([ada.hears('linus', 'camera'), linus.hears('ada', 'camera')]);

    const page = await visit({ size: { width: 1280, height: 900 } });
    await page.bringToFront();
    await eventually('the figures are there', async () => (await page.textContent(at('participants-now'))) === '2');
    assert.equal(await page.textContent(at('state')), 'running');
    assert.equal(await page.textContent(at('rooms-now')), '2');
    assert.equal(await page.textContent(at('hints')), 'Nothing needs attention.');
    assert.match(await page.textContent(at('quotas')), /rooms2 of 4/);

    // By the keyboard alone.
    const button = page.locator(`${at('rooms')} button`, { hasText: room });
    await button.focus();
    await page.keyboard.press('Enter');
    await page.waitForSelector(at('room'));
    assert.match(await page.evaluate(() => document.activeElement.textContent), new RegExp(room));
    const seen = await eventually('ada sends and gets', async () => {
      const cells = await row(page, 'ada');
      const flows = /^[\d.]+ [kM]bit\/s$/;
      const good = flows.test(cells.Up) && flows.test(cells.Down) && !/^0 /.test(cells.Up) && !/^0 /.test(cells.Down);
      if (!good || cells['Round trip'] === '–') throw new Error(JSON.stringify(cells));
      return cells;
    }, 20_000);
    assert.equal(seen.State, 'active');
    assert.equal(seen.Path, 'UDP');
    assert.match(seen.Sends, /microphone opus.*camera/s);
    assert.match(seen.Gets, /1 picture.*1 sound/);
    assert.match(seen.Loss, /^[\d.]+ %$/);

    // From the command line, by source.
    const mute = await run(BINARY, ['participants', 'mute', room, 'ada', '--url', server.base, '--key', 'devkey'], {
      env: { ...process.env, STUBE_SECRET: 'devsecret-devsecret-devsecret-dev' },
    });
    assert.equal(mute.stdout, `microphone of ada in ${room}: muted\n`);
    await eventually('the page shows it', async () => /microphone opus muted/.test((await row(page, 'ada')).Sends));

    // Nothing is drawn anew that stays: the same row is there two looks later, and its time has gone on.
    await page.evaluate(() => { document.querySelector('[data-testid="participants"] tbody tr').marked = true; });
    const before = (await row(page, 'ada')).For;
    await eventually('time goes on', async () => (await row(page, 'ada')).For !== before);
    assert.ok(await page.evaluate(() => document.querySelector('[data-testid="participants"] tbody tr').marked));
    await shoot(page, 'admin-light');
    await page.emulateMedia({ colorScheme: 'dark' });
    await shoot(page, 'admin-dark');
    await page.setViewportSize(PHONE);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(overflow, 0, 'nothing is wider than a phone');
    await shoot(page, 'admin-dark-phone');
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.emulateMedia({ colorScheme: 'light' });

    // Who is gone is gone from the page.
    await linus.leave();
    await eventually('linus is gone', async () => !/linus/.test(await page.textContent(at('participants'))));
    await page.fill('#search', 'QUIET');
    await eventually('one room is found', async () => (await page.locator(`${at('rooms')} tbody tr`).count()) === 1);
    await page.fill('#search', '');

    // Draining asks first.
    await page.click(at('drain'));
    await shoot(page, 'admin-drain');
    await page.keyboard.press('Escape');
    assert.equal((await (await fetch(`${server.admin}/v1/node`)).json()).state, 'running');
    await page.click(at('drain'));
    await page.fill('#deadline', '1.5');
    await page.click(at('confirm'));
    assert.match(await page.textContent('#ask-problem'), /Whole minutes/);
    await page.fill('#deadline', '10');
    await page.click(at('confirm'));
    await eventually('the server drains', async () => (await page.textContent(at('state'))) === 'draining');
    assert.match(await page.textContent(at('hints')), /Draining: 1 session is left/);
    assert.ok(await page.isDisabled(at('drain')));
    assert.deepEqual(page.complaints, []);

    // With the last call the server ends, and the page says so.
    await ada.leave();
    await page.waitForSelector(at('gone'), { timeout: 15_000 });
    assert.match(await page.textContent(at('gone')), /has not answered since .*; it was draining/);
    await shoot(page, 'admin-gone');
    await page.close();
  });

  test('tells nothing to a page that a name leads to', async () => {
    await world.server.run();
    const page = await world.browser.page();
    // Chromium resolves *.localhost to this machine, as a rebound name would.
    await page.goto(`${world.server.admin.replace('127.0.0.1', 'stube.localhost')}/`);
    await page.waitForSelector(at('gone'));
    assert.match(await page.textContent(at('gone')), /The server refuses: ask by the server's address/);
    await page.close();
  });
});
