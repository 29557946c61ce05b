// The worker: the engine, the storage and the downloads. Speaks with firelight.js in messages `{id, op, args}` and answers with
// `{id, result}` or `{id, error}`, events `{id, event}` before.
//
// One operation computes at a time; what came later waits. A load, unload or dispose first stops everything that came before it, so
// they can come in any order: what is stopped ends as `cancelled` and frees what it holds.

import { FirelightError, cancelled } from './errors.js';
import { binaries } from './features.js';
import { chooseDevice, describe, failNextAllocation, loseDevices, planThreads } from './device.js';
import { Store } from './store.js';
import { Download, findDamage, hashWhole } from './download.js';
import { Meter } from './progress.js';

/** Files that hold tensors; everything else is read whole before. */
const WEIGHTS = /(\.(gguf|safetensors)|^model\.bin)$/;
/** Side files worth reading. */
const SIDE_LIMIT = 64 << 20;

const state = {
  module: null, wasm: null, engine: null, steps: [], adapter: null, moved: null,
  store: null, modelsUrl: null, index: null,
  /** How many threads there should be, the helpers, why there are none; the engine's code for them. */
  plan: null, threads: null, threadsFailure: null, code: null, script: null,
  /** Helpers keep copies of their rows: a large model goes without them. */
  large: false,
  /** What is loaded: `{spec, files}`. */
  model: null,
};
/** Operations under way or waiting, by id. */
const tickets = new Map();
let queue = Promise.resolve();

// A turn of the event loop: a message to oneself comes after those that wait.
const channel = new MessageChannel();
const turns = [];
channel.port1.onmessage = () => turns.shift()?.();
const turn = () => new Promise((resolve) => (turns.push(resolve), channel.port2.postMessage(0)));

const need = () => {
  if (!state.engine) throw new FirelightError('disposed', 'the engine is not running');
  return state.engine;
};

/** Waits for its place, then runs. */
function enqueue(work) {
  const result = queue.then(work);
  queue = result.catch(() => {});
  return result;
}

/** Stops one operation, whether it runs or waits. */
function stop(ticket) {
  ticket?.controller.abort();
  ticket?.cancel?.cancel();
}

/** The engine's request to stop that belongs to an operation. */
function cancelOf(ticket) {
  ticket.cancel ??= new state.module.Cancel();
  if (ticket.controller.signal.aborted) ticket.cancel.cancel();
  return ticket.cancel;
}

async function create({ device, rung, threads, lock, modelsUrl, engineUrl, parts, options }) {
  // Held as long as this worker lives: the page learns of its end by getting it.
  if (lock && navigator.locks) await new Promise((held) => navigator.locks.request(lock, () => (held(), new Promise(() => {}))));
  state.modelsUrl = modelsUrl;
  const folder = engineUrl ?? new URL('../engine/', import.meta.url).href;
  const list = binaries();
  if (!list.length) {
    throw new FirelightError('unsupported', 'this browser has no WebAssembly SIMD', 'Use a current Chrome, Edge, Firefox or Safari.');
  }
  if (threads !== undefined && !(Number.isInteger(threads) && threads > 0 && threads <= 16)) {
    throw new FirelightError('invalid_input', `\`threads\`: ${threads}; expected a whole number from 1 to 16`);
  }
  state.plan = planThreads(threads, rung);
  let failure = null;
  for (const binary of list) {
    try {
      const build = parts === 'everything' ? `${binary}-everything` : binary;
      const script = new URL(`${build}/firelight.js`, folder.endsWith('/') ? folder : `${folder}/`);
      const module = await import(script.href);
      // Compiled here where helpers may want it, too.
      const code = state.plan.count > 1 ? await WebAssembly.compileStreaming(fetch(new URL('firelight_bg.wasm', script))).catch(() => null) : null;
      state.wasm = await module.default(code ? { module_or_path: code } : undefined);
      Object.assign(state, { module, code, script: script.href });
      break;
    } catch (e) {
      failure = e;
    }
  }
  if (!state.module) {
    throw new FirelightError('network', `the engine could not be loaded: ${failure?.message}`, 'Reload the page; if it repeats, the site lacks its `engine` folder.');
  }
  state.store = await Store.open();
  Object.assign(state, await chooseDevice(state.module, { device, rung, options }, turn));
  await startThreads();
  return report();
}

