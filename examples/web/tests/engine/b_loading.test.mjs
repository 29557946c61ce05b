// A model's way from the server to the browser's storage: resumed, verified, healed, refused in time, and never fetched twice.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, equal, ok, test } from '../support/harness.mjs';
import { engineSite, fixture, golden, modelOf, needEngine, visit } from '../support/engine_site.mjs';

const CHUNK = 1 << 20;
const PADDING = 24 << 20;

/** The llama fixture in a file of 24 chunks: it has a tensor that no model asks for. */
async function wide({ chunked = false } = {}) {
  const { folder, spec } = await fixture('llama');
  const dir = await mkdtemp(join(tmpdir(), 'firelight-model-'));
  afterAll(() => rm(dir, { recursive: true, force: true }));
  const bytes = await readFile(join(folder, 'model.safetensors'));
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
  const data = bytes.subarray(8 + length);
  header.padding = { dtype: 'F32', shape: [PADDING / 4], data_offsets: [data.length, data.length + PADDING] };
  let text = JSON.stringify(header);
  text = text.padEnd(Math.ceil(text.length / 8) * 8);
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(text.length));
  const padding = Buffer.alloc(PADDING);
  for (let i = 0; i < PADDING; i += 4) padding.writeFloatLE((i * 2654435761) % 97, i);
  const path = join(dir, 'model.safetensors');
  await writeFile(path, Buffer.concat([head, Buffer.from(text), data, padding]));
  const files = Object.fromEntries(spec.files.map((f) => [f.name, f.path]));
  const model = await modelOf('wide', { ...files, 'model.safetensors': path }, { chunked });
  const { ids, about } = await golden(folder);
  return { model, expected: ids('chat.greedy_ids'), messages: about.cases.chat.messages, size: model.files.reduce((n, f) => n + f.size, 0) };
}

/** Loads and answers in a page. */
const answer = (page, messages, load = {}) => page.evaluate(async ([messages, load]) => {
  const f = (window.firelight = await Firelight.create({ device: 'cpu', engine: { exact: true } }));
  const progress = [];
  const info = await f.load('wide', { ...load, onProgress: (p) => progress.push(p) });
  let done;
  for await (const e of f.chat(messages, { greedy: true, maxTokens: 16, ignoreEos: true })) done = e;
  return { info, ids: done.ids, progress, cached: await f.cached() };
}, [messages, load]);

test('loading: a download cut at 60 % goes on after a reload and fetches only the rest', async ({ skip }) => {
  needEngine(skip);
  const { model, expected, messages, size } = await wide();
  const site = await engineSite([model]);
  site.slow = 5;
  const first = await visit(site, { skip });
  site.cutAfter = Math.floor(size * 0.6);
  const cut = first.page.evaluate(() => Firelight.create({ device: 'cpu' }).then((f) => failure(() => f.load('wide'))));
  const error = await cut;
  equal(error.code, 'network');
  ok(error.remedy.includes('kept'), 'the remedy says that nothing is lost');
  await first.page.close();
  const before = site.served();
  ok(before >= size * 0.55, `${before} of ${size} bytes came before the cut`);
  site.cutAfter = Infinity;
  site.slow = 0;
  const { page } = await visit(site, { skip, context: first.context });
  const seen = await answer(page, messages);
  const rest = site.served();
  equal(seen.ids, expected, 'greedy ids');
  // Four requests were under way: each may have lost the chunk it was in.
  ok(rest <= size - before + 5 * CHUNK, `${rest} bytes were fetched, ${size - before} were missing`);
  ok(seen.progress[0].fraction > 0 && seen.progress.every((p) => !p.fromCache || p.bytesPerSecond === 0), 'progress begins where it was');
  const [stored] = seen.cached;
  equal([stored.name, stored.complete, stored.current, stored.bytes], ['wide', true, true, size], 'what is stored');
}, { seconds: 150 });

