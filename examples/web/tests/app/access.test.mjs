// Keyboard, screen reader, colours, small screens.
import { test, ok, equal } from '../support/harness.mjs';
import { open } from '../support/page.mjs';
import { HEARING, mockSite, serve } from '../support/site.mjs';

/** What a checker of labels would find in the page as it is. */
const lint = () => {
  const found = [];
  const shown = (el) => el.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: true });
  const text = (el) => [...el.childNodes].map((n) => (n.nodeType === 3 ? n.data : n.nodeType === 1 && n.getAttribute('aria-hidden') !== 'true' ? n.getAttribute('aria-label') ?? n.alt ?? text(n) : '')).join('').trim();
  const name = (el) => {
    const ids = el.getAttribute('aria-labelledby');
    return el.getAttribute('aria-label')?.trim() || (ids && ids.split(' ').map((i) => document.getElementById(i)?.textContent ?? '').join(' ').trim())
      || [...(el.labels ?? [])].map(text).join(' ').trim() || text(el) || el.getAttribute('alt') || '';
  };
  const label = (el) => `<${el.localName}${el.id ? `#${el.id}` : ''}${el.className && typeof el.className === 'string' ? `.${el.className}` : ''}>`;
  const root = document.querySelector('dialog[open]') ?? document.body;
  for (const el of root.querySelectorAll('button, a[href], input, textarea, select, dialog, [role=progressbar], [role=meter], [role=radiogroup], [role=region], nav, audio, video')) {
    if (shown(el) && !name(el)) found.push(`${label(el)} has no name`);
  }
  for (const img of root.querySelectorAll('img')) if (!img.hasAttribute('alt')) found.push(`${label(img)} has no alt`);
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  for (const id of new Set(ids.filter((x, i) => ids.indexOf(x) !== i))) found.push(`two elements are called ${id}`);
  for (const attribute of ['aria-labelledby', 'aria-describedby', 'aria-controls', 'for', 'popovertarget']) {
    for (const el of document.querySelectorAll(`[${attribute}]`)) for (const id of el.getAttribute(attribute).split(' ')) if (!document.getElementById(id)) found.push(`${label(el)} ${attribute} ${id} leads nowhere`);
  }
  for (const el of root.querySelectorAll('[tabindex]')) if (el.tabIndex > 0) found.push(`${label(el)} forces its place in the order`);
  for (const el of root.querySelectorAll('[aria-hidden=true]')) if (el.querySelector('button, a[href], input') || el.matches('button, a[href], input')) found.push(`${label(el)} is hidden and can be focused`);
  let level = 0;
  for (const hd of root.querySelectorAll('h1, h2, h3, h4, h5, h6')) {
    if (!shown(hd)) continue;
    const n = Number(hd.localName[1]);
    if (level && n > level + 1) found.push(`${label(hd)} "${hd.textContent}" skips a level after h${level}`);
    level = n;
  }
  // Small targets are hard to hit.
  for (const el of root.querySelectorAll('button, select, input[type=checkbox]')) {
    if (!shown(el) || el.disabled || el.classList.contains('link')) continue;
    const r = el.getBoundingClientRect();
    if (r.width && (r.width < 20 || r.height < 20)) found.push(`${label(el)} is ${r.width.toFixed(0)} × ${r.height.toFixed(0)}`);
  }
  // Contrast of text, WCAG AA. Colours are read back through a canvas, which knows every notation.
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgba = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1); const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const behind = (el) => {
    const layers = [];
    for (let e = el; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > 0) layers.push(c); if (c[3] === 1) break; }
    return layers.reverse().reduce((below, c) => over(c, below), rgba(getComputedStyle(document.body).backgroundColor));
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const el = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !shown(el) || el.closest('.sr, script, noscript, option, :disabled, [hidden]')) continue;
    const style = getComputedStyle(el);
    const back = behind(el);
    const [a, b] = [light(over(rgba(style.color), back)), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`"${walker.currentNode.data.trim().slice(0, 24)}" in ${label(el)} has contrast ${ratio.toFixed(2)}`);
  }
  return [...new Set(found)];
};

const RICH = '# Head\n\nText with `code`, [a link](https://example.org) and\n\n> a quote\n\n```js\nx\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- [x] done';

