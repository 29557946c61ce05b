// Pictures through the page's own means to the real engine: dropped, pasted, chosen, taken. What the model answers is the reference's, or for
// a photo, which nobody has seen before, the native program's.
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, equal, ok, test } from '../support/harness.mjs';
import { browser } from '../support/browser.mjs';
import { needEngine, program, repository } from '../support/engine_site.mjs';
import { open } from '../support/page.mjs';
import { film, pixels } from '../support/pictures.mjs';
import { folderModel, mockSite, serve } from '../support/site.mjs';

const spark = join(repository, 'examples', 'assets', 'spark');
const engine = process.env.FIRELIGHT_ENGINE ?? join(repository, 'target', 'web-engine');
const sample = (name) => join(spark, 'samples', name);

/** The app with spark loaded; `sent` and `answered` of the page are what went to the worker, and its last word on each question. */
async function loaded(t, { webgpu = false, camera = null } = {}) {
  needEngine(t.skip);
  const site = await serve(await mockSite(engine));
  const { spec, files } = await folderModel('firelight-spark', join(spark, 'model'), { title: 'Spark', context: 1024 });
  Object.assign(site, { models: [spec], files });
  const self = await open(t, { site, webgpu, camera });
  await self.page.addInitScript((device) => {
    localStorage.setItem('firelight-preferences', JSON.stringify({ greedy: true, maxTokens: 48, device }));
    Object.assign(window, { sent: [], answered: [] });
    window.Worker = class extends Worker {
      constructor(...args) {
        super(...args);
        this.addEventListener('message', ({ data }) => { if (data.result?.ids) answered.push(data.result); });
      }

      postMessage(message, ...rest) {
        if (message.op === 'chat') sent.push(message.args);
        super.postMessage(message, ...rest);
      }
    };
  }, webgpu ? 'gpu' : 'cpu');
  await self.page.reload();
  await self.page.waitForSelector('.welcome .card .badge.good', { timeout: 60_000 });
  await self.ready(60_000);
  ok(await self.page.isVisible('#add-image') && await self.page.isVisible('#add-photo'), 'buttons for pictures');
  ok(await self.page.isHidden('#add-sound'), 'none for sound');
  const { page } = self;
  /** Asks about what is attached; gives the worker's last word and the text on the page. */
  self.tell = async (question) => {
    await page.waitForFunction(() => [...document.querySelectorAll('.attachment img')].some((i) => i.naturalWidth > 0));
    const pictures = await page.locator('.attachment img').count();
    await self.ask(question, 60_000);
    const told = await page.evaluate(() => answered.at(-1));
    equal([pictures, (await self.answer()).trim()], [1, told.text.trim()], 'one picture, and the answer on the page');
    return told;
  };
  self.anew = () => page.click('#new-chat');
  return self;
}

const { samples } = JSON.parse(await readFile(sample('samples.json')));
const of = (file) => samples.find((s) => s.file === file);
const file = async (name) => [name, (await readFile(sample(name))).toString('base64')];
const right = (told, { greedy_ids: ids, answer }, way) => equal([told.ids, told.text.trim()], [ids.slice(0, -1), answer], way);

/** Drops a file on the page, as a file manager does. */
async function drop(page, [name, text]) {
  const dataTransfer = await page.evaluateHandle(([name, text]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type: 'image/png' }));
    return data;
  }, [name, text]);
  await page.dispatchEvent('main', 'dragenter', { dataTransfer });
  ok(await page.isVisible('#drop'), 'the page says that it takes it');
  await page.dispatchEvent('main', 'drop', { dataTransfer });
  ok(await page.isHidden('#drop'));
}

test('pictures: dropped, pasted and chosen, they reach the model, and it tells what the reference tells', async (t) => {
  const self = await loaded(t);
  const { page, context, tell, anew, ask } = self;

  const one = of('shape-two.png');
  await drop(page, await file(one.file));
  const dropped = await tell(one.question);
  right(dropped, one, 'dropped');
  equal(dropped.stats.promptTokens, one.prompt_ids.length);
  // The next question finds the picture where it was.
  await ask('What is the background like?', 60_000);
  const { stats } = await page.evaluate(() => answered.at(-1));
  ok(stats.promptTokens > one.prompt_ids.length && stats.prefilled <= stats.promptTokens - one.prompt_ids.length + 1,
    `${stats.prefilled} of ${stats.promptTokens} tokens were processed again, the picture's among them`);

  await anew();
  const two = of('sign-word.png');
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await page.evaluate(async ([, text]) => {
    const blob = new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], { type: 'image/png' });
    await navigator.clipboard.write([new ClipboardItem({ 'image/png': blob })]);
  }, await file(two.file));
  await page.focus('#prompt');
  await page.keyboard.press('Control+V');
  right(await tell(two.question), two, 'pasted');

  await anew();
  const three = of('shape-three-tall.png');
  const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.click('#add-image')]);
  await chooser.setFiles(sample(three.file));
  right(await tell(three.question), three, 'chosen');

  // What is no picture is told, and the conversation goes on.
  await anew();
  await drop(page, ['broken.png', Buffer.from('not a picture').toString('base64')]);
  await page.fill('#prompt', 'What is it?');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.message .notice.bad, .message [role=alert]', { timeout: 30_000 });
  await anew();
  await drop(page, await file(one.file));
  right(await tell(one.question), one, 'after a broken one');
  await self.done();
}, { seconds: 180 });

test('pictures: one that is dropped reaches the model on WebGPU', async (t) => {
  const { page, tell, done } = await loaded(t, { webgpu: true });
  const one = of('shape-one.png');
  await drop(page, await file(one.file));
  right(await tell(one.question), one, 'dropped');
  equal(await page.innerText('#device-name'), 'GPU');
  await done();
}, { seconds: 120 });

test('pictures: a photo from the camera reaches the model, and it tells what the native program tells', async (t) => {
  const firelight = program(t.skip);
  const folder = await mkdtemp(join(tmpdir(), 'firelight-camera-'));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  const { file: name, question } = of('shape-one.png');
  const plain = await (await browser(t)).newPage();
  const camera = join(folder, 'camera.y4m');
  await writeFile(camera, film(await pixels(plain, await readFile(sample(name))), 4));
  await plain.close();
  const { page, tell, done } = await loaded(t, { camera });
  await page.click('#add-photo');
  await page.waitForFunction(() => document.querySelector('#camera video')?.videoWidth > 0, null, { timeout: 10_000 });
  await page.click('#camera .primary');
  const told = await tell(question);
  const photo = join(folder, 'photo.jpg');
  const bytes = await page.evaluate(async () => {
    const [image] = sent.at(-1).options.images;
    return btoa(String.fromCharCode(...new Uint8Array(await image.arrayBuffer())));
  });
  await writeFile(photo, Buffer.from(bytes, 'base64'));
  const { stdout } = await promisify(execFile)(firelight, ['describe', photo, '--question', question, '--device', 'cpu', '--json']);
  const natively = JSON.parse(stdout);
  equal([told.ids, told.text.trim()], [natively.ids, natively.text], 'the native answer');
  ok(/purple ring/.test(told.text), `the camera showed a purple ring, the model told: ${told.text}`);
  await done();
}, { seconds: 120 });
