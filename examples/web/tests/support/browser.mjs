// Chromium, driven by playwright-core: installed by the system, found here, nothing downloaded.
import { existsSync } from 'node:fs';
import { afterAll } from './harness.mjs';

const candidates = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

/** The browser's path, or undefined. */
export const chromiumPath = () => candidates.find((p) => p && existsSync(p));

const flags = {
  common: ['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'],
  // WebGPU on Chromium's own software adapter.
  gpu: ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'],
  nogpu: ['--disable-gpu', '--disable-features=WebGPU'],
};

/** More of them, for trying things out. */
const more = (process.env.CHROMIUM_FLAGS ?? '').split(' ').filter(Boolean);

const running = new Map();

/**
 * A browser, shared by all tests that ask for the same kind. `skip` is the test's; a browser is required where CI=true. `camera`: a film
 * (.y4m) that its camera shows; `microphone`: a WAV file that it hears once.
 */
export async function browser({ skip, webgpu = false, camera = null, microphone = null } = {}) {
  const kind = webgpu ? 'gpu' : 'nogpu';
  const key = `${kind} ${camera ?? ''} ${microphone ?? ''}`;
  if (running.has(key)) return running.get(key);
  const missing = (what) => { if (process.env.CI === 'true') throw new Error(what); skip(what); };
  const executablePath = chromiumPath();
  if (!executablePath) missing('no Chromium here (scripts/setup.sh installs it)');
  const { chromium } = await import('playwright-core').catch(() => missing('playwright-core is not installed (npm install in examples/web/tests)'));
  const b = await chromium.launch({ executablePath, headless: true, args: [...flags.common, ...flags[kind], ...more,
    ...(camera ? [`--use-file-for-fake-video-capture=${camera}`] : []), ...(microphone ? [`--use-file-for-fake-audio-capture=${microphone}%noloop`] : [])] });
  running.set(key, b);
  afterAll(() => b.close());
  return b;
}
