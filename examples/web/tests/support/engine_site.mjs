// A site with the real engine and no app: a bare page, the API, models from folders, and a server that counts, cuts and lies on demand.
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:http';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll } from './harness.mjs';
import { browser } from './browser.mjs';

const here = dirname(fileURLToPath(import.meta.url));
export const repository = join(here, '..', '..', '..', '..');
const api = join(repository, 'examples', 'web', 'api');
const engine = process.env.FIRELIGHT_ENGINE ?? join(repository, 'target', 'web-engine');
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.wasm': 'application/wasm', '.json': 'application/json' };
const CHUNK = 1 << 20;

/** Skips the test where the engine is not built (`scripts/build_web.sh --quick`); CI must have it. */
export function needEngine(skip) {
  if (['relaxed', 'simd'].some((build) => existsSync(join(engine, build, 'firelight_bg.wasm')))) return;
  const what = 'the engine is not built (scripts/build_web.sh --quick builds it)';
  if (process.env.CI === 'true') throw new Error(what);
  skip(what);
}

/** The native program: FIRELIGHT, else where cargo puts it. Skips the test without it; CI must have it. */
export function program(skip) {
  const path = process.env.FIRELIGHT ?? join(process.env.CARGO_TARGET_DIR ?? join(repository, 'target'), 'debug', 'firelight');
  if (existsSync(path)) return path;
  const what = 'the program is not built (cargo build -p firelight-cli builds it)';
  if (process.env.CI === 'true') throw new Error(what);
  skip(what);
}

