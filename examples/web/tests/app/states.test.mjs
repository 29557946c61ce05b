// The conversation page in its states.
import { readFile } from 'node:fs/promises';
import { test, ok, equal, until } from '../support/harness.mjs';
import { open } from '../support/page.mjs';

test('app: nothing is downloaded unasked', async (t) => {
  const { page, calls, done } = await open(t);
  await page.waitForSelector('.badge.good');
  equal(await calls('load'), []);
  ok(await page.isHidden('#composer'));
  equal(await page.locator('.welcome .card .primary').innerText(), 'Download · 98.4 MB');
  await done();
});

test('app: progress has phases and never goes back', async (t) => {
  const { page, done } = await open(t, { mock: { stepMs: 25, loadSteps: 30 } });
  await page.evaluate(() => {
    globalThis.seen = [];
    new MutationObserver(() => {
      const bar = document.querySelector('[role=progressbar]');
      if (bar) globalThis.seen.push([Number(bar.getAttribute('aria-valuenow')), document.querySelector('.phases .now')?.textContent]);
    }).observe(document.getElementById('stage'), { subtree: true, attributes: true, childList: true });
  });
  await page.click('.card .primary');
  await page.waitForSelector('.suggestions');
  const seen = await page.evaluate(() => globalThis.seen);
  ok(seen.length > 10 && seen.every(([v], i) => i === 0 || v >= seen[i - 1][0]), JSON.stringify(seen));
  equal([...new Set(seen.map(([, phase]) => phase).filter(Boolean))], ['Processor', 'Weights', 'Compiling']);
  await done();
});

test('app: a download can be cancelled and started again', async (t) => {
  const { page, done } = await open(t, { mock: { stallAt: 0.5 } });
  await page.click('.card .primary');
  await page.waitForFunction(() => document.querySelector('[role=progressbar]')?.getAttribute('aria-valuenow') === '50');
  await page.click('.loading .quiet');
  await page.waitForSelector('.welcome');
  await page.evaluate(() => { delete globalThis.mock.stallAt; });
  await page.click('.card .primary');
  await page.waitForSelector('.suggestions');
  await done();
});

test('app: an error says what, why and what to do', async (t) => {
  const loadError = { code: 'network', message: 'The connection was cut.', remedy: 'Try again when the network is back.' };
  const { page, done } = await open(t, { mock: { loadError } });
  await page.click('.card .primary');
  const box = page.locator('.loading [role=alert]');
  await box.waitFor();
  const text = await box.innerText();
  for (const part of ['The download was interrupted', loadError.message, loadError.remedy]) ok(text.includes(part), text);
  await page.evaluate(() => { delete globalThis.mock.loadError; });
  await page.click('.loading button.primary');
  await page.waitForSelector('.suggestions');
  await done();
});

test('app: too little memory offers a smaller model', async (t) => {
  const { page, calls, done } = await open(t, { mock: { tooLarge: ['oak-7b'], smaller: 'smollm2-135m' } });
  await page.click('#model-button');
  const oak = page.locator('#models .card', { hasText: 'Oak 7B' });
  await oak.locator('.badge.bad').waitFor();
  ok((await oak.innerText()).includes('9.1 GB'));
  await oak.locator('text=Take SmolLM2 135M instead').click();
  await page.waitForSelector('.suggestions');
  equal(await calls('load'), ['smollm2-135m']);
  await done();
});

test('app: an answer streams in, is kept, and is there after a reload', async (t) => {
  const { page, ready, ask, answer, calls, done } = await open(t, { mock: { answers: ['First **answer**.', 'Second.'] } });
  await ready();
  await ask('One?');
  await ask('Two?');
  equal(await answer(), 'Second.');
  const [, second] = await calls('chat');
  equal(second.messages.map((m) => [m.role, m.content]), [['user', 'One?'], ['assistant', 'First **answer**.'], ['user', 'Two?']]);
  await page.reload();
  await page.click('#conversations .open');
  await page.waitForFunction(() => document.querySelectorAll('.message').length === 4);
  await page.waitForSelector('#composer:not([hidden])');
  // The model was on the device: it is loaded again without a question.
  equal(await calls('load'), ['smollm2-135m']);
  await ask('Three?');
  equal(await page.locator('.message').count(), 6);
  await done();
});

