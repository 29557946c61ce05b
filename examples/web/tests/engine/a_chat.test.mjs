// The engine answers as the reference does, on the processor and on WebGPU, and tells how.
import { equal, ok, test } from '../support/harness.mjs';
import { engineSite, fixture, golden, needEngine, visit } from '../support/engine_site.mjs';

const options = (more = {}) => ({ greedy: true, maxTokens: 16, ignoreEos: true, ...more });

for (const [where, create, webgpu] of [
  ['on the processor', { device: 'cpu' }, false],
  ['without WebGPU', {}, false],
  ['on WebGPU', { device: 'gpu' }, true],
]) {
  for (const family of ['llama', 'llama2', 'gemma3_text']) {
    test(`engine: ${family} answers ${where} as the reference`, async ({ skip }) => {
      needEngine(skip);
      const { folder, spec } = await fixture(family);
      const { ids, about } = await golden(folder);
      const site = await engineSite([spec]);
      const { page } = await visit(site, { skip, webgpu });
      // Once on each device: of a GPU that software imitates it takes a quarter of a minute.
      const selfTest = family === 'llama';
      // llama2 is a base model: it goes on with a text.
      const kind = about.cases.chat ? 'chat' : 'text';
      const what = kind === 'chat' ? options() : options({ prompt: about.cases.text.prompt });
      const seen = await page.evaluate(([create, name, messages, options]) => window.ask(create, name, messages, options),
        [{ ...create, engine: { exact: true, selfTest } }, family, about.cases.chat?.messages ?? [], what]);
      equal(seen.info.chat, kind === 'chat', 'chat');
      equal(seen.device.gpu, webgpu, 'gpu');
      equal(seen.device.selfTest !== null, selfTest, 'the self-test ran');
      equal(seen.done.ids, ids(`${kind}.greedy_ids`), 'greedy ids');
      const tokens = seen.events.filter((e) => e.type === 'token');
      ok(tokens.length > 4, 'the answer is streamed');
      equal(tokens.flatMap((t) => t.ids), seen.done.ids.slice(0, tokens.flatMap((t) => t.ids).length), 'ids of the events');
      equal(tokens.map((t) => t.text).join(''), seen.done.text, 'text of the events');
      equal(seen.events[0], { type: 'start', promptTokens: ids(`${kind}.input_ids`).length }, 'the first event');
      ok(seen.memory.device.weights > 100_000, 'weights are accounted');
      equal(seen.memory.model, family, 'model');
      ok(seen.device.reason && seen.device.steps.length, 'the report says why');
      const back = seen.progress.findIndex((p, i) => i && (p.fraction < seen.progress[i - 1].fraction || p.loaded < seen.progress[i - 1].loaded));
      equal(back, -1, 'progress went back at');
      equal(seen.progress.at(-1).fraction, 1, 'progress ends at 1');
    });
  }
}

test('engine: a base model continues text, a conversation is counted, wrong calls are told', async ({ skip }) => {
  needEngine(skip);
  const { folder, spec } = await fixture('llama');
  const { ids, about } = await golden(folder);
  const site = await engineSite([spec]);
  const { page } = await visit(site, { skip });
  const seen = await page.evaluate(async ([prompt, messages]) => {
    const f = await Firelight.create({ device: 'cpu', engine: { exact: true } });
    const none = await failure(() => f.chat([{ role: 'user', content: 'x' }]).next());
    const unknown = await failure(() => f.load('nobody'));
    await f.load('llama');
    let done;
    for await (const e of f.chat([], { prompt, greedy: true, maxTokens: 16, ignoreEos: true })) done = e;
    const count = await f.countTokens(messages);
    const picture = await failure(async () => { for await (const e of f.chat(messages, { images: [new Blob(['x'])] })) void e; });
    const temperature = await failure(async () => { for await (const e of f.chat(messages, { temperature: -1 })) void e; });
    const embed = await failure(() => f.embed(['x']));
    // Leaving the loop stops the answer, and the next one is not disturbed.
    for await (const e of f.chat(messages, { greedy: true, maxTokens: 200, ignoreEos: true })) if (e.type === 'token') break;
    let after;
    for await (const e of f.chat([], { prompt, greedy: true, maxTokens: 16, ignoreEos: true })) after = e;
    await f.dispose();
    const disposed = await failure(() => f.device());
    return { none, unknown, done, count, picture, temperature, embed, after, disposed };
  }, [about.cases.text.prompt, about.cases.chat.messages]);
  equal(seen.none.code, 'no_model');
  equal(seen.unknown.code, 'not_found');
  ok(seen.unknown.message.includes('llama'), 'known models are named');
  equal(seen.done.ids, ids('text.greedy_ids'), 'text');
  equal(seen.count.tokens, ids('chat.input_ids').length, 'count');
  equal(seen.picture.code, 'unsupported');
  equal(seen.temperature.code, 'invalid_input');
  equal(seen.embed.code, 'unsupported');
  equal(seen.after.ids, seen.done.ids, 'after a stop');
  equal(seen.disposed.code, 'disposed');
  ok([seen.none, seen.unknown, seen.picture, seen.embed].every((e) => e.name === 'FirelightError' && e.remedy), 'errors have remedies');
});
