// Which models there are, what fits here, and choosing one.
import { $, h, icon, openDialog, confirm } from './dom.js';
import * as format from './format.js';
import { engine, explain } from './engine.js';

/** The list of the site: ModelSpecs. Kept for offline use in localStorage, since the list is small and the models are on the device. */
let list = [];
let stored = new Map();
const verdicts = new Map();
const KEY = 'firelight-models';

const size = (spec) => spec.files.reduce((n, f) => n + f.size, 0);

/** Why there is no list; null when there is one. */
export let listProblem = null;

/** Reads the list; what was read last serves where the network is gone, or does not answer. */
export async function loadList() {
  let saved = [];
  try { saved = JSON.parse(localStorage.getItem(KEY) ?? '[]'); } catch { /* none, then */ }
  try {
    // Without a list to fall back on there is nothing to do but wait: a server may be computing the hashes of large files.
    const response = await fetch('models/index.json', { cache: 'no-cache', signal: saved.length ? AbortSignal.timeout(5000) : undefined });
    if (!response.ok) throw new Error(`the server says ${response.status}`);
    list = (await response.json()).models.filter((m) => typeof m?.name === 'string' && Array.isArray(m.files));
    listProblem = null;
    try { localStorage.setItem(KEY, JSON.stringify(list)); } catch { /* offline use will start from the engine's own storage */ }
  } catch (e) {
    listProblem = navigator.onLine ? `The list of models could not be read: ${e.message}.` : 'You are offline.';
    list = saved;
  }
  return list;
}

/** What is on this device. Needs the engine. */
export async function loadStored() {
  const firelight = await engine.start();
  stored = new Map((await firelight.cached()).map((c) => [c.name, c]));
  return stored;
}

export const find = (name) => list.find((m) => m.name === name);
export const isStored = (name) => stored.get(name)?.complete === true && stored.get(name)?.current !== false;
export const storedModels = () => [...stored.values()];

/** Models that the page has a use for, those that can chat first, those that hear last. */
export const all = () => list.filter((m) => TASKS.includes(m.task ?? 'chat')).sort((a, b) => rank(a) - rank(b) || size(a) - size(b));
const TASKS = ['chat', 'text', 'transcribe'];
const rank = (m) => TASKS.indexOf(m.task ?? 'chat');

/** The one to begin with: on the device already, else the smallest. One that only hears is not it, unless there are no others. */
export const suggested = () => all().find((m) => isStored(m.name) && m.task !== 'transcribe') ?? all()[0];

/** What the engine says about a model before it is downloaded; asked once. */
function preflight(spec) {
  if (!verdicts.has(spec.name)) {
    verdicts.set(spec.name, engine.start().then((f) => f.preflight(spec.name)).catch((e) => { verdicts.delete(spec.name); throw e; }));
  }
  return verdicts.get(spec.name);
}

/** After a change of device everything may fit differently. */
export const forgetVerdicts = () => verdicts.clear();

function facts(spec) {
  const parts = [format.bytes(size(spec))];
  if (spec.task === 'transcribe') parts.push('writes down what is said');
  else if (spec.context) parts.push(`${format.count(spec.context)} tokens of context`);
  if (spec.task === 'text') parts.push('base model: continues text');
  return parts.join(' · ');
}

function licence(spec) {
  if (!spec.licence) return null;
  const url = /^https:\/\//.test(spec.licence_url ?? '') && spec.licence_url;
  return h('span', {}, ' · ', url ? h('a', { href: url, target: '_blank', rel: 'noopener noreferrer' }, spec.licence) : spec.licence);
}

/** One sentence per problem, with what can be done about it. */
function problemsOf(verdict) {
  return verdict.problems.map((p) => h('p.small-text', {}, `${p.message} `, h('span.soft', {}, p.remedy ?? '')));
}

