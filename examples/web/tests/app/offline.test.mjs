// The service worker: the page opens without a network, models are not its business, a new version is told.
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { test, ok, equal, until } from '../support/harness.mjs';
import { open } from '../support/page.mjs';
import { mockSite, serve, web } from '../support/site.mjs';

const controlled = async (page) => {
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.waitForFunction(() => navigator.serviceWorker.controller);
};

test('offline: with the network off the app opens, and answers', async (t) => {
  const site = await serve(await mockSite());
  const { page, ready, ask, answer, errors, context } = await open(t, { site });
  await ready();
  await ask('Kept?');
  await controlled(page);
  site.down = true;
  await context.setOffline(true);
  await page.reload();
  await page.waitForSelector('.suggestions');
  ok(await page.isVisible('#offline'));
  await page.click('#conversations .open');
  await ask('Still there?');
  ok((await answer()).startsWith('Hello'));
  await page.goto(`${site.url}device.html`);
  await page.waitForFunction(() => document.getElementById('status').textContent === 'Done.');
  await page.goto(`${site.url}?source=pwa`);
  await page.waitForSelector('.suggestions');
  const unexpected = errors.filter((e) => !/Failed to load resource|net::ERR/.test(e));
  equal(unexpected, []);
  await context.setOffline(false);
  site.down = false;
  await page.waitForSelector('#offline', { state: 'hidden' });
  await context.close();
});

test('offline: a network that never answers is as good as none', async (t) => {
  const site = await serve(await mockSite());
  const { page, ready, context } = await open(t, { site });
  await ready();
  await controlled(page);
  site.silent = true;
  await page.reload({ timeout: 20_000 });
  await page.waitForSelector('.welcome, .suggestions, [role=progressbar]', { timeout: 20_000 });
  site.silent = false;
  await context.close();
});

test('offline: everything the page needs is in the list, and nothing in it is missing', async (t) => {
  const dir = await mockSite();
  const site = await serve(dir);
  const { page, done } = await open(t, { site });
  await controlled(page);
  const asked = new Set(site.requests.filter((r) => !r.startsWith('/models/') && r !== '/'));
  const listed = new Set([...(await readFile(join(dir, 'site.js'), 'utf8')).matchAll(/^ {2}"([^"]+)",$/gm)].map((m) => `/${m[1]}`));
  for (const path of asked) ok(listed.has(path) || ['/sw.js', '/site.js'].includes(path), `${path} is not kept`);
  for (const path of listed) ok((await fetch(new URL(path, site.url))).ok, `${path} is listed and not there`);
  await done();
});

test('offline: models and ranges pass by', async (t) => {
  const site = await serve(await mockSite());
  const { page, done } = await open(t, { site });
  await controlled(page);
  await page.reload();
  const from = {};
  page.on('response', (r) => { from[new URL(r.url()).pathname + (r.request().headers().range ? ' range' : '')] = r.fromServiceWorker(); });
  await page.evaluate(() => Promise.all([
    fetch('models/index.json'), fetch('css/app.css'), fetch('css/app.css', { headers: { Range: 'bytes=0-3' } }), fetch('elsewhere.txt').catch(() => {}), 
  ]));
  await until(() => '/css/app.css range' in from && '/models/index.json' in from, 'the answers');
  equal([from['/models/index.json'], from['/css/app.css'], from['/css/app.css range'], from['/elsewhere.txt']], [false, true, false, false]);
  const stored = await page.evaluate(async () => (await Promise.all((await caches.keys()).map(async (k) => (await (await caches.open(k)).keys()).map((r) => r.url)))).flat());
  ok(stored.length > 20 && !stored.some((u) => u.includes('/models/')), stored.join(' '));
  await page.context().close();
});

test('offline: a new version replaces the old one and is told', async (t) => {
  const dir = await mockSite();
  const site = await serve(dir);
  const { page, done } = await open(t, { site });
  await controlled(page);
  await appendFile(join(dir, 'css/app.css'), '\n/* changed */\n');
  await writeFile(join(dir, 'site.js'), (await readFile(join(dir, 'site.js'), 'utf8')).replace(/version: "\w+"/, 'version: "another"'));
  await page.reload();
  await page.waitForFunction(() => document.getElementById('notices').textContent.includes('newer version'), null, { timeout: 15_000 });
  await until(async () => (await page.evaluate(() => caches.keys())).join() === 'firelight-shell-another', 'the old version is deleted');
  await page.click('#notices .link');
  await page.waitForFunction(async () => (await (await fetch('css/app.css')).text()).includes('changed'));
  await done();
});

test('offline: it can be installed', async (t) => {
  const { page, site, done } = await open(t);
  const manifest = JSON.parse(await readFile(join(web, 'app/manifest.webmanifest'), 'utf8'));
  const sizes = await page.evaluate((icons) => Promise.all(icons.map((i) => new Promise((resolve) => {
    const img = new Image();
    img.onload = () => resolve(img.naturalWidth);
    img.onerror = () => resolve(null);
    img.src = i.src;
  }))), manifest.icons);
  manifest.icons.forEach((icon, i) => ok(icon.sizes === 'any' || icon.sizes === `${sizes[i]}x${sizes[i]}`, `${icon.src}: ${sizes[i]}`));
  for (const s of ['192x192', '512x512']) ok(manifest.icons.some((i) => i.sizes === s && i.purpose === 'any'), s);
  const session = await page.context().newCDPSession(page);
  const { errors } = await session.send('Page.getAppManifest');
  equal(errors, []);
  const { installabilityErrors } = await session.send('Page.getInstallabilityErrors');
  // A context of its own counts as a private window, which never installs.
  equal(installabilityErrors.filter((e) => e.errorId !== 'in-incognito'), []);
  ok(site.requests.includes('/manifest.webmanifest'));
  await done();
});

test('assemble: a folder that is no site is left alone, models stay', async () => {
  const { mkdtemp, mkdir, readdir, rm } = await import('node:fs/promises');
  const { tmpdir } = await import('node:os');
  const run = (dir) => promisify(execFile)('bash', [join(web, 'assemble.sh'), dir]).then(() => true, () => false);
  const dir = await mkdtemp(join(tmpdir(), 'firelight-assemble-'));
  try {
    await writeFile(join(dir, 'letter.txt'), 'dear');
    equal(await run(dir), false);
    equal(await readdir(dir), ['letter.txt']);
    const site = join(dir, 'site');
    equal(await run(site), true);
    await mkdir(join(site, 'models'));
    await writeFile(join(site, 'models', 'x.gguf'), 'x');
    await writeFile(join(site, 'old.js'), 'x');
    const first = await readFile(join(site, 'site.js'), 'utf8');
    equal(await run(site), true);
    ok(!(await readdir(site)).includes('old.js'));
    equal(await readdir(join(site, 'models')), ['x.gguf']);
    equal(await readFile(join(site, 'site.js'), 'utf8'), first, 'the same files are the same version');
  } finally {
    await rm(dir, { recursive: true });
  }
});
