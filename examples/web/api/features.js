// What this browser can do, found by trying, and the parts of WebGPU that have to be asked for in JavaScript.

// (func (result v128) …): a binary is valid only where the instruction is known.
const probe = (...body) => {
  const code = [0, ...body, 11];
  return new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, code.length + 2, 1, code.length, ...code]);
};
const SPLAT = [65, 1, 253, 15];

/** The engine binaries this browser can run, best first: names of folders under `engine/`. */
export function binaries() {
  const list = [];
  // i32x4.relaxed_dot_i8x16_i7x16_add_s
  if (WebAssembly.validate(probe(...SPLAT, ...SPLAT, ...SPLAT, 253, 147, 2))) list.push('relaxed');
  if (WebAssembly.validate(probe(...SPLAT))) list.push('simd');
  return list;
}

/** Every GPUDevice that was made here, for `simulate`. */
const devices = new Set();
let failAllocations = false;

/**
 * Adds what wgpu cannot ask for (`subgroups`) to every device request, and keeps the devices.
 */
export function patchWebGpu() {
  const adapter = globalThis.GPUAdapter?.prototype;
  if (!adapter || adapter.firelight) return;
  Object.defineProperty(adapter, 'firelight', { value: true });
  const request = adapter.requestDevice;
  adapter.requestDevice = async function (descriptor = {}) {
    const features = new Set(descriptor.requiredFeatures ?? []);
    if (this.features.has('subgroups')) features.add('subgroups');
    const device = await request.call(this, { ...descriptor, requiredFeatures: [...features] });
    devices.add(device);
    device.lost.then(() => devices.delete(device));
    const create = device.createBuffer;
    device.createBuffer = function (options) {
      if (!failAllocations) return create.call(this, options);
      failAllocations = false;
      // What a driver without memory does: the buffer is invalid and the error scope hears of it.
      return create.call(this, { ...options, size: Number.MAX_SAFE_INTEGER - 7 });
    };
    return device;
  };
}

/** Destroys every device, as a driver reset would. */
export function loseDevices() {
  for (const device of devices) device.destroy();
}

/** Lets the next buffer fail. */
export function failNextAllocation() {
  failAllocations = true;
}

/**
 * The waterfall up to the adapter, in words.
 * @param {'auto' | 'gpu' | 'cpu'} wanted
 * @returns {Promise<{steps: import('./firelight.d.ts').Step[], adapter: GPUAdapter | null}>}
 */
export async function waterfall(wanted) {
  const steps = [];
  const add = (step, ok, what, remedy) => steps.push({ step, ok, what, ...(ok || !remedy ? {} : { remedy }) });
  if (wanted === 'cpu') return { steps, adapter: null };
  const secure = globalThis.isSecureContext;
  add('secure', secure, secure ? 'The page is in a secure context.' : 'The page is not in a secure context: browsers hide the GPU and the storage from it.',
    'Open the page over https, or from this machine as localhost.');
  const gpu = globalThis.navigator?.gpu;
  if (secure || gpu) {
    add('webgpu', !!gpu, gpu ? 'WebGPU is there.' : 'This browser has no WebGPU, or it is switched off.',
      'Use a current Chrome, Edge, Firefox or Safari; on Linux it may have to be switched on in the browser’s settings.');
  }
  if (!gpu) return { steps, adapter: null };
  let adapter = null;
  try {
    adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  } catch (e) {
    add('adapter', false, `The browser gives no GPU: ${e.message}`);
  }
  if (!adapter) {
    if (!steps.some((s) => s.step === 'adapter')) {
      add('adapter', false, 'The browser gives no GPU: graphics acceleration is off, or the driver is on its blocklist.',
        'Switch on “use graphics acceleration when available” in the browser’s settings, update the graphics driver, then restart the browser.');
    }
    return { steps, adapter: null };
  }
  const info = adapter.info ?? {};
  const name = info.description || [info.vendor, info.architecture].filter(Boolean).join(' ') || 'a GPU the browser does not name';
  add('adapter', true, `The browser gives ${name}.`);
  const floor = { maxStorageBuffersPerShaderStage: 8, maxStorageBufferBindingSize: 128 << 20, maxComputeInvocationsPerWorkgroup: 256, maxComputeWorkgroupStorageSize: 16384 };
  const low = Object.entries(floor).filter(([key, least]) => adapter.limits[key] < least);
  const mib = (n) => `${Math.round(n / (1 << 20))} MiB`;
  add('limits', low.length === 0,
    low.length ? `Below WebGPU’s own limits: ${low.map(([k, v]) => `${k} ${adapter.limits[k]} of ${v}`).join(', ')}.`
      : `Bindings to ${mib(adapter.limits.maxStorageBufferBindingSize)}, buffers to ${mib(adapter.limits.maxBufferSize)}.`,
    'Another browser on this machine may offer more.');
  const f16 = adapter.features.has('shader-f16');
  const subgroups = adapter.features.has('subgroups');
  add('features', true, `16-bit floats: ${f16 ? 'yes' : 'no, 32-bit ones are used'}; subgroups: ${subgroups ? 'yes' : 'no'}.`);
  return { steps, adapter };
}

/** Why a GPU attempt was refused, as a remedy. */
export function remedyFor(refused) {
  if (/software adapter/.test(refused)) return 'No real GPU is in use: switch on graphics acceleration in the browser’s settings.';
  if (/self-test/.test(refused)) return 'The GPU computes wrong here: update the graphics driver; until then the next rung is used.';
  if (/memory/i.test(refused)) return 'Close other tabs and programs, or take a smaller model.';
  return 'Update the browser and the graphics driver.';
}
