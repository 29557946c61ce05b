// The one place that knows the engine's API: starts it when it is first needed, keeps what it said, starts it anew on another device.
import { Firelight, FirelightError } from '../api/firelight.js';
import { pref } from './preferences.js';
import { keepEngine } from './pwa.js';

export { FirelightError };

const listeners = new Set();

export const engine = {
  /** The device report of the running engine, or null. */
  device: null,
  /** What was loaded (the engine's ModelInfo), or null. */
  model: null,
  /** The last move down the ladder: why, in words. */
  moved: null,

  /** Calls back whenever device or model change. */
  onChange: (fn) => listeners.add(fn),

  changed() { for (const fn of listeners) fn(engine); },

  /** The engine, started. Throws a FirelightError. */
  async start() {
    starting ??= Firelight.create({
      device: pref('device'),
      rung: pref('rung') || undefined,
      onDevice: (report) => { engine.device = report; engine.changed(); keepEngine(report); },
    }).catch((e) => { starting = null; throw FirelightError.from(e); });
    return starting;
  },

  /** Loads a model of the list. */
  async load(model, options) {
    engine.model = null;
    engine.changed();
    const firelight = await engine.start();
    engine.model = await firelight.load(model, options);
    engine.changed();
    return engine.model;
  },

  /** Frees the model. */
  async unload() {
    engine.model = null;
    engine.changed();
    await (await starting)?.unload();
  },

  /** Ends the engine; the next use starts it with the preferences as they are then. */
  async restart() {
    const old = starting;
    starting = null;
    engine.model = engine.device = engine.moved = null;
    engine.changed();
    await (await old?.catch(() => null))?.dispose();
  },

  /** Whether messages may carry pictures or sound: the loaded model says so. */
  accepts: (what) => engine.model?.accepts?.[what] === true,
};

let starting = null;

/** Any error as words for people: `{ title, text, remedy, code }`. */
export function explain(error) {
  const e = FirelightError.from(error);
  const titles = {
    network: navigator.onLine === false ? 'You are offline' : 'The download was interrupted',
    quota: 'Not enough storage', memory: 'Not enough memory', checksum: 'The download was damaged', not_found: 'The model is not there',
    device: 'The device failed', bad_logits: 'The device computed nonsense', worker_lost: 'The engine was ended by the browser',
    unsupported: 'Not possible here', unfinished: 'The answer was cut short', malformed: 'The model’s file cannot be read', limit: 'Too much at once', invalid_input: 'That does not fit',
  };
  return { code: e.code, title: titles[e.code] ?? 'Something went wrong', text: e.message, remedy: e.remedy };
}