test('loading: the second visit asks for nothing, and works with the server gone', async ({ skip }) => {
  needEngine(skip);
  const { model, expected, messages } = await wide();
  const site = await engineSite([model]);
  const first = await visit(site, { skip });
  equal((await answer(first.page, messages)).ids, expected);
  await first.page.evaluate(() => firelight.dispose());
  await first.page.close();
  const { page } = await visit(site, { skip, context: first.context });
  site.requests.length = 0;
  site.served();
  const seen = await answer(page, messages);
  equal(seen.ids, expected, 'greedy ids');
  equal(seen.info.fromCache, true, 'from the cache');
  equal(site.served(), 0, 'bytes served');
  equal(site.requests.filter((p) => p.startsWith('/models/') && p !== '/models/index.json'), [], 'model requests');
  ok(seen.progress.every((p) => p.fromCache), 'progress says so');
});

test('loading: a flipped byte in the storage is found, and only its chunk is fetched again', async ({ skip }) => {
  needEngine(skip);
  const { model, expected, messages } = await wide();
  const site = await engineSite([model]);
  const { page } = await visit(site, { skip });
  equal((await answer(page, messages)).ids, expected);
  await page.evaluate(() => firelight.dispose());
  site.served();
  await page.evaluate(async () => {
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle('firelight-models');
    const dir = await root.getDirectoryHandle('wide');
    for await (const [name, handle] of dir.entries()) {
      if (!name.startsWith('model.safetensors') || !name.endsWith('.bin')) continue;
      const at = 5 * (1 << 20) + 123;
      const byte = new Uint8Array(await (await handle.getFile()).slice(at, at + 1).arrayBuffer())[0];
      const writer = await handle.createWritable({ keepExistingData: true });
      await writer.write({ type: 'write', position: at, data: new Uint8Array([byte ^ 4]) });
      await writer.close();
    }
  });
  const seen = await answer(page, messages);
  equal(seen.ids, expected, 'greedy ids');
  equal(site.served(), CHUNK, 'bytes fetched again');
});

test('loading: too little room is told before a byte is fetched', async ({ skip }) => {
  needEngine(skip);
  const { model, messages, expected } = await wide();
  const site = await engineSite([model]);
  const { page, context } = await visit(site, { skip });
  const devtools = await context.newCDPSession(page);
  await devtools.send('Storage.overrideQuotaForOrigin', { origin: site.url.slice(0, -1), quotaSize: 8 << 20 });
  const seen = await page.evaluate(async () => {
    const f = await Firelight.create({ device: 'cpu' });
    return { error: await failure(() => f.load('wide')), before: await f.preflight('wide') };
  });
  equal(seen.error.code, 'quota');
  ok(seen.error.details, `figures: ${JSON.stringify(seen)}`);
  ok(seen.error.details.needed > PADDING && seen.error.details.available <= 8 << 20, 'figures');
  ok(seen.error.remedy, 'a remedy');
  equal(site.served(), 0, 'bytes served');
  equal(seen.before.ok, false, 'preflight');
  equal(seen.before.problems[0].code, 'quota', 'preflight says why');
  await devtools.send('Storage.overrideQuotaForOrigin', { origin: site.url.slice(0, -1) });
  equal((await answer(page, messages)).ids, expected, 'with room it works');
});

test('loading: another file than promised is refused; chunks with known hashes are mended on the way', async ({ skip }) => {
  needEngine(skip);
  const { model, messages, expected, size } = await wide();
  const site = await engineSite([model]);
  const flip = (bytes, path, at) => {
    if (path.endsWith('model.safetensors') && at <= 7 * CHUNK && at + bytes.length > 7 * CHUNK) bytes[7 * CHUNK - at] ^= 1;
    return bytes;
  };
  site.tamper = flip;
  const { page } = await visit(site, { skip });
  const error = await page.evaluate(() => Firelight.create({ device: 'cpu' }).then((f) => failure(() => f.load('wide'))));
  equal(error.code, 'checksum');
  ok(site.served() > 1.9 * size, 'it was fetched twice');
  site.tamper = null;
  equal((await answer(page, messages)).ids, expected, 'the true file is taken');
  const known = await wide({ chunked: true });
  const second = await engineSite([known.model]);
  let flips = 1;
  second.tamper = (bytes, path, at) => (flips > 0 && path.endsWith('model.safetensors') && at <= 7 * CHUNK && at + bytes.length > 7 * CHUNK ? (flips--, flip(bytes, path, at)) : bytes);
  const other = await visit(second, { skip });
  equal((await answer(other.page, messages)).ids, expected, 'greedy ids');
  ok(second.served() < 1.6 * size, 'only a part was fetched again');
});

