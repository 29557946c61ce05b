// The bar over the message box while something is recorded: time, level, and, where a model hears, what was said so far.
import { $, h, iconButton } from './dom.js';
import * as format from './format.js';
import { explain } from './engine.js';
import { Recorder, drawLevels } from './recorder.js';
import { dictation } from './speech.js';
import { say } from './state.js';

/**
 * Records until the user ends it. `hears`: what is said is written down. Gives `{ sound, text }`, or null if it was thrown away; `text` is
 * null where nothing hears. Throws with words for people; what there was of both is in the error, as `sound` and `text`.
 */
export async function record({ hears = false } = {}) {
  const stop = new AbortController();
  let ear = null;
  // Samples may come before the ear is there.
  const early = [];
  const recorder = await Recorder.start(hears ? (samples) => (ear ? ear.push(samples) : early.push(samples)) : null);
  const bar = $('recording');
  const time = h('span.time', {}, '0:00');
  const level = h('span.sr', { role: 'meter', 'aria-label': 'Level', 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': 0 });
  const canvas = h('canvas');
  const final = h('span');
  const partial = h('span.partial');
  const live = h('p.live', { hidden: true }, final, ' ', partial);
  const status = h('p.live.soft', { hidden: !hears }, 'Listening…');
  let over = false;
  const show = (words) => { status.textContent = words; status.hidden = !words; };
  if (hears) {
    ear = dictation({
      rate: recorder.rate,
      signal: stop.signal,
      onProgress: (p) => show(p.fraction < 1 ? `Getting the speech model: ${Math.round(p.fraction * 100)} %` : 'Listening…'),
      onText: (said) => {
        if (said.final.length > final.textContent.length) say(said.final.slice(final.textContent.length));
        final.textContent = said.final;
        partial.textContent = said.partial;
        live.hidden = !said.final && !said.partial;
        show(live.hidden ? 'Listening…' : '');
        live.scrollTop = live.scrollHeight;
      },
    });
    for (const samples of early) ear.push(samples);
    ear.done.catch((e) => { if (!stop.signal.aborted) show(`${explain(e).title}. The recording goes on.`); });
  }
  const keep = await new Promise((resolve) => {
    const done = h('button.quiet', { type: 'button', onclick: () => resolve(true) }, 'Done');
    bar.replaceChildren(
      h('div.line', {}, h('span.rec', { 'aria-hidden': 'true' }), time, canvas, level, iconButton('trash', 'Discard the recording', () => resolve(false)), done),
      live, status);
    bar.hidden = false;
    bar.onkeydown = (e) => { if (e.key === 'Escape') { e.stopPropagation(); resolve(false); } };
    $('add-recording').disabled = true;
    done.focus();
    say('Recording');
    drawLevels(canvas, recorder, (s, v) => { time.textContent = format.clock(s); level.setAttribute('aria-valuenow', Math.round(v * 100)); }, () => over);
  });
  over = true;
  const close = () => {
    bar.hidden = true;
    bar.onkeydown = null;
    bar.replaceChildren();
    $('add-recording').disabled = false;
  };
  const sound = await recorder.stop(keep);
  if (!keep || !sound) {
    stop.abort();
    close();
    return null;
  }
  if (!hears) {
    close();
    return { sound, text: null };
  }
  // The last words are still being written down; that can be given up, too.
  for (const button of bar.querySelectorAll('button')) button.remove();
  bar.firstChild.append(h('button.quiet', { type: 'button', onclick: () => stop.abort() }, 'Cancel'));
  if (live.hidden) show('Writing down…');
  try {
    return { sound, text: await ear.end() };
  } catch (e) {
    const { title, text, remedy, code } = explain(e);
    if (code === 'cancelled') return null;
    throw Object.assign(new Error(`${title}: ${text} ${remedy ?? ''}`), { sound, text: final.textContent });
  } finally {
    close();
  }
}
