// The model of the repository that sees: its answers mean something, and are the reference's.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { equal, ok, test } from '../support/harness.mjs';
import { engineSite, modelFolder, needEngine, repository, visit } from '../support/engine_site.mjs';

const spark = join(repository, 'examples', 'assets', 'spark');

// A GPU that software imitates takes its time: every sixth there.
for (const [where, create, webgpu, every] of [['the processor', { device: 'cpu' }, false, 1], ['WebGPU', { device: 'gpu', engine: { selfTest: false } }, true, 6]]) {
  test(`spark: it tells on ${where} what the reference tells`, async ({ skip }) => {
    needEngine(skip);
    const { samples: all } = JSON.parse(await readFile(join(spark, 'samples', 'samples.json')));
    equal(all.length, 24);
    const samples = all.filter((_, i) => i % every === 0);
    const pictures = {};
    for (const { file } of samples) pictures[file] = (await readFile(join(spark, 'samples', file))).toString('base64');
    const site = await engineSite([await modelFolder('spark', join(spark, 'model'))]);
    const { page } = await visit(site, { skip, webgpu });
    const seen = await page.evaluate(async ([create, samples, pictures]) => {
      const f = await Firelight.create(create);
      const info = await f.load('spark');
      const answers = [];
      for (const { file, question } of samples) {
        const image = new Blob([Uint8Array.from(atob(pictures[file]), (c) => c.charCodeAt(0))]);
        const messages = [{ role: 'user', content: [{ type: 'image' }, { type: 'text', text: question }] }];
        let done;
        for await (const e of f.chat(messages, { images: [image], greedy: true, maxTokens: 64 })) done = e;
        answers.push(done);
      }
      const device = await f.device();
      await f.dispose();
      return { info, answers, device };
    }, [create, samples, pictures]);
    for (const [i, sample] of samples.entries()) {
      const { ids, finish, text, stats } = seen.answers[i];
      equal([ids, finish, text.trim()], [sample.greedy_ids.slice(0, -1), 'eos', sample.answer], `${sample.file}: ${sample.question}`);
      equal(stats.promptTokens, sample.prompt_ids.length, 'prompt tokens');
    }
    equal([seen.info.accepts.images, seen.device.gpu, seen.device.parts], [true, webgpu, 'everything']);
    const { ttftMs, decodeTps } = seen.answers.at(-1).stats;
    console.log(`    ${samples.length} answers; the last: first token ${Math.round(ttftMs)} ms, decode ${Math.round(decodeTps)} tokens/s`);
    ok(decodeTps > 0);
  }, { seconds: 180 });
}
