// Speech to text: which model hears, and the engine it runs in. A speech model that was chosen as the page's model runs in the page's
// engine; beside a language model one more engine, with a worker of its own, takes dictation.
import { Firelight } from '../api/firelight.js';
import { engine } from './engine.js';
import * as models from './models.js';
import { pref } from './preferences.js';
import { keepEngine } from './pwa.js';

/** The second engine is given back when it was not used for so long. */
const IDLE = 180_000;

/** `{ name, firelight }`: a promise of an engine with the model loaded. */
let second = null;
let uses = 0;
let idle = null;

/** Whether the page's model itself is one that hears. */
export const isMain = () => engine.model?.transcribe === true;

/** The model that would hear: the page's, the stored one that was used last, or the smallest of the list. Undefined where there is none. */
export function speechModel() {
  if (isMain()) return models.find(engine.model.name) ?? engine.model;
  const all = models.all().filter((m) => m.task === 'transcribe');
  const used = (m) => models.storedModels().find((c) => c.name === m.name)?.lastUsed ?? 0;
  return all.filter((m) => models.isStored(m.name)).sort((a, b) => used(b) - used(a))[0] ?? all[0];
}

/** Whether it can be used without a download. */
export const isHere = () => isMain() || models.isStored(speechModel()?.name);

/**
 * Runs `work(firelight)` with an engine that hears. `onProgress` and `signal` are those of a load.
 * @template T
 * @param {(firelight: Firelight) => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withEar(work, { onProgress, signal } = {}) {
  if (isMain()) return work(await engine.start());
  const spec = speechModel();
  clearTimeout(idle);
  if (second?.name !== spec.name) {
    release();
    second = { name: spec.name, firelight: open(spec.name, { onProgress, signal }) };
    const mine = second;
    second.firelight.catch(() => { if (second === mine) second = null; });
  }
  uses++;
  try {
    return await work(await second.firelight);
  } finally {
    if (--uses === 0) idle = setTimeout(release, IDLE);
  }
}

async function open(name, options) {
  const firelight = await Firelight.create({
    device: pref('device'), rung: pref('rung') || undefined, parts: 'everything', onDevice: keepEngine,
  });
  try {
    await firelight.load(name, options);
    models.loadStored().catch(() => {});
    return firelight;
  } catch (e) {
    firelight.dispose();
    throw e;
  }
}

/** Gives the second engine back, with what it holds. */
export function release() {
  const old = second;
  second = null;
  old?.firelight.then((f) => f.dispose(), () => {});
}

/**
 * Listens: samples may come at once, whether the engine is ready or not. `onText({ final, partial })` gets what was said so far. Gives
 * `{ push(samples), end(), done }`; `done`, which `end` gives, resolves to the whole text, and rejects as soon as the engine fails.
 */
export function dictation({ rate, onText, onProgress, signal }) {
  let waiting = [];
  let wake = null;
  let ended = false;
  let final = '';
  const told = (text) => (final && text ? `${final} ${text}` : final || text);
  const onEvent = ({ type, text }) => {
    if (type === 'start' || signal?.aborted) return;
    if (type === 'final') final = told(text.trim());
    onText({ final, partial: type === 'partial' ? text.trim() : '' });
  };
  const done = withEar(async (firelight) => {
    const listening = await firelight.listen({ rate, signal, onEvent });
    for (;;) {
      // What came while the engine was at work goes to it in one piece: so it catches up.
      const samples = joined(waiting);
      waiting = [];
      if (samples.length) await listening.push(samples);
      else if (ended) break;
      else await new Promise((resolve) => { wake = resolve; });
    }
    await listening.finish();
    return final;
  }, { onProgress, signal });
  done.catch(() => {});
  return {
    push(samples) { waiting.push(samples); wake?.(); },
    end() { ended = true; wake?.(); return done; },
    done,
  };
}

function joined(pieces) {
  if (pieces.length === 1) return pieces[0];
  const all = new Float32Array(pieces.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of pieces) { all.set(p, at); at += p.length; }
  return all;
}