for (const colorScheme of ['light', 'dark']) {
  for (const [size, width] of [['wide', 1200], ['narrow', 390]]) {
    test(`access: names, order, colours, targets (${colorScheme}, ${size})`, async (t) => {
      const { page, ready, ask, done } = await open(t, {
        mock: { answers: [RICH], tokenMs: 0, accepts: { images: true, audio: true }, tooLarge: ['oak-7b'], smaller: 'smollm2-135m', moveAfter: 2 },
        context: { colorScheme, viewport: { width, height: 800 }, reducedMotion: 'reduce' },
      });
      const found = {};
      const check = async (state) => {
        const list = await page.evaluate(lint);
        if (list.length) found[state] = list;
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        if (wide > 0) (found[state] ??= []).push(`${wide} px wider than the screen`);
      };
      const close = async () => { await page.keyboard.press('Escape'); await page.waitForFunction(() => !document.querySelector('dialog[open]')); };
      await page.waitForSelector('.badge.good');
      await check('first visit');
      await page.evaluate(() => { globalThis.mock.stallAt = 0.5; });
      await page.click('.card .primary');
      await page.waitForSelector('.phases .now');
      await check('progress');
      await page.click('.loading .quiet');
      await page.evaluate(() => { delete globalThis.mock.stallAt; });
      await ready();
      await check('ready');
      await ask('A question');
      await check('answer');
      await page.click('#add-recording');
      await page.waitForSelector('#recording .time');
      await check('recording');
      await page.click('[aria-label="Discard the recording"]');
      await page.click('#model-button');
      await page.waitForSelector('#models .badge.bad');
      await check('models');
      await close();
      await page.click('#device-button');
      await page.waitForFunction(() => document.getElementById('device-body').textContent.includes('Page memory'));
      await check('device');
      await close();
      await page.click('#context-button');
      await check('context');
      await page.keyboard.press('Escape');
      if (size === 'narrow') { await page.click('#open-sidebar'); await page.waitForTimeout(300); await check('sidebar'); }
      await page.click('#open-settings');
      await check('settings');
      await close();
      await page.goto(`${page.url()}device.html`);
      await page.waitForFunction(() => document.getElementById('status').textContent === 'Done.');
      await check('report');
      equal(found, {});
      await done();
    });
  }
}

for (const [colorScheme, width] of [['light', 390], ['dark', 390], ['light', 1200]]) {
  test(`access: a model that hears (${colorScheme}, ${width} px)`, async (t) => {
    const s = await serve(await mockSite());
    s.models = [HEARING];
    const { page, done } = await open(t, { site: s, mock: { spoken: 'It is said in many words. '.repeat(12) }, context: { colorScheme, viewport: { width, height: 700 }, reducedMotion: 'reduce' } });
    const found = {};
    const check = async (state) => {
      const list = await page.evaluate(lint);
      if (list.length) found[state] = list;
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (wide > 0) (found[state] ??= []).push(`${wide} px wider than the screen`);
    };
    await page.click('.welcome .card .primary');
    await page.waitForSelector('.by-ear #add-recording');
    equal(await page.evaluate(() => document.activeElement.id), 'add-recording', 'after loading one can speak');
    await check('ready');
    // The keyboard alone records, and ends it.
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.querySelector('#recording .partial')?.textContent.length > 20);
    await check('recording');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.message .bar:not([hidden])');
    await check('transcript');
    ok((await page.innerText('#live')).includes('It is said in many words.'), 'announced');
    await page.waitForFunction(() => document.activeElement.id === 'add-recording');
    equal(found, {});
    await done();
  });
}

test('access: the checker finds what is wrong', async (t) => {
  const { page, done } = await open(t);
  await page.evaluate(() => {
    const add = (tag, props, attributes = {}) => { const el = Object.assign(document.createElement(tag), props); for (const [k, v] of Object.entries(attributes)) el.setAttribute(k, v); document.querySelector('main').append(el); return el; };
    add('button', {});
    add('input', {});
    add('span', { textContent: 'hard to read' }).style.color = 'rgb(200 195 190)';
    add('p', { id: 'stage' });
    add('button', { textContent: 'x' }, { 'aria-describedby': 'nowhere', tabindex: '3' });
  });
  const found = (await page.evaluate(lint)).join('\n');
  for (const part of ['<button> has no name', '<input> has no name', 'hard to read', 'two elements are called stage', 'nowhere leads nowhere', 'forces its place']) ok(found.includes(part), `${part} not in\n${found}`);
  await done();
});

