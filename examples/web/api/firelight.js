// Firelight in the browser: load a model, talk to it. Everything runs in a module worker, so the page's thread stays free.
//
// Layout of a site, as `scripts/build_web.sh` makes it and `firelight web` serves it:
//   api/      these files             engine/   the compiled engine (one binary per SIMD level; the worker picks)
//   models/   index.json and models   …         the page's own files
//
//   import { Firelight } from './api/firelight.js';
//   const firelight = await Firelight.create();
//   await firelight.load('smollm2-135m-instruct', { onProgress: (p) => console.log(p.fraction) });
//   for await (const event of firelight.chat([{ role: 'user', content: 'Hi!' }])) {
//     if (event.type === 'token') output.textContent += event.text;
//   }
// Types of everything: firelight.d.ts.

import { FirelightError, cancelled } from './errors.js';
import { readable } from './sound.js';
export { FirelightError };

/** Times a worker that died is started anew within one call. */
const REVIVALS = 2;

/** The engine in its worker. Make one with {@link Firelight.create}. */
export class Firelight {
  #options;
  #worker = null;
  /** Grows with each worker: answers of an older one are dropped. */
  #epoch = 0;
  #next = 1;
  /** @type {Map<number, {resolve: Function, reject: Function, event?: Function}>} */
  #pending = new Map();
  #disposed = false;
  /** What was loaded last, to load again in a new worker. */
  #model = null;
  /** The rung a dead worker ran on. */
  #rung = null;
  #reviving = null;
  #device = null;
  /** Which engine: the small one for text, or the one with everything, taken when something needs it. */
  #parts;

  /**
   * Starts the worker and chooses a device: the waterfall of secure context, WebGPU, adapter, limits, features and self-test,
   * ending on the best rung that answers right.
   * @param {import('./firelight.d.ts').CreateOptions} [options]
   * @returns {Promise<Firelight>}
   */
  static async create(options = {}) {
    const self = new Firelight(options);
    try {
      await self.#start(options.device, options.rung);
    } catch (e) {
      self.#end(FirelightError.from(e));
      throw FirelightError.from(e);
    }
    return self;
  }

  /** @private use {@link Firelight.create} */
  constructor(options) {
    this.#options = options;
    this.#parts = options.parts ?? 'text';
  }

  async #start(device, rung) {
    const epoch = ++this.#epoch;
    const url = this.#options.workerUrl ?? new URL('./worker.js', import.meta.url);
    const worker = new Worker(url, { type: 'module', name: 'firelight' });
    this.#worker = worker;
    worker.onmessage = ({ data }) => {
      if (epoch === this.#epoch) this.#receive(data);
    };
    worker.onerror = (event) => {
      event.preventDefault?.();
      if (epoch === this.#epoch) this.#died(`the worker failed: ${event.message || 'its files could not be loaded'}`);
    };
    const lock = `firelight-${crypto.randomUUID?.() ?? `${Math.random()}`.slice(2)}`;
    const base = globalThis.document?.baseURI ?? globalThis.location?.href;
    const modelsUrl = new URL(this.#options.modelsUrl ?? 'models/index.json', base).href;
    const report = await this.#call('create', {
      device: device ?? 'auto', rung, threads: this.#options.threads, lock, modelsUrl, engineUrl: this.#options.engineUrl && new URL(this.#options.engineUrl, base).href,
      parts: this.#parts, options: this.#options.engine,
    });
    // The worker holds this lock as long as it lives, however it ends.
    navigator.locks?.request(lock, () => {
      if (epoch === this.#epoch && !this.#disposed) this.#died('the worker ended: the browser may have run out of memory');
    });
    this.#tell(report);
  }

  #tell(report) {
    this.#device = report;
    this.#rung = report.rung;
    this.#options.onDevice?.(report);
  }