/** Helpers, where the processor computes and may have some; without them it goes on alone. */
async function startThreads() {
  if (state.plan.count < 2 || state.threads || state.threadsFailure || JSON.parse(need().report()).gpu) return;
  let threads = null;
  try {
    if (!state.code) throw new Error('the engine was not compiled for it');
    const { Threads } = await import('./threads.js');
    threads = await Threads.start(state.plan.count - 1, state.code, state.script);
    // Another start may have been quicker, or the engine have been disposed.
    if (state.threads || !state.engine) return threads.end();
    threads.paused = state.large;
    threads.rests = !state.plan.asked;
    need().share_with(threads);
    state.threads = threads;
  } catch (e) {
    threads?.end();
    state.threadsFailure = `More threads could not be started: ${e.message ?? e}`;
  }
}

/** The engine went down the ladder: the page hears of it, and helpers come if it is the processor's turn. */
function moved(why) {
  state.moved = `The device failed: ${why}`;
  const now = report();
  postMessage({ event: { type: 'device', report: now } });
  startThreads().then(() => state.threads && state.engine && postMessage({ event: { type: 'device', report: report() } }));
  return now;
}

const whyAlone = () => state.threads?.failure ?? state.threadsFailure
  ?? (state.threads?.paused ? 'The model is so large that there is no room for the copies that more threads need.' : null);

const report = () => describe(need(), state.steps, state.adapter, state.moved, { plan: state.plan, failure: whyAlone() });

/** The site's list of models; the stored copy without a network. */
async function index() {
  if (state.index) return state.index;
  let list = null;
  try {
    const response = await fetch(state.modelsUrl, { cache: 'no-cache' });
    if (response.ok) list = await response.json();
  } catch {
    // Offline: the copy.
  }
  if (list) {
    state.index = list.models ?? [];
    await state.store.set({ models: state.index }, 'index.json');
    return state.index;
  }
  return (await state.store.get('index.json'))?.models ?? [];
}

function checked(spec, base) {
  const bad = (what) => new FirelightError('invalid_input', `model specification: ${what}`);
  if (typeof spec?.name !== 'string' || !spec.name) throw bad('`name` is missing');
  if (!Array.isArray(spec.files) || !spec.files.length) throw bad('`files` is empty');
  const files = spec.files.map((file) => {
    if (typeof file.url !== 'string') throw bad('a file without `url`');
    if (!Number.isSafeInteger(file.size) || file.size <= 0) throw bad(`size ${file.size} of ${file.url}`);
    if (!/^[0-9a-f]{64}$/.test(file.sha256 ?? '')) throw bad(`sha256 of ${file.url}: expected 64 lower-case hex digits`);
    const url = new URL(file.url, base).href;
    const name = file.name ?? decodeURIComponent(new URL(url).pathname.split('/').at(-1));
    return { ...file, url, name };
  });
  return { ...spec, files };
}

/** A model's specification: given, noted when it was stored, or of the site's list. */
async function resolve(model, fresh = false) {
  if (typeof model !== 'string') return checked(model, self.location.href);
  const listed = (list) => list?.find((m) => m.name === model || m.aliases?.includes(model));
  const known = state.index && listed(state.index);
  if (!known && !fresh) {
    // Stored whole: no request is needed to use it.
    const note = await state.store.note(model);
    if (note && (await state.store.stored(note.spec)) >= total(note.spec)) return note.spec;
  }
  const spec = known ?? listed(await index()) ?? (await state.store.note(model))?.spec;
  if (!spec) {
    const names = (await index()).map((m) => m.name).join(', ') || 'none';
    throw new FirelightError('not_found', `no model is called “${model}”; this site has: ${names}`, 'Choose one of the list.');
  }
  return checked(spec, state.modelsUrl);
}

const total = (spec) => spec.files.reduce((sum, f) => sum + f.size, 0);
const megabytes = (n) => `${Math.ceil(n / 1e6)} MB`;

/** Room for what is still to come, known before a byte is fetched. */
async function checkQuota(spec, stored) {
  const needed = total(spec) - stored;
  if (needed <= 0 || state.store.kind === 'memory') return;
  // With the notes of what is stored.
  const wanted = Math.ceil(needed * 1.01) + 65536;
  const available = await state.store.room(wanted);
  if (wanted > available) {
    throw new FirelightError('quota', `${spec.name} needs ${megabytes(needed)} more, the browser has room for ${megabytes(available)}`,
      'Delete stored models, free disk space, or take a smaller model.', { needed, available });
  }
}

async function load(args, ticket) {
  try {
    return await loadOnce(args, ticket);
  } catch (e) {
    // What was stored or sent was another file: it is gone now, so one more attempt is worth it.
    if (e.code !== 'checksum' || ticket.controller.signal.aborted) throw e;
    return loadOnce(args, ticket);
  }
}

