// The settings dialog. Everything takes effect at once.
import { $, h, icon, iconButton, openDialog, confirm, download } from './dom.js';
import * as format from './format.js';
import { pref, setPrefs, defaults, theme, setTheme } from './preferences.js';
import { store, asJson, fromJson } from './store.js';
import { engine } from './engine.js';
import { loadStored, storedModels, find } from './models.js';

let serial = 0;

function slider(label, hint, key, min, max, step, shown = (v) => v) {
  const id = `s${++serial}`;
  const out = h('output', { for: id }, shown(pref(key)));
  const input = h('input', { type: 'range', id, min, max, step, value: pref(key), 'aria-describedby': `${id}h`,
    oninput: () => { setPrefs({ [key]: Number(input.value) }); out.textContent = shown(Number(input.value)); } });
  return h('div.field', {}, h('label', { for: id }, label), out, input, h('span.hint', { id: `${id}h` }, hint));
}

function number(label, hint, key, min, max, step = 1) {
  const id = `s${++serial}`;
  const input = h('input', { type: 'number', id, min, max, step, value: pref(key), 'aria-describedby': `${id}h`, onchange: () => {
    if (key === 'seed' && input.value === '') { setPrefs({ seed: '' }); return; }
    const value = Math.min(max, Math.max(min, Math.round(Number(input.value)) || min));
    input.value = value;
    setPrefs({ [key]: typeof defaults[key] === 'string' ? String(value) : value });
  } });
  return h('div.field', {}, h('label', { for: id }, label), input, h('span.hint', { id: `${id}h` }, hint));
}

function toggle(label, hint, key, onchange) {
  const id = `s${++serial}`;
  const input = h('input', { type: 'checkbox', id, checked: pref(key), 'aria-describedby': `${id}h`, onchange: () => { setPrefs({ [key]: input.checked }); onchange?.(); } });
  return h('div.field', {}, h('label', { for: id }, label), input, h('span.hint', { id: `${id}h` }, hint));
}

function segments(label, options, value, onchange) {
  const name = `g${++serial}`;
  return h('div.field', { role: 'radiogroup', 'aria-label': label }, h('span', {}, label), h('div.segments', {}, options.map(([key, text]) =>
    h('label', {}, h('input', { type: 'radio', name, value: key, checked: key === value, onchange: () => onchange(key) }), h('span', {}, text)))));
}

const RUNGS = ['gpu-f16-subgroups', 'gpu-f16', 'gpu-f32', 'cpu', 'cpu-simd', 'cpu-scalar'];

/** Opens it. `hooks`: `deviceChanged()`, `conversationsChanged()`, `stop()`. */
export function openSettings(hooks) {
  const draw = () => $('settings-body').replaceChildren(...sections(hooks, draw));
  draw();
  openDialog($('settings'));
  loadStored().then(() => { if ($('settings').open) $('stored-models')?.replaceChildren(...stored(draw)); }, () => {});
}

function stored(draw) {
  const models = storedModels();
  if (!models.length) return [h('li.soft', {}, 'No model is stored.')];
  return models.map((c) => h('li', {},
    h('span', {}, c.name, find(c.name) && c.current !== false ? '' : ' (old version)', c.complete ? '' : ' (in part)'),
    h('span.soft', {}, format.bytes(c.bytes)),
    iconButton('trash', `Delete ${c.name}`, async () => {
      if (!await confirm({ title: 'Delete this model?', text: `${c.name} takes ${format.bytes(c.bytes)} on this device. It can be downloaded again.`, yes: 'Delete' })) return;
      if (engine.model?.name === c.name) await engine.unload();
      await (await engine.start()).remove(c.name);
      await loadStored();
      draw();
    })));
}

