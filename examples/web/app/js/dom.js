// Elements without markup in strings: nothing here, or anywhere in the app, sets innerHTML.

const SVG = 'http://www.w3.org/2000/svg';

/** `h('button.primary', { onclick, title: '…' }, 'Text', node, …)`; null, undefined and false children are left out. */
export function h(tag, props = {}, ...children) {
  const [name, ...classes] = tag.split('.');
  const el = document.createElement(name);
  if (classes.length) el.className = classes.join(' ');
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) el.addEventListener(key.slice(2), value);
    else if (key in el && !key.startsWith('aria') && key !== 'list' && key !== 'form') el[key] = value;
    else el.setAttribute(key, value === true ? '' : value);
  }
  el.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return el;
}

/** An icon of the page's sprite, for the eye only. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(SVG, 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button that is only an icon; its label is its name and its tooltip. */
export const iconButton = (name, label, onclick, more = {}) =>
  h('button.icon-button', { type: 'button', title: label, 'aria-label': label, onclick, ...more }, icon(name));

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

/** Shows a dialog; a click on the backdrop closes it, as Escape does. */
export function openDialog(dialog) {
  if (dialog.open) return;
  if (!dialog.dataset.ready) {
    dialog.dataset.ready = '1';
    dialog.addEventListener('click', (e) => { if (e.target === dialog) dialog.close(); });
    for (const b of dialog.querySelectorAll('[data-close]')) b.addEventListener('click', () => dialog.close());
  }
  dialog.showModal();
}

/** Asks before something that cannot be undone. Gives true for yes. */
export function confirm({ title, text, yes, danger = true }) {
  return new Promise((resolve) => {
    const answer = (value) => () => { result = value; dialog.close(); };
    let result = false;
    const dialog = h('dialog.sheet.small', { 'aria-labelledby': 'confirm-title' },
      h('h2', { id: 'confirm-title' }, title), h('p', {}, text),
      h('div.row.end', {},
        h('button.quiet', { type: 'button', onclick: answer(false), autofocus: true }, 'Cancel'),
        h(danger ? 'button.danger' : 'button.primary', { type: 'button', onclick: answer(true) }, yes)));
    dialog.addEventListener('close', () => { dialog.remove(); resolve(result); });
    document.body.append(dialog);
    openDialog(dialog);
  });
}

/** Gives a blob to the user as a file. */
export function download(name, blob) {
  const url = URL.createObjectURL(blob);
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 30_000);
}

/** Copies text, and says so on the button for a moment. */
export async function copyText(text, button) {
  const label = button.querySelector('.label');
  const before = label?.textContent ?? button.title;
  const say = (word) => { if (label) label.textContent = word; else button.title = word; };
  try {
    await navigator.clipboard.writeText(text);
    button.classList.add('done');
    say('Copied');
  } catch {
    say('Not allowed');
  }
  setTimeout(() => { button.classList.remove('done'); say(before); }, 1600);
}