async function loadOnce({ id, model, verify = true }, ticket) {
  const started = performance.now();
  const { module, store } = state;
  const engine = need();
  const Hasher = module.Hasher;
  const cancel = cancelOf(ticket);
  const attempt = new AbortController();
  const { signal } = attempt;
  const asked = ticket.controller.signal;
  const abort = () => attempt.abort();
  asked.addEventListener('abort', abort, { once: true });
  const current = () => {
    if (asked.aborted) throw cancelled();
  };
  let files = [];
  let fetching = null;
  try {
    current();
    await freeModel();
    const spec = await resolve(model);
    current();
    await store.removeOld(spec);
    files = await store.files(spec);
    const stored = files.reduce((sum, f) => sum + f.stored, 0);
    await checkQuota(spec, stored);
    await store.use(spec);
    const meter = new Meter(total(spec), stored, (progress) => postMessage({ id, event: { type: 'progress', progress } }));
    meter.enter('processor');
    // What is stored is distrusted first: a damaged chunk is fetched again.
    if (verify) {
      for (const file of files) {
        const lost = await findDamage(file, Hasher, signal);
        if (lost) meter.lost(lost);
      }
    }
    let downloaded = 0;
    const bring = async (file, source) => {
      // The chunks that are there may serve the engine while the others come.
      const hash = file.verified ? null : hashWhole(file, Hasher, signal, turn);
      hash?.catch(() => {});
      try {
        if (!file.complete) {
          const download = new Download(source.url, file, { signal, chunks: source.chunks, Hasher, onBytes: (n) => meter.network(n) });
          try {
            await download.run();
          } finally {
            downloaded += download.fetched;
          }
        }
        if (hash && (await hash) !== file.sha256) {
          // Every chunk is as it came, and yet this is another file.
          for (let i = 0; i < file.hashes.length; i++) await file.drop(i);
          throw new FirelightError('checksum', `${file.name} is not the file that was promised: its sha256 differs`,
            'The server has another version, or the line damages data: try again later.');
        }
      } catch (e) {
        file.fail(FirelightError.from(e));
        throw e;
      }
      if (!file.verified) {
        file.verified = true;
        await file.saveState();
      }
    };
    const pairs = files.map((file, i) => [file, spec.files[i]]);
    const weights = pairs.filter(([f]) => WEIGHTS.test(f.name));
    const side = pairs.filter(([f]) => !WEIGHTS.test(f.name) && f.size <= SIDE_LIMIT);
    if (!weights.length) throw new FirelightError('invalid_input', `${spec.name}: no .gguf or .safetensors file among its files`);
    for (const [file, source] of side) await bring(file, source);
    current();
    const sideBytes = side.map(([f]) => {
      const bytes = new Uint8Array(f.size);
      f.readInto(0, bytes);
      return bytes;
    });
    state.large = weightsOf(spec) * (2 - 1 / state.plan.count) > (machineMemory() ?? 2 ** 31);
    if (state.threads) state.threads.paused = state.large;
    meter.enter('weights');
    let broken = null;
    fetching = (async () => {
      for (const [file, source] of weights) await bring(file, source);
    })().catch((e) => {
      broken = e;
      for (const [file] of weights) if (!file.complete) file.fail(FirelightError.from(e));
    });
    const about = await engine.load(spec.name, weights.map(([f]) => f), side.map(([f]) => f.name), sideBytes, cancel, (done, of) => meter.device(done, of));
    await fetching;
    if (broken) throw broken;
    current();
    meter.enter('compiling');
    await engine.warm_up(cancel);
    current();
    meter.end();
    state.model = { spec, files };
    return { ...JSON.parse(about), loadMs: performance.now() - started, fromCache: downloaded === 0, downloaded };
  } catch (e) {
    attempt.abort();
    await fetching;
    state.engine?.unload();
    files.forEach((f) => f.close());
    throw asked.aborted ? cancelled() : e;
  } finally {
    asked.removeEventListener('abort', abort);
  }
}

/** Frees the loaded model, if any. */
async function freeModel() {
  state.engine?.unload();
  state.model?.files.forEach((f) => f.close());
  state.model = null;
}

async function chat({ id, messages, options, resume }, ticket) {
  if (!state.model) {
    throw ticket.controller.signal.aborted ? cancelled() : new FirelightError('no_model', 'no model is loaded', 'Load a model first.');
  }
  const events = (type, text, ids) => {
    if (type === 'start') postMessage({ id, event: { type, promptTokens: ids[0] } });
    else if (type === 'token') postMessage({ id, event: { type, text, ids: Array.from(ids) } });
    else if (type === 'scaled') postMessage({ id, event: { type, how: text } });
    else {
      const now = moved(text);
      postMessage({ id, event: { type, why: text, device: now.device, rung: now.rung } });
    }
  };
  const images = await Promise.all((options?.images ?? []).map(bytesOf));
  const plain = { ...options, images: undefined, audio: options?.audio ? 1 : undefined };
  return JSON.parse(await need().chat(JSON.stringify({ messages, options: plain, resume }), images, cancelOf(ticket), events));
}

