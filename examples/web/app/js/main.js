// The page: puts the parts together. State is in three places only: the engine (device, model), the store (conversations), `run` (the
// answer that is being written).
import './trusted.js';
import { $, h, icon, iconButton, confirm, download } from './dom.js';
import * as format from './format.js';
import { engine, explain } from './engine.js';
import { pref, setPrefs, sampling } from './preferences.js';
import { store, newConversation, titleFrom, asMarkdown, asJson } from './store.js';
import * as models from './models.js';
import * as context from './context.js';
import { Announcer } from './live.js';
import { Composer } from './composer.js';
import { Thread } from './thread.js';
import { loadingView, ring } from './ring.js';
import { openDevice, rungName } from './devicepanel.js';
import { openSettings } from './settings.js';
import { registerWorker, onInstallable } from './pwa.js';

const announcer = new Announcer($('live'));
const say = (text) => announcer.say(text);
let conversations = [];
let current = newConversation();
/** The answer under way: `{ conversation, message, controller }`. */
let run = null;
/** The load under way: an AbortController. */
let loading = null;
/** What the engine last counted: `{ used, total }` in tokens. */
let counted = null;

const composer = new Composer({ onSend: send, onStop: stop, onProblem: (text) => notice(text) });
const thread = new Thread({ onAgain: (m) => answerAgain(m, true), onRetry: (m) => answerAgain(m, false) });

// ---- notices ----

/** A line above the conversation, until it is closed. */
function notice(text, { action, label, key = text } = {}) {
  const old = [...$('notices').children].find((n) => n.dataset.key === key);
  old?.remove();
  const node = h('div.notice.warn', {}, icon('warn'), h('div', {}, text, ' ', action ? h('button.link', { type: 'button', onclick: action }, label) : null),
    iconButton('close', 'Dismiss', () => node.remove()));
  node.dataset.key = key;
  $('notices').append(node);
}

// ---- conversations ----

function drawList() {
  const groups = new Map();
  for (const c of conversations) {
    const key = format.day(c.updated);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(c);
  }
  const entry = (c) => h(c === current ? 'li.current' : 'li', {},
    h('button.open', { type: 'button', title: c.title, 'aria-current': c === current ? 'true' : null, onclick: () => { select(c); closeSidebar(); } }, c.title || 'Untitled'),
    iconButton('more', `More about ${c.title || 'Untitled'}`, (e) => menu(e.currentTarget, c)));
  const parts = [...groups].flatMap(([day, list]) => [h('h2', {}, day), h('ul', {}, list.map(entry))]);
  $('conversations').replaceChildren(...(parts.length ? parts : [h('p.none', {}, 'Conversations are kept here, on this device only.')]));
}

function menu(button, c) {
  const item = (name, text, fn) => h('button', { type: 'button', onclick: () => { $('menu').hidePopover(); fn(); } }, icon(name), text);
  const file = (c.title || 'conversation').replace(/[^\p{L}\p{N} _-]+/gu, '').trim().slice(0, 40) || 'conversation';
  const save = (end, type, text) => download(`${file}.${end}`, new Blob([text], { type }));
  $('menu').replaceChildren(
    item('down', 'Export as Markdown', () => save('md', 'text/markdown', asMarkdown(c))),
    item('down', 'Export as JSON', async () => save('json', 'application/json', await asJson([c]))),
    item('trash', 'Delete', () => remove(c)));
  $('menu').showPopover();
  const at = button.getBoundingClientRect();
  const size = $('menu').getBoundingClientRect();
  $('menu').style.left = `${Math.min(at.left, innerWidth - size.width - 8)}px`;
  $('menu').style.top = `${Math.min(at.bottom + 4, innerHeight - size.height - 8)}px`;
  $('menu').querySelector('button').focus();
}

async function remove(c) {
  if (!await confirm({ title: 'Delete this conversation?', text: `“${c.title || 'Untitled'}” is only on this device, so nobody can bring it back.`, yes: 'Delete' })) return;
  if (run?.conversation === c) stop();
  c.deleted = true;
  await store.remove(c.id);
  conversations = conversations.filter((x) => x !== c);
  if (c === current) select(newConversation());
  else drawList();
  say('Deleted');
}