  #receive({ id, event, result, error, fatal }) {
    if (fatal) return this.#died(`the engine stopped: ${fatal.message}`);
    if (event?.type === 'device') return this.#tell(event.report);
    const call = this.#pending.get(id);
    if (!call) return;
    if (event) {
      call.event?.(event);
    } else {
      this.#pending.delete(id);
      if (error) call.reject(FirelightError.from(error));
      else call.resolve(result);
    }
  }

  #died(why) {
    this.#worker?.terminate();
    this.#worker = null;
    this.#epoch++;
    const error = new FirelightError('worker_lost', why, 'It is started again by the next call.');
    for (const call of this.#pending.values()) call.reject(error);
    this.#pending.clear();
  }

  #end(error) {
    this.#disposed = true;
    this.#worker?.terminate();
    this.#worker = null;
    this.#epoch++;
    for (const call of this.#pending.values()) call.reject(error);
    this.#pending.clear();
  }

  /** One request to the worker; `event` gets what comes before the result. */
  #call(op, args = {}, { event, signal } = {}) {
    if (this.#disposed) return Promise.reject(new FirelightError('disposed', 'this Firelight was disposed', 'Make a new one.'));
    if (signal?.aborted) return Promise.reject(cancelled());
    const worker = this.#worker;
    if (!worker) return Promise.reject(new FirelightError('worker_lost', 'the worker is not running'));
    const id = this.#next++;
    const abort = () => worker.postMessage({ id: this.#next++, op: 'abort', args: { target: id } });
    signal?.addEventListener('abort', abort, { once: true });
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, event });
      worker.postMessage({ id, op, args });
    }).finally(() => signal?.removeEventListener('abort', abort));
  }

  /** A worker that runs; a dead one is started anew, a rung kind below if it died on a GPU. */
  async #alive() {
    if (this.#disposed || this.#worker) return;
    this.#reviving ??= (async () => {
      try {
        const gpu = this.#rung?.startsWith('gpu');
        const { device, rung } = this.#options;
        if (gpu && device !== 'gpu' && !rung) await this.#start('cpu');
        else await this.#start(device, rung);
        if (this.#model) await this.#call('load', { model: this.#model });
      } finally {
        this.#reviving = null;
      }
    })();
    await this.#reviving;
  }

  /** Goes over to the engine with everything, with the model that is loaded; `why`: the error that asked for it. */
  async #everything(why) {
    const refuse = (message) => new FirelightError('unsupported', message, 'The site needs the engine with everything (scripts/build_web.sh).');
    if (this.#parts === 'everything') throw refuse(why.message);
    await this.#call('dispose').catch(() => {});
    this.#died('another engine is being loaded');
    this.#parts = 'everything';
    // It was not the device that failed.
    this.#rung = null;
    try {
      await this.#alive();
    } catch (e) {
      if (this.#disposed) throw e;
      this.#died('the other engine could not be loaded');
      this.#parts = 'text';
      await this.#alive();
      throw refuse(`${why.message}; and the engine with everything could not be loaded: ${e.message}`);
    }
  }

  /** A request that survives the worker's death by asking the next one. */
  async #steady(op, args, extra) {
    for (let left = REVIVALS; ; left--) {
      await this.#alive();
      try {
        return await this.#call(op, args, extra);
      } catch (e) {
        if (e.code === 'part') {
          await this.#everything(e);
          continue;
        }
        if (e.code !== 'worker_lost' || left === 0 || this.#disposed) throw e;
      }
    }
  }

  /**
   * Loads a model: from the browser's storage, else from the network, resuming what an earlier visit began. The model loaded
   * before is freed first.
   * @param {string | import('./firelight.d.ts').ModelSpec} model a name of the site's `models/index.json`, or the files themselves
   * @param {import('./firelight.d.ts').LoadOptions} [options]
   * @returns {Promise<import('./firelight.d.ts').ModelInfo>}
   */
  async load(model, { onProgress, signal, verify = true } = {}) {
    this.#model = null;
    // Asked on the page: workers may not. Without it the browser may delete models when its disk fills up.
    navigator.storage?.persist?.().catch(() => {});
    const info = await this.#steady('load', { model, verify }, {
      signal,
      event: (e) => e.type === 'progress' && onProgress?.(e.progress),
    });
    this.#model = model;
    return info;
  }

  /**
   * Answers a conversation. Leaving the loop stops the answer.
   * @param {import('./firelight.d.ts').Message[]} messages
   * @param {import('./firelight.d.ts').ChatOptions} [options]
   * @returns {AsyncGenerator<import('./firelight.d.ts').ChatEvent>}
   */
  async *chat(messages, { signal, ...options } = {}) {
    const stop = new AbortController();
    const chain = () => stop.abort();
    if (signal?.aborted) stop.abort();
    signal?.addEventListener('abort', chain, { once: true });
    /** @type {object[]} */
    const queue = [];
    let wake = () => {};
    // Tokens so far: what a new worker goes on from.
    const ids = [];
    let finished = false;
    const push = (event) => {
      if (event.type === 'token') ids.push(...event.ids);
      queue.push(event);
      wake();
    };
    const run = async () => {
      for (let left = REVIVALS; ; left--) {
        await this.#alive();
        try {
          return await this.#call('chat', { messages, options, resume: ids.slice() }, { event: push, signal: stop.signal });
        } catch (e) {
          if (e.code === 'part') {
            await this.#everything(e);
            continue;
          }
          if (e.code !== 'worker_lost' || left === 0 || this.#disposed || stop.signal.aborted) throw e;
          await this.#alive();
          push({ type: 'moved', why: e.message, device: this.#device?.device ?? '', rung: this.#rung ?? '' });
        }
      }
    };
    let failure = null;
    run()
      .then((done) => push({ type: 'done', ...done }))
      .catch((e) => (failure = FirelightError.from(e)))
      .finally(() => {
        finished = true;
        wake();
      });
    try {
      for (;;) {
        while (queue.length) yield queue.shift();
        if (finished) break;
        await new Promise((resolve) => (wake = resolve));
      }
      if (failure) throw failure;
    } finally {
      signal?.removeEventListener('abort', chain);
      if (!finished) stop.abort();
    }
  }

  /**
   * Tokens of a conversation as the model's template writes it: for a context meter.
   * @param {import('./firelight.d.ts').Message[]} messages
   * @returns {Promise<{tokens: number, context: number}>}
   */
  async countTokens(messages) {
    return this.#steady('count', { messages });
  }

  /**
   * Writes down a recording, with a speech model: WAV, FLAC, MP3, Ogg (Vorbis, Opus), M4A or WebM, by content.
   * @param {Blob | ArrayBuffer} sound
   * @param {import('./firelight.d.ts').TranscribeOptions} [options]
   * @returns {Promise<import('./firelight.d.ts').Transcript>}
   */
  async transcribe(sound, { signal, onEvent, ...options } = {}) {
    return this.#steady('transcribe', { sound: await readable(sound), options }, { signal, event: (e) => onEvent?.(e) });
  }

  /**
   * Writes down what is said while it is said, with a speech model.
   * @param {import('./firelight.d.ts').ListenOptions} [options]
   * @returns {Promise<import('./firelight.d.ts').Listening>}
   */
  async listen({ signal, onEvent, ...options } = {}) {
    const rate = await this.#steady('listen', { options }, { signal });
    const hear = (samples) => this.#call('hear', { samples }, { signal, event: (e) => onEvent?.(e) });
    return { rate, push: (samples) => hear(samples), finish: () => hear() };
  }

  /**
   * What a model's front end makes of a recording, to the bit what the native program writes. No model is needed.
   * @param {Blob | ArrayBuffer} sound
   * @param {string | object} frontEnd `whisper80`, `whisper128`, `gemma4`, `kaldi80`, or the content of a `preprocessor_config.json`
   * @returns {Promise<import('./firelight.d.ts').Tensor[]>}
   */
  async features(sound, frontEnd, { signal } = {}) {
    const front = typeof frontEnd === 'string' ? frontEnd : JSON.stringify(frontEnd);
    return this.#steady('features', { sound: await readable(sound), front }, { signal });
  }

  /**
   * Texts to vectors, with an embedding model.
   * @param {string[]} texts
   * @param {import('./firelight.d.ts').EmbedOptions} [options]
   * @returns {Promise<import('./firelight.d.ts').Embeddings>}
   */
  async embed(texts, { signal, ...options } = {}) {
    return this.#steady('embed', { texts, options }, { signal });
  }

  /**
   * What an image processor makes of pictures, to the bit what transformers' processor returns (JPEG: but for its decoder's rounding). No model
   * is needed.
   * @param {Blob | ArrayBuffer | Array<Blob | ArrayBuffer>} images encoded pictures, in the order of the prompt
   * @param {object | string} config of a `preprocessor_config.json`
   * @param {import('./firelight.d.ts').PreprocessOptions} [options]
   * @returns {Promise<import('./firelight.d.ts').Preprocessed>}
   */
  async preprocess(images, config, { signal, ...options } = {}) {
    const text = typeof config === 'string' ? config : JSON.stringify(config);
    return this.#steady('preprocess', { images: [images].flat(), config: text, options }, { signal });
  }

  /** What runs, on what, and why. @returns {Promise<import('./firelight.d.ts').DeviceReport>} */
  async device() {
    return this.#steady('device');
  }

  /** Memory of device and worker. @returns {Promise<import('./firelight.d.ts').MemoryReport>} */
  async memory() {
    return this.#steady('memory');
  }

  /**
   * What would happen if this model were loaded: does it fit in storage and memory, how fast would it answer here. Nothing is
   * downloaded but a GGUF file's head.
   * @param {string | import('./firelight.d.ts').ModelSpec} model
   * @returns {Promise<import('./firelight.d.ts').Preflight>}
   */
  async preflight(model) {
    return this.#steady('preflight', { model });
  }

  /** Everything about this browser and device, for the report page. `benchmarks` takes a few seconds. */
  async report({ benchmarks = true } = {}) {
    const page = {
      userAgent: navigator.userAgent, language: navigator.language, cores: navigator.hardwareConcurrency, deviceMemoryGiB: navigator.deviceMemory,
      secureContext: globalThis.isSecureContext, crossOriginIsolated: globalThis.crossOriginIsolated,
    };
    return { page, ...(await this.#steady('report', { benchmarks })) };
  }

  /** Models of the site's `models/index.json`. @returns {Promise<import('./firelight.d.ts').ModelSpec[]>} */
  async models() {
    return this.#steady('models');
  }

  /** Models in the browser's storage, whole or in part. @returns {Promise<import('./firelight.d.ts').CachedModel[]>} */
  async cached() {
    return this.#steady('cached');
  }

  /** Deletes a stored model. @param {string} model its name */
  async remove(model) {
    return this.#steady('remove', { model });
  }

  /** Frees the loaded model; the device stays. */
  async unload() {
    this.#model = null;
    if (this.#worker) await this.#call('unload');
  }

  /** Frees everything and ends the worker. What was under way fails with `disposed`. May be called at any time, and twice. */
  async dispose() {
    if (this.#disposed) return;
    const quiet = this.#worker ? this.#call('dispose').catch(() => {}) : null;
    this.#disposed = true;
    if (quiet) await Promise.race([quiet, new Promise((r) => setTimeout(r, 2000))]);
    this.#end(new FirelightError('disposed', 'disposed while this was under way'));
  }

  /**
   * Makes something fail, for tests and for the report page's drills: `device` (the GPU device is destroyed), `memory` (the next
   * device allocation fails), `worker` (the worker ends without a word), `helper` (one of the processor's threads does).
   * @param {'device' | 'memory' | 'worker' | 'helper'} what
   */
  async simulate(what) {
    if (what === 'worker') this.#worker?.postMessage({ id: this.#next++, op: 'simulate', args: { what } });
    else await this.#call('simulate', { what });
  }
}
