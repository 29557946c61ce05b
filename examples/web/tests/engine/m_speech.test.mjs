// Models that hear: the worker computes their features to the bit and writes down what the native program writes.
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, equal, ok, test } from '../support/harness.mjs';
import { engineSite, fixture, needEngine, program, visit } from '../support/engine_site.mjs';
import { heardNatively, hum, native, wav } from '../support/sounds.mjs';

const sha = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** Tensors of a safetensors file as `[name, dtype, shape, digest]`. */
function listed(file) {
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + length).toString());
  delete header.__metadata__;
  return Object.entries(header).map(([name, t]) => [name, t.dtype.toLowerCase(), t.shape, sha(file.subarray(8 + length + t.data_offsets[0], 8 + length + t.data_offsets[1]))]).sort();
}

async function folder() {
  const made = await mkdtemp(join(tmpdir(), 'firelight-sound-'));
  afterAll(() => rm(made, { recursive: true, force: true }));
  return made;
}

/** The page has `file(base64)`. */
async function visited(t, specs, webgpu = false) {
  const site = await engineSite(specs);
  const { page } = await visit(site, { ...t, webgpu });
  await page.evaluate(() => { window.file = (text) => new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]); });
  return page;
}

test('speech: front ends in the worker equal the native ones to the bit', async (t) => {
  needEngine(t.skip);
  const firelight = program(t.skip);
  const dir = await folder();
  const page = await visited(t, []);
  await page.evaluate(async () => {
    const f = await Firelight.create({ device: 'cpu' });
    const hex = async (data) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', data))].map((b) => b.toString(16).padStart(2, '0')).join('');
    window.features = async (text, front) => {
      const tensors = await f.features(file(text), front);
      return (await Promise.all(tensors.map(async ({ name, dtype, shape, data }) => [name, dtype, shape, await hex(data)]))).sort();
    };
    window.refused = (text, front) => failure(() => f.features(file(text), front));
  });
  const speech = await readFile(join((await fixture('whisper')).folder, 'input.wav'));
  // The model's rate; another rate and two channels; more than a window.
  const sounds = { speech, stereo: wav(44100, 2, 2.37, hum([[0.2, 1], [1.3, 2.2]])), long: wav(8000, 1, 31.5, hum([[0, 4], [20, 31]])) };
  const seen = {};
  for (const [name, bytes] of Object.entries(sounds)) {
    const path = join(dir, `${name}.wav`);
    await writeFile(path, bytes);
    for (const front of ['whisper80', 'whisper128', 'gemma4', 'kaldi80']) {
      // Kaldi's first difference takes what little a resampler leaves of silence for sound: bands of rounding errors, which differ.
      if (name === 'long' && front === 'kaldi80') continue;
      const out = join(dir, `${name}-${front}.safetensors`);
      await native(firelight, 'features', path, '--preset', front, '--out', out);
      seen[`${name} ${front}`] = await page.evaluate(([text, front]) => features(text, front), [bytes.toString('base64'), front]);
      equal(seen[`${name} ${front}`], listed(await readFile(out)), `${name}, ${front}`);
    }
  }
  equal(seen['long whisper80'][0][2], [2, 80, 3000], 'two windows');
  ok(new Set(Object.values(seen).map((t) => t[0][3])).size === 11, 'no two are alike');
  const config = await readFile(join((await fixture('whisper')).folder, 'preprocessor_config.json'), 'utf8');
  const [own] = await page.evaluate(([text, config]) => features(text, JSON.parse(config)), [speech.toString('base64'), config]);
  equal(own[1], 'f32', 'a front end by its configuration');
  const wrong = await page.evaluate(async (text) => [await refused(text, 'whisper81'), await refused(btoa('RIFF____WAVEnothing'), 'whisper80'), await refused(btoa('no sound at all'), 'whisper80')], speech.toString('base64'));
  equal(wrong.map((e) => e.code), ['invalid_input', 'invalid_input', 'unsupported']);
}, { seconds: 120 });

