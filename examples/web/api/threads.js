// Threads of the processor's rung: helpers, workers with an instance of the engine and a memory of their own, which hold their share of
// the rows of the large weights and compute their part of each product. What goes there and back, activations and results, passes
// through one SharedArrayBuffer; whoever waits sleeps in `Atomics.wait`. Loaded only where the page is cross-origin isolated.

/** Words of a helper in the control block: requests so far, the length of the last, replies so far, the length of the last (-1: it failed), whether the helper sleeps, whether the engine does, pages of the helper's heap, whether the helper is to end. */
export const WORD = { asked: 0, length: 1, done: 2, replied: 3, asleep: 4, waiting: 5, heap: 6, ended: 7 };
/** Words from one helper's to the next one's: nobody writes into another's cache line. */
const WORDS = 16;
/** Bytes of a request, and of a reply, at most. What is never written takes no memory. */
const ROOM = 24 << 20;
/** How often to look before going to sleep: some tens of microseconds, the gap between two products. */
export const SPINS = 20_000;
/** Milliseconds that a helper has to start. */
const START = 15_000;
/** Milliseconds that a reply is waited for, whatever the engine's own part took. */
const PATIENCE = 3000;
/** After so many replies it is seen whether helpers save time; if not, they rest for so many milliseconds: another program has the core. */
const TRIAL = 128;
const REST = 1000;

/** A helper's views of the shared memory. */
export const views = (shared, helper) => ({
  control: new Int32Array(shared, helper * WORDS * 4, WORDS),
  request: new Uint8Array(shared, 4096, ROOM),
  reply: new Uint8Array(shared, 4096 + (1 + helper) * ROOM, ROOM),
});

/** The engine's side: what `Threads` of `threads.rs` calls. */
export class Threads {
  #helpers;
  /** Nothing is handed over while this is set: the copies of the weights would not fit. */
  paused = false;
  /** Whether helpers rest when they save no time. */
  rests = true;
  /** Why the helpers ended, in words. */
  failure = null;
  /** Replies of this trial, milliseconds that the engine computed and waited meanwhile, and when a rest ends. */
  #trial = { replies: 0, own: 0, waited: 0 };
  #rested = 0;

  /**
   * Starts helpers with the engine's compiled module and its script; all or none.
   * @param {number} count
   * @param {WebAssembly.Module} code
   * @param {string} script
   */
  static async start(count, code, script) {
    const self = new Threads();
    const shared = new SharedArrayBuffer(4096 + (1 + count) * ROOM);
    self.#helpers = Array.from({ length: count }, (_, i) => {
      const worker = new Worker(new URL('./helper.js', import.meta.url), { type: 'module', name: `firelight-helper-${i + 1}` });
      return { worker, ...views(shared, i), sent: 0 };
    });
    let late;
    try {
      await Promise.race([
        Promise.all(self.#helpers.map(({ worker }, helper) => new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => (data.failed ? reject(new Error(data.failed)) : resolve());
          worker.onerror = (e) => { e.preventDefault(); reject(new Error(e.message || 'its files could not be loaded')); };
          worker.postMessage({ code, script, shared, helper });
        }))),
        new Promise((_, reject) => { late = setTimeout(reject, START, new Error(`not started after ${START / 1000} s`)); }),
      ]);
    } catch (e) {
      self.end();
      throw e;
    } finally {
      clearTimeout(late);
    }
    return self;
  }

  get count() { return this.#helpers.length; }

  get room() { return this.paused || performance.now() < this.#rested ? 0 : ROOM; }

  /** Bytes of all helpers' heaps. */
  get heap() { return this.#helpers.reduce((sum, { control }) => sum + control[WORD.heap] * 65536, 0); }

  write(at, bytes) { this.#helpers[0].request.set(bytes, at); }

  send(helper, length) {
    const h = this.#helpers[helper];
    h.sent = performance.now();
    h.control[WORD.length] = length;
    Atomics.add(h.control, WORD.asked, 1);
    if (Atomics.load(h.control, WORD.asleep)) Atomics.notify(h.control, WORD.asked);
  }

  receive(helper, into) {
    const { control, reply, sent } = this.#helpers[helper];
    const asked = control[WORD.asked];
    const began = performance.now();
    const there = () => Atomics.load(control, WORD.done) === asked;
    for (let i = 0; i < SPINS && !there(); i++);
    if (!there()) {
      // A helper has as many rows as the engine: what that took, several times.
      const until = began + PATIENCE + 8 * (began - sent);
      Atomics.store(control, WORD.waiting, 1);
      for (let left; !there() && (left = until - performance.now()) > 0;) Atomics.wait(control, WORD.done, asked - 1, left);
      Atomics.store(control, WORD.waiting, 0);
    }
    if (!there() || control[WORD.replied] !== into.length) {
      this.end(there() ? 'A helper failed.' : 'A helper did not answer.');
      return false;
    }
    into.set(reply.subarray(0, into.length));
    // Of a product: a weight taken has one word. So no rest begins between two pieces of a weight.
    if (into.length > 4) this.#judge(began - sent, performance.now() - began);
    return true;
  }

  /** Who waits as long as its own part takes is no quicker than alone. */
  #judge(own, waited) {
    const trial = this.#trial;
    trial.replies++;
    trial.own += own;
    trial.waited += waited;
    if (trial.replies < TRIAL) return;
    if (this.rests && trial.waited > trial.own) this.#rested = performance.now() + REST;
    this.#trial = { replies: 0, own: 0, waited: 0 };
  }

  /** Ends one helper. */
  kill(helper) {
    const { worker, control } = this.#helpers[helper];
    // Told, it ends at once; browsers give a worker that is busy a few seconds.
    Atomics.store(control, WORD.ended, 1);
    Atomics.add(control, WORD.asked, 1);
    Atomics.notify(control, WORD.asked);
    worker.terminate();
  }

  /** Ends the helpers. */
  end(why = null) {
    this.failure ??= why;
    this.#helpers.forEach((_, helper) => this.kill(helper));
  }
}
