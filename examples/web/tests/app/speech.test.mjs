// Speech in the app: dictation beside a language model, a model that hears as the page's own, files, failures; and the whole with the real
// engine, the browser's own microphone and a clip that it hears.
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, test, ok, equal, until } from '../support/harness.mjs';
import { open } from '../support/page.mjs';
import { HEARING, MODELS, folderModel, mockSite, serve, web } from '../support/site.mjs';
import { heardNatively, hum, wav } from '../support/sounds.mjs';
import { program } from '../support/engine_site.mjs';

const repository = join(web, '..', '..');
const engine = process.env.FIRELIGHT_ENGINE ?? join(repository, 'target', 'web-engine');

let shared = null;
/** The site of the stand-in engine, with a model that hears. */
const site = () => (shared ??= mockSite().then((dir) => serve(dir)).then((s) => Object.assign(s, { models: [...MODELS, HEARING] })));

const live = (page) => page.innerText('#recording');
const recording = async (page) => {
  await page.click('#add-recording');
  await page.waitForFunction(() => Number(document.querySelector('[role=meter]')?.getAttribute('aria-valuenow')) > 0, null, { timeout: 10_000 });
};
const drop = (page, name, type, bytes) => page.evaluate(([name, type, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type }));
  for (const kind of ['dragenter', 'dragover', 'drop']) document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}, [name, type, bytes.toString('base64')]);
const clip = wav(16000, 1, 0.5, hum([[0.1, 0.4]]));
const speaker = (page) => page.locator('#models .card', { hasText: 'Whisper tiny' });

/** What was recorded last, as a file: as it is kept. */
const recorded = async (page) => Buffer.from(await page.evaluate(async () => {
  const request = (r) => new Promise((yes, no) => { r.onsuccess = () => yes(r.result); r.onerror = () => no(r.error); });
  const db = await request(indexedDB.open('firelight'));
  const all = await request(db.transaction('conversations').objectStore('conversations').getAll());
  db.close();
  const bytes = new Uint8Array(await all.flatMap((c) => c.messages).filter((m) => m.audio).at(-1).audio.blob.arrayBuffer());
  let text = '';
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}), 'base64');

test('speech: without a model that hears there is nothing to record with', async (t) => {
  const { page, ready, done } = await open(t);
  await ready();
  for (const id of ['add-recording', 'add-sound']) ok(await page.isHidden(`#${id}`), id);
  await drop(page, 'talk.wav', 'audio/wav', clip);
  await page.waitForSelector('#notices .notice');
  ok((await page.innerText('#notices')).includes('does not take sound'));
  await done();
});

test('speech: dictation shows what is said and puts it into the message box', async (t) => {
  const { page, ready, calls, answer, done } = await open(t, { site: await site() });
  await ready();
  equal(await page.getAttribute('#add-recording', 'aria-label'), 'Dictate');
  await page.fill('#prompt', 'Write a haiku.');
  // The first time the model has to come, and nothing comes unasked.
  await page.click('#add-recording');
  const dialog = page.locator('dialog[open]');
  ok((await dialog.innerText()).includes('77.7 MB'), await dialog.innerText());
  await dialog.locator('.quiet').click();
  ok(await page.isHidden('#recording'), 'refused');
  equal(await calls('load'), ['smollm2-135m']);
  await page.click('#add-recording');
  await page.locator('dialog[open] .primary').click();
  await page.waitForFunction(() => document.querySelector('#recording .partial')?.textContent.startsWith('the flames'), null, { timeout: 10_000 });
  equal(await page.evaluate(() => document.activeElement.textContent), 'Done');
  equal(await page.inputValue('#prompt'), 'Write a haiku.', 'what is not final is not in the message');
  await page.click('#recording .quiet');
  await page.waitForFunction(() => document.getElementById('prompt').value.endsWith('tonight.'));
  equal(await page.inputValue('#prompt'), 'Write a haiku. The flames are low tonight.');
  ok(await page.isHidden('#recording'));
  equal(await page.evaluate(() => document.activeElement.id), 'prompt');
  ok((await page.innerText('#live')).includes('The flames are low tonight.'), 'a screen reader hears it');
  equal((await calls('listen')).at(-1).model, HEARING.name, 'by an engine of its own');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.stats');
  equal(await answer(), 'Hello from the mock.');
  equal((await calls('chat'))[0].messages.at(-1).content, 'Write a haiku. The flames are low tonight.');
  // Thrown away by Escape: nothing is written. The model is here now: no question.
  await recording(page);
  await page.keyboard.press('Escape');
  await page.waitForSelector('#recording', { state: 'hidden' });
  equal([await page.inputValue('#prompt'), await page.locator('.message').count()], ['', 2]);
  // A file goes into the message, too.
  await drop(page, 'talk.wav', 'audio/wav', clip);
  await page.waitForFunction(() => document.getElementById('prompt').value === 'Hello from the tape. It goes on.');
  equal((await calls('transcribe')).map((c) => c.size), [clip.length]);
  await page.waitForSelector('#notices .notice', { state: 'detached' });
  await done();
});

