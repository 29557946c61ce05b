// Models that see: the engine with everything answers about pictures as the reference does.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { equal, ok, test } from '../support/harness.mjs';
import { engineSite, fixture, golden, needEngine, visit } from '../support/engine_site.mjs';

for (const [where, create, webgpu] of [['the processor', { device: 'cpu', engine: { exact: true } }, false], ['WebGPU', { device: 'gpu', engine: { selfTest: false } }, true]]) {
  test(`pictures: they are seen on ${where} as by the reference`, async ({ skip }) => {
    needEngine(skip);
    const { folder, spec } = await fixture('smolvlm');
    const { ids, about } = await golden(folder);
    const site = await engineSite([spec]);
    const { page } = await visit(site, { skip, webgpu });
    const files = await Promise.all(['input.png', 'input2.png'].map(async (name) => (await readFile(join(folder, name))).toString('base64')));
    const seen = await page.evaluate(async ([create, one, two, files]) => {
      const [first, second] = files.map((text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
      const f = await Firelight.create(create);
      const info = await f.load('smolvlm');
      const ask = async (messages, images, more = {}) => {
        let done;
        for await (const e of f.chat(messages, { images, greedy: true, maxTokens: 16, ignoreEos: true, ...more })) done = e;
        return done;
      };
      const picture = await ask(one, [new Blob([first])]);
      // Encoded once: the second time everything but the end is cached.
      const again = await ask(one, [new Blob([first])]);
      // The fixture's second case shows its second picture first.
      const pictures = await ask(two, [second.buffer, first.buffer.slice(0)]);
      const none = await failure(() => ask(one, []));
      const broken = await failure(() => ask(one, [new Blob(['not a picture'])]));
      const device = await f.device();
      await f.unload();
      const left = (await f.memory()).deviceTotal;
      await f.dispose();
      return { info, picture, again, pictures, none, broken, device, left };
    }, [create, about.cases.image.messages, about.cases.images2.messages, files]);
    equal(seen.info.accepts, { images: true, audio: false });
    equal(seen.picture.ids, ids('image.greedy_ids'), 'one picture');
    equal(seen.again.ids, ids('image.greedy_ids'), 'once more');
    ok(seen.again.stats.prefilled < seen.picture.stats.prefilled / 4, `${seen.again.stats.prefilled} of ${seen.picture.stats.prefilled} tokens were processed again`);
    equal(seen.pictures.ids, ids('images2.greedy_ids'), 'two pictures');
    equal(seen.picture.stats.promptTokens, ids('image.input_ids').length, 'prompt tokens');
    equal([seen.none.code, seen.broken.code, seen.device.parts, seen.left], ['invalid_input', 'invalid_input', 'everything', 0]);
    ok(site.requests.some((r) => r.startsWith('/engine/') && r.includes('-everything/')), 'the model asked for the larger engine');
  }, { seconds: 120 });
}