/** SmolLM2's file: FIRELIGHT_SMOLLM, else `firelight models path`, as scripts/test.sh fetches it; or undefined. */
export function smollm() {
  if (process.env.FIRELIGHT_SMOLLM) return process.env.FIRELIGHT_SMOLLM;
  const program = process.env.FIRELIGHT ?? join(process.env.CARGO_TARGET_DIR ?? join(repository, 'target'), 'debug', 'firelight');
  try {
    const path = execFileSync(program, ['models', 'path', 'smollm2-135m-instruct'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    return existsSync(path) ? path : undefined;
  } catch {
    return undefined;
  }
}

const sha = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** A model of the list from files on disk: `files` maps names to paths. */
export async function modelOf(name, files, more = {}) {
  const list = [];
  for (const [file, path] of Object.entries(files)) {
    const bytes = await readFile(path);
    list.push({ name: file, url: `${name}/${file}`, size: bytes.length, sha256: sha(bytes), path, ...(more.chunked ? {
      chunkSize: CHUNK, chunks: Array.from({ length: Math.ceil(bytes.length / CHUNK) }, (_, i) => sha(bytes.subarray(i * CHUNK, (i + 1) * CHUNK))),
    } : {}) });
  }
  return { name, task: 'chat', files: list };
}

/** The model of a folder, as one of the list. */
export async function modelFolder(name, folder) {
  const files = {};
  for (const file of ['model.safetensors', 'model.bin', 'vocabulary.txt', 'vocabulary.json', 'config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja', 'modules.json',
    'preprocessor_config.json', 'processor_config.json',
    'sentence_bert_config.json', 'config_sentence_transformers.json', '1_Pooling/config.json']) {
    if (existsSync(join(folder, file))) files[file] = join(folder, file);
  }
  return modelOf(name, files);
}

/** A fixture of the runtime's tests, as a model of the list. */
export async function fixture(name) {
  const folder = join(repository, 'crates', 'runtime', 'tests', 'data', name);
  return { folder, spec: await modelFolder(name, folder) };
}

/** Arrays of a golden.safetensors. */
export async function golden(folder) {
  const bytes = await readFile(join(folder, 'golden.safetensors'));
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
  const ids = (name) => {
    const [start, end] = header[name].data_offsets;
    return Array.from({ length: (end - start) / 8 }, (_, i) => Number(bytes.readBigInt64LE(8 + length + start + 8 * i)));
  };
  const f32 = (name) => {
    const [start, end] = header[name].data_offsets;
    return Array.from({ length: (end - start) / 4 }, (_, i) => bytes.readFloatLE(8 + length + start + 4 * i));
  };
  return { ids, f32, about: JSON.parse(await readFile(join(folder, 'golden.json'))) };
}

/**
 * Serves the site. `log` has `{path, range, sent}` per request for a model's file. Switches: `cutAfter` (bytes of model files, then the
 * line is dead), `noRanges`, `down`, `slow` (milliseconds per 64 KiB), `tamper(bytes, path, start)`,
 * `lacks(path)` (files of the shell that are not there), `open` (no policy), `isolated` (the headers that threads need).
 */
export async function engineSite(models) {
  const site = { models, log: [], requests: [], heads: [], cutAfter: Infinity, sent: 0, noRanges: false, down: false, slow: 0, tamper: null, lacks: null, open: false, isolated: false,
    // For browsers without a driver: `/self` runs `script`, which posts to `/result`, which calls `result`.
    script: '', result: null };
  const answer = async (req, res) => {
    const path = decodeURIComponent(new URL(req.url, 'http://x').pathname);
    site.requests.push(path);
    site.heads.push(`${req.method} ${req.url} ${req.rawHeaders.join(' ')}`);
    if (site.down) return req.socket.destroy();
    const policy = { 'Content-Security-Policy': "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'" };
    const isolation = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };
    const head = { 'Cache-Control': 'no-store', ...(site.open ? {} : policy), ...(site.isolated ? isolation : {}) };
    if (path === '/favicon.ico') return res.writeHead(204, head).end();
    if (req.method === 'POST' && path === '/result') {
      const parts = [];
      for await (const part of req) parts.push(part);
      site.result?.(JSON.parse(Buffer.concat(parts)));
      return res.writeHead(204, head).end();
    }
    if (path === '/script.js') return res.writeHead(200, { ...head, 'Content-Type': 'text/javascript' }).end(site.script);
    if (path === '/self') return res.writeHead(200, { ...head, 'Content-Type': 'text/html' }).end('<!doctype html><title>self</title><script type="module" src="/script.js"></script>');
    if (path === '/') return res.writeHead(200, { ...head, 'Content-Type': 'text/html' }).end('<!doctype html><title>engine</title>');
    if (path === '/models/index.json') {
      const plain = site.models.map((m) => ({ ...m, files: m.files.map(({ path: _, ...file }) => file) }));
      return res.writeHead(200, { ...head, 'Content-Type': 'application/json' }).end(JSON.stringify({ format: 1, models: plain }));
    }
    const shell = path.startsWith('/api/') ? join(api, path.slice(5)) : path.startsWith('/engine/') ? join(engine, path.slice(8)) : null;
    if (shell) {
      if (!existsSync(shell) || site.lacks?.(path)) return res.writeHead(404, head).end();
      return res.writeHead(200, { ...head, 'Content-Type': TYPES[extname(shell)] ?? 'application/octet-stream' }).end(await readFile(shell));
    }
    const file = site.models.flatMap((m) => m.files).find((f) => path === `/models/${f.url}`);
    if (!file) return res.writeHead(404, head).end();
    const size = statSync(file.path).size;
    const asked = /^bytes=(\d+)-(\d+)$/.exec(req.headers.range ?? '');
    const [start, end] = asked && !site.noRanges ? [Number(asked[1]), Number(asked[2]) + 1] : [0, size];
    const entry = { path, range: req.headers.range ?? null, sent: 0 };
    site.log.push(entry);
    const partial = asked && !site.noRanges;
    res.writeHead(partial ? 206 : 200, { ...head, 'Content-Type': 'application/octet-stream', 'Accept-Ranges': site.noRanges ? 'none' : 'bytes',
      'Content-Length': end - start, ...(partial ? { 'Content-Range': `bytes ${start}-${end - 1}/${size}` } : {}) });
    const handle = await open(file.path);
    try {
      for (let at = start; at < end && !res.destroyed; ) {
        if (site.sent >= site.cutAfter || site.down) return req.socket.destroy();
        const step = Math.min(65536, end - at, site.cutAfter - site.sent);
        let bytes = Buffer.alloc(step);
        await handle.read(bytes, 0, step, at);
        if (site.tamper) bytes = site.tamper(bytes, path, at) ?? bytes;
        if (!res.write(bytes) && !res.closed) {
          const gone = new AbortController();
          await Promise.race([once(res, 'drain', { signal: gone.signal }), once(res, 'close', { signal: gone.signal })]).finally(() => gone.abort()).catch(() => {});
        }
        at += step;
        site.sent += step;
        entry.sent += step;
        if (site.slow) await new Promise((go) => setTimeout(go, site.slow));
      }
      res.end();
    } finally {
      await handle.close();
    }
  };
  const server = createServer((req, res) => answer(req, res).catch(() => req.socket.destroy()));
  await new Promise((go) => server.listen(0, '127.0.0.1', go));
  site.url = `http://127.0.0.1:${server.address().port}/`;
  afterAll(() => { server.closeAllConnections(); server.close(); });
  /** Model bytes served since the last call. */
  site.served = () => { const n = site.log.reduce((sum, e) => sum + e.sent, 0); site.log.length = 0; return n; };
  return site;
}

/** A page of the site with `Firelight` in reach; its console goes to ours. `context`: an earlier page's, to visit again. */
export async function visit(site, { skip, webgpu = false, context = null } = {}) {
  const b = await browser({ skip, webgpu });
  const own = context ?? (await b.newContext());
  if (!context) afterAll(() => own.close().catch(() => {}));
  const page = await own.newPage();
  page.on('console', (m) => ['error', 'warning'].includes(m.type()) && process.env.VERBOSE && console.log(`    page: ${m.text()}`));
  await page.goto(site.url);
  await page.evaluate(async () => {
    const { Firelight, FirelightError } = await import('/api/firelight.js');
    Object.assign(window, { Firelight, FirelightError });
    /** Loads and answers; gives everything that was seen. */
    window.ask = async (create, model, messages, options) => {
      const seen = { progress: [], events: [] };
      const firelight = await Firelight.create(create);
      window.firelight = firelight;
      seen.device = await firelight.device();
      seen.info = await firelight.load(model, { onProgress: (p) => seen.progress.push(p) });
      for await (const event of firelight.chat(messages, options)) seen.events.push(event);
      seen.done = seen.events.at(-1);
      seen.memory = await firelight.memory();
      return seen;
    };
    /** Runs `work`, and gives what it threw as an object. */
    window.failure = async (work) => {
      try { await work(); return null; } catch (e) { return { name: e.name, code: e.code, message: e.message, remedy: e.remedy, details: e.details }; }
    };
  });
  return { page, context: own };
}
