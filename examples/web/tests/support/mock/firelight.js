// A stand-in for the engine, with its API and none of its work, so that the page's states can be made at will. What it does comes
// from `globalThis.mock`, which a test sets before the page loads. Nothing of it is in the site.

const wait = (ms, signal) => new Promise((resolve, reject) => {
  const stop = () => { clearTimeout(timer); reject(new FirelightError('cancelled', 'cancelled')); };
  const timer = setTimeout(() => { signal?.removeEventListener('abort', stop); resolve(); }, ms);
  if (signal?.aborted) stop();
  else signal?.addEventListener('abort', stop, { once: true });
});

export class FirelightError extends Error {
  constructor(code, message, remedy = '', details = undefined) {
    super(message);
    Object.assign(this, { name: 'FirelightError', code, remedy, details });
  }

  static from(e) { return e instanceof FirelightError ? e : new FirelightError('internal', String(e?.message ?? e), 'Reload the page.'); }
}

const m = () => ({ stepMs: 15, tokenMs: 8, answers: ['Hello from the mock.'], accepts: { images: false, audio: false }, context: 8192, ...globalThis.mock });
const fail = ({ code, message, remedy }) => new FirelightError(code, message, remedy);
/** What survives a reload, as the real engine's storage does. */
const kept = { get: () => JSON.parse(sessionStorage.getItem('mock-stored') ?? '[]'), set: (v) => sessionStorage.setItem('mock-stored', JSON.stringify(v)) };
const count = (messages) => messages.reduce((n, x) => n + 4 + Math.ceil((typeof x.content === 'string' ? x.content : x.content.map((p) => p.text ?? '').join('')).length / 4), 0);

export const calls = (globalThis.mockCalls = []);

const gpu = {
  device: 'Mock GPU 9000 (webgpu)', rung: 'gpu-f16', gpu: true, reason: 'The GPU passed its self-test; it has no subgroups.',
  steps: [
    { step: 'secure', ok: true, what: 'the address is secure' }, { step: 'webgpu', ok: true, what: 'the browser has WebGPU' },
    { step: 'adapter', ok: true, what: 'Mock GPU 9000' }, { step: 'limits', ok: true, what: 'bindings up to 2.0 GB' },
    { step: 'features', ok: false, what: 'half precision, but no subgroups', remedy: 'A newer browser may offer them: Chrome does since version 134.' },
    { step: 'self-test', ok: true, what: '212 cases of 34 kernels right' },
  ],
  attempts: [{ what: 'Mock GPU 9000', rung: 'gpu-f16-subgroups', refused: 'the adapter has no subgroups' }, { what: 'Mock GPU 9000', rung: 'gpu-f16', refused: null }],
  adapter: { name: 'Mock GPU 9000', software: false, f16: true, subgroups: false, subgroupSize: [0, 0], maxBinding: 2 ** 31 - 4, maxBuffer: 2 ** 31, features: ['shader-f16', 'timestamp-query'], limits: { maxBufferSize: 2 ** 31, maxStorageBufferBindingSize: 2 ** 31 - 4, maxComputeWorkgroupStorageSize: 32768 } },
  selfTest: { kernels: 34, cases: 212, ms: 840 }, simd: 'relaxed', threads: 1,
  features: { chat: true, images: true, audio: true, transcribe: false, embed: false, schema: false },
};
const cpu = {
  ...gpu, device: 'CPU of this page', rung: 'cpu-simd', gpu: false, reason: 'The browser has no WebGPU, so the processor computes.', adapter: null,
  steps: [
    { step: 'secure', ok: true, what: 'the address is secure' },
    { step: 'webgpu', ok: false, what: 'the browser has no WebGPU', remedy: 'Switch on hardware acceleration in the browser’s settings, or use a current Chrome, Edge, Firefox or Safari.' },
    { step: 'cpu', ok: true, what: 'SIMD with integer dot products' },
  ],
  attempts: [{ what: 'CPU of this page', rung: 'cpu-simd', refused: null }],
};

