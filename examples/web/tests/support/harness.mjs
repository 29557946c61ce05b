// A test runner as small as the need: tests run one after the other, each with a time limit, and a skip says why.
const tests = [];
const cleanups = [];
let filter = '';

/** Only tests whose name holds this text. */
export const setFilter = (text) => { filter = text; };

/** Registers a test. `fn` gets `{ skip(reason) }`; a skip ends it. */
export const test = (name, fn, { seconds = 90 } = {}) => { tests.push({ name, fn, seconds }); };

/** Runs when all tests have. */
export const afterAll = (fn) => { cleanups.push(fn); };

class Skip extends Error {}
const skip = (reason) => { throw new Skip(reason); };

const limited = (promise, seconds) => {
  let timer;
  const late = new Promise((_, no) => { timer = setTimeout(() => no(new Error(`not done after ${seconds} s`)), seconds * 1000); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

/** Runs what was registered. True if nothing failed. */
export async function runAll() {
  let passed = 0;
  const failed = [];
  for (const { name, fn, seconds } of tests.filter((t) => t.name.includes(filter))) {
    const start = Date.now();
    const took = () => `${((Date.now() - start) / 1000).toFixed(1)} s`;
    try {
      await limited(Promise.resolve().then(() => fn({ skip })), seconds);
      passed++;
      console.log(`test ${name} ... ok (${took()})`);
    } catch (e) {
      if (e instanceof Skip) {
        // As under cargo, where a test that skips ends as passed: scripts/test.sh takes it off again.
        passed++;
        console.log(`SKIPPED ${name.replaceAll(':', ',')}: ${e.message}`);
      } else {
        failed.push(name);
        console.log(`test ${name} ... FAILED (${took()})\n${String(e?.stack ?? e).replace(/^/gm, '    ')}`);
      }
    }
  }
  for (const fn of cleanups.reverse()) await fn();
  if (failed.length) console.log(`\nfailures:\n${failed.map((n) => `    ${n}`).join('\n')}`);
  console.log(`\ntest result: ${failed.length ? 'FAILED' : 'ok'}. ${passed} passed; ${failed.length} failed; 0 ignored`);
  return failed.length === 0;
}

/** Fails unless true. */
export const ok = (value, what = 'expected something true') => { if (!value) throw new Error(what); };

/** Fails unless equal as JSON. */
export const equal = (got, expected, what = '') => {
  const [a, b] = [JSON.stringify(got), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${what ? `${what}: ` : ''}got ${a}\nexpected ${b}`);
};

/** Waits until `fn` gives something true, and gives it. */
export async function until(fn, what, seconds = 10) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = await fn();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((r) => setTimeout(r, 40));
  }
}