test('speech: an error while dictating is told, and recording works again', async (t) => {
  const soundError = { code: 'memory', message: 'The page has no memory left.', remedy: 'Close other tabs.' };
  const { page, ready, done } = await open(t, { site: await site(), stored: [HEARING.name], mock: { soundError } });
  await ready();
  await recording(page);
  await page.click('#recording .quiet');
  await page.waitForSelector('#notices .notice');
  ok((await page.innerText('#notices')).includes('The page has no memory left. Close other tabs.'));
  await page.evaluate(() => { delete globalThis.mock.soundError; });
  await recording(page);
  await page.click('#recording .quiet');
  await page.waitForFunction(() => document.getElementById('prompt').value !== '');
  await done();
});

test('speech: a model that hears writes down recordings and files', async (t) => {
  const said = [...Array(14).keys()].map((i) => `Sentence *${i}*.`);
  const { page, calls, answer, done } = await open(t, { site: await site(), mock: { said } });
  await page.click('#model-button');
  ok((await speaker(page).innerText()).includes('writes down what is said'));
  ok(!(await speaker(page).innerText()).includes('tokens'));
  await speaker(page).locator('.primary').click();
  await page.waitForSelector('.by-ear #add-recording');
  ok(await page.isHidden('#prompt') && await page.isHidden('#send'));
  await recording(page);
  await page.waitForFunction(() => document.querySelector('#recording .partial')?.textContent.startsWith('the flames'), null, { timeout: 10_000 });
  await page.click('#recording .quiet');
  await page.waitForSelector('.message .bar:not([hidden])');
  equal(await answer(), 'The flames are low tonight.');
  equal([await page.locator('.message.user audio').count(), (await calls('transcribe')).length], [1, 0]);
  const file = await recorded(page);
  const seconds = await page.evaluate(() => document.querySelector('.message.user audio').duration);
  equal([file.toString('latin1', 0, 4), file.readUInt32LE(4) + 8, file.readUInt32LE(24)], ['RIFF', file.length, 16000]);
  ok(seconds > 0.1 && Math.abs(seconds - (file.length - 44) / 32000) < 0.01, `${seconds} s`);
  // Again: from what was recorded. Markup that was said is no markup.
  await page.click('.again');
  await page.waitForFunction(() => document.querySelector('.answer .md').textContent.includes('Sentence *13*.'));
  ok((await answer()).startsWith('0:00 Sentence *0*.'), await answer());
  equal((await calls('transcribe'))[0].type, 'audio/wav');
  ok(/of sound in/.test(await page.innerText('.stats')), await page.innerText('.stats'));
  const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.click('#add-sound')]);
  await chooser.setFiles({ name: 'talk.mp3', mimeType: 'audio/mpeg', buffer: clip });
  await page.waitForFunction(() => document.querySelectorAll('.message').length === 4);
  // Stopped: what was written down stays.
  await page.waitForFunction(() => document.querySelectorAll('.answer .md')[1].textContent.includes('Sentence'));
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => /stopped/.test([...document.querySelectorAll('.stats')].at(-1)?.textContent));
  ok(!(await answer()).includes('*13*'));
  await page.reload();
  await page.click('#conversations .open');
  await page.waitForFunction(() => document.querySelectorAll('.message').length === 4);
  equal(await page.locator('#conversations .open').innerText(), 'The flames are low tonight.');
  // A language model that goes on from there reads what was said.
  await page.click('#model-button');
  await page.locator('#models .card', { hasText: 'SmolLM2' }).locator('.primary').click();
  await page.waitForSelector('#prompt:not([hidden])');
  await page.fill('#prompt', 'What was said?');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelectorAll('.message').length === 6 && [...document.querySelectorAll('.stats')].length === 3);
  const [{ messages, audio }] = await calls('chat');
  equal([typeof messages[0].content, messages[1].content.startsWith('0:00  Sentence'), audio ?? null], ['string', true, null]);
  await done();
});

test('speech: a file that is dropped where no model is loaded brings the one that hears', async (t) => {
  const { page, calls, answer, done } = await open(t, { site: await site() });
  await page.waitForSelector('.badge.good');
  await drop(page, 'talk.wav', 'audio/wav', clip);
  await page.locator('dialog[open] .primary').click();
  await page.waitForSelector('.message .bar:not([hidden])');
  equal(await answer(), 'Hello from the tape. It goes on.');
  equal(await calls('load'), [HEARING.name]);
  await done();
});

/** A site with the real engine and these model folders; and a clip for the microphone. */
async function real(t, folders, bytes) {
  if (!['relaxed', 'simd'].some((build) => existsSync(join(engine, `${build}-everything`, 'firelight_bg.wasm')))) {
    const what = 'the engine is not built (scripts/build_web.sh --quick builds it)';
    if (process.env.CI === 'true') throw new Error(what);
    t.skip(what);
  }
  const s = await serve(await mockSite(engine));
  s.models = [];
  s.files = {};
  for (const [name, folder, more] of folders) {
    const { spec, files } = await folderModel(name, folder, more);
    s.models.push(spec);
    Object.assign(s.files, files);
  }
  const dir = await mkdtemp(join(tmpdir(), 'firelight-microphone-'));
  afterAll(() => rm(dir, { recursive: true, force: true }));
  const microphone = join(dir, 'microphone.wav');
  await writeFile(microphone, bytes);
  return { s, dir, microphone };
}

