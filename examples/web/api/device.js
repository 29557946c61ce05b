// Choosing the device: the waterfall in words around the engine's own ladder.

import { failNextAllocation, loseDevices, patchWebGpu, remedyFor, waterfall } from './features.js';
export { failNextAllocation, loseDevices };

/**
 * Starts the engine on the best device that answers right.
 * @returns {Promise<{engine: object, steps: object[], adapter: GPUAdapter | null}>}
 */
export async function chooseDevice(module, { device = 'auto', rung = null, options = {} }, turn) {
  patchWebGpu();
  const cpuOnly = device === 'cpu' || rung?.startsWith('cpu');
  const { steps, adapter } = await waterfall(cpuOnly ? 'cpu' : device);
  const request = { ...options, device, rung: rung ?? undefined };
  // Without an adapter there is nothing to try.
  if (!adapter && device === 'auto' && !rung) request.device = 'cpu';
  const engine = await module.WebEngine.create(JSON.stringify(request), turn);
  return { engine, steps, adapter };
}

/**
 * How many threads the processor's rung gets here, and why not more.
 * @param {number | undefined} asked
 * @param {string | null} rung the one that was asked for
 */
export function planThreads(asked, rung) {
  const cores = globalThis.navigator?.hardwareConcurrency ?? 1;
  const one = (why, remedy) => ({ count: 1, why, remedy });
  if (asked === 1) return one('One thread was asked for.');
  if (rung === 'cpu-simd' || rung === 'cpu-scalar') return one('The rung that was asked for has one thread.');
  if (!globalThis.crossOriginIsolated) {
    return one('The page is not isolated, so it cannot have more.', 'Serve it with the headers `Cross-Origin-Opener-Policy: same-origin` and `Cross-Origin-Embedder-Policy: require-corp`, as `firelight web` does.');
  }
  if (asked) return { count: asked, why: 'So many were asked for.', asked: true };
  if (cores < 2) return one('The browser gives one core.');
  return { count: Math.max(2, Math.min(4, cores >> 1)), why: cores > 3 ? `Half of the ${cores} cores are used, and at most four.` : null };
}

/**
 * The report of `firelight.d.ts` from the engine's and the waterfall's.
 * @param {{plan: {count: number, why: string | null, remedy?: string}, failure: string | null}} threads
 */
export function describe(engine, steps, adapter, moved, { plan, failure }) {
  const report = JSON.parse(engine.report());
  report.threads = failure ? 1 : 1 + report.sharing.helpers;
  report.threadsWhy = report.gpu ? null : failure ?? plan.why;
  const threads = report.threads === 1 ? 'one thread' : `${report.threads} threads`;
  if (!report.gpu) report.device = report.device.replace(/\d+ threads$/, threads);
  if (report.threads > 1) report.rung = 'cpu';
  const all = [...steps];
  for (const attempt of report.attempts) {
    if (!attempt.rung.startsWith('gpu')) continue;
    all.push(attempt.refused
      ? { step: 'self-test', ok: false, what: `${attempt.rung}: ${attempt.refused}`, remedy: remedyFor(attempt.refused) }
      : { step: 'self-test', ok: true, what: `${attempt.rung}: every kernel answers right.` });
  }
  if (!report.gpu) {
    const why = report.threadsWhy ? ` ${report.threadsWhy}` : '';
    all.push({ step: 'cpu', ok: true, what: `The processor computes, with ${report.isa} instructions on ${threads}.${why}`, ...(plan.remedy && !failure ? { remedy: plan.remedy } : {}) });
  }
  if (report.adapter && adapter) {
    report.adapter.features = [...adapter.features].sort();
    report.adapter.limits = {};
    for (const key in adapter.limits) report.adapter.limits[key] = adapter.limits[key];
  }
  const failed = all.find((s) => !s.ok);
  const reason = report.gpu
    ? (failed ? `The GPU runs on a lower rung: ${failed.what}` : 'The GPU answers right.')
    : moved ?? (failed ? failed.what : 'The processor was asked for.');
  return { ...report, reason, steps: all };
}
