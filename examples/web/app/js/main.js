// The page: puts the parts together, decides what the stage shows, loads models.
import './trusted.js';
import { $, h, icon, iconButton, confirm } from './dom.js';
import * as format from './format.js';
import { engine, explain } from './engine.js';
import { pref, setPrefs } from './preferences.js';
import { store, newConversation } from './store.js';
import * as models from './models.js';
import * as speech from './speech.js';
import { state, say, notice } from './state.js';
import { Composer } from './composer.js';
import { Thread } from './thread.js';
import { drawList, hooks } from './conversations.js';
import { drawMeter, countUp } from './meter.js';
import { parts, send, stop, answerAgain } from './answer.js';
import { loadingView } from './ring.js';
import { openDevice, rungName } from './devicepanel.js';
import { openSettings } from './settings.js';
import { registerWorker, onInstallable } from './pwa.js';

const composer = new Composer({ onSend: send, onStop: stop, onProblem: (text) => notice(text), onSound: heardFile, mayHear });
const thread = new Thread({ onAgain: (m) => answerAgain(m, true), onRetry: (m) => answerAgain(m, false) });
Object.assign(parts, { composer, thread });
hooks.choose = (c) => { select(c); closeSidebar(); };

// ---- what the stage shows ----

function select(c) {
  state.current = c;
  state.counted = null;
  drawList();
  draw();
  countUp();
}

function draw() {
  const ready = engine.model !== null;
  composer.hidden = !ready || state.loading !== null;
  if (state.current.messages.length) {
    thread.show(state.current);
    if (state.loading) thread.below(state.loading.view.small);
    else if (!ready) offerModel();
  } else if (state.loading) {
    thread.showOther(state.loading.view.node);
  } else thread.showOther(ready ? readyView() : welcomeView());
  composer.busy = state.run !== null;
  if (state.run?.conversation === state.current) {
    const view = thread.view(state.run.message);
    if (state.run.message.text) view?.update();
    else view?.waiting('Reading');
  }
}

/** Below an old conversation, when no model is loaded. */
function offerModel() {
  thread.below(h('div.notice', {}, icon('chip'), h('div', {}, 'Choose a model to go on with this conversation.',
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
  if (engine.model.transcribe) {
    return h('div.welcome', {}, h('h2', {}, 'Say something'),
      h('p.lead', {}, 'Record, or drop a sound file here. What is said is written down on this device; nothing is sent anywhere.'));
  }
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
  allow();
  composer.placeholder = model && !model.chat ? 'Write the beginning of a text' : 'Ask something';
  drawMeter();
}

function allow() {
  composer.allow({
    images: engine.accepts('images'), audio: engine.accepts('audio'), hears: speech.speechModel() !== undefined, text: engine.model?.transcribe !== true,
  });
}

// ---- speech ----

/** Whether a speech model may be used: it is here, or the user wants it. */
async function mayHear() {
  if (speech.isHere()) return true;
  const spec = speech.speechModel();
  return confirm({
    title: 'Get a model that hears?', danger: false, yes: 'Download',
    text: `${format.title(spec)} writes down what is said, on this device. It is downloaded once: ${format.bytes(total(spec))}.`,
  });
}

/** A sound file: its words become a message of its own where a speech model is in use, else they go to what is being written. */
async function heardFile(file) {
  if (state.run || state.loading || !(await mayHear())) return;
  const sound = { blob: file, name: file.name, seconds: 0 };
  if (!engine.model) await use(speech.speechModel());
  if (engine.model?.transcribe) {
    send({ text: '', images: [], audio: sound });
    return;
  }
  if (!engine.model) return;
  const stopping = new AbortController();
  const { signal } = stopping;
  const words = h('span', {}, `Writing down ${file.name}…`);
  const node = h('div.notice', {}, icon('sound'), h('div', { role: 'status' }, words), iconButton('close', 'Cancel', () => stopping.abort()));
  $('notices').append(node);
  const onProgress = (p) => { words.textContent = p.fraction < 1 ? `Getting the speech model: ${Math.round(p.fraction * 100)} %` : `Writing down ${file.name}…`; };
  const onEvent = (e) => { if (e.type === 'progress' && e.total) words.textContent = `Writing down ${file.name}: ${Math.round(100 * Math.min(1, e.done / e.total))} %`; };
  try {
    const { text } = await speech.withEar((ear) => ear.transcribe(file, { signal, onEvent }), { onProgress, signal });
    composer.append(text.trim());
    say(text.trim() || 'Nothing was said');
    composer.focus();
  } catch (e) {
    const { code, title, text, remedy } = explain(e);
    if (code !== 'cancelled') notice(`${title}: ${text} ${remedy ?? ''}`);
  }
  node.remove();
}

// ---- loading ----

async function use(spec) {
  state.loading?.controller.abort();
  stop();
  const controller = new AbortController();
  const name = format.title(spec);
  const view = loadingView({ name, say, onCancel: () => controller.abort() });
  const mine = { controller, view };
  state.loading = mine;
  draw();
  say(`Loading ${name}`);
  try {
    await engine.load(spec.name, { onProgress: (p) => { if (!controller.signal.aborted) view.update(p); }, signal: controller.signal });
    if (state.loading !== mine) return;
    state.loading = null;
    setPrefs({ model: spec.name });
    models.loadStored().catch(() => {});
    if (spec.task === 'transcribe') speech.release();
    draw();
    countUp();
    say(`${name} is ready`);
    composer.focus();
  } catch (e) {
    if (state.loading !== mine) return;
    state.loading = null;
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

// ---- the rest of the page ----

const settings = () => openSettings({
  stop,
  problem: notice,
  async deviceChanged() {
    stop();
    const name = engine.model?.name ?? pref('model');
    models.forgetVerdicts();
    speech.release();
    await engine.restart();
    const spec = models.find(name);
    if (spec && models.isStored(name)) use(spec);
    else engine.start().then(draw, showStartError);
  },
  async conversationsChanged() {
    state.conversations = await store.list();
    const same = state.conversations.find((c) => c.id === state.current.id);
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
    else if (state.run) { e.preventDefault(); stop(); }
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
  state.conversations = await store.list();
  drawList();
  // A server that has just been started may still be computing the hashes of its models.
  const slow = setTimeout(() => thread.showOther(h('div.loading', {}, h('p.soft', {}, 'Looking for models…'))), 400);
  await models.loadList();
  clearTimeout(slow);
  allow();
  draw();
  try {
    await engine.start();
    await models.loadStored();
  } catch (e) {
    showStartError(e);
    return;
  }
  if (engine.model || state.loading) return;
  // What was used last and is on the device is ready without being asked for; nothing is ever downloaded unasked.
  const last = models.find(pref('model'));
  if (last && models.isStored(last.name)) use(last);
  else draw();
}
begin();