async function save(c) {
  if (c.deleted) return;
  c.updated = Date.now();
  if (!conversations.includes(c)) conversations.unshift(c);
  conversations.sort((a, b) => b.updated - a.updated);
  // A message that is being written is kept as one that was stopped: the page may be closed before it is done.
  const messages = c.messages.map((m) => (m.status === 'running' ? { ...m, status: 'stopped' } : m));
  await store.save({ ...c, messages });
  if (store.failure) notice(`Conversations are not kept beyond this page: ${store.failure}`, { key: 'store' });
  drawList();
}

function select(c) {
  current = c;
  counted = null;
  drawList();
  draw();
  countUp();
}

// ---- what the stage shows ----

function draw() {
  const ready = engine.model !== null;
  composer.hidden = !ready || loading !== null;
  if (loading) return;
  if (current.messages.length) {
    thread.show(current);
    if (!ready) offerModel();
  } else thread.showOther(ready ? readyView() : welcomeView());
  composer.busy = run !== null;
  if (run?.conversation === current) thread.view(run.message)?.waiting(run.message.text ? 'Going on' : 'Reading');
}

/** Below an old conversation, when no model is loaded. */
function offerModel() {
  $('stage').querySelector('.thread').append(h('div.notice', {}, icon('chip'), h('div', {}, 'Choose a model to go on with this conversation.',
    h('div.row', {}, h('button.primary', { type: 'button', onclick: () => models.openPicker(use) }, 'Choose a model')))));
}

function welcomeView() {
  const spec = models.suggested();
  const promise = (name, text) => h('li', {}, icon(name), text);
  const flame = icon('flame');
  flame.setAttribute('class', 'flame');
  return h('div.welcome', {}, flame,
    h('h2', {}, 'A model that stays with you'),
    h('p.lead', {}, 'Download a small language model once. From then on everything happens on this device, also without a network.'),
    spec ? h('div.choice', {}, models.card(spec, { use, wide: true })) : h('div.choice', {}, models.noModels()),
    models.all().length > 1 ? h('button.link', { type: 'button', onclick: () => models.openPicker(use) }, 'Other models') : null,
    h('ul.promises', {}, promise('lock', 'Nothing you write is sent anywhere'), promise('offline', 'Works offline'), promise('check', 'Open source')));
}

function readyView() {
  const examples = engine.model.chat
    ? ['Explain why the sky is blue in two sentences', 'Write a short poem about a fireplace', 'What could I cook with rice, eggs and spinach?', 'Give me five names for a small boat']
    : ['Once upon a time there was a lighthouse', 'The three most important rules of the sea are'];
  return h('div.welcome', {},
    h('h2', {}, engine.model.chat ? 'What is on your mind?' : 'Begin a text'),
    engine.model.chat ? null : h('p.lead', {}, 'This is a base model: it does not answer, it continues what you write.'),
    h('div.suggestions', {}, examples.map((text) => h('button', { type: 'button', onclick: () => send({ text, images: [], audio: null }) }, text))));
}

function drawHeader() {
  const { device, model } = engine;
  $('model-name').textContent = model ? format.title(models.find(model.name) ?? model) : 'Choose a model';
  $('device-button').hidden = !device;
  if (device) {
    const [short, words] = rungName(device.rung);
    $('device-name').textContent = short;
    $('device-button').title = `${device.device}: ${words}`;
    $('device-button').setAttribute('aria-label', `Device: ${short}. ${device.reason ?? ''}`);
    $('device-button').querySelector('.dot').className = `dot ${device.rung?.startsWith('gpu') ? '' : 'cpu'}`;
  }
  composer.allow({ images: engine.accepts('images'), audio: engine.accepts('audio') });
  composer.placeholder = model && !model.chat ? 'Write the beginning of a text' : 'Ask something';
  drawMeter();
}

// ---- the context meter ----

const meter = ring('meter-ring');
$('context-button').append(meter.node);

