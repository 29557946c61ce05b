// Model files in the browser's storage, in chunks whose hashes are known: OPFS where it is, else the Cache API, else memory.
//
// A file is named by its content (name and sha256), so a new version never mixes with an old one. Beside it lies its state: which
// chunks are there, each with the sha256 it had when it came, and whether the whole file's hash was right. A chunk counts as there
// only after its bytes were flushed, so a crash costs the chunks under way and no more.

import { FirelightError } from './errors.js';

const ROOT = 'firelight-models';
const CACHE = 'firelight-models-v1';

/** Bytes of a chunk: small enough to fetch again, large enough to keep the state short. */
export const chunkSizeOf = (size) => (size > 256 << 20 ? 4 << 20 : 1 << 20);

const safe = (name) => name.replace(/[^A-Za-z0-9._%-]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);
const keyOf = (file) => `${safe(file.name)}-${file.sha256.slice(0, 16)}`;

/** sha256 as hex, without blocking where the browser can. */
export async function sha256(bytes, Hasher) {
  if (globalThis.crypto?.subtle) {
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
    return Array.from(digest, (b) => b.toString(16).padStart(2, '0')).join('');
  }
  const hasher = new Hasher();
  hasher.update(bytes);
  const hex = hasher.hex();
  hasher.free();
  return hex;
}

/** A stored file. Subclasses keep the bytes. */
class StoredFile {
  constructor(file, state) {
    this.name = file.name;
    this.size = file.size;
    this.sha256 = file.sha256;
    this.chunkSize = state?.chunkSize ?? file.chunkSize ?? chunkSizeOf(file.size);
    const count = Math.ceil(file.size / this.chunkSize);
    this.hashes = state?.hashes?.length === count ? state.hashes : new Array(count).fill(null);
    this.verified = state?.verified === true && this.complete;
    /** Promises of bytes that are awaited: `{first, last, resolve, reject}`. */
    this.waiters = new Set();
    this.failure = null;
  }

  get complete() {
    return this.hashes.every((h) => h !== null);
  }

  /** Bytes that are there. */
  get stored() {
    return this.hashes.reduce((sum, h, i) => sum + (h ? this.chunkLength(i) : 0), 0);
  }

  chunkLength(i) {
    return Math.min(this.chunkSize, this.size - i * this.chunkSize);
  }

  get state() {
    return { size: this.size, sha256: this.sha256, chunkSize: this.chunkSize, hashes: this.hashes, verified: this.verified };
  }

  /** Keeps a chunk whose hash is known, then wakes who waits for it. */
  async put(i, bytes, hash) {
    await this.write(i, bytes);
    this.hashes[i] = hash;
    this.verified = false;
    await this.saveState();
    this.#wake();
  }

  /** Forgets a chunk: it is fetched again. */
  async drop(i) {
    this.hashes[i] = null;
    this.verified = false;
    await this.saveState();
  }

  #wake() {
    for (const waiter of this.waiters) {
      if (this.#there(waiter.first, waiter.last)) {
        this.waiters.delete(waiter);
        waiter.resolve();
      }
    }
  }

  #there(first, last) {
    for (let i = first; i <= last; i++) if (this.hashes[i] === null) return false;
    return true;
  }

  /** For the engine: resolves when these bytes are there. */
  arrived(start, end) {
    const first = Math.floor(start / this.chunkSize);
    const last = Math.max(first, Math.ceil(end / this.chunkSize) - 1);
    if (this.#there(first, last)) return Promise.resolve();
    if (this.failure) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => this.waiters.add({ first, last, resolve, reject }));
  }

  /** Tells everyone who waits that the bytes will not come. */
  fail(error) {
    this.failure = error;
    for (const waiter of this.waiters) waiter.reject(error);
    this.waiters.clear();
  }

  /** For the engine: fills `into` from `offset` on; false if some of it is not there yet. */
  read(offset, into) {
    const first = Math.floor(offset / this.chunkSize);
    const last = Math.max(first, Math.ceil((offset + into.length) / this.chunkSize) - 1);
    if (into.length && !this.#there(first, last)) return false;
    this.readInto(offset, into);
    return true;
  }

  /** A chunk's bytes. */
  chunk(i) {
    const bytes = new Uint8Array(this.chunkLength(i));
    this.readInto(i * this.chunkSize, bytes);
    return bytes;
  }
}