export class Firelight {
  static async create(options = {}) {
    calls.push(['create', { device: options.device, rung: options.rung }]);
    await wait(m().stepMs);
    if (m().createError) throw fail(m().createError);
    const self = new Firelight();
    self.report_ = m().device === 'cpu' || options.device === 'cpu' ? cpu : gpu;
    self.onDevice = options.onDevice;
    options.onDevice?.(self.report_);
    return self;
  }

  async models() {
    try {
      const { models } = await (await fetch('models/index.json')).json();
      sessionStorage.setItem('mock-models', JSON.stringify(models));
      return models;
    } catch { return JSON.parse(sessionStorage.getItem('mock-models') ?? '[]'); }
  }

  async load(name, { onProgress, signal } = {}) {
    calls.push(['load', name]);
    const spec = (await this.models()).find((x) => x.name === name);
    if (!spec) throw new FirelightError('not_found', `no model is called ${name}`, 'Choose one of the list.');
    const total = spec.files.reduce((n, f) => n + f.size, 0);
    const fromCache = kept.get().includes(name);
    const steps = m().loadSteps ?? 12;
    for (let i = 0; i <= steps; i++) {
      await wait(m().stepMs, signal);
      const f = i / steps;
      const phase = f < 0.1 ? 'processor' : f < 0.9 ? 'weights' : 'compiling';
      onProgress?.({ phase, loaded: Math.round(total * Math.min(1, f / 0.9)), total, fraction: f, bytesPerSecond: fromCache ? 0 : 12.4e6, etaSeconds: fromCache ? null : (1 - f) * 8, fromCache });
      if (m().loadError && f >= (m().loadError.at ?? 0.5)) throw fail(m().loadError);
      if (m().stallAt !== undefined && f >= m().stallAt) await wait(1e8, signal);
    }
    kept.set([...new Set([...kept.get(), name])]);
    this.info = { name, family: 'mock', context: m().context, vocab: 1000, chat: (spec.task ?? 'chat') === 'chat', transcribe: spec.task === 'transcribe', weightBytes: total, loadMs: 100, fromCache, downloaded: fromCache ? 0 : total, accepts: m().accepts };
    return this.info;
  }

  async *chat(messages, { signal, ...options } = {}) {
    calls.push(['chat', { messages, ...options, images: options.images?.length, audio: options.audio?.type }]);
    const answers = m().answers;
    const n = calls.filter((c) => c[0] === 'chat').length - 1;
    const last = messages.at(-1)?.content;
    const asked = typeof last === 'string' ? last : '';
    const text = asked.includes('Summarise the conversation above') ? 'They spoke of mock things.' : options.prompt !== undefined ? ' and so it went on.' : answers[n % answers.length];
    const promptTokens = count(messages);
    yield { type: 'start', promptTokens };
    const stats = (tokens) => ({ promptTokens, prefilled: promptTokens, tokens, ttftMs: 20, prefillTps: 800, decodeTps: 42.3, encodeMsPerToken: 0.3, contextUsed: Math.min(m().context, promptTokens + tokens), context: m().context });
    const pieces = text.match(/\s*\S{1,6}|\s+$/g) ?? [];
    let done = '';
    let i = 0;
    for (const piece of pieces) {
      try { await wait(m().tokenMs, signal); } catch { yield { type: 'done', text: done, ids: [], finish: 'cancelled', stats: stats(i) }; return; }
      i++;
      if (m().chatError && i > (m().chatError.after ?? 3)) { const e = fail(m().chatError); delete globalThis.mock.chatError; throw e; }
      if (m().moveAfter === i) { this.report_ = cpu; this.onDevice?.(cpu); yield { type: 'moved', why: 'The GPU was lost.', device: cpu.device, rung: cpu.rung }; }
      done += piece;
      yield { type: 'token', text: piece, ids: [i] };
    }
    yield { type: 'done', text: done, ids: [], finish: m().finish ?? 'eos', stats: stats(i) };
  }

