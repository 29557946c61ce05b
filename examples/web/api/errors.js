// Errors as objects: a code for programs, a message and a remedy for people. Shared by the page and the worker.

/**
 * Every error this API throws.
 *
 * Codes: `unsupported` (this version or browser cannot), `invalid_input`, `malformed` (a damaged or foreign file), `limit`,
 * `quota` (no room to store the model), `memory` (no room to run it), `network`, `not_found`, `checksum`, `device`,
 * `bad_logits`, `cancelled`, `no_model`, `worker_lost`, `disposed`, `internal`.
 */
export class FirelightError extends Error {
  /**
   * @param {string} code one of the codes above
   * @param {string} message what was expected and what was found
   * @param {string} [remedy] what the user or the page could do about it
   * @param {object} [details] figures: `{needed, available}` for `quota` and `memory`, `{status, url}` for `network`
   */
  constructor(code, message, remedy = '', details = undefined) {
    super(message);
    this.name = 'FirelightError';
    this.code = code;
    this.remedy = remedy;
    if (details) this.details = details;
  }

  /** What `postMessage` carries. */
  toJSON() {
    return { code: this.code, message: this.message, remedy: this.remedy, details: this.details };
  }

  /** Any thrown value as a FirelightError. */
  static from(value) {
    if (value instanceof FirelightError) return value;
    if (value && typeof value === 'object' && typeof value.code === 'string' && typeof value.message === 'string') {
      return new FirelightError(value.code, value.message, value.remedy ?? '', value.details);
    }
    if (value?.name === 'AbortError') return new FirelightError('cancelled', 'cancelled');
    if (value?.name === 'QuotaExceededError') {
      return new FirelightError('quota', `the browser has no room left: ${value.message}`,
        'Delete stored models or free disk space, then try again; what was downloaded is kept.');
    }
    // A trap inside the engine (memory that ran out, a defect) ends the worker's instance.
    if (typeof WebAssembly !== 'undefined' && value instanceof WebAssembly.RuntimeError) {
      return new FirelightError('internal', `the engine stopped: ${value.message}`, 'Load the model again; if it repeats, take a smaller one.');
    }
    return new FirelightError('internal', String(value?.message ?? value), 'Reload the page; if it repeats, please report it with the device report.');
  }
}

/** The error of an operation that was cancelled. */
export const cancelled = (what = 'cancelled') => new FirelightError('cancelled', what);
