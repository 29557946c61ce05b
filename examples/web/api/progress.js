// One figure over all files that never goes back, with a smoothed speed and the time left.

/** Shares of the whole: reading the processor, weights, compiling. */
const SHARE = { processor: 0.02, weights: 0.93, compiling: 0.05 };
/** Milliseconds between two events. */
const EVERY = 100;
/** Milliseconds over which the speed is smoothed. */
const WINDOW = 3000;

/** Progress of one load. */
export class Meter {
  /**
   * @param {number} total bytes of all files
   * @param {number} stored bytes that are in the browser's storage already
   * @param {(progress: import('./firelight.d.ts').Progress) => void} tell
   * @param {() => number} [clock] milliseconds
   */
  constructor(total, stored, tell, clock = () => performance.now()) {
    this.total = total;
    this.fetched = stored;
    this.placed = 0;
    this.fromCache = stored >= total;
    this.tell = tell;
    this.clock = clock;
    this.phase = 'processor';
    this.best = 0;
    this.bestBytes = 0;
    this.last = -Infinity;
    this.speed = 0;
    this.since = null;
  }

  /** Bytes that came from the network. */
  network(bytes) {
    const now = this.clock();
    this.fromCache = false;
    this.fetched = Math.min(this.total, this.fetched + bytes);
    if (this.since === null) {
      this.since = { at: now, bytes: 0 };
    }
    this.since.bytes += bytes;
    const span = now - this.since.at;
    if (span >= 250) {
      const rate = (this.since.bytes / span) * 1000;
      const weight = this.speed === 0 ? 1 : 1 - Math.exp(-span / WINDOW);
      this.speed += (rate - this.speed) * weight;
      this.since = { at: now, bytes: 0 };
    }
    this.#event();
  }

  /** Stored bytes that turned out to be damaged: they are fetched again, and the figure waits for them. */
  lost(bytes) {
    this.fetched = Math.max(0, this.fetched - bytes);
    this.fromCache = false;
  }

  /** Bytes of `of` that are on the device. */
  device(bytes, of) {
    this.phase = 'weights';
    this.placed = of ? (bytes / of) * this.total : this.total;
    this.#event();
  }

  /** The next phase begins. */
  enter(phase) {
    this.phase = phase;
    this.#event(true);
  }

  /** Everything is done. */
  end() {
    this.phase = 'compiling';
    this.best = 1;
    this.bestBytes = this.total;
    this.fetched = this.total;
    this.#event(true);
  }

  #event(now = false) {
    const time = this.clock();
    const bytes = this.fromCache ? this.placed : 0.95 * this.fetched + 0.05 * this.placed;
    const within = this.total ? Math.min(1, bytes / this.total) : 1;
    const fraction = { processor: SHARE.processor * within, weights: SHARE.processor + SHARE.weights * within, compiling: SHARE.processor + SHARE.weights }[this.phase];
    this.best = Math.max(this.best, fraction);
    this.bestBytes = Math.max(this.bestBytes, this.fromCache ? this.placed : this.fetched);
    if (!now && time - this.last < EVERY) return;
    this.last = time;
    const left = this.total - this.fetched;
    this.tell({
      phase: this.phase,
      loaded: Math.round(Math.min(this.total, this.bestBytes)),
      total: this.total,
      fraction: this.best,
      bytesPerSecond: this.fromCache || left === 0 ? 0 : Math.round(this.speed),
      etaSeconds: this.fromCache || left === 0 ? null : this.speed > 0 ? left / this.speed : null,
      fromCache: this.fromCache,
    });
  }
}
