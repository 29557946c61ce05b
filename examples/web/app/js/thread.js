// A conversation on the screen, and the answer that is being written into it.
import { $, h, icon, iconButton, copyText } from './dom.js';
import * as format from './format.js';
import { MarkdownView } from './markdown.js';

/** What an answer took, in a line. */
function statsLine(m) {
  const parts = [];
  if (m.stats?.decodeTps) parts.push(format.rate(m.stats.decodeTps));
  if (m.stats?.soundSeconds) parts.push(`${format.clock(m.stats.soundSeconds)} of sound in ${format.duration(m.stats.workSeconds)}`);
  if (m.stats?.tokens) parts.push(`${format.count(m.stats.tokens)} tokens`);
  if (m.status === 'stopped') parts.unshift('stopped');
  if (m.rung) parts.push(m.rung.startsWith('gpu') ? 'GPU' : 'CPU');
  return parts.join(' · ');
}

export class Thread {
  #stage = $('stage');
  #list = null;
  #views = new Map();
  #stuck = true;
  #urls = [];

  /** `onAgain(message)`: answer anew; `onRetry(message)` the same after an error. */
  constructor({ onAgain, onRetry }) {
    Object.assign(this, { onAgain, onRetry });
    this.#stage.addEventListener('scroll', () => {
      this.#stuck = this.#stage.scrollHeight - this.#stage.scrollTop - this.#stage.clientHeight < 60;
      $('to-end').hidden = this.#stuck || !this.#list;
    }, { passive: true });
    $('to-end').addEventListener('click', () => { this.toEnd(true); this.#stage.focus({ preventScroll: true }); });
  }

  /** Shows a view that is no conversation. */
  showOther(node) {
    this.#forget();
    this.#stage.replaceChildren(node);
    this.#stage.scrollTop = 0;
    $('to-end').hidden = true;
  }

  /** Something below the conversation on the screen. */
  below(node) {
    this.#list.append(node);
    this.toEnd(true);
  }

  /** Shows a conversation from its beginning to its end. */
  show(conversation) {
    this.#forget();
    this.#list = h('div.thread', {});
    this.#stage.replaceChildren(this.#list);
    conversation.messages.forEach((m, i) => {
      if (i > 0 && i === conversation.windowFrom) this.#list.append(this.#divider(conversation));
      this.add(m);
    });
    this.markLast(conversation);
    this.toEnd(true);
  }

  #forget() {
    for (const url of this.#urls.splice(0)) URL.revokeObjectURL(url);
    this.#views.clear();
    this.#list = null;
  }

  #divider(conversation) {
    const words = 'The model no longer sees the messages above';
    return h('div.divider', { role: 'note' }, conversation.summary
      ? h('details', {}, h('summary', {}, `${words}, only a summary of them`), h('p', {}, conversation.summary))
      : h('span', {}, words));
  }

  #url(blob) {
    const url = URL.createObjectURL(blob);
    this.#urls.push(url);
    return url;
  }

  /** Adds a message. Gives its view: `update()` shows its text, `finish()` what came of it. */
  add(m) {
    if (m.role === 'user') {
      const pictures = (m.images ?? []).map((b, i) => h('img', { src: this.#url(b), alt: `Picture ${i + 1} of the question` }));
      this.#list.append(h('article.message.user', {},
        h('h2.sr', {}, 'You'),
        pictures.length ? h('div.thumbs', {}, pictures) : null,
        m.audio ? h('audio', { controls: true, src: this.#url(m.audio.blob), 'aria-label': m.audio.name }) : null,
        m.text ? h('div.bubble', {}, m.text) : null));
      this.toEnd(true);
      return null;
    }
    const body = h('div.md');
    const extra = h('div');
    const bar = h('div.bar', { hidden: true });
    const article = h('article.message.answer', {}, h('h2.sr', {}, 'Answer'), body, extra, bar);
    this.#list.append(article);
    const markdown = new MarkdownView(body);
    let thinking = null;
    const view = {
      article, bar,
      /** Before the first word. */
      waiting: (words) => {
        thinking ??= h('div.thinking', {}, h('span.embers', { 'aria-hidden': 'true' }, h('i'), h('i'), h('i')), h('span'));
        thinking.lastChild.textContent = words;
        extra.prepend(thinking);
        this.toEnd();
      },
      update: () => {
        thinking?.remove();
        thinking = null;
        // What was said is no markup, whatever it looks like.
        if (m.plain) body.replaceChildren(...m.text.split('\n\n').map((text) => h('p', {}, text)));
        else markdown.update(m.text);
        this.toEnd();
      },
      note: (text) => { extra.append(h('div.notice', {}, icon('chip'), h('div', {}, text))); this.toEnd(); },
      finish: () => {
        view.update();
        extra.replaceChildren();
        if (m.moved) view.note(m.moved);
        if (m.status === 'error') {
          extra.append(h('div.notice.bad', {}, icon('warn'), h('div', {},
            h('strong', {}, m.error.title), `${m.error.text} `, m.error.remedy ? h('span', {}, m.error.remedy) : null,
            h('div.row', {}, h('button.quiet', { type: 'button', onclick: () => this.onRetry(m) }, 'Try again')))));
        } else if (m.finish === 'max_tokens') {
          extra.append(h('p.soft.small-text', {}, 'The answer reached its longest length. It can be set in the settings; “go on” continues it.'));
        } else if (m.finish === 'context') {
          extra.append(h('p.soft.small-text', {}, 'The context is full.'));
        }
        const copy = iconButton('copy', 'Copy the answer', () => copyText(m.text, copy));
        const again = iconButton('again', 'Answer anew', () => this.onAgain(m));
        again.classList.add('again');
        bar.replaceChildren(...(m.text ? [copy] : []), again, h('span.stats', {}, statsLine(m)));
        bar.hidden = false;
        this.toEnd();
      },
    };
    this.#views.set(m, view);
    if (m.status !== 'running') view.finish();
    return view;
  }

  /** The view of a message that is on the screen. */
  view(m) { return this.#views.get(m); }

  /** Removes a message. */
  remove(m) {
    this.#views.get(m)?.article.remove();
    this.#views.delete(m);
  }

  /** Only the last answer can be given anew. */
  markLast(conversation) {
    const last = conversation.messages.at(-1);
    for (const [m, view] of this.#views) {
      const again = view.bar.querySelector('.again');
      if (again) again.hidden = m !== last;
    }
  }

  /** Scrolls to the end, unless the reader has scrolled away. */
  toEnd(force = false) {
    if (!force && !this.#stuck) return;
    this.#stuck = true;
    this.#stage.scrollTop = this.#stage.scrollHeight;
    $('to-end').hidden = true;
  }
}