function sections(hooks, draw) {
  const system = h('textarea', { id: 'system-prompt', value: pref('system'), placeholder: 'For example: Answer in two sentences.', 'aria-describedby': 'system-hint',
    oninput: () => setPrefs({ system: system.value }) });
  const rung = h('select', { id: 'rung', onchange: () => { setPrefs({ rung: rung.value }); hooks.deviceChanged(); } },
    h('option', { value: '' }, 'the best that works'), RUNGS.map((r) => h('option', { value: r, selected: r === pref('rung') }, r)));
  const sampling = h('div', { hidden: pref('greedy') },
    slider('Temperature', 'How much chance there is in an answer. Small models wander above 0.5.', 'temperature', 0, 1.5, 0.05, (v) => v.toFixed(2)),
    slider('Top-p', 'Only the likeliest words that make up this share.', 'topP', 0.05, 1, 0.05, (v) => v.toFixed(2)),
    number('Top-k', 'Only this many of the likeliest; 0 means all.', 'topK', 0, 1000),
    number('Seed', 'The same seed gives the same answer; empty means another one each time.', 'seed', 0, 2 ** 32 - 1));
  sampling.className = 'group';
  return [
    h('section', {}, h('h3', {}, 'Instructions'),
      h('div.field', {}, h('label', { for: 'system-prompt' }, 'What the model should know or keep to'), system,
        h('span.hint', { id: 'system-hint' }, 'Put before every conversation.'))),
    h('section', {}, h('h3', {}, 'Answers'),
      toggle('Always the likeliest word', 'The same question gets the same answer.', 'greedy', () => { sampling.hidden = pref('greedy'); }),
      sampling,
      slider('Repetition penalty', 'Above 1, words that were there before become less likely.', 'repetitionPenalty', 1, 1.5, 0.01, (v) => v.toFixed(2)),
      number('Longest answer', 'In tokens; about four letters each.', 'maxTokens', 16, 32768),
      toggle('Summarise what no longer fits', 'When a conversation outgrows the context, the model first sums up the part that falls out.', 'summarise')),
    h('section', {}, h('h3', {}, 'Device'),
      segments('Run on', [['auto', 'Best'], ['gpu', 'GPU'], ['cpu', 'CPU']], pref('device'), (device) => { setPrefs({ device, rung: '' }); rung.value = ''; hooks.deviceChanged(); }),
      h('div.field', {}, h('label', { for: 'rung' }, 'Exactly this way'), rung,
        h('span.hint', {}, '“Best” takes a real GPU that passes the self-test, else the processor. “GPU” also takes one that software imitates.'))),
    h('section', {}, h('h3', {}, 'Appearance'),
      segments('Colours', [['system', 'System'], ['light', 'Light'], ['dark', 'Dark']], theme(), setTheme)),
    h('section', {}, h('h3', {}, 'On this device'),
      store.failure ? h('div.notice.warn', {}, icon('warn'), h('div', {}, `Conversations are not kept: ${store.failure}`)) : null,
      h('ul.stored', { id: 'stored-models', 'aria-label': 'Stored models' }, stored(draw)),
      h('div.row', {},
        h('button.quiet', { type: 'button', onclick: async () => {
          download('firelight-conversations.json', new Blob([await asJson(await store.list())], { type: 'application/json' }));
        } }, 'Export conversations'),
        h('button.quiet', { type: 'button', onclick: () => importFile(hooks) }, 'Import'),
        h('button.quiet', { type: 'button', onclick: async () => {
          if (!await confirm({ title: 'Delete all conversations?', text: 'They are only on this device, so nobody can bring them back.', yes: 'Delete all' })) return;
          hooks.stop();
          await store.clear();
          hooks.conversationsChanged();
        } }, 'Delete all'))),
    h('section', {}, h('h3', {}, 'Keyboard'),
      toggle('Enter sends', 'Otherwise Ctrl or ⌘ with Enter does; Shift with Enter is always a new line.', 'enterSends'),
      h('dl.facts', {},
        h('dt', {}, h('kbd', {}, '/')), h('dd', {}, 'to the message box'),
        h('dt', {}, h('kbd', {}, 'Esc')), h('dd', {}, 'stop the answer'),
        h('dt', {}, h('kbd', {}, 'Ctrl'), ' ', h('kbd', {}, 'Shift'), ' ', h('kbd', {}, 'O')), h('dd', {}, 'new conversation'))),
  ];
}

function importFile(hooks) {
  const input = h('input', { type: 'file', accept: 'application/json,.json' });
  input.addEventListener('change', async () => {
    try {
      const known = new Set((await store.list()).map((c) => c.id));
      for (const c of await fromJson(await input.files[0].text(), known)) await store.save(c);
      hooks.conversationsChanged();
    } catch (e) {
      hooks.problem(`The file could not be read: ${e.message}`);
    }
  });
  input.click();
}
