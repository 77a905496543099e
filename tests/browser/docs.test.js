// The API's page for people, as a reader finds it. Screenshots stay in tests/artefacts for people to look at.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { eventually } from './harness/eventually.js';
import { blankPage } from './harness/page.js';
import { ARTEFACTS } from './harness/server.js';
import { useWorld } from './harness/world.js';

const PHONE = { width: 390, height: 800 };

describe('the page of the API', () => {
  const world = useWorld('docs');

  const at = (name) => `[data-testid="${name}"]`;
  const shoot = (page, name) => page.screenshot({ path: join(ARTEFACTS, `${name}.png`) });

  /** Opens the page; notes complaints, and requests that go elsewhere. */
  async function visit({ hash = '', document, ...options } = {}) {
    const page = await blankPage(world.browser, options);
    page.on('request', (request) => {
      if (!request.url().startsWith(`${world.server.base}/`)) page.complaints.push(`asked ${request.url()}`);
    });
    if (document) await page.route('**/v1/openapi.json', (route) => route.fulfill(document));
    await page.goto(`${world.server.base}/docs${hash}`);
    return page;
  }

  /** Nothing is wider than the window. */
  const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);

  async function document() {
    const response = await fetch(`${world.server.base}/v1/openapi.json`);
    return response.json();
  }

  test('shows every operation, field and error, and asks nobody else', async () => {
    const api = await document();
    const operations = Object.values(api.paths).flatMap((item) => Object.values(item));
    const page = await visit();
    await page.waitForSelector(at('operation'));
    assert.equal(await page.locator(at('operation')).count(), operations.length);
    await shoot(page, 'docs-light');
    await page.click(at('unfold'));
    const text = await page.textContent('main');
    for (const { operationId, summary, responses } of operations) {
      assert.ok(text.includes(summary), operationId);
      assert.equal(await page.locator(`#contents a[href="#${operationId}"]`).count(), 1, operationId);
      const shown = await page.textContent(`#${operationId}`);
      for (const status of Object.keys(responses)) assert.ok(shown.includes(status), `${operationId}: ${status}`);
    }
    for (const [name, { post }] of Object.entries(api.webhooks)) {
      const shown = await page.textContent(`#event-${name}`);
      assert.ok(shown.includes(post.summary) && shown.includes('application/webhook+json'), name);
    }
    for (const code of Object.keys(api.components.examples)) {
      assert.equal(await page.locator(`#code-${code}`).count(), 1, code);
    }
    for (const { properties = {} } of Object.values(api.components.schemas)) {
      for (const name of Object.keys(properties)) assert.ok(text.includes(name), name);
    }
    assert.doesNotMatch(text, /undefined|\[object/);
    assert.ok(await fits(page));
    assert.deepEqual(page.complaints, []);
    await page.close();
  });

  test('is small enough for a phone, and has a dark side', async () => {
    const page = await visit({ scheme: 'dark', size: PHONE, hash: '#allocateRoom' });
    await eventually('what the address names is open', () => page.locator('#allocateRoom[open]').count());
    assert.ok(await fits(page), 'it does not scroll sideways');
    await shoot(page, 'docs-dark-phone');
    await page.setViewportSize({ width: 1280, height: 800 });
    assert.ok(await fits(page));
    await shoot(page, 'docs-dark');
    assert.deepEqual(page.complaints, []);
    await page.close();
  });

  test('can be read and searched with the keyboard alone', async () => {
    const page = await visit();
    await page.waitForSelector(at('operation'));
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
    await page.keyboard.press('Enter');
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.tagName), 'SUMMARY');
    await page.keyboard.press('Enter');
    assert.equal(await page.locator(`${at('operation')}[open]`).count(), 1);
    await page.focus(at('filter'));
    await page.keyboard.type('idempotency reused');
    await eventually('one is left', async () => (await page.locator(`${at('operation')}:visible`).count()) === 1);
    assert.match(await page.textContent(at('found')), /^1 of \d+ operations$/);
    await page.close();
  });

  test('takes no text for HTML, and says what is wrong', async () => {
    const api = await document();
    api.info.description = '<img src=x onerror=alert(1)> `<b>`';
    api.paths['/v1/rooms'].get.summary = '<script>alert(1)</script>';
    let page = await visit({ document: { json: api } });
    await page.waitForSelector(at('operation'));
    assert.equal(await page.locator('main img, main b, main script').count(), 0);
    assert.match(await page.textContent(at('about')), /<img src=x/);
    assert.deepEqual(page.complaints, []);
    await page.close();
    page = await visit({ document: { status: 503, body: '' } });
    await eventually('the fault is told', async () => /cannot be read: status 503/.test(await page.textContent(at('fault'))));
    await page.close();
  });

  test('is linked from the demo page', async () => {
    const page = await world.browser.page();
    await page.goto(`${world.server.base}/`);
    await page.click(at('docs'));
    await page.waitForSelector(at('operation'));
    await page.close();
  });
});
