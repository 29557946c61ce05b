// Keeps the shell: the page opens with the network off. Pages come from the network first and from what was kept if it is gone;
// everything else of a version from what was kept. Models are not its business: the engine keeps those, and their requests, ranges
// above all, pass by untouched.
//
// What it serves it hardens: on a host that sends no headers, pages and workers get the strict policy from here.
importScripts('./site.js');

const { version, files, hosts = [] } = self.FIRELIGHT_SITE;
const SHELL = `firelight-shell-${version}`;
const base = new URL('./', self.location.href);
const kept = new Set(files.map((f) => new URL(f, base).href));

const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
  + "media-src 'self' blob:; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
  + ["connect-src 'self'", ...hosts].join(' ');
const HARDENED = {
  'Content-Security-Policy': POLICY,
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
};

/** Of the builds of the engine only what is used is kept: the page says which (`keep`), a new version takes the same. */
const ENGINE = 'engine/';
const buildOf = (file) => file.slice(0, file.lastIndexOf('/') + 1);

self.addEventListener('install', (event) => {
  event.waitUntil((async () => {
    const used = new Set();
    for (const name of await caches.keys()) {
      if (!name.startsWith('firelight-shell-')) continue;
      for (const { url } of await (await caches.open(name)).keys()) used.add(buildOf(url.slice(base.href.length)));
    }
    const wanted = files.filter((f) => !f.startsWith(ENGINE) || used.has(buildOf(f)));
    await keep(wanted);
    await self.skipWaiting();
  })());
});

async function keep(wanted) {
  const cache = await caches.open(SHELL);
  // `reload`: what the browser's own cache holds may be of the version before.
  await cache.addAll(wanted.map((f) => new Request(new URL(f, base), { cache: 'reload' })));
}

self.addEventListener('message', (event) => {
  const build = event.data?.keep;
  if (typeof build !== 'string' || !build.startsWith(ENGINE)) return;
  event.waitUntil((async () => {
    const cache = await caches.open(SHELL);
    const wanted = [];
    for (const f of files) if (buildOf(f) === build && !(await cache.match(new URL(f, base)))) wanted.push(f);
    // Offline, or in the middle of an update: the next visit says it again.
    await keep(wanted).catch(() => {});
  })());
});

self.addEventListener('activate', (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) if (name.startsWith('firelight-shell-') && name !== SHELL) await caches.delete(name);
    await self.clients.claim();
  })());
});

/** The answer with the headers of the list that it does not have. */
function hardened(response) {
  if (response.type === 'opaqueredirect' || response.status === 0) return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HARDENED)) if (!headers.has(name)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

const fromShell = async (address) => (await caches.open(SHELL)).match(address);

/** Milliseconds that a page waits for a network that is there and does not answer. */
const PATIENCE = 4000;

async function page(request, address) {
  const network = fetch(request);
  const late = new Promise((resolve) => { setTimeout(resolve, PATIENCE, null); });
  // A server that is silent or in trouble is as good as none.
  const response = await Promise.race([network, late]).catch(() => null);
  if (response?.ok || response?.redirected) return hardened(response);
  const copy = await fromShell(address);
  return copy ? hardened(copy) : network;
}

self.addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || url.origin !== base.origin || !url.pathname.startsWith(base.pathname)) return;
  if (request.headers.has('range') || url.pathname.startsWith(`${base.pathname}models/`)) return;
  const address = new URL(url.pathname.endsWith('/') ? `${url.pathname}index.html` : url.pathname, base).href;
  if (!kept.has(address)) return;
  if (request.mode === 'navigate') event.respondWith(page(request, address));
  else event.respondWith(fromShell(address).then(async (copy) => hardened(copy ?? await fetch(request))));
});
