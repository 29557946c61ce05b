// What fails in mid-answer, and calls in any order: the answer is completed or a clear error comes; nothing hangs or stays behind.
import { equal, ok, test } from '../support/harness.mjs';
import { engineSite, fixture, golden, needEngine, visit } from '../support/engine_site.mjs';

async function ready(skip, webgpu) {
  needEngine(skip);
  const { folder, spec } = await fixture('llama');
  const { ids, about } = await golden(folder);
  const other = (await fixture('gemma3_text')).spec;
  const site = await engineSite([spec, other]);
  const { page } = await visit(site, { skip, webgpu });
  return { page, site, expected: ids('chat.greedy_ids'), messages: about.cases.chat.messages };
}

for (const [what, words] of [['device', /lost|destroyed/i], ['worker', /worker/]]) {
  test(`failures: ${what} lost in mid-answer, and the answer goes on`, async ({ skip }) => {
    const { page, expected, messages } = await ready(skip, true);
    const seen = await page.evaluate(async ([what, messages]) => {
      const devices = [];
      const f = await Firelight.create({ engine: { exact: true, software: true, selfTest: false }, onDevice: (d) => devices.push(d.rung) });
      await f.load('llama');
      const events = [];
      for await (const e of f.chat(messages, { greedy: true, maxTokens: 16, ignoreEos: true })) {
        events.push(e);
        if (events.filter((x) => x.type === 'token').length === 3 && !events.some((x) => x.hurt)) {
          events.push({ type: 'hurt', hurt: true });
          await f.simulate(what);
        }
      }
      const after = [];
      for await (const e of f.chat(messages, { greedy: true, maxTokens: 16, ignoreEos: true })) after.push(e);
      const report = await f.device();
      await f.unload();
      return { events, devices, report, after: after.at(-1), memory: await f.memory() };
    }, [what, messages]);
    const moved = seen.events.filter((e) => e.type === 'moved');
    equal(moved.length, 1, `moves: ${moved.map((m) => m.why).join('; ')}`);
    ok(words.test(moved[0].why), `why: ${moved[0].why}`);
    ok(seen.devices[0].startsWith('gpu') && seen.devices.at(-1).startsWith('cpu'), `devices: ${seen.devices}`);
    equal(seen.events.at(-1).ids, expected, 'greedy ids');
    equal(seen.events.filter((e) => e.type === 'token').map((e) => e.text).join(''), seen.events.at(-1).text, 'no text twice');
    equal(seen.after.ids, expected, 'the next answer');
    equal(seen.report.gpu, false, 'the report');
    equal(seen.memory.deviceTotal, 0, 'bytes left');
  });
}

test('failures: an allocation that fails while loading leads down the ladder', async ({ skip }) => {
  const { page, expected, messages } = await ready(skip, true);
  const seen = await page.evaluate(async (messages) => {
    const f = await Firelight.create({ engine: { exact: true, software: true, selfTest: false } });
    const first = await f.device();
    await f.simulate('memory');
    await f.load('llama');
    let done;
    for await (const e of f.chat(messages, { greedy: true, maxTokens: 16, ignoreEos: true })) done = e;
    return { first, report: await f.device(), ids: done.ids };
  }, messages);
  ok(seen.first.gpu, 'it begins on the GPU');
  equal(seen.report.gpu, false, 'it ends on the processor');
  equal(seen.ids, expected, 'greedy ids');
});

test('failures: 200 random interleavings end in an answer or an error', async ({ skip }) => {
  const { page } = await ready(skip, false);
  const seen = await page.evaluate(async () => {
    let seed = 12345;
    const random = (n) => ((seed = (seed * 1103515245 + 12345) % 2147483648) >> 8) % n;
    const codes = {};
    const late = (promise, what) => Promise.race([promise, new Promise((_, no) => setTimeout(() => no(new Error(`hangs: ${what}`)), 20000))]);
    const note = (e) => {
      if (!(e instanceof FirelightError)) throw e;
      codes[e.code] = (codes[e.code] ?? 0) + 1;
    };
    const say = async (f, stop, leave) => {
      let n = 0;
      for await (const e of f.chat([{ role: 'user', content: 'Hello' }], { maxTokens: 12, greedy: true, ignoreEos: true, signal: stop.signal })) {
        if (e.type === 'done') codes[`finish ${e.finish}`] = (codes[`finish ${e.finish}`] ?? 0) + 1;
        if (++n === leave) break;
      }
    };
    let f = await Firelight.create({ device: 'cpu' });
    let rounds = 0;
    while (rounds < 200) {
      const under = [];
      for (let i = 0; i < 4 && rounds < 200; i++, rounds++) {
        const stop = new AbortController();
        const pick = random(10);
        if (pick < 3) under.push(f.load(['llama', 'gemma3_text'][random(2)], { signal: random(4) ? undefined : stop.signal }));
        else if (pick < 7) under.push(say(f, stop, random(3) ? Infinity : random(4) + 1));
        else if (pick < 8) under.push(f.unload());
        else if (pick < 9) under.push(f.memory());
        else {
          under.push(f.dispose());
          f = await late(Firelight.create({ device: 'cpu' }), 'create');
        }
        if (random(3) === 0) setTimeout(() => stop.abort(), random(30));
        if (random(2)) await new Promise((go) => setTimeout(go, random(20)));
      }
      for (const end of await late(Promise.allSettled(under), `round ${rounds}`)) if (end.status === 'rejected') note(end.reason);
    }
    await late(f.load('llama'), 'the last load');
    await late(say(f, new AbortController(), Infinity), 'the last answer');
    await f.unload();
    const memory = await f.memory();
    await f.dispose();
    return { codes, left: memory.deviceTotal, heap: memory.wasmHeap };
  });
  equal(seen.left, 0, 'bytes left');
  ok(seen.heap < 200 << 20, `heap ${seen.heap}`);
  ok(seen.codes['finish max_tokens'] > 5, `answers were given: ${JSON.stringify(seen.codes)}`);
  const known = new Set(['cancelled', 'no_model', 'disposed', 'finish max_tokens', 'finish cancelled', 'finish context', 'finish eos']);
  equal(Object.keys(seen.codes).filter((c) => !known.has(c)), [], 'other ends');
}, { seconds: 240 });