/** Notes all that the recording bar says, in order and without repetition. */
const watch = (page) => page.evaluate(() => {
  globalThis.seen = [];
  new MutationObserver(() => {
    const text = (what) => document.querySelector(`#recording .live ${what}`)?.textContent ?? '';
    const now = [text('span'), text('.partial')];
    if (document.querySelector('#recording .live') && String(globalThis.seen.at(-1)) !== String(now)) globalThis.seen.push(now);
  }).observe(document.getElementById('recording'), { subtree: true, childList: true, characterData: true });
});

const hearingModel = (name) => [`tiny-${name}`, join(repository, 'crates', 'runtime', 'tests', 'data', name), { title: `Tiny ${name}`, task: 'transcribe' }];

test('speech: a recording through the app’s own button is written down live, as the native program writes it down', async (t) => {
  const firelight = program(t.skip);
  // The stand-in microphone takes a while to begin, and what it hears is what comes after.
  const { s, dir, microphone } = await real(t, [hearingModel('moonshine')], wav(48000, 1, 14, hum([[3, 6.2], [7.4, 8.6], [10, 12]])));
  const { page, answer, done } = await open(t, { site: s, microphone });
  await page.evaluate(() => localStorage.setItem('firelight-preferences', JSON.stringify({ device: 'cpu' })));
  await page.reload();
  await page.click('.welcome .card .primary');
  await page.waitForSelector('.by-ear #add-recording', { timeout: 60_000 });
  await watch(page);
  await page.click('#add-recording');
  // Text while it is said, then final text while the recording goes on.
  await page.waitForFunction(() => seen.some(([final, partial]) => !final && partial), null, { timeout: 20_000 });
  await page.waitForFunction(() => seen.some(([final]) => final), null, { timeout: 20_000 });
  ok(await page.isVisible('#recording canvas'));
  await until(async () => (await live(page)) && (await page.evaluate(() => seen.at(-1)[1] === '' && seen.at(-1)[0] !== '')), 'a pause');
  await page.click('#recording .quiet');
  await page.waitForSelector('.message .bar:not([hidden])', { timeout: 20_000 });
  const text = await answer();
  const file = join(dir, 'recorded.wav');
  await writeFile(file, await recorded(page));
  const finals = await heardNatively(firelight, file, hearingModel('moonshine')[1]);
  ok(finals.length >= 1, 'something was said');
  equal(text.replace(/\s+/g, ' ').trim(), finals.join(' ').replace(/\s+/g, ' ').trim(), 'the native text of the same recording');
  await done();
}, { seconds: 120 });

test('speech: real words into the real microphone', async (t) => {
  const [model, clip, words] = ['FIRELIGHT_SPEECH_MODEL', 'FIRELIGHT_SPEECH_CLIP', 'FIRELIGHT_SPEECH_WORDS'].map((name) => process.env[name]);
  if (!model || !clip || !words) t.skip('FIRELIGHT_SPEECH_MODEL (a Whisper folder), FIRELIGHT_SPEECH_CLIP (a WAV file) and FIRELIGHT_SPEECH_WORDS are not set');
  const bytes = await readFile(clip);
  const { s, microphone } = await real(t, [['whisper', model, { title: 'Whisper', task: 'transcribe' }]], bytes);
  const { page, answer, done } = await open(t, { site: s, microphone });
  await page.evaluate(() => localStorage.setItem('firelight-preferences', JSON.stringify({ device: 'cpu' })));
  await page.reload();
  await page.click('.welcome .card .primary');
  await page.waitForSelector('.by-ear #add-recording', { timeout: 120_000 });
  await watch(page);
  await page.click('#add-recording');
  await page.waitForFunction(() => seen.some(([final, partial]) => partial), null, { timeout: 60_000 });
  const seconds = (bytes.length - 44) / bytes.readUInt32LE(28);
  await page.waitForTimeout(1000 * (seconds + 1.5));
  await page.click('#recording .quiet');
  await page.waitForSelector('.message .bar:not([hidden])', { timeout: 120_000 });
  console.log(`    live: ${await answer()}\n    ${(await page.evaluate(() => seen.length))} texts on the way`);
  const plain = (text) => text.toLowerCase().replace(/[^\w\s]/g, '').replace(/\s+/g, ' ').trim();
  ok(plain(await answer()).includes(plain(words)), await answer());
  // The same clip as a file: how fast.
  const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.click('#add-sound')]);
  await chooser.setFiles(clip);
  await page.waitForFunction(() => document.querySelectorAll('.message .stats').length === 2 && /of sound in/.test([...document.querySelectorAll('.stats')].at(-1).textContent), null, { timeout: 300_000 });
  console.log(`    the file: ${await answer()}\n    ${await page.locator('.stats').last().innerText()}`);
  ok(plain(await answer()).includes(plain(words)), await answer());
  await done();
}, { seconds: 600 });