  async transcribe(sound, { signal, onEvent } = {}) {
    calls.push(['transcribe', { size: sound.size, type: sound.type }]);
    const segments = (m().said ?? ['Hello from the tape.', 'It goes on.']).map((text, i) => ({ start: i * 5, end: i * 5 + 4, text }));
    for (const segment of segments) {
      await wait(m().stepMs * 6, signal);
      onEvent?.({ type: 'segment', segment });
      onEvent?.({ type: 'progress', done: segment.end, total: segments.at(-1).end });
    }
    if (m().soundError) throw fail(m().soundError);
    return { text: segments.map((s) => s.text).join(' '), language: 'en', languageProbability: 1, duration: segments.at(-1)?.end ?? 1, segments };
  }

  async listen({ rate = 16000, onEvent, signal } = {}) {
    calls.push(['listen', { rate, model: this.info?.name }]);
    let heard = 0;
    let told = 0;
    const text = m().spoken ?? 'The flames are low tonight.';
    return {
      rate,
      push: async (samples) => {
        await wait(m().stepMs, signal);
        if (m().soundError) throw fail(m().soundError);
        heard += samples.length / rate;
        const words = text.split(' ').slice(0, 1 + Math.floor(heard * 3));
        if (!told) onEvent?.({ type: 'start', start: 0 });
        if (words.length > told) { told = words.length; onEvent?.({ type: 'partial', text: words.join(' ').toLowerCase(), start: 0, end: heard, workMs: 1 }); }
      },
      finish: async () => { await wait(m().finishMs ?? m().stepMs, signal); onEvent?.({ type: 'final', text, start: 0, end: heard, workMs: 1 }); },
    };
  }

  async countTokens(messages) { return { tokens: count(messages), context: m().context }; }
  async device() { return this.report_; }
  async memory() { return { device: { weights: 98e6, cache: 12e6, activations: 3e6, params: 4096, staging: 0, user: 0, pool: 0 }, deviceTotal: 113e6, devicePeak: 130e6, wasmHeap: 21e6, model: this.info?.name ?? null, storage: { usage: 98e6, quota: 6e9, persisted: true } }; }
  async preflight(name) {
    await wait(m().stepMs);
    const big = m().tooLarge?.includes(name);
    return {
      ok: !big, download: 0, weightBytes: 1, cacheBytes: 1, storageAvailable: 6e9, memoryAvailable: null, decodeTps: big ? 2.1 : 38, prefillTps: 400, smaller: big ? m().smaller ?? null : null,
      problems: big ? [{ code: 'memory', message: 'The model takes 9.1 GB, and the device offers 4.0 GB.', remedy: 'Take a smaller one.' }] : [],
    };
  }
  async report() {
    await wait(m().stepMs * 10);
    return { page: { userAgent: navigator.userAgent, language: navigator.language, cores: 8, deviceMemoryGiB: 8, secureContext: isSecureContext, crossOriginIsolated }, device: this.report_, benchmarks: { decodeBytesPerSecond: 31.42e9, prefillMacsPerSecond: 412e9, uploadBytesPerSecond: 5.2e9, roundTripMs: 0.42, msPerToken: 1.31 } };
  }
  async cached() { const all = await this.models().catch(() => []); return kept.get().map((name) => { const bytes = all.find((x) => x.name === name)?.files.reduce((n, f) => n + f.size, 0) ?? 1e8; return { name, bytes, total: bytes, complete: true, current: true, lastUsed: 1 }; }); }
  async remove(name) { calls.push(['remove', name]); kept.set(kept.get().filter((n) => n !== name)); }
  async unload() { calls.push(['unload']); this.info = null; }
  async dispose() { calls.push(['dispose']); }
}
