// The engine's own page and worker under the policy: nothing gets out, nothing of a conversation is in a request.
import { equal, ok, test } from '../support/harness.mjs';
import { elsewhere, leaks } from '../support/ways_out.mjs';
import { engineSite, fixture, needEngine, visit } from '../support/engine_site.mjs';

for (const open of [false, true]) {
  const what = open ? 'the test could fail: without the policy the same attempts get out' : 'page and worker of the engine cannot send anything out while it works';
  test(`secrecy: ${what}`, async ({ skip }) => {
    needEngine(skip);
    const { spec } = await fixture('llama');
    const site = await engineSite([spec]);
    site.open = open;
    const other = await elsewhere();
    const { page } = await visit(site, { skip });
    await page.evaluate(async () => {
      const f = await Firelight.create({ device: 'cpu' });
      await f.load('llama');
      window.answer = (async () => {
        let done;
        for await (const e of f.chat([{ role: 'user', content: 'Who?' }], { greedy: true, maxTokens: 40, ignoreEos: true })) done = e;
        return done.ids.length;
      })();
    });
    const tries = { page: await page.evaluate(leaks, other.url), worker: await page.workers()[0].evaluate(leaks, other.url) };
    equal(await page.evaluate(() => window.answer), 40, 'it answers meanwhile');
    if (open) {
      for (const way of ['fetch', 'post', 'xhr', 'import', 'socket', 'image', 'frame', 'beacon']) {
        ok(other.asked.some((a) => a.includes(way)), `${way} got out: ${other.asked}`);
      }
      ok(other.asked.filter((a) => a.includes('fetch')).length === 2, 'from the page and from the worker');
      return;
    }
    for (const [where, ways] of Object.entries(tries)) {
      ok(Object.keys(ways).length >= 6, `ways were tried from the ${where}`);
      for (const [way, result] of Object.entries(ways)) equal(result, 'blocked', `${way} from the ${where}`);
    }
    equal(other.asked, [], 'requests elsewhere');
  }, { seconds: 60 });
}

test('secrecy: prompts, answers and names of files are in no request', async ({ skip }) => {
  needEngine(skip);
  const secret = 'xylophone-4711';
  const { spec } = await fixture('llama');
  const site = await engineSite([spec]);
  const { page } = await visit(site, { skip });
  const sent = [];
  page.on('request', (r) => sent.push(`${r.method()} ${r.url()} ${r.postData() ?? ''}`));
  const before = site.heads.length;
  const answer = await page.evaluate(async (secret) => {
    const f = await Firelight.create({ device: 'cpu' });
    await f.load('llama');
    let done;
    for await (const e of f.chat([{ role: 'user', content: `My password is ${secret}` }], { greedy: true, maxTokens: 24, ignoreEos: true, stop: [`${secret}!`] })) done = e;
    await f.countTokens([{ role: 'user', content: secret }]);
    const lost = await failure(() => f.load({ name: secret, files: [{ url: 'blob:nothing', size: 1, sha256: '0'.repeat(64) }] }));
    await f.dispose();
    return { text: done.text, lost };
  }, secret);
  ok(site.heads.length > before, 'the model was fetched');
  ok(answer.text.length > 8, 'an answer');
  equal([...site.heads, ...sent].filter((r) => r.includes(secret) || r.includes(encodeURIComponent(answer.text))), [], 'requests with the secret');
  const body = site.heads.slice(before).filter((h) => !h.startsWith('GET '));
  equal(body, [], 'every request is a GET');
}, { seconds: 60 });
