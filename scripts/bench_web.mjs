#!/usr/bin/env node
// Speed in a browser, in turn: bench_web.mjs MODEL.gguf [--rounds N] [--gpu PROGRAM | --threads N]; bench_web.mjs FOLDER --speech CLIP.wav
//   without --gpu  our processor rung (as it is, and with `fast`) and npm's @wllama/wllama, one thread each, in the same Chromium
//   --gpu PROGRAM  our WebGPU rung and the native build PROGRAM (`firelight`), both on Chromium's SwiftShader
//   --threads N    our processor rung with one thread and with N, in an isolated page
//   --speech CLIP  our processor rung with the speech model of a folder: the clip as a file, and live
// CHROMIUM_FLAGS: more of the browser's switches. The same prompt for all; medians of the rounds, and of the ratios within a round.
// Needs target/web-engine (scripts/build_web.sh) and examples/web/tests/node_modules (npm install; for the first comparison also `npm install --no-save @wllama/wllama` there).
import { createServer } from 'node:http';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { browser } from '../examples/web/tests/support/browser.mjs';
import { engineSite, modelFolder, modelOf, visit } from '../examples/web/tests/support/engine_site.mjs';

const tests = join(dirname(fileURLToPath(import.meta.url)), '..', 'examples', 'web', 'tests');
const args = process.argv.slice(2);
const option = (name) => { const i = args.indexOf(name); return i < 0 ? undefined : args.splice(i, 2)[1]; };
const native = option('--gpu');
const rounds = Number(option('--rounds') ?? (native ? 2 : 3));
const clip = option('--speech');
const threads = Number(option('--threads') ?? 0);
const [model] = args;
if (!model || !existsSync(model)) {
  console.error('usage: bench_web.mjs MODEL.gguf [--rounds N] [--gpu PROGRAM | --threads N] | bench_web.mjs FOLDER --speech CLIP.wav [--rounds N]');
  process.exit(2);
}
// A GPU played by the processor takes most of a second for a token.
const DECODE = native ? 16 : 48;
const prompt = 'The lighthouse keeper wrote in his book every evening: the wind, the height of the sea, the ships that passed. '.repeat(native ? 1 : 12);
const skip = (why) => { throw new Error(why); };
const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];

/** Our engine in a page: `{prefill, decode, encode}` per call. */
async function ours(create, webgpu) {
  const site = await engineSite([await modelOf('model', { 'model.gguf': model })]);
  site.isolated = create.threads > 1;
  const { page } = await visit(site, { skip, webgpu });
  const device = await page.evaluate(async (create) => {
    window.f = await Firelight.create(create);
    await f.load('model');
    return (await f.device()).device;
  }, create);
  console.log(`ours ${JSON.stringify(create)}: ${device}`);
  return (round) => page.evaluate(async ([prompt, maxTokens]) => {
    let done;
    for await (const e of f.chat([], { prompt, maxTokens, greedy: true, ignoreEos: true })) done = e;
    const { stats } = done;
    return { ids: done.ids.join(), prefill: stats.prefillTps, decode: stats.decodeTps, encode: stats.encodeMsPerToken, tokens: stats.promptTokens };
    // Another beginning each time, so that nothing is reused.
  }, [`${round}. ${prompt}`, DECODE]);
}

/** wllama in a page of its own. */
async function wllama() {
  const folder = dirname(createRequire(join(tests, 'package.json')).resolve('@wllama/wllama/package.json'));
  const types = { '.js': 'text/javascript', '.wasm': 'application/wasm' };
  const server = createServer(async (req, res) => {
    const path = new URL(req.url, 'http://x').pathname;
    if (path === '/') return res.writeHead(200, { 'Content-Type': 'text/html' }).end('<!doctype html>');
    const file = path === '/model.gguf' ? model : join(folder, path);
    if (!existsSync(file)) return res.writeHead(404).end();
    res.writeHead(200, { 'Content-Type': types[extname(file)] ?? 'application/octet-stream' }).end(await readFile(file));
  });
  await new Promise((go) => server.listen(0, '127.0.0.1', go));
  const page = await (await (await browser({ skip })).newContext()).newPage();
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.evaluate(async () => {
    const { Wllama, LoggerWithoutDebug } = await import('/esm/index.js');
    window.w = new Wllama({ default: '/esm/wasm/wllama.wasm' }, { logger: LoggerWithoutDebug });
    await w.loadModel([await (await fetch('/model.gguf')).blob()], { n_threads: 1, n_ctx: 1024, n_gpu_layers: 0 });
  });
  console.log(`wllama ${JSON.parse(await readFile(join(folder, 'package.json'))).version}`);
  const run = (round) => page.evaluate(async ([prompt, n]) => {
    const answer = await w.createCompletion({ prompt, max_tokens: n, temperature: 0, ignore_eos: true, cache_prompt: false });
    const t = answer.timings;
    return { prefill: t.prompt_per_second, decode: t.predicted_per_second };
  }, [`${round}. ${prompt}`, DECODE]);
  run.close = () => server.close();
  return run;
}

