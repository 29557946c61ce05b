// The list of conversations at the side, and what can be done with one.
import { $, h, icon, iconButton, confirm, download } from './dom.js';
import * as format from './format.js';
import { store, newConversation, asMarkdown, asJson } from './store.js';
import { state, say, notice } from './state.js';

/** Set by the page: `choose(conversation)` shows one. */
export const hooks = { choose: () => {} };

/** Draws the list. */
export function drawList() {
  const groups = new Map();
  for (const c of state.conversations) {
    const key = format.day(c.updated);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(c);
  }
  const entry = (c) => h(c === state.current ? 'li.current' : 'li', {},
    h('button.open', { type: 'button', title: c.title, 'aria-current': c === state.current ? 'true' : null, onclick: () => hooks.choose(c) }, c.title || 'Untitled'),
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
  if (state.run?.conversation === c) state.run.controller.abort();
  c.deleted = true;
  await store.remove(c.id);
  state.conversations = state.conversations.filter((x) => x !== c);
  if (c === state.current) hooks.choose(newConversation());
  else drawList();
  say('Deleted');
}

/** Keeps a conversation, unless it was deleted. */
export async function save(c) {
  if (c.deleted) return;
  c.updated = Date.now();
  if (!state.conversations.includes(c)) state.conversations.unshift(c);
  state.conversations.sort((a, b) => b.updated - a.updated);
  // A message that is being written is kept as one that was stopped: the page may be closed before it is done.
  const messages = c.messages.map((m) => (m.status === 'running' ? { ...m, status: 'stopped' } : m));
  await store.save({ ...c, messages });
  if (store.failure) notice(`Conversations are not kept beyond this page: ${store.failure}`, { key: 'store' });
  drawList();
}