function drawMeter() {
  const model = engine.model;
  $('context-button').hidden = !model || !current.messages.length;
  if (!model) return;
  const total = counted?.total ?? model.context;
  const used = counted?.used ?? context.guess(current.messages.slice(current.windowFrom).map((m) => m.text).join(''));
  const share = Math.min(1, used / total);
  meter.set(share);
  meter.node.classList.toggle('full', share > 0.92);
  const words = `Context: ${counted ? '' : 'about '}${format.count(used)} of ${format.count(total)} tokens`;
  $('context-button').title = words;
  $('context-button').setAttribute('aria-label', words);
  const bar = h('i');
  bar.style.width = `${share * 100}%`;
  $('context-panel').replaceChildren(
    h('h2', {}, 'Context'), h('div.meter', { role: 'img', 'aria-label': words }, bar), h('p.small-text', {}, words.replace('Context: ', '')),
    h('p.small-text.soft', {}, current.windowFrom > 0
      ? `The model no longer sees the first ${current.windowFrom} messages${current.summary ? ', only a summary of them' : ''}.`
      : `When it is full, the oldest messages fall out${pref('summarise') ? ' and are summed up' : ''}.`));
}

/** Asks the engine how much of the context the conversation takes. */
async function countUp() {
  drawMeter();
  const of = current;
  if (!engine.model?.chat || !of.messages.length || run) return;
  try {
    const { tokens, context: total } = await (await engine.start()).countTokens(modelMessages(of));
    if (of === current && !run) { counted = { used: tokens, total }; drawMeter(); }
  } catch { /* the guess stays */ }
}

const modelMessages = (c, upTo = c.messages.length) => context.toModel(c.messages.slice(c.windowFrom, upTo), pref('system'), c.windowFrom > 0 ? c.summary : '');

// ---- loading ----

async function use(spec) {
  loading?.abort();
  stop();
  const controller = new AbortController();
  loading = controller;
  const name = format.title(spec);
  const view = loadingView({ name, say, onCancel: () => controller.abort() });
  thread.showOther(view.node);
  composer.hidden = true;
  say(`Loading ${name}`);
  try {
    await engine.load(spec.name, { onProgress: (p) => { if (!controller.signal.aborted) view.update(p); }, signal: controller.signal });
    if (loading !== controller) return;
    loading = null;
    setPrefs({ model: spec.name });
    models.loadStored().catch(() => {});
    draw();
    countUp();
    say(`${name} is ready`);
    composer.focus();
  } catch (e) {
    if (loading !== controller) return;
    loading = null;
    if (explain(e).code === 'cancelled') draw();
    else thread.showOther(loadError(spec, explain(e)));
  }
}

function loadError(spec, { title, text, remedy, code }) {
  say(`${title}. ${text} ${remedy ?? ''}`);
  const smaller = ['memory', 'quota', 'limit'].includes(code)
    && models.all().filter((m) => m !== spec && total(m) < total(spec)).sort((a, b) => total(b) - total(a))[0];
  return h('div.loading', {}, h('div.notice.bad', { role: 'alert' }, icon('warn'), h('div', {},
    h('strong', {}, title), text, remedy ? h('p', {}, remedy) : null,
    h('div.row', {},
      h('button.primary', { type: 'button', onclick: () => use(spec) }, 'Try again'),
      smaller ? h('button.quiet', { type: 'button', onclick: () => use(smaller) }, `Take ${format.title(smaller)}`) : null,
      h('button.quiet', { type: 'button', onclick: () => models.openPicker(use) }, 'Other models'),
      h('button.quiet', { type: 'button', onclick: () => openDevice(settings) }, 'Device')))));
}
const total = (m) => m.files.reduce((n, f) => n + f.size, 0);

// ---- asking and answering ----

async function send({ text, images, audio }) {
  if (run || !engine.model) return;
  const c = current;
  const id = () => crypto.randomUUID?.() ?? String(Math.random());
  if (!c.messages.length) { c.title = titleFrom(text || (images.length ? 'A picture' : 'A recording')); c.windowFrom = 0; }
  c.messages.push({ id: id(), role: 'user', text, time: Date.now(), images: images.length ? images : undefined, audio: audio ?? undefined });
  if (c.messages.length === 1) thread.show(c);
  else thread.add(c.messages.at(-1));
  await answer(c);
}

async function answerAgain(m, fresh) {
  if (run || current.messages.at(-1) !== m) return;
  current.messages.pop();
  thread.remove(m);
  await answer(current, fresh);
}

