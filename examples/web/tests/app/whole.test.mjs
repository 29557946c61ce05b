// The app with the real engine and a tiny model: it downloads, answers, comes back without a network. What the engine does in detail is
// tested in its own suite.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test, ok, equal } from '../support/harness.mjs';
import { open } from '../support/page.mjs';
import { LONGEST, pageTasks } from '../support/tasks.mjs';
import { folderModel, mockSite, serve, web } from '../support/site.mjs';

const repository = join(web, '..', '..');
const engine = process.env.FIRELIGHT_ENGINE ?? join(repository, 'target', 'web-engine');

/** A site with the engine and the tiny checkpoint of the runtime's tests. */
async function site(t) {
  if (!['relaxed', 'simd'].some((build) => existsSync(join(engine, build, 'firelight_bg.wasm')))) {
    const what = 'the engine is not built (scripts/build_web.sh --quick builds it)';
    if (process.env.CI === 'true') throw new Error(what);
    t.skip(what);
  }
  const s = await serve(await mockSite(engine));
  const { spec, files } = await folderModel('tiny-llama', join(repository, 'crates', 'runtime', 'tests', 'data', 'llama'), { title: 'Tiny Llama', context: 512 });
  s.models = [spec];
  s.files = files;
  return s;
}

const settings = { greedy: true, maxTokens: 24 };
const choose = (page, more) => page.addInitScript((p) => {
  if (!localStorage.getItem('firelight-preferences')) localStorage.setItem('firelight-preferences', JSON.stringify(p));
}, { ...settings, ...more });

for (const [name, webgpu, device] of [['the processor', false, 'auto'], ['WebGPU by software', true, 'gpu']]) {
  test(`whole: download, answer, panel, report and offline on ${name}`, async (t) => {
    const s = await site(t);
    const { page, context, ready, ask, answer, errors } = await open(t, { site: s, webgpu });
    await choose(page, { device });
    await page.reload();
    await page.waitForSelector('.welcome .card .badge.good', { timeout: 120_000 });
    ok(!s.requests.some((r) => r.endsWith('.safetensors')), 'nothing is downloaded unasked');
    await ready(120_000);
    equal(await page.innerText('#device-name'), webgpu ? 'GPU' : 'CPU');
    const mark = (name) => page.evaluate((n) => { performance.mark(n); }, name);
    const busy = await pageTasks(page, async () => {
      await mark('firelight-begin');
      await ask('What is in this picture?', 90_000);
      await mark('firelight-end');
    });
    console.log(`    the page was at work for at most ${busy.cpu.toFixed(1)} ms at a time (${busy.wall.toFixed(0)} on the clock)`);
    ok(busy.cpu <= LONGEST, `the page was at work for ${busy.cpu.toFixed(1)} ms at a time`);
    const first = await answer();
    ok(first.length > 0, 'an answer with words');
    ok(/tokens\/s · \d+ tokens/.test(await page.innerText('.message .stats')), await page.innerText('.message .stats'));
    ok(/^Context: \d+ of \d+ tokens$/.test(await page.getAttribute('#context-button', 'aria-label')));
    await page.click('.again');
    await page.waitForFunction(() => document.querySelectorAll('.message').length === 2 && document.querySelector('.message .stats'), null, { timeout: 90_000 });
    equal(await answer(), first, 'the likeliest words are the same again');
    await page.click('#device-button');
    await page.waitForFunction(() => document.getElementById('device-body').textContent.includes('Page memory'));
    ok((await page.innerText('#device-body')).includes(webgpu ? 'gpu-f32' : 'cpu'), await page.innerText('#device-body'));
    await page.keyboard.press('Escape');

    await page.evaluate(() => navigator.serviceWorker.ready);
    await page.waitForFunction(() => navigator.serviceWorker.controller);
    s.down = true;
    await context.setOffline(true);
    await page.reload();
    await page.waitForSelector('.suggestions', { timeout: 120_000 });
    await ask('What is in this picture?', 90_000);
    equal(await answer(), first, 'and offline, too');
    await context.setOffline(false);
    s.down = false;
    await page.goto(`${s.url}device.html`);
    await page.waitForFunction(() => document.getElementById('status').textContent === 'Done.', null, { timeout: 120_000 });
    ok((await page.innerText('#parts')).includes('Measured here'));
    const unexpected = errors.filter((e) => !/Failed to load resource|net::ERR/.test(e));
    equal(unexpected, []);
    await context.close();
  }, { seconds: 400 });
}