/** A card. `use(spec)` loads it; `wide`: the one of the first visit. */
export function card(spec, { use, changed, wide = false, headingLevel = 3 }) {
  const verdict = h('div.verdict');
  const problems = h('div');
  const here = isStored(spec.name);
  const current = engine.model?.name === spec.name;
  const part = stored.get(spec.name);
  const label = current ? 'In use' : here ? 'Use' : part && !part.complete && part.bytes ? `Resume · ${format.bytes(part.total - part.bytes)} to go` : `Download · ${format.bytes(size(spec))}`;
  const button = h(`button.primary${wide ? '.wide' : ''}`, { type: 'button', disabled: current, onclick: () => use(spec) }, label);
  const remove = stored.has(spec.name) && !wide && h('button.icon-button', {
    type: 'button', title: 'Delete from this device', 'aria-label': `Delete ${format.title(spec)} from this device`,
    onclick: async () => {
      const yes = await confirm({ title: 'Delete this model?', text: `${format.title(spec)} takes ${format.bytes(part.bytes)} on this device. It can be downloaded again.`, yes: 'Delete' });
      if (!yes) return;
      if (current) await engine.unload();
      await (await engine.start()).remove(spec.name);
      await loadStored();
      verdicts.delete(spec.name);
      changed?.();
    },
  }, icon('trash'));
  if (here) verdict.append(h('span.badge.good', {}, icon('check'), 'On this device'));
  const pending = h('span.badge', {}, 'Checking what fits…');
  verdict.append(pending);
  preflight(spec).then((v) => {
    pending.remove();
    if (!v.ok) {
      verdict.append(h('span.badge.bad', {}, icon('warn'), 'Does not fit here'));
      problems.append(...problemsOf(v));
      const other = v.smaller && find(v.smaller);
      if (other) problems.append(h('p.small-text', {}, h('button.link', { type: 'button', onclick: () => use(other) }, `Take ${format.title(other)} instead`)));
      button.className = `quiet${wide ? ' wide' : ''}`;
      if (!here) button.textContent = 'Try anyway';
    } else {
      if (!here) verdict.append(h('span.badge.good', {}, icon('check'), 'Fits here'));
      if (v.decodeTps && spec.task !== 'transcribe') verdict.append(h('span.badge', { title: 'Estimated from a short run on this device' }, `about ${format.rate(v.decodeTps)}`));
    }
  }).catch((e) => {
    pending.textContent = 'Not checked';
    pending.title = explain(e).text;
  });
  return h(wide ? 'article.card' : current ? 'li.card.current' : 'li.card', {},
    h('div.top', {}, h(`h${headingLevel}`, {}, format.title(spec))),
    h('p.meta', {}, facts(spec), licence(spec)),
    spec.notes ? h('p.small-text', {}, spec.notes) : null,
    verdict, problems,
    h('div.actions', {}, button, remove));
}

/** Opens the picker. */
export async function openPicker(use) {
  const body = $('models-body');
  const fill = () => {
    const unknown = storedModels().filter((c) => !find(c.name));
    const choose = (spec) => { $('models').close(); use(spec); };
    body.replaceChildren(
      listProblem ? h('div.notice.warn', {}, icon('warn'), h('div', {}, listProblem)) : '',
      list.length ? h('ul.cards', {}, all().map((m) => card(m, { use: choose, changed: fill }))) : noModels(),
      unknown.length ? h('p.soft.small-text', {}, 'Older models on this device can be deleted in the settings.') : '');
  };
  fill();
  openDialog($('models'));
  await Promise.allSettled([loadList(), loadStored()]);
  fill();
}

/** What to do where the site has no model. */
export const noModels = () => h('div.notice', {}, icon('warn'), h('div', {},
  h('strong', {}, 'This site offers no model yet'),
  'Fetch one with ', h('code', {}, 'firelight models fetch smollm2'), ' and start ', h('code', {}, 'firelight web'), ' again, or put models into its folder ', h('code', {}, 'models'), '.'));
