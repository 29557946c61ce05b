// Asking and answering: from the message box through the engine into the thread.
import * as context from './context.js';
import { engine, explain } from './engine.js';
import { pref, sampling } from './preferences.js';
import { titleFrom } from './store.js';
import { state, say, announcer, newId } from './state.js';
import { save } from './conversations.js';
import { drawMeter, modelMessages } from './meter.js';
import { clock } from './format.js';

/** Set by the page: where messages are written and shown. */
export const parts = { composer: null, thread: null };

/** Asks what was written. `heard`: what was said in `audio`, where that is known already. */
export async function send({ text, images, audio, heard = null }) {
  if (state.run || !engine.model) return;
  const c = state.current;
  if (!c.messages.length) { c.title = titleFrom(text || heard || (images.length ? 'A picture' : audio?.name || 'A recording')); c.windowFrom = 0; }
  const forEars = audio && !engine.accepts('audio');
  c.messages.push({ id: newId(), role: 'user', text, time: Date.now(), images: images.length ? images : undefined, audio: audio ?? undefined, heard: forEars || undefined });
  if (c.messages.length === 1) parts.thread.show(c);
  else parts.thread.add(c.messages.at(-1));
  await answer(c, false, heard);
}

/** Answers the last question anew; `fresh`: with another draw. */
export async function answerAgain(m, fresh) {
  if (state.run || state.current.messages.at(-1) !== m) return;
  state.current.messages.pop();
  parts.thread.remove(m);
  await answer(state.current, fresh);
}

/** Lets the model answer the last message of a conversation. `fresh`: differently than last time. */
async function answer(c, fresh = false, heard = null) {
  const message = { id: newId(), role: 'assistant', text: '', time: Date.now(), model: engine.model.name, status: 'running' };
  const controller = new AbortController();
  const mine = { conversation: c, message, controller };
  state.run = mine;
  parts.composer.busy = true;
  c.messages.push(message);
  const shown = () => (c === state.current ? parts.thread.view(message) : undefined);
  parts.thread.add(message).waiting('Reading');
  parts.thread.markLast(c);
  save(c);
  let frame = 0;
  const paint = () => { frame = 0; shown()?.update(); };
  const paintSoon = () => { frame ||= requestAnimationFrame(paint); };
  try {
    const firelight = await engine.start();
    if (engine.model.transcribe) {
      await writeDown(firelight, c.messages.at(-2), message, heard, controller.signal, paintSoon);
      return;
    }
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
        if (c === state.current) announcer.add(event.text);
        paintSoon();
      } else if (event.type === 'scaled') {
        shown()?.note(`Pictures were made smaller to fit: ${event.how}.`);
      } else if (event.type === 'moved') {
        message.moved = engine.moved = `${event.why} The answer goes on with ${event.device || event.rung}.`;
        shown()?.note(message.moved);
        engine.changed();
      } else if (event.type === 'done') {
        if (event.text) message.text = event.text;
        message.finish = event.finish;
        message.stats = event.stats;
        if (c === state.current && event.stats?.contextUsed) state.counted = { used: event.stats.contextUsed, total: event.stats.context };
      }
    }
    message.status = message.finish === 'cancelled' || controller.signal.aborted ? 'stopped' : 'done';
  } catch (e) {
    const words = explain(e);
    message.status = words.code === 'cancelled' ? 'stopped' : 'error';
    if (message.status === 'error') message.error = { title: words.title, text: words.text, remedy: words.remedy };
  } finally {
    cancelAnimationFrame(frame);
    message.rung = engine.device?.rung;
    if (state.run === mine) state.run = null;
    parts.composer.busy = state.run !== null;
    shown()?.finish();
    if (c === state.current) {
      parts.thread.markLast(c);
      announcer.end(message.status === 'error' ? `${message.error.title}. ${message.error.text} ${message.error.remedy ?? ''}` : message.status === 'stopped' ? 'Stopped' : 'Answer complete');
      drawMeter();
    }
    await save(c);
  }
}

/** What is said in a question's sound becomes the answer. */
async function writeDown(firelight, question, message, heard, signal, paint) {
  message.plain = true;
  if (heard !== null) {
    message.text = heard || NOTHING;
    message.status = 'done';
    return;
  }
  if (!question.audio) throw new Error('there is no sound in this message');
  const began = performance.now();
  const lines = [];
  const onEvent = (event) => {
    if (event.type !== 'segment') return;
    lines.push(event.segment);
    message.text = written(lines);
    if (state.run?.conversation === state.current) announcer.add(`${event.segment.text} `);
    paint();
  };
  const made = await firelight.transcribe(question.audio.blob, { signal, onEvent });
  message.text = written(made.segments) || NOTHING;
  message.stats = { soundSeconds: made.duration, workSeconds: (performance.now() - began) / 1000 };
  message.status = 'done';
}

const NOTHING = 'Nothing was said.';
/** With times from a minute on, where one looks for a place. */
const written = (segments) => ((segments.at(-1)?.end ?? 0) < 60 ? segments.map((s) => s.text.trim()).join(' ')
  : segments.map((s) => `${clock(s.start)}  ${s.text.trim()}`).join('\n\n'));

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
  if (c === state.current) {
    parts.thread.show(c);
    parts.thread.view(c.messages.at(-1))?.waiting('Reading');
  }
}

/** Ends the answer under way; what is there stays. */
export function stop() {
  state.run?.controller.abort();
}