/** A file in OPFS behind a synchronous handle; read through a Blob where another tab has it open. */
class OpfsFile extends StoredFile {
  static async open(dir, file) {
    const key = keyOf(file);
    const handle = await dir.getFileHandle(`${key}.bin`, { create: true });
    let state = null;
    try {
      state = JSON.parse(await (await (await dir.getFileHandle(`${key}.json`)).getFile()).text());
    } catch {
      // No state, or half of one: nothing counts as there.
    }
    if (state && (state.size !== file.size || state.sha256 !== file.sha256)) state = null;
    const self = new OpfsFile(file, state);
    try {
      self.access = await handle.createSyncAccessHandle();
      const beside = await dir.getFileHandle(`${key}.json`, { create: true });
      self.note = await beside.createSyncAccessHandle();
    } catch (e) {
      self.close();
      if (!self.complete) {
        throw new FirelightError('device', `another tab is loading ${file.name}: ${e.message}`, 'Wait until the other tab is done, or close it.');
      }
      self.blob = await handle.getFile();
    }
    // What was cut off by somebody is not there.
    const length = self.access ? self.access.getSize() : self.blob.size;
    self.hashes = self.hashes.map((h, i) => (i * self.chunkSize + self.chunkLength(i) <= length ? h : null));
    if (!self.complete) self.verified = false;
    return self;
  }

  async write(i, bytes) {
    if (!this.access) throw new FirelightError('device', `${this.name} is open in another tab`, 'Close the other tab.');
    const at = i * this.chunkSize;
    if (this.access.write(bytes, { at }) !== bytes.length) {
      throw new FirelightError('quota', `the browser stored only a part of ${this.name}`, 'Free disk space or delete stored models, then try again.');
    }
    this.access.flush();
  }

  readInto(offset, into) {
    if (this.access) {
      const n = this.access.read(into, { at: offset });
      if (n !== into.length) throw new FirelightError('malformed', `${this.name}: ${n} of ${into.length} stored bytes at ${offset}`, 'Load the model again.');
    } else {
      into.set(new Uint8Array(new FileReaderSync().readAsArrayBuffer(this.blob.slice(offset, offset + into.length))));
    }
  }

  async saveState() {
    if (!this.note) return;
    // Always the same length, so that one write replaces the old state: a page may end between any two calls.
    const text = JSON.stringify(this.state).padEnd(300 + 68 * this.hashes.length);
    this.note.write(new TextEncoder().encode(text), { at: 0 });
    this.note.flush();
  }

  close() {
    this.access?.close();
    this.note?.close();
    this.access = this.note = null;
  }
}

/** A file in the Cache API, one entry per chunk; read through Blobs. */
class CacheFile extends StoredFile {
  static async open(cache, model, file) {
    const base = `https://firelight.invalid/${safe(model)}/${keyOf(file)}`;
    const stateUrl = `${base}/state`;
    const found = await cache.match(stateUrl);
    let state = found ? await found.json().catch(() => null) : null;
    if (state && (state.size !== file.size || state.sha256 !== file.sha256)) state = null;
    const self = new CacheFile(file, state);
    Object.assign(self, { cache, base, stateUrl, blobs: [] });
    for (let i = 0; i < self.hashes.length; i++) {
      const entry = self.hashes[i] && (await cache.match(`${base}/${i}`));
      const blob = entry ? await entry.blob() : null;
      if (blob?.size === self.chunkLength(i)) self.blobs[i] = blob;
      else self.hashes[i] = null;
    }
    if (!self.complete) self.verified = false;
    return self;
  }

  async write(i, bytes) {
    await this.cache.put(`${this.base}/${i}`, new Response(bytes));
    this.blobs[i] = await (await this.cache.match(`${this.base}/${i}`)).blob();
  }

  readInto(offset, into) {
    for (let at = 0; at < into.length; ) {
      const i = Math.floor((offset + at) / this.chunkSize);
      const from = offset + at - i * this.chunkSize;
      const n = Math.min(into.length - at, this.chunkLength(i) - from);
      into.set(new Uint8Array(new FileReaderSync().readAsArrayBuffer(this.blobs[i].slice(from, from + n))), at);
      at += n;
    }
  }