test('app: stop keeps what is there; answering anew replaces it and takes another seed', async (t) => {
  const { page, ready, calls, answer, done } = await open(t, { mock: { tokenMs: 40, answers: ['one two three four five six seven eight nine ten', 'Another.'] } });
  await ready();
  await page.evaluate(() => localStorage.setItem('firelight-preferences', JSON.stringify({ ...JSON.parse(localStorage.getItem('firelight-preferences')), seed: '7' })));
  await page.reload();
  await page.waitForSelector('.suggestions');
  await page.fill('#prompt', 'Count!');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('.answer .md')?.textContent.includes('two'));
  equal(await page.getAttribute('#send', 'aria-label'), 'Stop');
  await page.click('#send');
  await page.waitForSelector('.stats');
  ok(!(await answer()).includes('ten'));
  ok((await page.locator('.stats').innerText()).includes('stopped'));
  equal(await page.getAttribute('#send', 'aria-label'), 'Send');
  await page.click('.again');
  await page.waitForFunction(() => document.querySelector('.answer .md')?.textContent === 'Another.');
  equal(await page.locator('.message').count(), 2);
  const [first, second] = await calls('chat');
  equal([first.seed, second.seed ?? null], [7, null]);
  equal(second.messages.length, 1, 'the old answer is not part of the question');
  await done();
});

test('app: an error in mid-answer keeps the words and can be tried again', async (t) => {
  const { page, ready, answer, done } = await open(t, { mock: { answers: ['A long answer that fails.'], chatError: { code: 'device', message: 'The GPU was lost twice.', remedy: 'Choose the CPU.' } } });
  await ready();
  await page.fill('#prompt', 'Why?');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.answer .notice.bad');
  const text = await page.locator('.answer').innerText();
  ok(text.includes('A long') && text.includes('The GPU was lost twice.') && text.includes('Choose the CPU.'), text);
  await page.click('.answer .notice button');
  await page.waitForFunction(() => document.querySelector('.answer .md')?.textContent.endsWith('fails.') && !document.querySelector('.notice.bad'));
  ok((await answer()).startsWith('A long answer'));
  await done();
});

test('app: a move to another device is told', async (t) => {
  const { page, ready, ask, done } = await open(t, { mock: { moveAfter: 2 } });
  await ready();
  equal(await page.innerText('#device-name'), 'GPU');
  await ask('Why?');
  ok((await page.locator('.answer').innerText()).includes('The GPU was lost.'));
  equal(await page.innerText('#device-name'), 'CPU');
  await done();
});

test('app: the device panel says what runs, on what, why, and what could be done', async (t) => {
  const { page, done } = await open(t, { mock: { device: 'cpu' } });
  await page.click('#device-button');
  await page.waitForFunction(() => document.getElementById('device-body').textContent.includes('Page memory'));
  const text = await page.innerText('#device-body');
  for (const part of ['CPU of this page', 'The browser has no WebGPU', 'Switch on hardware acceleration', 'cpu-simd']) ok(text.includes(part), text);
  await done();
});

test('app: attachments are offered when the model takes them, and only then', async (t) => {
  const without = await open(t);
  await without.ready();
  for (const id of ['add-image', 'add-photo', 'add-recording', 'add-sound']) ok(await without.page.isHidden(`#${id}`), id);
  await without.done();

  const { page, ready, calls, done } = await open(t, { mock: { accepts: { images: true, audio: true } } });
  await ready();
  for (const id of ['add-image', 'add-photo', 'add-recording', 'add-sound']) ok(await page.isVisible(`#${id}`), id);
  const paste = () => page.evaluate(() => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='), (c) => c.charCodeAt(0))], 'dot.png', { type: 'image/png' }));
    document.getElementById('prompt').dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }));
  });
  await paste();
  await paste();
  await page.click('[aria-label="Remove picture 2"]');
  await page.click('#add-recording');
  await page.waitForFunction(() => Number(document.querySelector('[role=meter]')?.getAttribute('aria-valuenow')) > 0, null, { timeout: 10_000 });
  await page.click('#recording .quiet');
  await page.waitForSelector('#attachments .chip');
  await page.fill('#prompt', 'What is it?');
  await page.click('#send');
  await page.waitForSelector('.stats');
  const [call] = await calls('chat');
  equal([call.images, call.audio], [1, 'audio/wav']);
  equal(call.messages.at(-1).content.map((p) => p.type), ['image', 'audio', 'text']);
  equal(await page.locator('.message.user img').count(), 1);
  await page.reload();
  await page.click('#conversations .open');
  await page.waitForFunction(() => document.querySelector('.message.user img')?.naturalWidth === 1);
  await done();
});