/** Lets the model answer the last message of a conversation. `fresh`: differently than last time. */
async function answer(c, fresh = false) {
  const message = { id: crypto.randomUUID?.() ?? String(Math.random()), role: 'assistant', text: '', time: Date.now(), model: engine.model.name, status: 'running' };
  const controller = new AbortController();
  const mine = { conversation: c, message, controller };
  run = mine;
  composer.busy = true;
  c.messages.push(message);
  const shown = () => (c === current ? thread.view(message) : undefined);
  thread.add(message).waiting('Reading');
  thread.markLast(c);
  save(c);
  let frame = 0;
  const paint = () => { frame = 0; shown()?.update(); };
  try {
    const firelight = await engine.start();
    await makeRoom(c, firelight, controller.signal, (words) => shown()?.waiting(words));
    shown()?.waiting('Reading');
    const question = c.messages.at(-2);
    const options = { ...sampling(fresh), signal: controller.signal };
    const window = c.messages.slice(c.windowFrom, -1);
    const images = window.flatMap((m) => m.images ?? []);
    if (images.length && engine.accepts('images')) options.images = images;
    if (question.audio && engine.accepts('audio')) options.audio = question.audio.blob;
    const list = engine.model.chat ? modelMessages(c, c.messages.length - 1) : [];
    if (!engine.model.chat) options.prompt = window.map((m) => m.text).join('');
    for await (const event of firelight.chat(list, options)) {
      if (event.type === 'token') {
        message.text += event.text;
        if (c === current) announcer.add(event.text);
        frame ||= requestAnimationFrame(paint);
      } else if (event.type === 'moved') {
        message.moved = engine.moved = `${event.why} The answer goes on with ${event.device || event.rung}.`;
        shown()?.note(message.moved);
        engine.changed();
      } else if (event.type === 'done') {
        if (event.text) message.text = event.text;
        message.finish = event.finish;
        message.stats = event.stats;
        if (c === current && event.stats?.contextUsed) counted = { used: event.stats.contextUsed, total: event.stats.context };
      }
    }
    message.status = message.finish === 'cancelled' || controller.signal.aborted ? 'stopped' : 'done';
  } catch (e) {
    const words = explain(e);
    message.status = words.code === 'cancelled' ? 'stopped' : 'error';
    if (message.status === 'error') message.error = { title: words.title, text: words.text, remedy: words.remedy };
  }
  cancelAnimationFrame(frame);
  message.rung = engine.device?.rung;
  if (run === mine) run = null;
  composer.busy = run !== null;
  shown()?.finish();
  if (c === current) {
    thread.markLast(c);
    announcer.end(message.status === 'error' ? `${message.error.title}. ${message.error.text} ${message.error.remedy ?? ''}` : message.status === 'stopped' ? 'Stopped' : 'Answer complete');
    drawMeter();
  }
  await save(c);
}

/** Slides the window where the conversation has outgrown the context, and sums up what falls out. */
async function makeRoom(c, firelight, signal, status) {
  const model = engine.model;
  if (!model.chat) return;
  const upTo = c.messages.length - 1;
  const window = c.messages.slice(c.windowFrom, upTo);
  const instructions = context.instructions(pref('system'), c.windowFrom > 0 ? c.summary : '');
  const fixed = instructions ? context.guess(instructions) : 0;
  const guessed = fixed + window.reduce((n, m) => n + context.cost(m), 0);
  const { tokens, context: limit } = await firelight.countTokens(modelMessages(c, upTo)).catch(() => ({ tokens: guessed, context: model.context }));
  const scale = Math.max(0.25, tokens / Math.max(1, guessed));
  const room = context.room(limit, pref('maxTokens'));
  const start = context.windowStart(c.messages.slice(0, upTo), { from: c.windowFrom, fixed: fixed * scale, room, scale });
  if (start === c.windowFrom) return;
  const dropped = c.messages.slice(c.windowFrom, start);
  const before = c.windowFrom > 0 ? c.summary : '';
  if (pref('summarise')) {
    status('Summing up earlier messages');
    say('Summing up earlier messages');
    let text = '';
    try {
      const request = context.summaryRequest(dropped, before, room / 2);
      for await (const e of firelight.chat(request, { greedy: true, maxTokens: 160, signal })) if (e.type === 'token') text += e.text;
    } catch (e) {
      // Without a summary the answer is still better than none; a stop, or an engine that is gone, is the answer's business.
      if (explain(e).code === 'cancelled') throw e;
    }
    if (signal.aborted) return;
    c.summary = text.trim() || before;
  } else c.summary = '';
  c.windowFrom = start;
  if (c === current) {
    thread.show(c);
    thread.view(c.messages.at(-1))?.waiting('Reading');
  }
}

