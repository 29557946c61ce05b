// What only the engine with everything does: it is loaded when something needs it, and not before.
import { equal, ok, test } from '../support/harness.mjs';
import { engineSite, fixture, golden, needEngine, visit } from '../support/engine_site.mjs';

const schema = {
  type: 'object',
  properties: { name: { type: 'string', maxLength: 12 }, age: { type: 'integer', minimum: 0, maximum: 120 }, fits: { enum: ['yes', 'no'] } },
  required: ['name', 'age', 'fits'],
  additionalProperties: false,
};

/** Fails unless `text` is an object of the schema, read by other means than what made it. */
function judge(text) {
  const value = JSON.parse(text);
  equal(Object.keys(value).sort(), ['age', 'fits', 'name'], 'keys');
  ok(typeof value.name === 'string' && [...value.name].length <= 12, text);
  ok(Number.isInteger(value.age) && value.age >= 0 && value.age <= 120, text);
  ok(['yes', 'no'].includes(value.fits), text);
}

/** Requests for files of the engine with everything. */
const larger = (site) => site.requests.filter((r) => r.startsWith('/engine/') && r.includes('-everything/'));

for (const [where, create, webgpu] of [['the processor', { device: 'cpu' }, false], ['WebGPU', { device: 'gpu', engine: { selfTest: false } }, true]]) {
  test(`everything: an answer under a schema on ${where}`, async ({ skip }) => {
    needEngine(skip);
    const { spec } = await fixture('llama');
    const site = await engineSite([spec]);
    const { page } = await visit(site, { skip, webgpu });
    const seen = await page.evaluate(async ([create, schema]) => {
      const f = (window.f = await Firelight.create(create));
      await f.load('llama');
      const ask = async (options) => {
        let done;
        const events = [];
        for await (const e of f.chat([{ role: 'user', content: 'Who?' }], { maxTokens: 400, ...options })) events.push((done = e));
        return { ...done, streamed: events.filter((e) => e.type === 'token').map((e) => e.text).join('') };
      };
      const plain = await ask({ greedy: true, maxTokens: 8 });
      return { before: (await f.device()).parts, plain };
    }, [create, schema]);
    equal([seen.before, larger(site)], ['text', []], 'the small engine is enough for text');
    const under = await page.evaluate(async (schema) => {
      const ask = async (options) => {
        let done;
        let streamed = '';
        for await (const e of f.chat([{ role: 'user', content: 'Who?' }], { maxTokens: 400, ...options })) {
          if (e.type === 'token') streamed += e.text;
          done = e;
        }
        return { text: done.text, finish: done.finish, streamed };
      };
      const answers = [await ask({ schema, greedy: true }), await ask({ schema, temperature: 1.5, seed: 1 }), await ask({ schema, temperature: 1.5, seed: 2 })];
      const short = await failure(() => ask({ schema, greedy: true, maxTokens: 3 }));
      const unknown = await failure(() => ask({ schema: { type: 'object', uniqueItems: true, not: {} } }));
      const free = await ask({ greedy: true, maxTokens: 8 });
      const device = await f.device();
      const end = await f.memory();
      await f.unload();
      const left = (await f.memory()).deviceTotal;
      return { answers, short, unknown, free, device, end, left };
    }, schema);
    for (const { text, finish, streamed } of under.answers) {
      judge(text);
      equal([finish, streamed], ['eos', text], 'the end, and what was streamed');
    }
    ok(new Set(under.answers.map((a) => a.text)).size > 1, 'chance has a say');
    equal(under.short.code, 'unfinished');
    ok(['unsupported', 'invalid_input'].includes(under.unknown.code) && /not/.test(under.unknown.message), JSON.stringify(under.unknown));
    equal(under.free.text, seen.plain.text, 'without a schema as before');
    equal([under.device.parts, under.device.features.schema, under.device.gpu, under.left], ['everything', true, webgpu, 0]);
    ok(larger(site).length >= 2, 'the engine with everything was loaded');
  }, { seconds: 180 });
}

test('everything: vectors of texts as the reference has them', async ({ skip }) => {
  needEngine(skip);
  const { folder, spec } = await fixture('bert');
  const { spec: chat } = await fixture('llama');
  const { f32, about } = await golden(folder);
  const site = await engineSite([spec, chat]);
  const { page } = await visit(site, { skip, webgpu: true });
  const { texts } = about.cases.batch;
  for (const create of [{ device: 'cpu', engine: { exact: true } }, { device: 'gpu', engine: { selfTest: false } }]) {
    const seen = await page.evaluate(async ([create, texts]) => {
      const f = await Firelight.create(create);
      const none = await failure(() => f.embed(texts));
      const info = await f.load('bert');
      const made = await f.embed(texts);
      const one = await f.embed([texts[2]]);
      const nothing = await f.embed([]);
      const cut = await f.embed([texts[1]], { maxTokens: 6 });
      const long = await failure(() => f.embed([texts[1]], { maxTokens: 6, long: 'refuse' }));
      const talk = await failure(async () => { for await (const e of f.chat([{ role: 'user', content: 'x' }])) void e; });
      const memory = await f.memory();
      await f.load('llama');
      const other = await failure(() => f.embed(texts));
      await f.unload();
      const left = (await f.memory()).deviceTotal;
      await f.dispose();
      const rows = (e) => e.vectors.map((v) => [...v]);
      return { none, info, made: { ...made, vectors: rows(made) }, one: rows(one), nothing: rows(nothing), cut: cut.truncated, long, talk, other, left, weights: memory.device.weights };
    }, [create, texts]);
    const expected = f32('batch.mean_pooled_normalized');
    const { dims } = seen.made;
    equal([dims, seen.made.vectors.length, seen.info.embed, seen.info.chat], [40, texts.length, true, false]);
    const worst = Math.max(...seen.made.vectors.flatMap((row, i) => row.map((x, j) => Math.abs(x - expected[i * dims + j]))));
    ok(worst < 2e-3, `differs by ${worst}`);
    // Alone as among others.
    const apart = Math.max(...seen.one[0].map((x, j) => Math.abs(x - seen.made.vectors[2][j])));
    ok(apart < 1e-4, `alone it differs by ${apart}`);
    equal([seen.nothing, seen.cut, seen.left], [[], 1, 0]);
    ok(seen.weights > 50_000, 'weights are accounted');
    equal([seen.none.code, seen.long.code, seen.talk.code, seen.other.code], ['no_model', 'limit', 'unsupported', 'unsupported']);
  }
}, { seconds: 120 });

test('everything: a site that has only the small engine says so, and goes on', async ({ skip }) => {
  needEngine(skip);
  const { spec } = await fixture('llama');
  const site = await engineSite([spec]);
  site.lacks = (path) => path.includes('-everything/');
  const { page } = await visit(site, { skip });
  const seen = await page.evaluate(async () => {
    const f = await Firelight.create({ device: 'cpu' });
    await f.load('llama');
    const ask = async (options) => {
      let done;
      for await (const e of f.chat([{ role: 'user', content: 'Who?' }], { greedy: true, maxTokens: 8, ...options })) done = e;
      return done.ids;
    };
    const before = await ask({});
    const error = await failure(() => ask({ schema: true }));
    const after = await ask({});
    await f.dispose();
    const create = await failure(() => Firelight.create({ device: 'cpu', parts: 'everything' }));
    return { before, error, after, create };
  });
  equal(seen.error.code, 'unsupported');
  ok(seen.error.remedy && /schema/.test(seen.error.message), JSON.stringify(seen.error));
  equal(seen.after, seen.before, 'the small engine answers');
  equal(seen.create.code, 'network');
}, { seconds: 60 });
