// Pictures as tensors: what the worker's processors make equals transformers' values and the native program's, to the bit.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, equal, ok, test } from '../support/harness.mjs';
import { engineSite, needEngine, program, repository, visit } from '../support/engine_site.mjs';
import { drawn } from '../support/pictures.mjs';

const run = promisify(execFile);
const data = join(repository, 'crates', 'vision', 'tests', 'data');
const spark = join(repository, 'examples', 'assets', 'spark');

/** A page whose `preprocess(files, config)` gives names, types, shapes and digests; `files` are base64. `digest`: `crc` or `sha256`. */
async function prepared(skip) {
  const site = await engineSite([]);
  const { page } = await visit(site, { skip });
  await page.evaluate(async () => {
    const f = (window.f = await Firelight.create({ device: 'cpu' }));
    const table = Uint32Array.from({ length: 256 }, (_, n) => {
      for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
      return n;
    });
    const digests = {
      crc: (bytes) => {
        let crc = -1;
        for (let i = 0; i < bytes.length; i++) crc = (crc >>> 8) ^ table[(crc ^ bytes[i]) & 255];
        return (~crc >>> 0).toString(16).padStart(8, '0');
      },
      sha256: async (bytes) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))].map((b) => b.toString(16).padStart(2, '0')).join(''),
    };
    window.unpacked = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
    window.processed = async (files, config, digest) => {
      try {
        const { tensors, images } = await f.preprocess(files, config);
        const told = [];
        for (const { name, dtype, shape, data } of tensors) {
          told.push({ name, dtype, shape, digest: await digests[digest](new Uint8Array(data.buffer)) });
        }
        return { tensors: told, images };
      } catch (e) {
        return { refused: e.code, message: e.message };
      }
    };
  });
  return { page, site };
}

test('preprocess: every processor gives transformers’ tensors to the bit', async ({ skip }) => {
  needEngine(skip);
  const cases = JSON.parse(await readFile(join(data, 'processors.json')));
  const { page } = await prepared(skip);
  const wrong = [];
  const classes = new Set();
  let refused = 0;
  for (const { config, images, tensors, refused: reference } of cases) {
    const files = images.map(([w, h], i) => drawn(w, h, i).toString('base64'));
    const seen = await page.evaluate(([files, config]) => processed(files.map(unpacked), config, 'crc'), [files, config]);
    const where = `${JSON.stringify(config)} ${JSON.stringify(images)}`;
    if (reference || seen.refused) {
      if (reference && seen.refused === 'invalid_input') refused++;
      else wrong.push(`${where}: ${JSON.stringify(seen).slice(0, 200)}, the reference: ${reference}`);
      continue;
    }
    const own = seen.tensors.map(({ name, dtype, shape, digest }) => ({ name, dtype, shape, crc: digest }));
    const expected = tensors.map(({ name, dtype, shape, crc }) => ({ name, dtype, shape, crc }));
    if (JSON.stringify(own) !== JSON.stringify(expected)) wrong.push(`${where}: ${JSON.stringify(own)}, expected ${JSON.stringify(expected)}`);
    equal(seen.images.map((i) => [i.width, i.height]), images, 'sizes');
    classes.add(config.image_processor_type);
  }
  ok(wrong.length === 0, `${wrong.length} of ${cases.length}:\n${wrong.slice(0, 8).join('\n')}`);
  ok(cases.length >= 400 && refused >= 4 && classes.size >= 20, `${cases.length} cases, ${refused} refused, ${classes.size} classes`);
  // One value changed would have been noticed.
  const [{ config, tensors: [{ crc }] }] = cases;
  const other = await page.evaluate(([files, config]) => processed(files.map(unpacked), config, 'crc'), [[drawn(120, 91, 0).toString('base64')], config]);
  ok(other.tensors[0].digest !== crc, 'another picture has another digest');
  console.log(`    ${cases.length} cases of ${classes.size} classes`);
}, { seconds: 240 });