test('app: a photo from the camera', async (t) => {
  const { page, ready, done } = await open(t, { mock: { accepts: { images: true, audio: false } } });
  await ready();
  await page.click('#add-photo');
  await page.waitForFunction(() => document.querySelector('#camera video')?.videoWidth > 0, null, { timeout: 10_000 });
  await page.click('#camera .primary');
  await page.waitForFunction(() => document.querySelector('.attachment img')?.naturalWidth > 100);
  await done();
});

test('app: the window slides, and what falls out is summed up', async (t) => {
  const { page, ready, ask, calls, done } = await open(t, { mock: { context: 600, tokenMs: 0, answers: ['Wood burns because of the heat. '.repeat(10)] } });
  await ready();
  for (let i = 0; i < 5; i++) await ask(`Question ${i} about ${'wood and fire '.repeat(12)}`);
  ok(await page.locator('.divider').count() === 1);
  const chats = await calls('chat');
  ok(chats.some((c) => c.messages[0].content.includes('Summarise the conversation above')));
  const last = chats.at(-1).messages;
  ok(last[0].role === 'system' && last[0].content.includes('They spoke of mock things.'), JSON.stringify(last[0]));
  ok(last.length < 8 && last.at(-1).content.startsWith('Question 4'));
  equal(await page.locator('.message').count(), 10, 'the reader still sees all of it');
  ok(/of 600 tokens/.test(await page.getAttribute('#context-button', 'aria-label')));
  await done();
});

test('app: a base model continues the text', async (t) => {
  const { page, calls, done } = await open(t);
  await page.click('#model-button');
  await page.locator('#models .card', { hasText: 'Storyteller' }).locator('button.primary').click();
  await page.waitForSelector('.suggestions');
  await page.fill('#prompt', 'Once');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.stats');
  const [call] = await calls('chat');
  equal([call.prompt, call.messages], ['Once', []]);
  await done();
});

test('app: settings take effect and stay', async (t) => {
  const { page, ready, ask, calls, done } = await open(t);
  await ready();
  await page.click('#open-settings');
  await page.fill('#system-prompt', 'Speak like a pirate.');
  await page.getByLabel('Longest answer').fill('64');
  await page.getByLabel('Always the likeliest word').check();
  ok(await page.isHidden('#settings .group'));
  await page.getByLabel('Dark').check({ force: true });
  equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark');
  await page.keyboard.press('Escape');
  await ask('Ahoy?');
  const [call] = await calls('chat');
  equal([call.greedy, call.maxTokens, call.temperature ?? null, call.messages[0].content], [true, 64, null, 'Speak like a pirate.']);
  await page.reload();
  equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark');
  await page.waitForSelector('.suggestions');
  await page.click('#open-settings');
  equal(await page.inputValue('#system-prompt'), 'Speak like a pirate.');
  await page.getByRole('radiogroup', { name: 'Run on' }).getByLabel('CPU').check({ force: true });
  await until(async () => (await calls('create')).at(-1).device === 'cpu', 'the engine starts anew on the CPU');
  await page.waitForFunction(() => document.getElementById('device-name').textContent === 'CPU');
  await done();
});

