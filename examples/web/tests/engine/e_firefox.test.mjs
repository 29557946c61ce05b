// Firefox, where it is installed: without a driver, so the page runs the test itself and posts what it saw.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, equal, ok, test } from '../support/harness.mjs';
import { engineSite, fixture, golden, needEngine } from '../support/engine_site.mjs';

const firefox = [process.env.FIREFOX, '/usr/bin/firefox-esr', '/usr/bin/firefox'].find((p) => p && existsSync(p));

test('firefox: it loads, answers as the reference, and the second visit fetches nothing', async ({ skip }) => {
  needEngine(skip);
  if (!firefox) skip('Firefox is not installed');
  const { folder, spec } = await fixture('llama');
  const { ids, about } = await golden(folder);
  const site = await engineSite([spec]);
  site.script = `
    import { Firelight } from '/api/firelight.js';
    const out = {};
    try {
      const f = await Firelight.create({ engine: { exact: true } });
      out.device = await f.device();
      out.info = await f.load('llama');
      for await (const e of f.chat(${JSON.stringify(about.cases.chat.messages)}, { greedy: true, maxTokens: 16, ignoreEos: true })) out.done = e;
      out.memory = await f.memory();
      await f.dispose();
      const again = await Firelight.create({ device: 'cpu' });
      out.again = await again.load('llama');
    } catch (e) {
      out.error = { code: e.code, message: e.message, stack: e.stack };
    }
    await fetch('/result', { method: 'POST', body: JSON.stringify(out) });
  `;
  const profile = await mkdtemp(join(tmpdir(), 'firelight-firefox-'));
  const result = new Promise((resolve) => { site.result = resolve; });
  const child = spawn(firefox, ['--headless', '--no-remote', '--profile', profile, `${site.url}self`], { stdio: 'ignore' });
  afterAll(async () => { child.kill(); await rm(profile, { recursive: true, force: true }).catch(() => {}); });
  const seen = await result;
  child.kill();
  ok(!seen.error, JSON.stringify(seen.error));
  equal(seen.done.ids, ids('chat.greedy_ids'), 'greedy ids');
  equal(seen.again.fromCache, true, 'the second visit');
  console.log(`    ${seen.device.device}, simd ${seen.device.simd}, storage ${seen.memory.storage.kind}: ${seen.device.reason}`);
}, { seconds: 120 });
