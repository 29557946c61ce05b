// A site for tests: the app as it is in the repository, the stand-in engine, and a server that counts.
import { createServer } from 'node:http';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cp, mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll } from './harness.mjs';

const here = dirname(fileURLToPath(import.meta.url));
export const web = join(here, '..', '..');
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json', '.webmanifest': 'application/manifest+json', '.svg': 'image/svg+xml', '.png': 'image/png', '.wasm': 'application/wasm' };

const sha = '0'.repeat(64);
const model = (name, title, size, more = {}) => ({ name, title, task: 'chat', family: 'llama', context: 8192, licence: 'Apache-2.0', licence_url: 'https://example.org/licence', ...more, files: [{ name: 'model.gguf', url: `${name}/model.gguf`, size, sha256: sha }] });
/** A model that hears, for tests whose site has one. */
export const HEARING = model('whisper-tiny.en', 'Whisper tiny (English)', 77_668_287, { task: 'transcribe', family: 'whisper', context: 448, licence: 'MIT', notes: 'Fast: for commands and dictation.' });
export const MODELS = [
  model('smollm2-135m', 'SmolLM2 135M', 98_362_432, { notes: 'Small and quick, English. Good for trying things out, not for facts.' }),
  model('storyteller-270m', 'Storyteller 270M', 253_113_024, { task: 'text', context: 32768, licence: 'Gemma Terms of Use' }),
  model('oak-7b', 'Oak 7B', 4_812_000_000, { context: 131072, notes: 'Knows more, and needs a large GPU.' }),
];

/** Assembles a site into a folder of its own: with the stand-in engine, or with a real one from its folder. */
export async function mockSite(engine = null) {
  const dir = await mkdtemp(join(tmpdir(), 'firelight-site-'));
  afterAll(() => rm(dir, { recursive: true, force: true }));
  // The API's folder is replaced before the list of files is made.
  const source = await mkdtemp(join(tmpdir(), 'firelight-web-'));
  await cp(join(web, 'app'), join(source, 'app'), { recursive: true });
  await cp(engine ? join(web, 'api') : join(here, 'mock'), join(source, 'api'), { recursive: true });
  await cp(join(web, 'assemble.sh'), join(source, 'assemble.sh'));
  await promisify(execFile)('bash', [join(source, 'assemble.sh'), dir, ...(engine ? [engine] : [])]);
  await rm(source, { recursive: true, force: true });
  return dir;
}

/** A model's folder as a site's list has it, and where its files are: `{ spec, files }`. */
export async function folderModel(name, folder, more = {}) {
  const files = {};
  const list = [];
  for (const file of (await readdir(folder)).filter((f) => /^(?!golden).*\.(json|safetensors|jinja|gguf|bin)$/.test(f))) {
    const bytes = await readFile(join(folder, file));
    files[`/models/${name}/${file}`] = join(folder, file);
    list.push({ name: file, url: `${name}/${file}`, size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') });
  }
  return { spec: { name, task: 'chat', ...more, files: list }, files };
}

/**
 * Serves a folder. `{ url, requests, models, files, headers, close() }`; `requests` are paths in order, `models` may be replaced,
 * `files` are more files by their path; `down`: it hangs up, `silent`: it never answers.
 */
export async function serve(dir, { headers = {} } = {}) {
  const self = { requests: [], models: MODELS, files: {}, headers, down: false, silent: false };
  const server = createServer(async (req, res) => {
    const path = decodeURIComponent(new URL(req.url, 'http://x').pathname);
    self.requests.push(path);
    if (self.down) { req.socket.destroy(); return; }
    if (self.silent) return;
    const name = path.endsWith('/') ? `${path}index.html` : path;
    const all = { 'Cache-Control': 'no-cache', ...self.headers };
    if (name === '/models/index.json') { res.writeHead(200, { ...all, 'Content-Type': 'application/json' }).end(JSON.stringify({ format: 1, models: self.models })); return; }
    try {
      const body = await readFile(self.files[path] ?? join(dir, name));
      const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(req.headers.range ?? '') ?? [];
      if (from !== undefined) {
        const part = body.subarray(Number(from), to ? Number(to) + 1 : body.length);
        res.writeHead(206, { ...all, 'Content-Type': 'application/octet-stream', 'Content-Range': `bytes ${from}-${Number(from) + part.length - 1}/${body.length}` }).end(part);
        return;
      }
      res.writeHead(200, { ...all, 'Content-Type': TYPES[extname(name)] ?? 'application/octet-stream' }).end(body);
    } catch {
      res.writeHead(404, all).end('nothing here');
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  self.url = `http://127.0.0.1:${server.address().port}/`;
  self.close = () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); });
  afterAll(() => self.close());
  return self;
}

let shared = null;
/** The site of the tests, made once. */
export const sharedSite = () => (shared ??= mockSite().then((dir) => serve(dir)));
