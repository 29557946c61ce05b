// What runs, on what, and why; and what could be done about it.
import { $, h, icon, openDialog } from './dom.js';
import * as format from './format.js';
import { engine, explain } from './engine.js';

const RUNGS = {
  'gpu-f16-subgroups': ['GPU', 'the GPU with half precision and subgroups: the fastest way'],
  'gpu-f16': ['GPU', 'the GPU with half precision'],
  'gpu-f32': ['GPU', 'the GPU in single precision'],
  cpu: ['CPU', 'the processor, on several threads'],
  'cpu-simd': ['CPU', 'the processor, with SIMD instructions'],
  'cpu-scalar': ['CPU', 'the processor, without SIMD: the slowest way'],
};
const STEPS = { secure: 'Secure address', webgpu: 'WebGPU', adapter: 'Graphics adapter', limits: 'Limits', features: 'Features', 'self-test': 'Self-test', cpu: 'Processor' };

/** `GPU` or `CPU`, and the same in words. */
export const rungName = (rung) => RUNGS[rung] ?? [rung ?? '', rung ?? ''];

function steps(list) {
  return h('ol.steps', {}, list.map((s) => h(s.ok ? 'li' : 'li.no', {}, icon(s.ok ? 'check' : 'warn'), h('span', {},
    h('strong', {}, STEPS[s.step] ?? s.step), h('span.sr', {}, s.ok ? ' (fine)' : ' (missing)'), ` ${s.what}`,
    s.remedy ? h('span.remedy', {}, s.remedy) : null))));
}

const fact = (name, value) => (value === null || value === undefined || value === '' ? [] : [h('dt', {}, name), h('dd', {}, value)]);

/** The panel's content for a report; memory may come later. */
export function deviceView(d, memory) {
  const [, words] = rungName(d.rung);
  const a = d.adapter;
  const holders = memory ? Object.entries(memory.device).filter(([, n]) => n > 0).map(([k, n]) => `${k} ${format.bytes(n)}`).join(', ') : '';
  return [
    h('section', {},
      h('dl.facts', {}, fact('Runs on', d.device), fact('How', `${words} (${d.rung})`), fact('Why', d.reason),
        engine.moved ? fact('Moved', engine.moved) : [],
        fact('Model', engine.model ? `${engine.model.name}, ${format.bytes(engine.model.weightBytes)}` : 'none loaded'))),
    h('section', {}, h('h3', {}, 'How it was chosen'), steps(d.steps ?? [])),
    (d.attempts ?? []).some((t) => t.refused) ? h('section', {}, h('h3', {}, 'What was tried and not taken'),
      h('ol.steps', {}, d.attempts.filter((t) => t.refused).map((t) => h('li.no', {}, icon('warn'), h('span', {}, h('strong', {}, t.what), ` (${t.rung}): ${t.refused}`))))) : '',
    h('section', {}, h('h3', {}, 'Details'),
      h('dl.facts', {},
        a ? [fact('Adapter', a.name + (a.software ? ' (software)' : '')), fact('Half precision', a.f16 ? 'yes' : 'no'),
          fact('Subgroups', a.subgroups ? `yes, ${a.subgroupSize?.join(' to ')}` : 'no'), fact('Largest binding', format.bytes(a.maxBinding)),
          fact('Largest buffer', format.bytes(a.maxBuffer))] : [],
        fact('SIMD in the page', d.simd), fact('Threads', d.threadsWhy ? `${d.threads}. ${d.threadsWhy}` : d.threads),
        d.selfTest ? fact('Self-test', `${d.selfTest.cases} cases of ${d.selfTest.kernels} kernels right, ${(d.selfTest.ms / 1000).toFixed(1)} s`) : [],
        memory ? [fact('Device memory', `${format.bytes(memory.deviceTotal)}${holders ? ` (${holders})` : ''}`), fact('Page memory', format.bytes(memory.wasmHeap + (memory.helperHeap ?? 0))),
          fact('Stored', `${format.bytes(memory.storage.usage)} of ${format.bytes(memory.storage.quota)}${memory.storage.persisted ? ', kept by the browser' : ''}`)] : [])),
    h('p', {}, h('a', { href: 'device.html' }, 'Full report of this device')),
  ];
}

/** Opens the panel. `settings` leads to where the device is chosen. */
export async function openDevice(settings) {
  const body = $('device-body');
  const show = (d, m) => body.replaceChildren(...deviceView(d, m).filter(Boolean),
    h('p', {}, h('button.link', { type: 'button', onclick: () => { $('device').close(); settings(); } }, 'Choose another device')));
  if (engine.device) show(engine.device, null);
  else body.replaceChildren(h('p.soft', {}, 'Looking at this device…'));
  openDialog($('device'));
  try {
    const firelight = await engine.start();
    const [d, m] = await Promise.all([firelight.device(), firelight.memory().catch(() => null)]);
    show(d, m);
  } catch (e) {
    const { title, text, remedy } = explain(e);
    body.replaceChildren(h('div.notice.bad', {}, icon('warn'), h('div', {}, h('strong', {}, title), `${text} ${remedy ?? ''}`)));
  }
}
