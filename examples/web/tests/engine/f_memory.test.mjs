// The worker's heap while a large model goes from the network to the GPU: tensors pass through, none stays.
// FIRELIGHT_LARGE=1 takes a gigabyte instead of 180 MB (some minutes).
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, equal, ok, test } from '../support/harness.mjs';
import { engineSite, fixture, modelOf, needEngine, visit } from '../support/engine_site.mjs';

const LAYERS = process.env.FIRELIGHT_LARGE ? 12 : 2;
const [D, F, KV, V] = [2048, 5632, 512, 389];

/** A llama of zeroes in bf16: a sparse file with a header. */
async function large() {
  const { spec } = await fixture('llama');
  const dir = await mkdtemp(join(tmpdir(), 'firelight-large-'));
  afterAll(() => rm(dir, { recursive: true, force: true }));
  const tensors = { 'model.embed_tokens.weight': [V, D], 'model.norm.weight': [D], 'lm_head.weight': [V, D] };
  for (let i = 0; i < LAYERS; i++) {
    const layer = `model.layers.${i}`;
    Object.assign(tensors, {
      [`${layer}.input_layernorm.weight`]: [D], [`${layer}.post_attention_layernorm.weight`]: [D],
      [`${layer}.self_attn.q_proj.weight`]: [D, D], [`${layer}.self_attn.k_proj.weight`]: [KV, D],
      [`${layer}.self_attn.v_proj.weight`]: [KV, D], [`${layer}.self_attn.o_proj.weight`]: [D, D],
      [`${layer}.mlp.gate_proj.weight`]: [F, D], [`${layer}.mlp.up_proj.weight`]: [F, D], [`${layer}.mlp.down_proj.weight`]: [D, F],
    });
  }
  const header = {};
  let at = 0;
  for (const [name, shape] of Object.entries(tensors)) {
    const bytes = 2 * shape.reduce((a, b) => a * b);
    header[name] = { dtype: 'BF16', shape, data_offsets: [at, (at += bytes)] };
  }
  let text = JSON.stringify(header);
  text = text.padEnd(Math.ceil(text.length / 8) * 8);
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(text.length));
  const write = async (name, ...parts) => {
    const file = await open(join(dir, name), 'w');
    for (const part of parts) typeof part === 'number' ? await file.truncate(part) : await file.write(part);
    await file.close();
    return join(dir, name);
  };
  const weights = await write('model.safetensors', head, Buffer.from(text), 8 + text.length + at);
  const config = await write('config.json', Buffer.from(JSON.stringify({
    model_type: 'llama', hidden_size: D, intermediate_size: F, num_hidden_layers: LAYERS, num_attention_heads: 16, num_key_value_heads: 4,
    head_dim: D / 16, vocab_size: V, max_position_embeddings: 512, rms_norm_eps: 1e-5, tie_word_embeddings: false, eos_token_id: 2,
  })));
  const files = Object.fromEntries(spec.files.map((f) => [f.name, f.path]));
  return { model: await modelOf('large', { ...files, 'model.safetensors': weights, 'config.json': config }), bytes: at };
}

test(`memory: ${LAYERS * 90} MB go to the GPU through a heap of a few tens`, async ({ skip }) => {
  needEngine(skip);
  const { model, bytes } = await large();
  const site = await engineSite([model]);
  const { page } = await visit(site, { skip, webgpu: true });
  const seen = await page.evaluate(async () => {
    const f = await Firelight.create({ device: 'gpu', engine: { selfTest: false } });
    const before = await f.memory();
    let highest = 0;
    const watch = setInterval(async () => { highest = Math.max(highest, (await f.memory()).wasmHeap); }, 100);
    const info = await f.load('large');
    clearInterval(watch);
    const loaded = await f.memory();
    await f.unload();
    const end = await f.memory();
    await f.dispose();
    return { before, loaded, end, highest, info };
  });
  ok(seen.loaded.device.weights >= bytes, `weights ${seen.loaded.device.weights}`);
  const heap = Math.max(seen.highest, seen.loaded.wasmHeap);
  console.log(`    ${bytes >> 20} MiB in ${Math.round(seen.info.loadMs)} ms; wasm heap ${seen.before.wasmHeap >> 20} MiB before, ${heap >> 20} at most`);
  ok(heap < 200 << 20, `heap ${heap}`);
  ok(heap < seen.before.wasmHeap + (48 << 20), `heap grew by ${heap - seen.before.wasmHeap}`);
  equal(seen.end.deviceTotal, 0, 'bytes left');
}, { seconds: process.env.FIRELIGHT_LARGE ? 600 : 180 });
