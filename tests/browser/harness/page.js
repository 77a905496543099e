// A page that is looked at for itself, not for the call in it.

/**
 * An empty page; whatever it complains of from now on is noted, for a test to fail of.
 * @param {{page: Function}} browser
 * @param {{scheme?: 'light'|'dark', size?: {width: number, height: number}}} [options]
 */
export async function blankPage(browser, { scheme = 'light', size } = {}) {
  const page = await browser.page();
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(error.message));
  page.on('console', (line) => { if (line.type() === 'error') page.complaints.push(line.text()); });
  await page.emulateMedia({ colorScheme: scheme });
  if (size) await page.setViewportSize(size);
  return page;
}