  async saveState() {
    await this.cache.put(this.stateUrl, new Response(JSON.stringify(this.state)));
  }

  close() {}
}

/** A file in memory: gone with the page. */
class MemoryFile extends StoredFile {
  constructor(file) {
    super(file, null);
    this.chunks = [];
  }

  async write(i, bytes) {
    this.chunks[i] = bytes;
  }

  readInto(offset, into) {
    for (let at = 0; at < into.length; ) {
      const i = Math.floor((offset + at) / this.chunkSize);
      const from = offset + at - i * this.chunkSize;
      const part = this.chunks[i].subarray(from, from + into.length - at);
      into.set(part, at);
      at += part.length;
    }
  }

  async saveState() {}

  close() {}
}

/** All stored models. */
export class Store {
  static async open() {
    const self = new Store();
    try {
      const root = await navigator.storage.getDirectory();
      self.root = await root.getDirectoryHandle(ROOT, { create: true });
      self.kind = globalThis.FileSystemFileHandle?.prototype.createSyncAccessHandle ? 'opfs' : null;
    } catch {
      self.kind = null;
    }
    if (!self.kind) {
      try {
        self.cache = await caches.open(CACHE);
        self.kind = 'cache';
      } catch {
        self.kind = 'memory';
      }
    }
    self.memory = new Map();
    return self;
  }

  /** Opens a model's files; what is not there yet is empty. */
  async files(spec) {
    const files = [];
    try {
      for (const file of spec.files) files.push(await this.#file(spec.name, file));
    } catch (e) {
      for (const file of files) file.close();
      throw e;
    }
    return files;
  }

  async #file(model, file) {
    if (this.kind === 'opfs') return OpfsFile.open(await this.root.getDirectoryHandle(safe(model), { create: true }), file);
    if (this.kind === 'cache') return CacheFile.open(this.cache, model, file);
    const key = `${model}/${keyOf(file)}`;
    if (!this.memory.has(key)) this.memory.set(key, new MemoryFile(file));
    const kept = this.memory.get(key);
    kept.failure = null;
    return kept;
  }

