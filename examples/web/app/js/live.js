// What a screen reader hears of a streamed answer: whole sentences, not tokens, and never faster than they can be spoken.

/** Splits off what is ready to be said: up to the last end of a sentence or line, or of a word where none comes. */
export function ready(text, most = 400) {
  const ends = [...text.matchAll(/[.!?…:](?=[\s"')\]]|$)|\n+|[。！？]/gu)];
  // The last one may be the middle of "3.5" or "e.g.": what comes next will tell.
  const end = ends.filter((m) => m.index + m[0].length < text.length).at(-1);
  if (end) return end.index + end[0].length;
  return text.length > most ? text.lastIndexOf(' ', most) + 1 || most : 0;
}

const spoken = (markdown) => markdown.replace(/```\S*\n?/g, '').replace(/[*_`#>|]+/g, ' ').replace(/\s+/g, ' ').trim();

export class Announcer {
  #region; #timer = null; #pending = ''; #gap;

  constructor(region, gap = 1200) {
    this.#region = region;
    this.#gap = gap;
  }

  /** One message, at once. */
  say(text) {
    this.#region.append(Object.assign(document.createElement('p'), { textContent: text }));
    while (this.#region.childElementCount > 6) this.#region.firstElementChild.remove();
  }

  /** More of an answer. */
  add(text) {
    this.#pending += text;
    this.#timer ??= setTimeout(() => { this.#timer = null; this.#flush(false); }, this.#gap);
  }

  /** The answer is complete. */
  end(words) {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#flush(true);
    if (words) this.say(words);
  }

  #flush(all) {
    const n = all ? this.#pending.length : ready(this.#pending);
    const text = spoken(this.#pending.slice(0, n));
    this.#pending = this.#pending.slice(n);
    if (text) this.say(text);
    if (!all && this.#pending) this.#timer ??= setTimeout(() => { this.#timer = null; this.#flush(false); }, this.#gap);
  }
}