function stop() {
  run?.controller.abort();
}

// ---- the rest of the page ----

const settings = () => openSettings({
  stop,
  problem: notice,
  async deviceChanged() {
    stop();
    const name = engine.model?.name ?? pref('model');
    models.forgetVerdicts();
    await engine.restart();
    const spec = models.find(name);
    if (spec && models.isStored(name)) use(spec);
    else engine.start().then(draw, showStartError);
  },
  async conversationsChanged() {
    conversations = await store.list();
    const same = conversations.find((c) => c.id === current.id);
    select(same ?? newConversation());
  },
});

function showStartError(e) {
  const { title, text, remedy } = explain(e);
  $('device-button').hidden = false;
  $('device-name').textContent = 'None';
  $('device-button').querySelector('.dot').className = 'dot none';
  notice(`${title}: ${text} ${remedy ?? ''}`, { key: 'start', action: () => openDevice(settings), label: 'Device' });
}

const narrow = matchMedia('(max-width: 760px)');
function openSidebar() {
  $('sidebar').classList.add('open');
  $('scrim').hidden = false;
  $('open-sidebar').setAttribute('aria-expanded', 'true');
  document.querySelector('main').inert = true;
  $('close-sidebar').focus();
}
function closeSidebar() {
  if (!$('sidebar').classList.contains('open')) return;
  $('sidebar').classList.remove('open');
  $('scrim').hidden = true;
  $('open-sidebar').setAttribute('aria-expanded', 'false');
  document.querySelector('main').inert = false;
  if (narrow.matches) $('open-sidebar').focus();
}
narrow.addEventListener('change', closeSidebar);

function newChat() {
  closeSidebar();
  select(newConversation());
  composer.focus();
}

$('open-sidebar').addEventListener('click', openSidebar);
$('close-sidebar').addEventListener('click', closeSidebar);
$('scrim').addEventListener('click', closeSidebar);
$('new-chat').addEventListener('click', newChat);
$('model-button').addEventListener('click', () => models.openPicker(use));
$('device-button').addEventListener('click', () => openDevice(settings));
$('open-settings').addEventListener('click', () => { closeSidebar(); settings(); });
addEventListener('keydown', (e) => {
  const typing = e.target.closest?.('input, textarea, select, [contenteditable]');
  const dialog = document.querySelector('dialog[open]');
  if (e.key === 'Escape' && !dialog) {
    if ($('sidebar').classList.contains('open')) closeSidebar();
    else if (run) { e.preventDefault(); stop(); }
  } else if (e.key === '/' && !typing && !dialog) {
    e.preventDefault();
    $('prompt').focus();
  } else if (e.key.toLowerCase() === 'o' && e.shiftKey && (e.ctrlKey || e.metaKey) && !dialog) {
    e.preventDefault();
    newChat();
  }
});

const online = () => { $('offline').hidden = navigator.onLine; };
addEventListener('online', () => { online(); say('Online again'); if (models.listProblem) models.loadList().then(() => { if (!engine.model) draw(); }); });
addEventListener('offline', () => { online(); say('Offline'); });
online();

onInstallable((ask) => {
  $('install').hidden = false;
  $('install').onclick = async () => { if (await ask()) $('install').hidden = true; };
});
registerWorker(() => notice('A newer version of this page is ready.', { key: 'update', action: () => location.reload(), label: 'Reload' }));

engine.onChange(drawHeader);

async function begin() {
  if (!isSecureContext) {
    notice('This address is not secure, so the browser gives the page neither the GPU nor storage. Open it over https:// or on localhost.', { key: 'secure' });
  }
  conversations = await store.list();
  drawList();
  await models.loadList();
  draw();
  try {
    await engine.start();
    await models.loadStored();
  } catch (e) {
    showStartError(e);
    return;
  }
  if (engine.model || loading) return;
  // What was used last and is on the device is ready without being asked for; nothing is ever downloaded unasked.
  const last = models.find(pref('model'));
  if (last && models.isStored(last.name)) use(last);
  else draw();
}
begin();