  async #text(path, value) {
    const url = `https://firelight.invalid/${path.map(safe).join('/')}`;
    if (this.kind === 'opfs') {
      let dir = this.root;
      for (const part of path.slice(0, -1)) dir = await dir.getDirectoryHandle(safe(part), { create: value !== undefined });
      const handle = await dir.getFileHandle(safe(path.at(-1)), { create: value !== undefined });
      if (value === undefined) return (await handle.getFile()).text();
      const access = await handle.createSyncAccessHandle();
      try {
        access.truncate(0);
        access.write(new TextEncoder().encode(value), { at: 0 });
        access.flush();
      } finally {
        access.close();
      }
    } else if (this.kind === 'cache') {
      if (value === undefined) return (await this.cache.match(url))?.text();
      await this.cache.put(url, new Response(value));
    } else {
      if (value === undefined) return this.memory.get(url);
      this.memory.set(url, value);
    }
    return value;
  }

  /** A small JSON value kept beside the models; `null` if there is none. */
  async get(...path) {
    try {
      return JSON.parse(await this.#text(path));
    } catch {
      return null;
    }
  }

  /** Keeps a small JSON value. */
  async set(value, ...path) {
    try {
      await this.#text(path, JSON.stringify(value));
    } catch {
      // Another tab writes the same one.
    }
  }

  /** What was noted of a model: `{spec, lastUsed}`, or null. */
  async note(name) {
    return this.get(name, 'model.json');
  }

  /** Notes a model's files and that it is used now. */
  async use(spec) {
    await this.set({ spec, lastUsed: Date.now() }, spec.name, 'model.json');
  }

  /** Names of models with anything stored. */
  async names() {
    if (this.kind === 'opfs') {
      const names = [];
      for await (const [name, handle] of this.root.entries()) {
        if (handle.kind === 'directory') names.push(name);
      }
      return names.map((n) => n.replace(/%([0-9a-f]+)/g, (_, c) => String.fromCharCode(parseInt(c, 16))));
    }
    const keys = this.kind === 'cache' ? (await this.cache.keys()).map((r) => r.url) : [...this.memory.keys()].filter((k) => k.startsWith('https'));
    return [...new Set(keys.map((k) => decodeURIComponent(new URL(k).pathname.split('/')[1])))];
  }

  /** Bytes stored of a model's files, without opening them for writing. */
  async stored(spec) {
    let bytes = 0;
    for (const file of spec.files) {
      const state = await this.get(spec.name, `${keyOf(file)}.json`).catch(() => null) ?? (this.kind === 'cache' ? await this.get(spec.name, keyOf(file), 'state') : null);
      if (this.kind === 'memory') bytes += this.memory.get(`${spec.name}/${keyOf(file)}`)?.stored ?? 0;
      else if (state?.size === file.size && state.sha256 === file.sha256) {
        bytes += state.hashes.reduce((sum, h, i) => sum + (h ? Math.min(state.chunkSize, file.size - i * state.chunkSize) : 0), 0);
      }
    }
    return bytes;
  }

  /** Deletes stored files of this model that its specification does not name any more. */
  async removeOld(spec) {
    if (this.kind === 'memory') return;
    const keep = new Set(spec.files.map(keyOf));
    if (this.kind === 'opfs') {
      const dir = await this.root.getDirectoryHandle(safe(spec.name), { create: true });
      for await (const name of dir.keys()) {
        const key = name.replace(/\.(bin|json)$/, '');
        if (name !== 'model.json' && !keep.has(key)) await dir.removeEntry(name).catch(() => {});
      }
    } else {
      for (const request of await this.cache.keys()) {
        const [, model, key] = new URL(request.url).pathname.split('/').map(decodeURIComponent);
        if (model === safe(spec.name) && key !== 'model.json' && !keep.has(key)) await this.cache.delete(request);
      }
    }
  }

  /** Deletes a model. */
  async remove(name) {
    if (this.kind === 'opfs') {
      await this.root.removeEntry(safe(name), { recursive: true }).catch((e) => {
        if (e.name !== 'NotFoundError') throw new FirelightError('device', `${name} is in use: ${e.message}`, 'Unload the model here and in other tabs first.');
      });
    } else if (this.kind === 'cache') {
      for (const request of await this.cache.keys()) {
        if (decodeURIComponent(new URL(request.url).pathname.split('/')[1]) === safe(name)) await this.cache.delete(request);
      }
    } else {
      for (const key of [...this.memory.keys()]) if (key.startsWith(`${name}/`) || key.startsWith(`https://firelight.invalid/${safe(name)}/`)) this.memory.delete(key);
    }
  }

  /**
   * Bytes that can still be stored, as far as `bytes` need it. Browsers report made-up quotas, so the room is tried: a file of that
   * length is made and deleted.
   */
  async room(bytes) {
    const { usage, quota } = await this.estimate();
    const told = Math.max(0, quota - usage);
    if (this.kind !== 'opfs' || bytes <= 0) return told;
    let access = null;
    const fits = (n) => {
      try {
        access.truncate(n);
        // Some browsers count a length only when something is written there.
        return n === 0 || access.write(new Uint8Array(1), { at: n - 1 }) === 1;
      } catch {
        return false;
      }
    };
    try {
      access = await (await this.root.getFileHandle('room', { create: true })).createSyncAccessHandle();
      if (fits(bytes)) return Math.max(told, bytes);
      let [low, high] = [0, bytes];
      for (let i = 0; i < 12; i++) {
        const middle = Math.floor((low + high) / 2);
        if (fits(middle)) low = middle;
        else high = middle;
      }
      return low;
    } catch {
      // Another page tries at the same moment.
      return told;
    } finally {
      if (access) {
        fits(0);
        access.close();
        await this.root.removeEntry('room').catch(() => {});
      }
    }
  }

  /** `{usage, quota, persisted}`, bytes; infinite where the browser does not say. */
  async estimate() {
    try {
      const { usage = 0, quota = Infinity } = await navigator.storage.estimate();
      return { usage, quota, persisted: await navigator.storage.persisted().catch(() => false) };
    } catch {
      return { usage: 0, quota: Infinity, persisted: false };
    }
  }
}