test('access: a conversation with the keyboard alone', async (t) => {
  const { page, answer, done } = await open(t, { mock: { answers: ['one two three four five six seven eight nine ten', 'Second.'], tokenMs: 30 } });
  await page.waitForSelector('.badge.good');
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim());
  const tabTo = async (what) => { for (let i = 0; i < 40; i++) { if ((await focused()).includes(what)) return; await page.keyboard.press('Tab'); } throw new Error(`Tab does not reach ${what}`); };
  await page.keyboard.press('Tab');
  equal(await focused(), 'Skip to the message box');
  await tabTo('Download');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.suggestions');
  equal(await focused(), 'prompt', 'after loading one can write');
  await page.keyboard.type('first');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('second');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('.answer .md')?.textContent.includes('two'));
  equal(await page.locator('.bubble').innerText(), 'first\nsecond');
  await page.keyboard.press('Escape');
  await page.waitForSelector('.stats');
  ok(!(await answer()).includes('ten'));
  await tabTo('model-button');
  await page.keyboard.press('Enter');
  await page.waitForSelector('#models[open]');
  for (let i = 0; i < 30; i++) {
    await page.keyboard.press('Tab');
    // Between the last and the first element the browser's own controls have their turn.
    ok(await page.evaluate(() => document.activeElement === document.body || document.getElementById('models').contains(document.activeElement)), 'focus left the dialog');
  }
  await page.keyboard.press('Escape');
  equal(await focused(), 'model-button', 'focus comes back');
  await page.keyboard.press('/');
  equal(await focused(), 'prompt');
  await page.keyboard.press('Control+Shift+O');
  await page.waitForSelector('.suggestions');
  await tabTo('Explain why');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('.answer .md')?.textContent === 'Second.');
  await done();
});

test('access: a screen reader hears sentences, not tokens', async (t) => {
  const text = 'A fire needs **air**. It also needs `fuel` and a spark. ' + 'Dry wood burns well. '.repeat(6) + 'That is all.';
  const { page, ready, ask, done } = await open(t, { mock: { answers: [text], tokenMs: 25 } });
  await page.evaluate(() => {
    globalThis.heard = [];
    new MutationObserver((list) => { for (const m of list) for (const n of m.addedNodes) globalThis.heard.push(n.textContent); }).observe(document.getElementById('live'), { childList: true });
  });
  await ready();
  const start = await page.evaluate(() => globalThis.heard.length);
  await ask('Tell me.');
  const heard = (await page.evaluate(() => globalThis.heard)).slice(start);
  equal(heard.at(-1), 'Answer complete');
  const said = heard.slice(0, -1);
  equal(said.join(' '), text.replace(/[*`]+/g, ' ').replace(/\s+/g, ' ').trim());
  ok(said.length >= 1 && said.length < 8, `${said.length} announcements`);
  ok(said.every((s) => /[.!?]$/.test(s)), JSON.stringify(said));
  equal(await page.getAttribute('#live', 'aria-live'), 'polite');
  equal(await page.evaluate(() => document.querySelector('.thread').closest('[aria-live]')), null, 'the conversation itself is not read out token by token');
  await done();
});

test('access: who wants less motion gets none', async (t) => {
  const { page, ready, done } = await open(t, { mock: { tokenMs: 100_000 }, context: { reducedMotion: 'reduce' } });
  await ready();
  await page.fill('#prompt', 'x');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.embers i');
  ok(await page.evaluate(() => parseFloat(getComputedStyle(document.querySelector('.embers i')).animationDuration) < 0.01));
  await done();
});

test('access: on a narrow screen the conversations are behind a button', async (t) => {
  const { page, ready, ask, done } = await open(t, { context: { viewport: { width: 390, height: 800 } } });
  await ready();
  await ask('Hello?');
  ok(await page.isHidden('#conversations .open'));
  await page.click('#open-sidebar');
  equal(await page.evaluate(() => document.activeElement.id), 'close-sidebar');
  ok(await page.evaluate(() => document.querySelector('main').inert));
  await page.keyboard.press('Escape');
  equal(await page.evaluate(() => document.activeElement.id), 'open-sidebar');
  await page.click('#open-sidebar');
  await page.click('#new-chat');
  await page.waitForSelector('.suggestions');
  ok(!await page.evaluate(() => document.querySelector('main').inert));
  await done();
});
