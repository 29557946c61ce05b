// The download's parts without a browser: progress, ranges, retries.
import { createHash } from 'node:crypto';
import { equal, ok, test } from '../support/harness.mjs';

const api = (name) => import(new URL(`../../api/${name}.js`, import.meta.url).href);

class Hasher {
  constructor() { this.hash = createHash('sha256'); }
  update(bytes) { this.hash.update(bytes); }
  hex() { return this.hash.digest('hex'); }
  free() {}
}
const sha = (bytes) => createHash('sha256').update(bytes).digest('hex');

test('parts: progress never goes back, its speed is smooth, its events are rare', async () => {
  const { Meter } = await api('progress');
  let now = 0;
  const seen = [];
  const meter = new Meter(100e6, 20e6, (p) => seen.push({ ...p, now }), () => now);
  meter.enter('processor');
  meter.enter('weights');
  // Ten megabytes a second, in bursts; a chunk is lost in between.
  for (let i = 0; i < 800; i++) {
    now += 10;
    meter.network(1e5);
    if (i === 300) meter.lost(5e6);
    if (i % 50 === 0) meter.device(i * 1e5, 100e6);
  }
  meter.device(100e6, 100e6);
  meter.enter('compiling');
  meter.end();
  ok(seen.every((p, i) => i === 0 || (p.fraction >= seen[i - 1].fraction && p.loaded >= seen[i - 1].loaded)), 'it goes forward');
  ok(seen[0].loaded === 20e6, 'it begins with what is stored');
  equal(seen.at(-1).fraction, 1);
  equal([...new Set(seen.map((p) => p.phase))], ['processor', 'weights', 'compiling']);
  const running = seen.filter((p) => p.now > 2000 && p.now < 7000);
  ok(running.every((p) => Math.abs(p.bytesPerSecond - 10e6) < 2e6), 'speed');
  const middle = running.find((p) => p.now >= 5000);
  ok(Math.abs(middle.etaSeconds - (100e6 - middle.loaded) / 10e6) < 1.5, `eta ${middle.etaSeconds}`);
  ok(seen.length < 100, `${seen.length} events in 8 s`);
  const cached = [];
  const stored = new Meter(10, 10, (p) => cached.push(p), () => now);
  stored.enter('weights');
  now += 1000;
  stored.device(5, 10);
  stored.end();
  ok(cached.every((p) => p.fromCache && p.etaSeconds === null && p.bytesPerSecond === 0), 'nothing is downloaded');
});

/** A file of `bytes` in memory, and a fetch that serves it with the faults of `fault(n, start)`. */
async function served(bytes, chunkSize, fault = () => null) {
  const { Store } = await api('store');
  const store = await Store.open();
  const source = { name: 'f.gguf', url: 'http://x/f.gguf', size: bytes.length, sha256: sha(bytes), chunkSize };
  const [file] = await store.files({ name: 'm', files: [source] });
  const log = [];
  globalThis.fetch = async (url, { headers, signal }) => {
    const [, a, b] = /bytes=(\d+)-(\d+)/.exec(headers.Range ?? '') ?? [null, 0, bytes.length - 1];
    const [start, end] = [Number(a), Number(b) + 1];
    const bad = fault(log.length, start);
    log.push([start, end]);
    if (bad === 'refuse') throw new TypeError('Failed to fetch');
    if (typeof bad === 'number') return new Response(null, { status: bad });
    const whole = !headers.Range || bad === 'whole';
    const body = whole ? bytes : bytes.subarray(start, bad === 'short' ? start + Math.floor((end - start) / 2) : end);
    const shift = bad === 'shifted' ? 7 : 0;
    const stream = new ReadableStream({
      start(controller) {
        for (let at = 0; at < body.length; at += 1000) controller.enqueue(new Uint8Array(body.subarray(at, at + 1000)));
        signal.addEventListener('abort', () => { try { controller.error(new DOMException('', 'AbortError')); } catch { /* closed */ } });
        if (bad === 'break') controller.error(new TypeError('network error'));
        else controller.close();
      },
    });
    return new Response(stream, { status: whole ? 200 : 206, headers: whole ? {} : { 'content-range': `bytes ${start + shift}-${end - 1}/${bytes.length}` } });
  };
  return { file, source, log };
}

const pattern = (n) => Uint8Array.from({ length: n }, (_, i) => (i * 7 + (i >> 8)) & 255);
const content = (file) => {
  const all = new Uint8Array(file.size);
  file.readInto(0, all);
  return sha(all);
};

for (const [what, fault] of [
  ['in ranges', () => null],
  ['from a server without ranges', () => 'whole'],
  ['over a line that ends early', (n) => (n % 2 === 0 ? 'short' : null)],
  ['over a line that refuses and stumbles', (n) => (n < 2 ? 'refuse' : n < 4 ? 503 : null)],
]) {
  test(`parts: a file comes ${what}`, async () => {
    const { Download, hashWhole } = await api('download');
    // An odd size; chunks smaller than a request.
    const bytes = pattern(1_234_567);
    const { file, source } = await served(bytes, 100_000, fault);
    ok(file.read(0, new Uint8Array(10)) === false, 'nothing is there yet');
    const middle = file.arrived(500_000, 600_001);
    const hash = hashWhole(file, Hasher, null, async () => {});
    await new Download(source.url, file, { Hasher }).run();
    await middle;
    equal(await hash, source.sha256, 'the hash that ran beside it');
    equal(content(file), source.sha256, 'content');
    equal([file.complete, file.stored], [true, bytes.length]);
  }, { seconds: 30 });
}

test('parts: only what is missing is asked for, damage is found, faults are told', async () => {
  const { Download, findDamage } = await api('download');
  const bytes = pattern(1_000_000);
  const { file, source, log } = await served(bytes, 100_000);
  for (const i of [0, 1, 5]) await file.put(i, bytes.slice(i * 100_000, (i + 1) * 100_000), sha(bytes.slice(i * 100_000, (i + 1) * 100_000)));
  await new Download(source.url, file, { Hasher }).run();
  equal(log, [[200_000, 500_000], [600_000, 1_000_000]], 'requests');
  file.chunks[3][77] ^= 1;
  equal(await findDamage(file, Hasher), 100_000, 'bytes dropped');
  equal(file.hashes.map((h, i) => (h === null ? i : -1)).filter((i) => i >= 0), [3]);
  await new Download(source.url, file, { Hasher }).run();
  equal(content(file), source.sha256, 'mended');

  const fail = async (fault, options = {}) => {
    const { file, source } = await served(bytes, 100_000, fault);
    const first = bytes.slice(0, 100_000);
    await file.put(0, first, sha(first));
    return new Download(source.url, file, { Hasher, ...options }).run().then(() => null, (e) => ({ code: e.code, stored: file.stored, remedy: e.remedy }));
  };
  equal((await fail(() => 404)).code, 'not_found');
  equal((await fail(() => 403)).code, 'network');
  equal((await fail(() => 'shifted')).code, 'network', 'another range than asked for');
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 5);
  const cancelled = await fail((n) => (n > 0 ? 'refuse' : 'break'), { signal: stop.signal });
  equal(cancelled.code, 'cancelled');
}, { seconds: 60 });