async function embed({ texts, options }, ticket) {
  let vectors = new Float32Array();
  const about = JSON.parse(await need().embed(JSON.stringify(texts), JSON.stringify(options), cancelOf(ticket), (all) => (vectors = all)));
  const rows = texts.map((_, i) => vectors.slice(i * about.dims, (i + 1) * about.dims));
  return { ...about, vectors: rows };
}

/** Typed arrays by a tensor's type. */
const ELEMENTS = { f32: Float32Array, i64: BigInt64Array, bool: Uint8Array };

const bytesOf = async (file) => new Uint8Array(file instanceof Blob ? await file.arrayBuffer() : file);

/** Where the engine puts tensors: `[list, function]`. */
const tensorList = () => {
  const tensors = [];
  return [tensors, (name, dtype, shape, bytes) => tensors.push({ name, dtype, shape: Array.from(shape), data: new ELEMENTS[dtype](bytes.buffer) })];
};

async function preprocess({ images, config, options }) {
  need();
  const files = await Promise.all(images.map(bytesOf));
  const [tensors, take] = tensorList();
  const about = state.module.preprocess(files, config, options.reference, take);
  return { tensors, images: JSON.parse(about) };
}

/** An operation of the engine that tells what happens as JSON. */
const telling = (id) => (type, json) => {
  const event = { type, ...JSON.parse(json) };
  if (type === 'moved') moved(event.why);
  postMessage({ id, event });
};

async function transcribe({ id, sound, options }, ticket) {
  return JSON.parse(await need().transcribe(await bytesOf(sound), JSON.stringify(options), cancelOf(ticket), telling(id)));
}

async function features({ sound, front }) {
  const [tensors, take] = tensorList();
  need().features(await bytesOf(sound), front, take);
  return tensors;
}

/** What may be used of the machine's memory, of which the browser tells a rounded figure; null where it tells none. */
const machineMemory = () => (navigator.deviceMemory ? navigator.deviceMemory * 2 ** 30 * 0.6 : null);

const weightsOf = (spec) => spec.files.filter((f) => WEIGHTS.test(f.name ?? f.url)).reduce((sum, f) => sum + f.size, 0);

async function preflight({ model }) {
  const spec = await resolve(model);
  const bytes = total(spec);
  const stored = Math.min(bytes, await state.store.stored(spec));
  const weightBytes = weightsOf(spec);
  const download = bytes - stored;
  const wanted = download && Math.ceil(download * 1.01) + 65536;
  const storageAvailable = Math.min(await state.store.room(wanted), Number.MAX_SAFE_INTEGER);
  const problems = [];
  if (wanted > storageAvailable) {
    problems.push({ code: 'quota', message: `${megabytes(download)} are to be stored, the browser has room for ${megabytes(storageAvailable)}`,
      remedy: 'Delete stored models or free disk space.', details: { needed: download, available: storageAvailable } });
  }
  // Keys and values of a few thousand positions are about a tenth of the weights in models of this kind; a config says it exactly.
  const perPosition = spec.kv_bytes_per_token;
  const cacheBytes = perPosition ? perPosition * Math.min(spec.context ?? 4096, 4096) : Math.round(weightBytes * 0.1) + (16 << 20);
  const gpu = JSON.parse(need().report()).gpu;
  const machine = machineMemory();
  // The processor's rung lives in the worker's 4 GiB.
  const memoryAvailable = gpu ? machine : Math.min(machine ?? Infinity, 3.5 * 2 ** 30);
  const needed = weightBytes + cacheBytes;
  if (memoryAvailable !== null && needed > memoryAvailable) {
    problems.push({ code: 'memory', message: `${spec.name} needs about ${megabytes(needed)} of memory, about ${megabytes(memoryAvailable)} can be had here`,
      remedy: 'Take a smaller model.', details: { needed, available: memoryAvailable } });
  }
  let probe = null;
  if (!state.model) {
    probe = state.probe ??= await need().probe().then(JSON.parse).catch(() => null);
  } else {
    probe = state.probe ?? null;
  }
  const list = await index().catch(() => []);
  const smaller = problems.length
    ? list.filter((m) => (m.task ?? 'chat') === (spec.task ?? 'chat') && total(m) < bytes && total(m) * 1.2 < Math.min(storageAvailable, memoryAvailable ?? Infinity))
      .sort((a, b) => total(b) - total(a))[0]?.name ?? null
    : null;
  return {
    ok: problems.length === 0, problems, download, weightBytes, cacheBytes, storageAvailable, memoryAvailable,
    decodeTps: probe ? probe.decodeBytesPerSecond / weightBytes : null,
    prefillTps: probe ? probe.prefillMacsPerSecond / ((weightBytes * 32) / 18) : null,
    smaller,
  };
}

