// Markdown to elements, while it streams in.
//
// The text comes from a model and is not trusted: it only ever becomes text nodes and the elements named here. There is no raw HTML,
// nothing is loaded (an image becomes a link to it), and links lead to http, https and mailto only. Work is linear in the text: what
// a model repeats a thousand times must not stop the page.
import { h, icon, copyText } from './dom.js';

const MAX_DEPTH = 6;

// ---- inline ----

const LINK = /\[((?:[^[\]\\]|\\.)*)\]\(\s*<?([^\s<>()]*(?:\([^\s()]*\)[^\s<>()]*)*)>?(?:\s+(?:"[^"\n]*"|'[^'\n]*'))?\s*\)/y;
const BARE = /https?:\/\/[^\s<>"'`\])}*]+/y;
const ANGLE = /<(https?:\/\/[^\s<>]+|mailto:[^\s<>]+)>/y;
const STOP = /[\\`*_~[!<\nh]/g;
const SPACE = /\s/u;
const PUNCTUATION = /[\p{P}\p{S}]/u;

/** The address if it may be followed, else null. */
export function safeUrl(text) {
  try {
    const url = new URL(text);
    return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function link(children, address) {
  const href = safeUrl(address);
  if (!href) return h('span', {}, children);
  // Where it leads is shown: the words may say something else.
  return h('a', { href, target: '_blank', rel: 'noopener noreferrer nofollow', title: href }, children);
}

/** Nodes of one stretch of text. */
export function inline(src, links = true) {
  const nodes = [];
  // What was opened: its mark is the node at `at`, what is in it follows.
  const stack = [];
  const open = new Map();
  let plain = '';
  const flush = () => { if (plain) { nodes.push(plain); plain = ''; } };
  const push = (node) => { flush(); nodes.push(node); };
  // Closes the innermost; if it was never ended its mark stays as text.
  const pop = (tag) => {
    flush();
    const { key, at } = stack.pop();
    open.set(key, open.get(key) - 1);
    if (tag) nodes.push(h(tag, {}, nodes.splice(at).slice(1)));
  };
  const tags = { '*': 'em', _: 'em', '**': 'strong', __: 'strong', '~~': 'del' };
  const noCode = new Set();
  let i = 0;
  while (i < src.length) {
    STOP.lastIndex = i;
    const next = STOP.exec(src)?.index ?? src.length;
    plain += src.slice(i, next);
    i = next;
    if (i >= src.length) break;
    const c = src[i];
    if (c === '\\' && i + 1 < src.length) {
      if (src[i + 1] === '\n') push(h('br'));
      else plain += PUNCTUATION.test(src[i + 1]) ? src[i + 1] : src.slice(i, i + 2);
      i += 2;
    } else if (c === '`') {
      let n = 1;
      while (src[i + n] === '`') n++;
      const end = noCode.has(n) ? -1 : closingTicks(src, i + n, n);
      if (end < 0) {
        noCode.add(n);
        plain += src.slice(i, i + n);
        i += n;
      } else {
        let code = src.slice(i + n, end).replaceAll('\n', ' ');
        if (code.length > 2 && code.startsWith(' ') && code.endsWith(' ') && code.trim()) code = code.slice(1, -1);
        push(h('code', {}, code));
        i = end + n;
      }
    } else if (c === '*' || c === '_' || c === '~') {
      let n = 1;
      while (src[i + n] === c) n++;
      const [before, after] = [src[i - 1] ?? ' ', src[i + n] ?? ' '];
      const word = (x) => !SPACE.test(x) && !PUNCTUATION.test(x);
      const opens = !SPACE.test(after) && (c !== '_' || !word(before));
      const closes = !SPACE.test(before) && (c !== '_' || !word(after));
      let left = n;
      while (left > 0) {
        const size = c === '~' ? 2 : Math.min(left, left === 3 && stack.at(-1)?.key === c ? 1 : 2);
        if (left < size || n > 3) { plain += c.repeat(left); break; }
        const key = c.repeat(size);
        if (closes && open.get(key) > 0) {
          while (stack.at(-1).key !== key) pop(null);
          pop(tags[key]);
        } else if (opens) {
          push(key);
          stack.push({ key, at: nodes.length - 1 });
          open.set(key, (open.get(key) ?? 0) + 1);
        } else plain += key;
        left -= size;
      }
      i += n;
    } else if (c === '[' || (c === '!' && src[i + 1] === '[')) {
      const image = c === '!';
      LINK.lastIndex = image ? i + 1 : i;
      const m = links && LINK.exec(src);
      if (!m) { plain += image ? '![' : '['; i += image ? 2 : 1; continue; }
      // A picture from elsewhere would be a request that tells on the reader.
      push(link(image ? [`picture: ${m[1] || m[2]}`] : inline(m[1], false), m[2]));
      i = LINK.lastIndex;
    } else if (c === '<' || c === 'h') {
      const pattern = c === '<' ? ANGLE : BARE;
      pattern.lastIndex = i;
      const m = links && (c === '<' || !/\w/.test(src[i - 1] ?? ' ')) && pattern.exec(src);
      if (!m) { plain += c; i++; continue; }
      const address = c === '<' ? m[1] : m[0].replace(/[.,;:!?]+$/, '');
      push(link([address.replace(/^mailto:/, '')], address));
      i += c === '<' ? m[0].length : address.length;
    } else if (c === '\n') {
      if (plain.endsWith('  ')) { plain = plain.trimEnd(); push(h('br')); } else plain += '\n';
      i++;
    } else { plain += c; i++; }
  }
  flush();
  return nodes;
}

function closingTicks(src, from, n) {
  const run = /`+/g;
  run.lastIndex = from;
  for (let m = run.exec(src); m; m = run.exec(src)) if (m[0].length === n) return m.index;
  return -1;
}

// ---- blocks ----

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:([ \t]+)(.*)|$)/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const blank = (line) => line.trim() === '';

const starts = (line) => FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || /^ {0,3}(?:[-*+]|1[.)])[ \t]+\S/.test(line);

/** The blocks of a text, each with the lines it was made from. */
export function blocks(lines, depth = 0) {
  const out = [];
  let i = 0;
  const add = (block, from) => { out.push({ ...block, raw: lines.slice(from, i).join('\n') }); };
  while (i < lines.length) {
    const line = lines[i];
    const from = i;
    if (blank(line)) { i++; continue; }
    const fence = FENCE.exec(line);
    if (fence) {
      const mark = fence[1];
      const end = new RegExp(`^ {0,3}\\${mark[0]}{${mark.length},}[ \\t]*$`);
      const code = [];
      for (i++; i < lines.length && !end.test(lines[i]); i++) code.push(lines[i]);
      const closed = i < lines.length;
      if (closed) i++;
      add({ type: 'code', language: fence[2].trim().split(/\s/)[0], code: code.join('\n'), closed }, from);
      continue;
    }
    const heading = HEADING.exec(line);
    if (heading) { i++; add({ type: 'heading', level: heading[1].length, text: heading[2] ?? '' }, from); continue; }
    if (RULE.test(line)) { i++; add({ type: 'rule' }, from); continue; }
    if (QUOTE.test(line) && depth < MAX_DEPTH) {
      const inner = [];
      while (i < lines.length && QUOTE.test(lines[i])) inner.push(lines[i++].replace(QUOTE, ''));
      add({ type: 'quote', blocks: blocks(inner, depth + 1) }, from);
      continue;
    }
    const item = ITEM.exec(line);
    if (item && depth < MAX_DEPTH) {
      const list = readList(lines, i, item, depth);
      i = list.end;
      add(list.block, from);
      continue;
    }
    if (line.includes('|') && i + 1 < lines.length && DELIMITERS.test(lines[i + 1]) && lines[i + 1].includes('-')
      && cells(line).length === cells(lines[i + 1]).length) {
      const align = cells(lines[i + 1]).map((c) => (c.endsWith(':') ? (c.startsWith(':') ? 'center' : 'right') : 'left'));
      const head = cells(line);
      const rows = [];
      for (i += 2; i < lines.length && lines[i].includes('|') && !blank(lines[i]); i++) rows.push(cells(lines[i]));
      add({ type: 'table', head, rows, align }, from);
      continue;
    }
    const text = [line.trimStart()];
    for (i++; i < lines.length && !blank(lines[i]) && !starts(lines[i]); i++) text.push(lines[i].trimStart());
    add({ type: 'paragraph', text: text.join('\n') }, from);
  }
  return out;
}

function readList(lines, start, first, depth) {
  const kind = (marker) => (/\d/.test(marker) ? marker.at(-1) : marker);
  const ordered = /\d/.test(first[2]);
  const items = [];
  let i = start;
  let loose = false;
  while (i < lines.length) {
    const m = ITEM.exec(lines[i]);
    if (!m || kind(m[2]) !== kind(first[2]) || m[1].length > first[1].length + 3 || RULE.test(lines[i])) break;
    const indent = m[1].length + m[2].length + Math.min(m[3]?.length ?? 1, 4);
    const inner = [m[4] ?? ''];
    for (i++; i < lines.length; i++) {
      const here = lines[i].search(/\S/);
      if (here < 0) {
        // Blank lines belong to the item if it goes on after them.
        const next = lines.slice(i + 1, i + 3).find((l) => !blank(l));
        if (next === undefined || (next.search(/\S/) < indent && !(ITEM.exec(next)?.[1].length >= indent - 1))) break;
        inner.push('');
        loose = true;
      } else if (here >= indent || (here >= m[1].length + 2 && ITEM.test(lines[i]))) {
        inner.push(lines[i].slice(Math.min(indent, here)));
      } else if (!ITEM.test(lines[i]) && !starts(lines[i]) && !blank(lines[i - 1])) {
        inner.push(lines[i].trimStart());
      } else break;
    }
    items.push(inner);
    // A blank line between two items makes the list airy, and does not end it.
    const gap = i;
    while (i < lines.length && blank(lines[i])) i++;
    const again = i < lines.length && ITEM.exec(lines[i]);
    if (gap !== i && !(again && kind(again[2]) === kind(first[2]) && again[1].length <= first[1].length + 3)) { i = gap; break; }
    if (gap !== i) loose = true;
  }
  const entry = (inner) => {
    const task = /^\[([ xX])\][ \t]+/.exec(inner[0]);
    if (task) inner[0] = inner[0].slice(task[0].length);
    return { task: task ? task[1] !== ' ' : null, blocks: blocks(inner, depth + 1) };
  };
  const number = ordered ? Number.parseInt(first[2], 10) : 1;
  return { end: i, block: { type: 'list', ordered, number, loose, items: items.map(entry) } };
}

/** The cells of a table's row; `\|` is a bar inside of one. */
function cells(line) {
  const row = line.trim().replace(/^\|/, '').replace(/(?<!\\)\|$/, '');
  return row.split(/(?<!\\)\|/).map((c) => c.trim().replaceAll('\\|', '|'));
}

// ---- elements ----

function codeBlock(block) {
  const code = h('code', {}, block.code);
  const copy = h('button.copy', { type: 'button', 'aria-label': 'Copy code', onclick: () => copyText(code.textContent, copy) },
    icon('copy'), h('span.label', {}, 'Copy'));
  return h('figure.code', {},
    h('figcaption', {}, h('span', {}, block.language.slice(0, 24) || 'text'), copy),
    h('pre', { tabIndex: 0, 'aria-label': 'Code' }, code));
}

function element(block) {
  switch (block.type) {
    case 'code': return codeBlock(block);
    // The page has a heading of its own and each message one; the model's come below.
    case 'heading': return h(`h${Math.min(6, block.level + 2)}`, {}, inline(block.text));
    case 'rule': return h('hr');
    case 'quote': return h('blockquote', {}, block.blocks.map(element));
    case 'list': {
      const li = (item) => {
        const tight = !block.loose && item.blocks[0]?.type === 'paragraph';
        const body = item.blocks.flatMap((b, i) => (tight && i === 0 ? inline(b.text) : [element(b)]));
        const box = item.task === null ? null
          : h('input', { type: 'checkbox', checked: item.task, disabled: true, 'aria-label': item.task ? 'done' : 'not done' });
        return h('li', {}, box, body);
      };
      return h(block.ordered ? 'ol' : 'ul', block.ordered && block.number !== 1 ? { start: block.number } : {}, block.items.map(li));
    }
    case 'table': {
      const cell = (tag) => (text, i) => h(`${tag}.${block.align[i] ?? 'left'}`, tag === 'th' ? { scope: 'col' } : {}, inline(text ?? ''));
      const row = (r) => h('tr', {}, block.head.map((_, i) => cell('td')(r[i], i)));
      return h('div.table', { tabIndex: 0, role: 'region', 'aria-label': 'Table' },
        h('table', {}, h('thead', {}, h('tr', {}, block.head.map(cell('th')))), h('tbody', {}, block.rows.map(row))));
    }
    default: return h('p', {}, inline(block.text));
  }
}

/** Shows a growing text in an element: blocks that did not change keep their elements, and with them the reader's selection. */
export class MarkdownView {
  #shown = [];

  constructor(into) { this.into = into; }

  update(text) {
    const now = blocks(text.replace(/\r\n?/g, '\n').split('\n'));
    let same = 0;
    while (same < now.length && same < this.#shown.length && now[same].raw === this.#shown[same].raw && now[same].closed === this.#shown[same].closed) {
      now[same].node = this.#shown[same++].node;
    }
    // The code block that is being written gets longer, until its last line turns out to be its end.
    const [was, is] = [this.#shown[same], now[same]];
    if (was?.type === 'code' && is?.type === 'code' && was.language === is.language) {
      const code = was.node.querySelector('code');
      if (is.code.startsWith(was.code)) code.append(is.code.slice(was.code.length));
      else code.textContent = is.code;
      is.node = was.node;
      same++;
    }
    for (const old of this.#shown.slice(same)) if (!now.slice(0, same).some((b) => b.node === old.node)) old.node.remove();
    for (const block of now.slice(same)) {
      block.node = element(block);
      this.into.append(block.node);
    }
    this.#shown = now;
  }
}
