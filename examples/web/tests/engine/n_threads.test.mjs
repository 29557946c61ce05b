// Threads of the processor's rung: in isolated pages helpers compute their part, the answer stays the same to the token, and whatever
// becomes of a helper, the answer comes.
import { equal, ok, test, until } from '../support/harness.mjs';
import { engineSite, fixture, golden, modelOf, needEngine, smollm, visit } from '../support/engine_site.mjs';

/** A page of a site with the tiny model and, if there, SmolLM2. */
async function ready(skip, { isolated = true } = {}) {
  needEngine(skip);
  const { folder, spec } = await fixture('llama');
  const { ids, about } = await golden(folder);
  const real = smollm();
  const site = await engineSite([spec, ...(real ? [await modelOf('smollm2', { 'model.gguf': real })] : [])]);
  site.isolated = isolated;
  const { page } = await visit(site, { skip });
  await page.evaluate(() => {
    // Long enough that the tiny model's products are worth dividing.
    const text = 'The keeper of the light wrote down the wind, the sea and the ships that passed. '.repeat(3);
    window.answer = async (f, beginning, { each, ...options } = {}) => {
      const ids = [];
      for await (const e of f.chat([], { prompt: `${beginning} ${text}`, greedy: true, maxTokens: 12, ignoreEos: true, ...options })) {
        if (e.type === 'token') ids.push(...e.ids);
        if (e.type === 'done') ids.stats = e.stats;
        await each?.(e, ids);
      }
      return ids;
    };
  });
  return { page, site, real, expected: ids('chat.greedy_ids'), messages: about.cases.chat.messages };
}

/** Each worker holds a lock as long as it lives. */
const allEnded = (page) => until(() => page.evaluate(async () => (await navigator.locks.query()).held.length === 0), 'the workers to end');

test('threads: a helper computes its part, and no token changes', async ({ skip }) => {
  const { page, site, expected, messages } = await ready(skip);
  const seen = await page.evaluate(async (messages) => {
    const out = {};
    for (const threads of [1, 2, 3]) {
      const f = await Firelight.create({ device: 'cpu', threads, engine: { exact: true } });
      await f.load('llama');
      let done;
      for await (const e of f.chat(messages, { greedy: true, maxTokens: 16, ignoreEos: true })) done = e;
      const long = await answer(f, 'Once');
      const alive = (await navigator.locks.query()).held.length;
      out[threads] = { alive, golden: done.ids, long: [...long], device: await f.device(), memory: await f.memory() };
      await f.unload();
      out[threads].after = (await f.device()).sharing;
      await f.dispose();
    }
    return out;
  }, messages);
  for (const threads of [1, 2, 3]) {
    const { device, memory, after, golden, long } = seen[threads];
    equal(golden, expected, `greedy ids with ${threads}`);
    equal(long, seen[1].long, `the long prompt with ${threads}`);
    equal([device.threads, device.rung, device.sharing.helpers], [threads, threads > 1 ? 'cpu' : 'cpu-simd', threads - 1]);
    ok(device.device.endsWith(threads > 1 ? `${threads} threads` : 'one thread'), device.device);
    ok(device.threadsWhy.includes('asked for'), device.threadsWhy);
    if (threads === 1) equal([device.sharing.jobs, memory.helperHeap], [0, 0]);
    else ok(device.sharing.jobs >= 5 && device.sharing.bytes > 50_000 && memory.helperHeap > 1 << 20, JSON.stringify(device.sharing));
    equal([after.bytes, after.failed, seen[threads].alive], [0, false, threads], 'freed with the model, and a worker a thread');
  }
  ok(site.requests.includes('/api/helper.js'), 'the helper’s script was asked for');
  equal(site.requests.filter((r) => r.endsWith('.wasm')).length, 3, 'the engine is fetched once for all of its workers');
  await allEnded(page);
}, { seconds: 120 });

test('threads: without isolation there is one, with the reason, and nothing is loaded for more', async ({ skip }) => {
  const { page, site, expected, messages } = await ready(skip, { isolated: false });
  const seen = await page.evaluate(async (messages) => {
    const f = await Firelight.create({ device: 'cpu', threads: 2, engine: { exact: true } });
    await f.load('llama');
    let done;
    for await (const e of f.chat(messages, { greedy: true, maxTokens: 16, ignoreEos: true })) done = e;
    const device = await f.device();
    const wrong = await failure(() => Firelight.create({ device: 'cpu', threads: 0 }));
    await f.dispose();
    return { device, ids: done.ids, wrong };
  }, messages);
  equal(seen.ids, expected);
  equal([seen.device.threads, seen.device.rung, seen.device.sharing.helpers], [1, 'cpu-simd', 0]);
  ok(/not isolated/.test(seen.device.threadsWhy), seen.device.threadsWhy);
  const step = seen.device.steps.find((s) => s.step === 'cpu');
  ok(/one thread\. The page is not isolated/.test(step.what) && /Cross-Origin/.test(step.remedy), JSON.stringify(step));
  equal(site.requests.filter((r) => /threads|helper/.test(r)), []);
  equal(seen.wrong.code, 'invalid_input');
});

test('threads: how many there are by default, and on a rung of one', async ({ skip }) => {
  const { page } = await ready(skip);
  const seen = await page.evaluate(async () => {
    const of = async (options) => {
      const f = await Firelight.create(options);
      const { threads, threadsWhy, rung } = await f.device();
      await f.dispose();
      return { threads, threadsWhy, rung };
    };
    return { cores: navigator.hardwareConcurrency, usual: await of({}), one: await of({ rung: 'cpu-simd' }) };
  });
  equal(seen.usual.threads, seen.cores < 2 ? 1 : Math.max(2, Math.min(4, seen.cores >> 1)));
  equal(seen.one, { threads: 1, threadsWhy: 'The rung that was asked for has one thread.', rung: 'cpu-simd' });
});

