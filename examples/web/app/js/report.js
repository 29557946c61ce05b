// The second page: what this device can do, measured here, to be copied into an issue.
import './trusted.js';
import { $, h, icon, copyText, download } from './dom.js';
import * as format from './format.js';
import { Firelight } from '../api/firelight.js';
import { explain } from './engine.js';
import { pref } from './preferences.js';
import { rungName } from './devicepanel.js';
import { registerWorker } from './pwa.js';

const STEPS = { secure: 'Secure address', webgpu: 'WebGPU', adapter: 'Graphics adapter', limits: 'Limits', features: 'Features', 'self-test': 'Self-test', cpu: 'Processor' };
let firelight = null;
let report = null;

const fact = (name, value) => (value === null || value === undefined || value === '' ? [] : [h('dt', {}, name), h('dd', {}, String(value))]);
const yes = (value) => (value === undefined ? undefined : value ? 'yes' : 'no');
const section = (title, ...content) => h('section', {}, h('h2', {}, title), content);

/** Any value of a report as rows of a table: nested objects are flattened, numbers get their thousands. */
function rows(value, prefix = '') {
  if (value === null || value === undefined) return [];
  if (typeof value !== 'object') return [[prefix, typeof value === 'number' ? value.toLocaleString('en', { maximumFractionDigits: 3 }) : String(value)]];
  return Object.entries(value).flatMap(([k, v]) => rows(v, prefix ? `${prefix} ${k}` : k));
}

/** `maxStorageBufferBindingSize` → `max storage buffer binding size`. */
const words = (name) => name.replace(/([a-z0-9])([A-Z])/g, '$1 $2').replaceAll('_', ' ').toLowerCase();

function table(head, lines) {
  // Columns of numbers line up at the right.
  const n = head.map((_, i) => lines.every((l) => /^[\d.,]*$/.test(l[i] ?? '')));
  return h('div.scroll', { tabIndex: 0, role: 'region', 'aria-label': head[0] }, h('table', {},
    h('thead', {}, h('tr', {}, head.map((t, i) => h(n[i] ? 'th.n' : 'th', { scope: 'col' }, t)))),
    h('tbody', {}, lines.map((l) => h('tr', {}, l.map((t, i) => h(n[i] ? 'td.n' : 'td', {}, t)))))));
}

/** A measurement by its name's unit: `decodeBytesPerSecond` → `decode`, `12.4 GB/s`. */
function measured(name, value) {
  const units = [
    [/ ?bytes per second$/, (v) => `${format.bytes(v)}/s`], [/ ?macs per second$/, (v) => `${(v / 1e9).toFixed(1)} G multiply-adds/s`],
    [/^ms per token$/, (v) => `${v.toFixed(2)} ms`, 'one token'], [/ ms$/, (v) => `${v.toFixed(2)} ms`],
  ];
  const label = words(name);
  const unit = units.find(([pattern]) => typeof value === 'number' && pattern.test(label));
  return unit ? [unit[2] ?? label.replace(unit[0], ''), unit[1](value)] : null;
}

/** Measurements: a list of objects becomes a table with their fields, anything else name and value. */
function measurements(b) {
  const list = Array.isArray(b) ? b : Array.isArray(b?.kernels) ? b.kernels : null;
  if (!list?.length) return h('dl.facts', {}, Object.entries(b).flatMap(([k, v]) => (measured(k, v) ? [measured(k, v)] : rows(v, k).map(([n, w]) => [words(n), w]))).map(([k, v]) => fact(k[0].toUpperCase() + k.slice(1), v)));
  const keys = [...new Set(list.flatMap((x) => Object.keys(x)))];
  const cell = (v) => (typeof v === 'number' ? v.toLocaleString('en', { maximumFractionDigits: 2 }) : typeof v === 'object' && v !== null ? JSON.stringify(v) : String(v ?? ''));
  const more = Array.isArray(b) ? [] : rows({ ...b, kernels: undefined }).map(([k, v]) => [words(k), v]);
  return [table(keys.map(words), list.map((x) => keys.map((k) => cell(x[k])))), more.length ? table(['Measurement', ''], more) : ''];
}

