// The real thing: SmolLM2 (98 MB) through download, storage and answer; its greedy tokens are the reference's, which native builds are
// held to as well (crates/runtime/tests/real_models.rs). The page's own thread stays free meanwhile.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { equal, ok, test } from '../support/harness.mjs';
import { LONGEST, pageTasks } from '../support/tasks.mjs';
import { engineSite, modelOf, needEngine, repository, smollm, visit } from '../support/engine_site.mjs';

for (const [where, create, webgpu] of [['the processor', { device: 'cpu' }, false], ['WebGPU', { device: 'gpu', engine: { selfTest: false } }, true]]) {
  test(`real model: SmolLM2 answers on ${where} as the reference, and the page stays free`, async ({ skip }) => {
    needEngine(skip);
    const path = smollm();
    if (!path) skip('SmolLM2 is not here (`firelight models fetch smollm2-135m-instruct` fetches it)');
    const { models } = JSON.parse(await readFile(join(repository, 'crates', 'runtime', 'tests', 'data', 'real_models.json')));
    const [{ messages, prompt_ids: prompt, ids: all, margins }] = models['smollm2-135m-instruct-q4_1'].cases;
    // A GPU that software imitates takes its time.
    const ids = all.slice(0, webgpu ? 24 : 64);
    const spec = await modelOf('smollm2', { 'model.gguf': path });
    const site = await engineSite([spec]);
    const { page } = await visit(site, { skip, webgpu });
    const { result: seen, ...busy } = await pageTasks(page, () => page.evaluate(async ([create, messages, options]) => {
      const f = (window.firelight = await Firelight.create(create));
      const progress = [];
      const info = await f.load('smollm2', { onProgress: (p) => progress.push({ ...p, at: performance.now() }) });
      performance.mark('firelight-begin');
      let done;
      let tokens = 0;
      for await (const e of f.chat(messages, options)) {
        if (e.type === 'token') tokens++;
        done = e;
      }
      performance.mark('firelight-end');
      return { device: await f.device(), info, done, tokens, progress, memory: await f.memory() };
    }, [create, messages, { greedy: true, maxTokens: ids.length, ignoreEos: true }]));
    equal(seen.done.stats.promptTokens, prompt.length, 'prompt tokens');
    // Up to the first near tie, whose side is not decided by the mathematics.
    const tie = margins.slice(0, ids.length).findIndex((m) => m < 0.03);
    const sure = tie < 0 ? ids.length : tie;
    equal(seen.done.ids.slice(0, sure), ids.slice(0, sure), 'greedy ids');
    ok(sure > 20 && seen.tokens > 15, 'a streamed answer');
    ok(busy.tasks > seen.tokens, 'the tasks were seen');
    ok(busy.cpu <= LONGEST, `the page was at work for ${busy.cpu.toFixed(1)} ms at a time`);
    const events = seen.progress.filter((p) => p.phase === 'weights');
    ok(events.length >= 3, 'progress while loading');
    const span = (events.at(-1).at - events[0].at) / events.length;
    ok(span > 60, `an event every ${span.toFixed(0)} ms is too often`);
    if (webgpu) ok(seen.memory.wasmHeap < 100 << 20, `wasm heap ${seen.memory.wasmHeap}`);
    const { ttftMs, prefillTps, decodeTps, encodeMsPerToken } = seen.done.stats;
    console.log(`    ${seen.device.device}: load ${Math.round(seen.info.loadMs)} ms, first token ${Math.round(ttftMs)} ms, prefill ${prefillTps.toFixed(1)}, decode ${decodeTps.toFixed(1)} tokens/s, ${encodeMsPerToken.toFixed(2)} ms outside the GPU per token; page at work for at most ${busy.cpu.toFixed(1)} ms (${busy.wall.toFixed(0)} on the clock) in ${busy.tasks} tasks; wasm heap ${seen.memory.wasmHeap >> 20} MiB`);
  }, { seconds: 300 });
}

test('real model: the test of the free page could fail', async ({ skip }) => {
  const site = await engineSite([]);
  const { page } = await visit(site, { skip });
  const { cpu } = await pageTasks(page, () => page.evaluate(() => {
    performance.mark('firelight-begin');
    for (const end = performance.now() + 1500; performance.now() < end;);
    performance.mark('firelight-end');
  }));
  ok(cpu > LONGEST, `a task of 1.5 s was seen as ${cpu} ms`);
});