async function memory() {
  const { usage, quota, persisted } = await state.store.estimate();
  return {
    ...JSON.parse(need().memory()),
    wasmHeap: state.wasm.memory.buffer.byteLength,
    helperHeap: state.threads?.heap ?? 0,
    model: state.model?.spec.name ?? null,
    storage: { usage, quota: Number.isFinite(quota) ? quota : 0, persisted, kind: state.store.kind },
  };
}

async function cached() {
  const list = await index().catch(() => []);
  const found = [];
  for (const name of await state.store.names()) {
    const note = await state.store.note(name);
    if (!note) continue;
    const bytes = await state.store.stored(note.spec);
    const now = list.find((m) => m.name === name);
    const hashes = (spec) => spec.files.map((f) => f.sha256).join();
    found.push({
      name, bytes, total: total(note.spec), complete: bytes >= total(note.spec),
      current: !now || hashes(now) === hashes(note.spec), lastUsed: note.lastUsed,
    });
  }
  return found;
}

/** By name: `(args, ticket)`. */
const operations = {
  create,
  load: (args, ticket) => enqueue(() => load(args, ticket)),
  chat: (args, ticket) => enqueue(() => chat(args, ticket)),
  embed: (args, ticket) => enqueue(() => embed(args, ticket)),
  preprocess: (args) => enqueue(() => preprocess(args)),
  features: (args) => enqueue(() => features(args)),
  transcribe: (args, ticket) => enqueue(() => transcribe(args, ticket)),
  listen: ({ options }) => enqueue(() => need().listen(JSON.stringify(options))),
  hear: ({ id, samples }, ticket) => enqueue(() => need().hear(samples, cancelOf(ticket), telling(id))),
  count: ({ messages }) => enqueue(() => JSON.parse(need().count(JSON.stringify(messages)))),
  unload: () => enqueue(freeModel),
  device: async () => report(),
  memory,
  preflight: (args) => enqueue(() => preflight(args)),
  report: ({ benchmarks }) => enqueue(async () => ({
    device: report(), memory: await memory(), storage: { kind: state.store.kind, ...(await state.store.estimate()) },
    benchmarks: benchmarks ? JSON.parse(await need().probe()) : null,
  })),
  models: async () => (await index()).map((m) => checked(m, state.modelsUrl)),
  cached,
  remove: ({ model }) => enqueue(async () => {
    if (state.model?.spec.name === model) await freeModel();
    await state.store.remove(model);
  }),
  abort: async ({ target }) => stop(tickets.get(target)),
  simulate: async ({ what }) => {
    if (what === 'device') loseDevices();
    else if (what === 'memory') failNextAllocation();
    else if (what === 'worker') self.close();
    else if (what === 'helper') state.threads?.kill(0);
    else throw new FirelightError('invalid_input', `simulate \`${what}\`; known: device, memory, worker, helper`);
  },
  dispose: () => enqueue(async () => {
    await freeModel();
    const left = state.engine ? JSON.parse(state.engine.memory()).deviceTotal : 0;
    state.engine?.free();
    state.engine = null;
    state.threads?.end();
    return { left };
  }),
};
/** Operations that end everything begun before them. */
const ENDING = new Set(['load', 'unload', 'dispose']);

self.onmessage = async ({ data: { id, op, args } }) => {
  if (ENDING.has(op)) for (const ticket of tickets.values()) stop(ticket);
  const ticket = { controller: new AbortController(), cancel: null };
  tickets.set(id, ticket);
  try {
    const work = operations[op];
    if (!work) throw new FirelightError('invalid_input', `no operation \`${op}\``);
    postMessage({ id, result: await work({ ...args, id }, ticket) });
  } catch (e) {
    const error = FirelightError.from(e).toJSON();
    if (e instanceof WebAssembly.RuntimeError) {
      error.message = state.module?.lastPanic() || error.message;
      // Nothing of this instance can be used again: the page starts another worker.
      postMessage({ id, fatal: error });
      self.close();
    } else {
      postMessage({ id, error });
    }
  } finally {
    tickets.delete(id);
  }
  if (op === 'dispose') self.close();
};
