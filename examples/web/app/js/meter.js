// How much of the context the conversation takes.
import { $, h } from './dom.js';
import * as format from './format.js';
import * as context from './context.js';
import { engine } from './engine.js';
import { pref } from './preferences.js';
import { ring } from './ring.js';
import { state } from './state.js';

/** A conversation, or its beginning, as the model gets it. */
export const modelMessages = (c, upTo = c.messages.length) => context.toModel(c.messages.slice(c.windowFrom, upTo), pref('system'), c.windowFrom > 0 ? c.summary : '');

const meter = ring('meter-ring');
$('context-button').append(meter.node);

/** Shows how full the context is. */
export function drawMeter() {
  const model = engine.model;
  $('context-button').hidden = !model || model.transcribe || !state.current.messages.length;
  if ($('context-button').hidden) return;
  const total = state.counted?.total ?? model.context;
  const used = state.counted?.used ?? context.guess(state.current.messages.slice(state.current.windowFrom).map((m) => m.text).join(''));
  const share = Math.min(1, used / total);
  meter.set(share);
  meter.node.classList.toggle('full', share > 0.92);
  const words = `Context: ${state.counted ? '' : 'about '}${format.count(used)} of ${format.count(total)} tokens`;
  $('context-button').title = words;
  $('context-button').setAttribute('aria-label', words);
  const bar = h('i');
  bar.style.width = `${share * 100}%`;
  $('context-panel').replaceChildren(
    h('h2', {}, 'Context'), h('div.meter', { role: 'img', 'aria-label': words }, bar), h('p.small-text', {}, words.replace('Context: ', '')),
    h('p.small-text.soft', {}, state.current.windowFrom > 0
      ? `The model no longer sees the first ${state.current.windowFrom} messages${state.current.summary ? ', only a summary of them' : ''}.`
      : `When it is full, the oldest messages fall out${pref('summarise') ? ' and are summed up' : ''}.`));
}

/** Asks the engine how much of the context the conversation takes. */
export async function countUp() {
  drawMeter();
  const of = state.current;
  if (!engine.model?.chat || !of.messages.length || state.run) return;
  try {
    const { tokens, context: total } = await (await engine.start()).countTokens(modelMessages(of));
    if (of === state.current && !state.run) { state.counted = { used: tokens, total }; drawMeter(); }
  } catch { /* the guess stays */ }
}