test('app: conversations are exported, imported and deleted', async (t) => {
  const { page, ready, ask, done } = await open(t, { mock: { answers: ['An answer with <b>.'] } });
  await ready();
  await ask('To be kept');
  const saved = async (label) => {
    await page.click('#conversations .icon-button');
    const [file] = await Promise.all([page.waitForEvent('download'), page.click(`#menu >> text=${label}`)]);
    return readFile(await file.path(), 'utf8');
  };
  equal(await saved('Export as Markdown'), '# To be kept\n\n## You\n\nTo be kept\n\n## smollm2-135m\n\nAn answer with <b>.\n');
  const json = await saved('Export as JSON');
  equal(JSON.parse(json).conversations[0].messages.map((m) => m.text), ['To be kept', 'An answer with <b>.']);
  await page.click('#conversations .icon-button');
  await page.click('#menu >> text=Delete');
  await page.click('dialog[open] .danger');
  await page.waitForSelector('#conversations .none');
  await page.reload();
  await page.waitForSelector('#conversations .none', { timeout: 5000 });
  await page.click('#open-settings');
  const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.click('text=Import')]);
  await chooser.setFiles({ name: 'x.json', mimeType: 'application/json', buffer: Buffer.from(json) });
  await page.waitForSelector('#conversations .open', { state: 'attached' });
  const [second] = await Promise.all([page.waitForEvent('filechooser'), page.click('text=Import')]);
  await second.setFiles({ name: 'y.json', mimeType: 'application/json', buffer: Buffer.from('{"conversations": 3}') });
  await page.waitForSelector('#notices .notice');
  await page.keyboard.press('Escape');
  await page.click('#conversations .open');
  equal(await page.locator('.message').count(), 2);
  await done();
});

test('app: an answer goes on while another conversation is looked at', async (t) => {
  const { page, ready, done } = await open(t, { mock: { tokenMs: 30, answers: ['one two three four five six seven eight nine ten eleven twelve'] } });
  await ready();
  await page.fill('#prompt', 'Count!');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('.answer .md')?.textContent.includes('one'));
  await page.click('#new-chat');
  await page.waitForSelector('.suggestions');
  await page.waitForTimeout(600);
  await page.click('#conversations .open');
  await page.waitForFunction(() => document.querySelector('.answer .md')?.textContent.endsWith('twelve'));
  equal(await page.locator('.message').count(), 2);
  await done();
});

test('app: a site without models says how to get one', async (t) => {
  const { mockSite, serve } = await import('../support/site.mjs');
  const site = await serve(await mockSite());
  site.models = [];
  const { page, done } = await open(t, { site });
  await page.waitForSelector('.welcome .notice');
  ok((await page.innerText('.welcome')).includes('firelight models fetch'));
  await done();
});

test('app: without storage it says so and works', async (t) => {
  const { page, ready, ask, answer, errors, context } = await open(t);
  await page.addInitScript(() => { Object.defineProperty(globalThis, 'indexedDB', { get() { throw new Error('switched off'); } }); });
  await page.reload();
  await ready();
  await ask('Hello?');
  ok((await answer()).startsWith('Hello'));
  ok((await page.innerText('#notices')).includes('not kept'));
  equal(errors, []);
  await context.close();
});

test('report: everything is shown and copied as JSON', async (t) => {
  const { page, context, done } = await open(t, { path: 'device.html' });
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await page.waitForFunction(() => document.getElementById('status').textContent === 'Done.');
  const text = await page.innerText('#parts');
  for (const part of ['Mock GPU 9000', 'Self-test', '31.42 GB/s', '412.0 G multiply-adds/s', 'no subgroups', 'Isolated']) ok(text.includes(part), text);
  await page.click('#copy');
  const json = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
  equal([json.device.rung, json.benchmarks.roundTripMs], ['gpu-f16', 0.42]);
  await done();
});

test('report: where nothing runs the browser is still described', async (t) => {
  const { page, context } = await open(t, { path: 'device.html', mock: { createError: { code: 'device', message: 'No device answers right.', remedy: 'Update the driver.' } } });
  await page.waitForSelector('[role=alert]');
  ok((await page.innerText('[role=alert]')).includes('Update the driver.'));
  ok(await page.isEnabled('#copy'));
  await context.close();
});