test('threads: a helper that cannot start is done without', async ({ skip }) => {
  const { page, site } = await ready(skip);
  site.lacks = (path) => path === '/api/helper.js';
  const seen = await page.evaluate(async () => {
    const f = await Firelight.create({ device: 'cpu', threads: 2 });
    await f.load('llama');
    const ids = await answer(f, 'Once');
    const device = await f.device();
    await f.dispose();
    return { device, tokens: ids.length };
  });
  equal([seen.device.threads, seen.device.rung, seen.tokens], [1, 'cpu-simd', 12]);
  ok(/could not be started/.test(seen.device.threadsWhy), seen.device.threadsWhy);
});

test('threads: a helper lost between answers is noticed, and the engine goes on alone', async ({ skip }) => {
  const { page } = await ready(skip);
  const seen = await page.evaluate(async () => {
    const f = await Firelight.create({ device: 'cpu', threads: 2 });
    await f.load('llama');
    const first = await answer(f, 'Once');
    await f.simulate('helper');
    const began = performance.now();
    const second = await answer(f, 'Twice');
    const took = performance.now() - began;
    const device = await f.device();
    // What the lost one held is no hindrance to another model, nor to the end.
    await f.load('llama');
    const again = await answer(f, 'Twice');
    const left = (await f.unload(), await f.memory());
    await f.dispose();
    const alone = await Firelight.create({ device: 'cpu', threads: 1 });
    await alone.load('llama');
    const expected = [await answer(alone, 'Once'), await answer(alone, 'Twice')];
    await alone.dispose();
    return { got: [first, second].map((x) => [...x]), again: [...again], expected: expected.map((x) => [...x]), device, took, left: left.deviceTotal };
  });
  equal(seen.got, seen.expected, 'ids');
  equal(seen.again, seen.expected[1], 'after another load');
  equal([seen.device.threads, seen.device.rung, seen.device.sharing.failed, seen.left], [1, 'cpu-simd', true, 0]);
  ok(/did not answer/.test(seen.device.threadsWhy), seen.device.threadsWhy);
  ok(seen.took < 20_000, `it took ${seen.took} ms`);
  await allEnded(page);
});

test('threads: stopping, leaving and disposing at any time leaves no worker', async ({ skip }) => {
  const { page } = await ready(skip);
  await page.evaluate(async () => {
    for (let i = 0; i < 12; i++) {
      const creating = Firelight.create({ device: 'cpu', threads: 2 });
      if (i % 4 === 3) {
        // Its worker ends without a word.
        const f = await creating;
        await f.load('llama');
        const going = answer(f, `${i}`).catch((e) => e);
        await f.simulate('worker');
        await going;
        await f.dispose();
        continue;
      }
      const f = await creating;
      const loading = f.load('llama').catch((e) => e);
      if (i % 2) await loading;
      const stop = new AbortController();
      const going = answer(f, `${i}`, { signal: stop.signal }).catch((e) => e);
      await new Promise((go) => setTimeout(go, i * 7));
      if (i % 3) stop.abort();
      await f.dispose();
      await Promise.all([loading, going]);
    }
  });
  await allEnded(page);
}, { seconds: 120 });

test('threads: SmolLM2 writes the same with two threads, and with one lost in mid-answer', async ({ skip }) => {
  const { page, real } = await ready(skip);
  if (!real) skip('SmolLM2 is not here (`firelight models fetch smollm2-135m-instruct` fetches it)');
  const seen = await page.evaluate(async () => {
    const out = [];
    for (const threads of [1, 2]) {
      const f = await Firelight.create({ device: 'cpu', threads });
      await f.load('smollm2');
      const ids = await answer(f, 'Once', { maxTokens: 40 });
      const device = await f.device();
      out.push({ ids: [...ids], prefill: ids.stats.prefillTps, decode: ids.stats.decodeTps, sharing: device.sharing });
      if (threads === 2) {
        let jobs;
        const hurt = await answer(f, 'Twice', { maxTokens: 120, each: async (e, ids) => {
          if (ids.length < 8 || jobs !== undefined) return;
          jobs = (await f.device()).sharing.jobs;
          await f.simulate('helper');
        } });
        out.hurt = { ids: [...hurt], jobs, device: await f.device() };
      } else {
        out.whole = [...await answer(f, 'Twice', { maxTokens: 120 })];
      }
      await f.dispose();
    }
    return { one: out[0], two: out[1], hurt: out.hurt, whole: out.whole };
  });
  equal(seen.two.ids, seen.one.ids, 'ids');
  // Each token divides four products a layer and the head.
  ok(seen.two.sharing.jobs > 40 * 100 && seen.two.sharing.bytes > 30 << 20, JSON.stringify(seen.two.sharing));
  equal(seen.hurt.ids, seen.whole, 'the answer that lost a helper');
  ok(seen.hurt.jobs >= seen.two.sharing.jobs, 'the helper was there in that answer');
  equal([seen.hurt.device.threads, seen.hurt.device.sharing.failed], [1, true]);
  const speed = ({ prefill, decode }) => `${prefill.toFixed(1)} and ${decode.toFixed(1)}`;
  console.log(`    prompt and answer, tokens/s: ${speed(seen.one)} with one thread, ${speed(seen.two)} with two`);
}, { seconds: 240 });