const ways = [['the processor', { device: 'cpu', engine: { exact: true } }, false], ['WebGPU', { device: 'gpu', engine: { selfTest: false } }, true]];
for (const name of ['whisper', 'moonshine']) {
  for (const [where, create, webgpu] of ways) {
    if (name === 'moonshine' && webgpu) continue; // covered by the native tests on two software GPUs
    test(`speech: ${name} writes down a recording on ${where}, and what is said while it is said`, async (t) => {
      needEngine(t.skip);
      const firelight = program(t.skip);
      const { folder: model, spec } = await fixture(name);
      const page = await visited(t, [spec], webgpu);
      const dir = await folder();
      const talk = join(dir, 'talk.wav');
      await writeFile(talk, wav(16000, 1, 4, hum([[0.5, 2.1], [3, 3.5]])));
      const sound = (await readFile(join(model, 'input.wav'))).toString('base64');
      const seen = await page.evaluate(async ([create, name, sound, talk]) => {
        const f = await Firelight.create(create);
        const none = await failure(() => f.transcribe(file(sound)));
        const info = await f.load(name);
        const events = [];
        const made = await f.transcribe(file(sound), { onEvent: (e) => events.push(e) });
        // A GPU played by the processor takes its time.
        const slow = (await f.device()).gpu;
        const again = slow ? made : await f.transcribe(await file(sound).arrayBuffer());
        const long = slow ? null : await f.transcribe(file(talk));
        const wrong = await failure(() => f.transcribe(new Blob([new Uint8Array(44)])));
        const live = [];
        const bytes = await file(talk).arrayBuffer();
        const samples = Float32Array.from(new Int16Array(bytes, 44), (v) => v / 32768);
        const listening = await f.listen({ partial: 0.5, onEvent: (e) => live.push(e) });
        for (let i = 0; i < samples.length; i += 1000) await listening.push(samples.subarray(i, i + 1000));
        await listening.finish();
        const told = await failure(async () => { for await (const e of f.chat([{ role: 'user', content: 'x' }])) void e; });
        const device = await f.device();
        await f.unload();
        const left = (await f.memory()).deviceTotal;
        const gone = await failure(() => listening.push(samples));
        await f.dispose();
        return { none, info, made, again, long, wrong, events, live, told, device, left, gone, rate: listening.rate };
      }, [create, name, sound, (await readFile(talk)).toString('base64')]);
      equal([seen.info.transcribe, seen.info.chat, seen.device.features.transcribe, seen.device.gpu, seen.rate], [true, false, true, webgpu, 16000]);
      equal(seen.again, seen.made, 'twice the same');
      if (name === 'moonshine') {
        const text = (await heardNatively(firelight, join(model, 'input.wav'), model)).join(' ');
        equal(seen.made.text, text, 'as the native program');
        ok(text.length > 0, 'something was heard');
      } else if (seen.long) {
        const out = await native(firelight, 'transcribe', talk, '--model', model, '--device', 'cpu', '--exact', '--format', 'json');
        const { segments } = JSON.parse(out);
        equal(seen.long.segments.map((s) => [s.text, s.tokens]), segments.map((s) => [s.text, s.tokens]), 'as the native program');
        ok(segments.length > 1, 'something was heard');
      }
      ok(Math.abs(seen.made.duration - (sound.length * 0.75 - 44) / 32000) < 0.01, `${seen.made.duration} s`);
      ok(seen.events.some((e) => e.type === 'progress' && e.done > 0 && e.total > 0.5), `events: ${JSON.stringify(seen.events)}`);
      // Both utterances: begun, told while they last, and final. The tiny Whisper's window is a second long: it cuts the first one.
      const kinds = seen.live.map((e) => e.type).join(' ');
      // What repeats itself is not told before its end, and nonsense of the tiny Whisper mostly does.
      ok((name === 'moonshine' ? /^start( partial)+ final start.* final$/ : /^start( partial)* final start.* final$/).test(kinds), `live: ${kinds}`);
      const final = seen.live.filter((e) => e.type === 'final');
      ok(final[0].start < 0.6 && Math.abs(final.at(-1).end - 3.5) < 0.2, JSON.stringify(final));
      if (name === 'moonshine') ok(final.length === 2 && Math.abs(final[0].end - 2.1) < 0.2 && final[1].start > 2.5, JSON.stringify(final));
      equal(final.map((e) => e.text), await heardNatively(firelight, talk, model), 'live, as the native program');
      equal([seen.wrong.code, seen.none.code, seen.told.code, seen.left, seen.gone.code], ['unsupported', 'no_model', 'unsupported', 0, 'invalid_input']);
    }, { seconds: 240 });
  }
}
