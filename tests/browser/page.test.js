// The demo page, by clicking. Screenshots stay in tests/artefacts for people to look at.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { eventually } from './harness/eventually.js';
import { blankPage } from './harness/page.js';
import { Peer } from './harness/peer.js';
import { ARTEFACTS } from './harness/server.js';
import { useWorld } from './harness/world.js';

const PHONE = { width: 390, height: 800 };

describe('the demo page', () => {
  const world = useWorld('page');

  const at = (name) => `[data-testid="${name}"]`;
  const shoot = async (page, name) => {
    await page.bringToFront();
    // Transitions end first.
    await page.waitForTimeout(300);
    await page.screenshot({ path: join(ARTEFACTS, `${name}.png`) });
  };

  /** Opens the lobby; whatever the page complains of is a failure of the test. */
  async function visit(room, name, options) {
    const page = await blankPage(world.browser, options);
    await page.goto(`${world.server.base}/?room=${room}&name=${encodeURIComponent(name)}`);
    return page;
  }

  const enter = async (page) => {
    await page.click(at('join'));
    await page.waitForSelector(at('tile'));
  };
  const tile = (page, name) => page.locator(`${at('tile')}:has-text("${name}")`);
  const hasPicture = (page, name) => eventually(`${name}'s picture is shown`, async () => (
    (await tile(page, name).getAttribute('data-video')) === 'on'
  ));
  const hasNone = (page, name) => eventually(`${name}'s picture is gone`, async () => (
    (await tile(page, name).getAttribute('data-video')) === 'off'
  ));

  test('a whole call by clicking', async () => {
    const room = `page-${Date.now()}`;
    const ada = await visit(room, 'Ada Lovelace');
    await shoot(ada, 'lobby-light');
    await ada.click(at('preview'));
    await ada.waitForSelector('#preview[data-video="on"]');
    await enter(ada);
    assert.equal(await ada.textContent(at('room-name')), room);
    const grace = await visit(room, 'Grace Hopper', { scheme: 'dark', size: PHONE });
    await shoot(grace, 'lobby-dark-phone');
    await enter(grace);

    // Tiles.
    await hasPicture(ada, 'Ada Lovelace');
    await hasPicture(ada, 'Grace Hopper');
    await hasPicture(grace, 'Ada Lovelace');
    assert.equal(await ada.locator(at('tile')).count(), 2);
    assert.match(await ada.textContent(at('headcount')), /2 people/);

    // Microphone.
    await ada.click(at('microphone'));
    assert.equal(await ada.getAttribute(at('microphone'), 'aria-pressed'), 'false');
    await eventually('grace sees ada muted', async () => (await tile(grace, 'Ada').getAttribute('data-muted')) === 'true');
    await ada.keyboard.press('m');
    await eventually('and unmuted', async () => (await tile(grace, 'Ada').getAttribute('data-muted')) === 'false');

    // Camera.
    await ada.click(at('camera'));
    await hasNone(grace, 'Ada Lovelace');
    await ada.click(at('camera'));
    await hasPicture(grace, 'Ada Lovelace');

    // Screen.
    await ada.click(at('screen'));
    await grace.waitForSelector(`${at('screen-tile')}[data-video="on"]`);
    await shoot(grace, 'screen-dark-phone');
    await ada.click(at('screen'));
    await grace.waitForSelector(at('screen-tile'), { state: 'detached' });

    // Chat.
    await ada.click(at('chat'));
    await ada.fill(at('chat-text'), 'Is the coffee ready?');
    await ada.press(at('chat-text'), 'Enter');
    await eventually('grace has one unread', async () => (await grace.textContent(at('unread'))) === '1');
    await grace.click(at('chat'));
    assert.match(await grace.textContent(at('chat-messages')), /Ada Lovelace.*Is the coffee ready\?/s);
    await grace.fill(at('chat-text'), 'Nearly!');
    await grace.click(at('chat-send'));
    await eventually('ada has the answer', async () => /Nearly!/.test(await ada.textContent(at('chat-messages'))));
    await shoot(grace, 'chat-dark-phone');
    await grace.keyboard.press('Escape');
    await shoot(ada, 'call-light');
    await ada.emulateMedia({ colorScheme: 'dark' });
    await shoot(ada, 'call-dark');
    await shoot(grace, 'call-dark-phone');

    // Statistics.
    await ada.click(at('statistics'));
    await eventually('statistics show a picture received', async () => /\d+×\d+, \d+ fps/.test(await ada.textContent(at('received'))));
    assert.match(await ada.textContent(at('totals')), /Round trip\d+ ms/);
    await shoot(ada, 'statistics-dark');

    // Leaving.
    await grace.click(at('leave'));
    await grace.waitForSelector(at('lobby'));
    await eventually('ada is alone', async () => (await ada.locator(at('tile')).count()) === 1, 2_000);
    await ada.click(at('leave'));
    await ada.waitForSelector(at('lobby'));
    assert.deepEqual([...ada.complaints, ...grace.complaints], []);
    await Promise.all([ada.close(), grace.close()]);
  });

  test('shows who speaks', async () => {
    const room = `speak-${Date.now()}`;
    const page = await visit(room, 'Listener');
    await page.click(at('lobby-microphone'));
    await enter(page);
    const speaker = await Peer.join(world, room, 'speaker', { devices: ['microphone'], talks: true });
    await eventually('the speaker is marked', async () => (
      (await tile(page, 'speaker').getAttribute('data-speaking')) === 'true'
    ));
    await Promise.all([speaker.leave(), page.close()]);
  });

  test('joins without any device', async () => {
    const page = await visit(`bare-${Date.now()}`, 'Bare');
    await page.evaluate(() => {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('none', 'NotFoundError'));
    });
    await enter(page);
    assert.match(await page.textContent(at('notices')), /microphone was not found.*camera was not found/s);
    await page.close();
  });

  test('says plainly what is wrong', async () => {
    const page = await visit('nowhere', 'Ada');
    await page.route('**/demo/token', (route) => route.fulfill({ status: 404, json: { title: 'Not Found' } }));
    await page.click(at('join'));
    await eventually('no demo', async () => /no demo room/.test(await page.textContent(at('lobby-error'))));
    await page.route('**/demo/token', (route) => route.abort());
    await page.click(at('join'));
    await eventually('no server', async () => /cannot be reached/.test(await page.textContent(at('lobby-error'))));
    await page.close();
  });
});
