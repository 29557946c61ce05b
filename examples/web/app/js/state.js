// What the parts of the conversation page share. Beside the engine and the store there is no other state.
import { $, h, icon, iconButton } from './dom.js';
import { newConversation } from './store.js';
import { Announcer } from './live.js';

export const state = {
  /** All conversations that are kept, the latest first. */
  conversations: [],
  /** The one on the screen; kept from its first message on. */
  current: newConversation(),
  /** The answer under way: `{ conversation, message, controller }`. */
  run: null,
  /** The load under way: `{ controller, view }`. */
  loading: null,
  /** What the engine last counted in the current conversation: `{ used, total }` in tokens. */
  counted: null,
};

export const announcer = new Announcer($('live'));
/** Tells a screen reader. */
export const say = (text) => announcer.say(text);

/** A line above the conversation, until it is closed. One with the same `key` is replaced. */
export function notice(text, { action, label, key = text } = {}) {
  [...$('notices').children].find((n) => n.dataset.key === key)?.remove();
  const node = h('div.notice.warn', {}, icon('warn'), h('div', {}, text, ' ', action ? h('button.link', { type: 'button', onclick: action }, label) : null),
    iconButton('close', 'Dismiss', () => node.remove()));
  node.dataset.key = key;
  $('notices').append(node);
}

/** An identity for a message. */
export const newId = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
