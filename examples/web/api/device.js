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

/** The report of `firelight.d.ts` from the engine's and the waterfall's. */
export function describe(engine, steps, adapter, moved) {
  const report = JSON.parse(engine.report());
  const all = [...steps];
  for (const attempt of report.attempts) {
    if (!attempt.rung.startsWith('gpu')) continue;
    all.push(attempt.refused
      ? { step: 'self-test', ok: false, what: `${attempt.rung}: ${attempt.refused}`, remedy: remedyFor(attempt.refused) }
      : { step: 'self-test', ok: true, what: `${attempt.rung}: every kernel answers right.` });
  }
  if (!report.gpu) {
    all.push({ step: 'cpu', ok: true, what: `The processor computes, with ${report.isa} instructions on ${report.threads === 1 ? 'one thread' : `${report.threads} threads`}.` });
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