/** The native program's own benchmark on SwiftShader, with a prompt of so many tokens. */
function nativeRun(tokens) {
  const icd = '/usr/lib/chromium/vk_swiftshader_icd.json';
  const text = execFileSync(native, ['bench', '--model', model, '--device', 'gpu', '-p', String(tokens), '-n', String(DECODE), '-r', '1', '--json'],
    { encoding: 'utf8', env: { ...process.env, VK_ICD_FILENAMES: icd, VK_DRIVER_FILES: icd } });
  const report = text.trim().split('\n').map((l) => JSON.parse(l)).find((l) => l.decode_tps ?? l.report?.decode_tps);
  const { prefill_tps: prefill, decode_tps: decode, encode_us } = report.report ?? report;
  return { prefill, decode, encode: encode_us / 1e3 };
}

if (clip) {
  await speech();
  process.exit(0);
}

/** A speech model and a clip of 16 bits, mono, 16 kHz. */
async function speech() {
  const site = await engineSite([await modelFolder('model', model)]);
  const { page } = await visit(site, { skip });
  const wav = await readFile(clip);
  const { device, loadMs } = await page.evaluate(async ([text]) => {
    window.clip = Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
    window.f = await Firelight.create({ device: 'cpu' });
    const { loadMs } = await f.load('model');
    return { device: (await f.device()).device, loadMs };
  }, [wav.toString('base64')]);
  console.log(`${device}, loaded in ${(loadMs / 1e3).toFixed(1)} s`);
  const factors = [];
  const lives = [];
  for (let round = 0; round <= rounds; round++) {
    const made = await page.evaluate(async () => {
      const began = performance.now();
      const { text, duration } = await f.transcribe(clip);
      const seconds = (performance.now() - began) / 1e3;
      const samples = Float32Array.from(new Int16Array(clip.slice(44)), (v) => v / 32768);
      const events = [];
      const listening = await f.listen({ onEvent: (e) => events.push(e) });
      // At the speed of time, as the app does: what came while the engine was at work goes to it in one piece.
      const talk = new Float32Array(samples.length + listening.rate);
      talk.set(samples);
      const start = performance.now();
      for (let at = 0; at < talk.length;) {
        const due = Math.min(talk.length, Math.floor(((performance.now() - start) / 1e3) * listening.rate));
        if (due - at < 1600 && due < talk.length) await new Promise((go) => setTimeout(go, 20));
        else await listening.push(talk.subarray(at, due)), at = due;
      }
      await listening.finish();
      return { text, duration, seconds, late: performance.now() - start - (talk.length / listening.rate) * 1e3, events };
    });
    const finals = made.events.filter((e) => e.type === 'final');
    const partials = made.events.filter((e) => e.type === 'partial');
    const work = (list) => median(list.map((e) => e.workMs)).toFixed(0);
    console.log(`${round === 0 ? 'warm-up' : `round ${round}`}: the file ${made.seconds.toFixed(2)} s of ${made.duration.toFixed(1)}, ${(made.duration / made.seconds).toFixed(2)} times real time; `
      + `live: ${partials.length} partial texts of ${work(partials)} ms, ${finals.length} final ones of ${work(finals)} ms, all of it ${made.late.toFixed(0)} ms after the last sample`);
    if (round === 0) console.log(`  file: ${made.text.trim()}\n  live: ${finals.map((e) => e.text.trim()).join(' | ')}`);
    else factors.push(made.duration / made.seconds), lives.push(made.late);
  }
  console.log(`medians: the file ${median(factors).toFixed(2)} times real time, live done after ${median(lives).toFixed(0)} ms`);
}

let tokens = 0;
const sides = native
  ? { ours: await ours({ device: 'gpu' }, true), native: async () => nativeRun(tokens) }
  : threads ? { one: await ours({ device: 'cpu', threads: 1 }, false), more: await ours({ device: 'cpu', threads }, false) }
  : { ours: await ours({ device: 'cpu' }, false), fast: await ours({ device: 'cpu', engine: { fast: true } }, false), wllama: await wllama() };
const seen = Object.fromEntries(Object.keys(sides).map((name) => [name, []]));
for (let round = 0; round <= rounds; round++) {
  for (const [name, run] of Object.entries(sides)) {
    const result = await run(round);
    tokens = result.tokens ?? tokens;
    // The first round warms up.
    if (round > 0) seen[name].push(result);
    console.log(`${round === 0 ? 'warm-up' : `round ${round}`} ${name}: prefill ${result.prefill.toFixed(1)}, decode ${result.decode.toFixed(1)} tokens/s${result.encode === undefined ? '' : `, ${result.encode.toFixed(2)} ms outside the GPU per token`}`);
  }
}
const other = native ? 'native' : threads ? 'one' : 'wllama';
if (threads && seen.one.some((r, i) => r.ids !== seen.more[i].ids)) throw new Error('more threads wrote something else');
for (const name of Object.keys(sides)) {
  const [prefill, decode] = ['prefill', 'decode'].map((key) => median(seen[name].map((r) => r[key])));
  const ratio = (key) => median(seen[name].map((r, i) => r[key] / seen[other][i][key])).toFixed(2);
  console.log(`${name}: prefill ${prefill.toFixed(1)}, decode ${decode.toFixed(1)} tokens/s${name === other ? '' : `; of ${other}'s: ${ratio('prefill')}, ${ratio('decode')}`}`);
}
process.exit(0);
