// Bringing a file's missing chunks from the network: byte ranges, several at once, each chunk hashed and stored as it comes.

import { FirelightError, cancelled } from './errors.js';
import { sha256 } from './store.js';

/** Requests at once. */
const PARALLEL = 4;
/** Bytes of one request: small, so that the first chunks come first and a dropped line costs little. */
const SPAN = 8 << 20;
/** Attempts without a single new chunk before giving up. */
const ATTEMPTS = 6;

const sleep = (ms, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => (clearTimeout(timer), reject(cancelled())), { once: true });
  });

const network = (message, details) =>
  new FirelightError('network', message, 'Check the connection and try again: what is stored is kept, only the rest is fetched.', details);

/** Brings what is missing of `file`. */
export class Download {
  /**
   * @param {string} url
   * @param {object} file of store.js
   * @param {{signal?: AbortSignal, chunks?: string[], Hasher: Function, onBytes?: (n: number) => void}} options `chunks`: known hashes
   */
  constructor(url, file, { signal, chunks, Hasher, onBytes }) {
    Object.assign(this, { url, file, signal, Hasher, onBytes });
    this.known = chunks?.length === file.hashes.length ? chunks : null;
    this.fetched = 0;
    this.ranges = true;
  }

  /** Resolves when the file is complete. */
  async run() {
    const missing = [];
    this.file.hashes.forEach((h, i) => h === null && missing.push(i));
    // Runs of neighbouring chunks, in file order: tensors are placed in that order.
    const spans = [];
    const most = Math.max(1, Math.floor(SPAN / this.file.chunkSize));
    for (const i of missing) {
      const last = spans.at(-1);
      if (last && last.at(-1) === i - 1 && last.length < most) last.push(i);
      else spans.push([i]);
    }
    const worker = async () => {
      for (let span; (span = spans.shift()); ) await this.#span(span);
    };
    const stop = new AbortController();
    const abort = () => stop.abort();
    this.signal?.addEventListener('abort', abort, { once: true });
    if (this.signal?.aborted) stop.abort();
    this.stop = stop.signal;
    try {
      const all = Array.from({ length: Math.min(PARALLEL, spans.length) }, () => worker().catch((e) => (stop.abort(), Promise.reject(e))));
      const ends = await Promise.allSettled(all);
      const errors = ends.filter((e) => e.status === 'rejected').map((e) => FirelightError.from(e.reason));
      if (errors.length) throw this.signal?.aborted ? cancelled() : errors.find((e) => e.code !== 'cancelled') ?? errors[0];
    } finally {
      this.signal?.removeEventListener('abort', abort);
    }
  }

  async #span(span) {
    let failures = 0;
    while (span.length) {
      if (this.stop.aborted) throw cancelled();
      const before = span.length;
      try {
        await this.#request(span);
      } catch (e) {
        const error = FirelightError.from(e);
        const temporary = e instanceof TypeError || error.code === 'network';
        if (this.stop.aborted) throw cancelled();
        if (!temporary || error.details?.final) throw error;
        failures = span.length < before ? 1 : failures + 1;
        if (failures >= ATTEMPTS) throw error.code === 'network' ? error : network(`${this.file.name}: ${error.message}`, { url: this.url });
        await sleep(Math.min(8000, 250 * 2 ** failures), this.stop);
      }
    }
  }

  /** One request for the chunks of `span`; those that came are taken off it. */
  async #request(span) {
    const { file, url } = this;
    const start = span[0] * file.chunkSize;
    const last = span.at(-1);
    const end = last * file.chunkSize + file.chunkLength(last);
    const whole = start === 0 && end === file.size;
    const headers = whole ? {} : { Range: `bytes=${start}-${end - 1}` };
    const response = await fetch(url, { headers, signal: this.stop, cache: 'no-store', credentials: 'same-origin' }).catch((e) => {
      throw this.stop.aborted ? cancelled() : network(`${file.name}: ${e.message}`, { url });
    });
    const { status } = response;
    if (status !== 200 && status !== 206) {
      const final = status >= 400 && status < 500 && status !== 408 && status !== 429;
      const error = network(`${file.name}: the server answered ${status}`, { status, url, final });
      if (status === 404 || status === 410) throw new FirelightError('not_found', `${file.name}: the server has no such file (${status})`, 'The list of models and the server do not fit together.', { status, url });
      throw error;
    }
    // A server without ranges sends everything: what is before the wanted bytes is passed over.
    let at = status === 206 ? start : 0;
    if (status === 206) {
      const range = /bytes (\d+)-/.exec(response.headers.get('content-range') ?? '');
      if (range && Number(range[1]) !== start) throw network(`${file.name}: asked for byte ${start}, the server sent from ${range[1]}`, { status, url, final: true });
    }
    const reader = response.body.getReader();
    let chunk = new Uint8Array(file.chunkLength(span[0]));
    let filled = 0;
    try {
      for (;;) {
        const { done, value } = await reader.read().catch((e) => {
          throw this.stop.aborted ? cancelled() : network(`${file.name}: the connection broke: ${e.message}`, { url });
        });
        if (done) break;
        this.onBytes?.(value.length);
        let piece = value;
        while (piece.length && span.length) {
          const chunkStart = span[0] * file.chunkSize;
          if (at < chunkStart) {
            const skip = Math.min(piece.length, chunkStart - at);
            piece = piece.subarray(skip);
            at += skip;
            continue;
          }
          const n = Math.min(piece.length, chunk.length - filled);
          chunk.set(piece.subarray(0, n), filled);
          filled += n;
          at += n;
          piece = piece.subarray(n);
          if (filled === chunk.length) {
            await this.#keep(span[0], chunk);
            span.shift();
            if (!span.length) break;
            chunk = new Uint8Array(file.chunkLength(span[0]));
            filled = 0;
          }
        }
        if (!span.length) break;
      }
    } finally {
      reader.cancel().catch(() => {});
    }
    if (span.length) throw network(`${file.name}: the connection ended at byte ${at} of ${end}`, { url });
  }

  async #keep(i, bytes) {
    const hash = await sha256(bytes, this.Hasher);
    if (this.known && hash !== this.known[i]) {
      throw network(`${this.file.name}: chunk ${i} came damaged`, { url: this.url });
    }
    if (this.stop.aborted) throw cancelled();
    await this.file.put(i, bytes, hash);
    this.fetched += bytes.length;
  }
}

/**
 * Compares stored chunks with the hashes they had; damaged ones are dropped. Gives the bytes dropped.
 */
export async function findDamage(file, Hasher, signal) {
  let lost = 0;
  for (let i = 0; i < file.hashes.length; i++) {
    if (signal?.aborted) throw cancelled();
    if (file.hashes[i] === null) continue;
    if ((await sha256(file.chunk(i), Hasher)) !== file.hashes[i]) {
      await file.drop(i);
      lost += file.chunkLength(i);
    }
  }
  return lost;
}

/** The sha256 of a whole file, chunk after chunk as they arrive. */
export async function hashWhole(file, Hasher, signal, turn) {
  const hasher = new Hasher();
  try {
    for (let i = 0; i < file.hashes.length; i++) {
      await file.arrived(i * file.chunkSize, i * file.chunkSize + file.chunkLength(i));
      if (signal?.aborted) throw cancelled();
      hasher.update(file.chunk(i));
      await turn();
    }
    return hasher.hex();
  } finally {
    hasher.free();
  }
}