function draw(r) {
  const d = r.device ?? r;
  const [short, way] = rungName(d.rung);
  const a = d.adapter;
  const p = r.page ?? {};
  const bench = r.benchmarks ?? r.bench;
  $('parts').replaceChildren(
    h('section', {}, h('h2', {}, 'In a word'), h('p.verdict', {}, icon(d.gpu ? 'check' : 'warn'), d.device?.startsWith(short) ? d.device : `${short}: ${d.device}`), h('p', {}, d.reason ?? ''),
      h('dl.facts', {}, fact('How', `${way} (${d.rung})`), fact('SIMD in the page', d.simd), fact('Threads', d.threadsWhy ? `${d.threads}. ${d.threadsWhy}` : d.threads))),
    section('How the device was chosen', h('ol.steps', {}, (d.steps ?? []).map((s) => h(s.ok ? 'li' : 'li.no', {}, icon(s.ok ? 'check' : 'warn'),
      h('span', {}, h('strong', {}, STEPS[s.step] ?? s.step), ` ${s.what}`, s.remedy ? h('span.remedy', {}, s.remedy) : null))))),
    d.selfTest ? section('Self-test', h('p', {}, `${d.selfTest.cases} cases of ${d.selfTest.kernels} kernels computed right in ${(d.selfTest.ms / 1000).toFixed(1)} s.`)) : '',
    bench ? section('Measured here', measurements(bench)) : '',
    (d.attempts ?? []).length ? section('What was tried', table(['Adapter or processor', 'Rung', 'Outcome'], d.attempts.map((t) => [t.what, t.rung, t.refused ?? 'runs']))) : '',
    a ? section('Adapter', h('dl.facts', {}, fact('Name', a.name), fact('Imitated by software', yes(a.software)), fact('Half precision', yes(a.f16)),
      fact('Subgroups', a.subgroups ? `yes, ${(a.subgroupSize ?? []).join(' to ')}` : 'no'), fact('Largest binding', format.bytes(a.maxBinding)), fact('Largest buffer', format.bytes(a.maxBuffer))),
    a.features?.length ? h('ul.tags', { 'aria-label': 'Features' }, a.features.map((f) => h('li.badge', {}, f))) : '',
    a.limits ? h('details', {}, h('summary', {}, 'Limits'), table(['Limit', 'Value'], rows(a.limits).map(([k, v]) => [words(k), v]))) : '') : '',
    section('Browser', h('dl.facts', {}, fact('Browser', p.userAgent), fact('Language', p.language), fact('Cores', p.cores), fact('Memory', p.deviceMemoryGiB && `${p.deviceMemoryGiB} GiB or more`),
      fact('Secure address', yes(p.secureContext)), fact('Isolated (threads possible)', yes(p.crossOriginIsolated)))),
    h('details', {}, h('summary', {}, 'All of it as JSON'), h('pre', { tabIndex: 0 }, JSON.stringify(r, null, 2))));
}

const busy = (text) => $('status').replaceChildren(h('span.embers', { 'aria-hidden': 'true' }, h('i'), h('i'), h('i')), text);
const enable = (on) => { for (const id of ['copy', 'save']) $(id).disabled = !report; $('again').disabled = !on; };

async function measure() {
  enable(false);
  try {
    busy('Choosing a device and testing it…');
    firelight ??= await Firelight.create({ device: pref('device'), rung: pref('rung') || undefined });
    draw({ device: await firelight.device(), page: {} });
    busy('Measuring; this takes a few seconds…');
    report = { made: new Date().toISOString(), ...(await firelight.report({ benchmarks: true })) };
    draw(report);
    $('status').replaceChildren('Done.');
  } catch (e) {
    const { title, text, remedy, code } = explain(e);
    // What is known of the browser is worth copying most of all when nothing runs.
    report ??= { made: new Date().toISOString(), error: { code, text, remedy }, page: { userAgent: navigator.userAgent, secureContext: isSecureContext, crossOriginIsolated, webgpu: 'gpu' in navigator } };
    $('status').replaceChildren(h('div.notice.bad', { role: 'alert' }, icon('warn'), h('div', {}, h('strong', {}, title), `${text} ${remedy ?? ''}`)));
  }
  enable(true);
}

$('copy').addEventListener('click', () => copyText(JSON.stringify(report, null, 2), $('copy')));
$('save').addEventListener('click', () => download('firelight-device-report.json', new Blob([JSON.stringify(report, null, 2)], { type: 'application/json' })));
$('again').addEventListener('click', measure);
registerWorker();
measure();
