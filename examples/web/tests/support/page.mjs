// A page of the site with the stand-in engine, as a test wants it.
import { browser } from './browser.mjs';
import { sharedSite } from './site.mjs';
import { ok } from './harness.mjs';

/**
 * Opens the app. `mock`: how the engine behaves. Gives the page; errors on it fail the test at `done()`.
 * `site`: another server; `context`: options of the browser context; `camera`, `microphone`: see browser.mjs.
 */
export async function open(t, { mock = {}, site, context = {}, path = '', stored = [], webgpu = false, camera = null, microphone = null } = {}) {
  const b = await browser({ ...t, webgpu, camera, microphone });
  site ??= await sharedSite();
  const c = await b.newContext({ viewport: { width: 1100, height: 800 }, ...context });
  const page = await c.newPage();
  const errors = [];
  const outside = [];
  page.on('pageerror', (e) => errors.push(e.stack ?? String(e)));
  page.on('console', (m) => { if (m.type() === 'error') errors.push(m.text()); });
  page.on('request', (r) => { if (!r.url().startsWith(site.url) && !/^(blob|data):/.test(r.url())) outside.push(r.url()); });
  await page.addInitScript(([m, s]) => {
    globalThis.mock = m;
    if (s.length && !sessionStorage.getItem('mock-stored')) sessionStorage.setItem('mock-stored', JSON.stringify(s));
  }, [mock, stored]);
  await page.goto(site.url + path);
  const self = {
    page, site, errors, context: c,
    /** What the stand-in was asked. */
    calls: (name) => page.evaluate((n) => globalThis.mockCalls.filter((x) => x[0] === n).map((x) => x[1]), name),
    /** Downloads the suggested model. */
    ready: async (timeout = 30_000) => { await page.click('.welcome .card .primary'); await page.waitForSelector('.suggestions', { timeout }); },
    /** Asks and waits for the whole answer. */
    ask: async (text, timeout = 15_000) => {
      const before = await page.locator('.message .stats').count();
      await page.fill('#prompt', text);
      await page.keyboard.press('Enter');
      await page.waitForFunction((n) => document.querySelectorAll('.message .stats').length > n, before, { timeout });
    },
    /** Text of the last answer. */
    answer: () => page.locator('.message.answer .md').last().innerText(),
    done: async () => {
      ok(errors.length === 0, `errors on the page:\n${errors.join('\n')}`);
      ok(outside.length === 0, `requests that left the site: ${outside.join(' ')}`);
      await c.close();
    },
  };
  return self;
}