test('preprocess: files of all formats give the native program’s tensors to the bit', async ({ skip }) => {
  needEngine(skip);
  const firelight = program(skip);
  const folder = await mkdtemp(join(tmpdir(), 'firelight-pictures-'));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  const own = (dir) => readdir(dir).then((names) => names.filter((n) => /\.(png|jpg|webp|gif|bmp)$/.test(n)).sort().map((n) => join(dir, n)));
  const files = [...(await own(join(data, 'decode'))), ...(await own(join(spark, 'samples')))];
  const large = join(folder, 'large.bmp');
  await writeFile(large, drawn(1201, 803, 5));
  files.push(large);
  // A class of each kind; sizes that are far from the pictures'.
  const configs = [
    { image_processor_type: 'ViTImageProcessor', size: { height: 47, width: 61 } },
    { image_processor_type: 'CLIPImageProcessorPil', size: { shortest_edge: 32 }, crop_size: { height: 32, width: 32 } },
    { image_processor_type: 'YolosImageProcessor', size: { shortest_edge: 24, longest_edge: 300 } },
    { image_processor_type: 'Qwen2VLImageProcessor', min_pixels: 3136, max_pixels: 25088 },
    { image_processor_type: 'Gemma4ImageProcessor', max_soft_tokens: 70 },
    JSON.parse(await readFile(join(spark, 'model', 'preprocessor_config.json'))),
  ];
  const { page, site } = await prepared(skip);
  await page.evaluate((all) => { window.files = all.map(unpacked); }, await Promise.all(files.map(async (f) => (await readFile(f)).toString('base64'))));
  const sha = (bytes) => createHash('sha256').update(bytes).digest('hex');
  const natively = async (config, some) => {
    const [processor, out] = [join(folder, 'preprocessor_config.json'), join(folder, 'out.safetensors')];
    await writeFile(processor, JSON.stringify(config));
    await run(firelight, ['preprocess', ...some, '--processor', processor, '--out', out]);
    const bytes = await readFile(out);
    const length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
    return Object.entries(header).filter(([name]) => name !== '__metadata__')
      .map(([name, { dtype, shape, data_offsets: [from, to] }]) => ({ name, dtype: dtype.toLowerCase(), shape, digest: sha(bytes.subarray(8 + length + from, 8 + length + to)) }));
  };
  const byName = (list) => [...list].sort((a, b) => (a.name < b.name ? -1 : 1));
  // One by one where they are decoded, so that a file that differs is named.
  const [simplest, ...others] = configs;
  for (const config of others) {
    const seen = await page.evaluate((config) => processed(files, config, 'sha256'), config);
    equal(byName(seen.tensors ?? [seen]), byName(await natively(config, files)), config.image_processor_type);
  }
  const differ = [];
  for (const [i, file] of files.entries()) {
    const seen = await page.evaluate(([i, config]) => processed([files[i]], config, 'sha256'), [i, simplest]);
    if (JSON.stringify(seen.tensors) !== JSON.stringify(await natively(simplest, [file]))) differ.push(file);
  }
  equal(differ, [], 'files that differ');
  ok(files.length > 70, `${files.length} files`);
  ok(site.requests.some((r) => r.startsWith('/engine/') && r.includes('-everything/')), 'the larger engine');
  const bad = await page.evaluate(async () => {
    const config = { image_processor_type: 'ViTImageProcessor' };
    const [picture] = files;
    return [
      await failure(() => f.preprocess([new Blob(['not a picture'])], config)),
      await failure(() => f.preprocess([], config)),
      await failure(() => f.preprocess(picture, '{')),
      await failure(() => f.preprocess(picture, { image_processor_type: 'OtherImageProcessor' })),
      await failure(() => f.preprocess(picture, config, { reference: 'other' })),
    ].map((e) => e?.code);
  });
  equal(bad, ['unsupported', 'invalid_input', 'invalid_input', 'unsupported', 'invalid_input']);
}, { seconds: 240 });