test('loading: a server without ranges, a missing file, a cancelled load, an old version', async ({ skip }) => {
  needEngine(skip);
  const { model, messages, expected, size } = await wide();
  const site = await engineSite([model]);
  site.noRanges = true;
  const { page } = await visit(site, { skip });
  equal((await answer(page, messages)).ids, expected, 'without ranges');
  site.noRanges = false;
  site.served();
  const seen = await page.evaluate(async () => {
    const f = window.firelight;
    const models = await f.models();
    const spec = models.find((m) => m.name === 'wide');
    const gone = { ...spec, name: 'gone', files: spec.files.map((file) => ({ ...file, url: `${file.url}.gone` })) };
    const missing = await failure(() => f.load(gone));
    await f.remove('wide');
    const stop = new AbortController();
    const cancelled = await failure(() => f.load('wide', { signal: stop.signal, onProgress: (p) => p.loaded > 3e6 && stop.abort() }));
    const partial = (await f.cached()).find((m) => m.name === 'wide');
    const bad = await failure(() => f.load({ name: 'x', files: [{ url: 'a.gguf', size: 3, sha256: 'zz' }] }));
    return { missing, cancelled, partial, bad };
  });
  equal(seen.missing.code, 'not_found');
  equal(seen.cancelled.code, 'cancelled');
  ok(seen.partial.bytes > 0 && seen.partial.bytes < size && !seen.partial.complete, 'what came is kept');
  equal(seen.bad.code, 'invalid_input');
  // A new version under the same name: the old files are listed as such, then deleted.
  const next = structuredClone(model);
  const { spec } = await fixture('llama2');
  next.files = spec.files.map((f) => ({ ...f, url: `wide/${f.name}` }));
  site.models = [next];
  const after = await page.evaluate(async () => {
    await firelight.dispose();
    const f = await Firelight.create({ device: 'cpu' });
    await f.models();
    const listed = (await f.cached()).find((m) => m.name === 'wide');
    await f.load('wide');
    const names = [];
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle('firelight-models');
    for await (const name of (await root.getDirectoryHandle('wide')).keys()) names.push(name);
    return { listed, names };
  });
  equal(after.listed.current, false, 'the old version is known as one');
  equal(after.names.filter((n) => n.startsWith('model.safetensors') && n.endsWith('.bin')).length, 1, 'one version is left');
}, { seconds: 150 });

test('loading: two pages use one stored model, and a change of model frees the first', async ({ skip }) => {
  needEngine(skip);
  const { model, messages, expected } = await wide();
  const other = (await fixture('llama2')).spec;
  const site = await engineSite([model, other]);
  const first = await visit(site, { skip });
  equal((await answer(first.page, messages)).ids, expected);
  const second = await visit(site, { skip, context: first.context });
  site.served();
  equal((await answer(second.page, messages)).ids, expected, 'in the second page');
  equal(site.served(), 0, 'bytes served');
  const memory = await first.page.evaluate(async () => {
    const f = window.firelight;
    const before = await f.memory();
    await f.load('llama2');
    const after = await f.memory();
    await f.unload();
    return { before, after, end: await f.memory() };
  });
  ok(memory.after.devicePeak < memory.before.devicePeak + memory.after.deviceTotal, 'both were there at once');
  equal(memory.end.deviceTotal, 0, 'bytes after unload');
  equal(memory.end.model, null);
});
