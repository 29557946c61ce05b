// Sounds for tests, and what the native program makes of them.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A WAV file of 16 bits; `at(second, channel)` gives samples of ±1. */
export function wav(rate, channels, seconds, at) {
  const frames = Math.round(rate * seconds);
  const out = Buffer.alloc(44 + frames * channels * 2);
  out.write('RIFF', 0); out.writeUInt32LE(out.length - 8, 4); out.write('WAVEfmt ', 8);
  out.writeUInt32LE(16, 16); out.writeUInt16LE(1, 20); out.writeUInt16LE(channels, 22); out.writeUInt32LE(rate, 24);
  out.writeUInt32LE(rate * channels * 2, 28); out.writeUInt16LE(channels * 2, 32); out.writeUInt16LE(16, 34);
  out.write('data', 36); out.writeUInt32LE(frames * channels * 2, 40);
  for (let i = 0; i < frames; i++) {
    for (let c = 0; c < channels; c++) out.writeInt16LE(Math.round(Math.max(-1, Math.min(1, at(i / rate, c))) * 32767), 44 + (i * channels + c) * 2);
  }
  return out;
}

/** A voice that says nothing: a hum with overtones, louder and softer, and pauses. `said`: spans of seconds. */
export const hum = (said) => (t, c = 0) => {
  const span = said.find(([from, to]) => t >= from && t < to);
  if (!span) return 0;
  const pitch = 110 + 25 * Math.sin(t * 3) + 3 * c;
  let v = 0;
  for (let k = 1; k < 12; k++) v += Math.sin(2 * Math.PI * pitch * k * t + k) / k;
  return 0.2 * v * (0.6 + 0.4 * Math.sin(2 * Math.PI * 4 * t));
};

/** What `firelight` writes to standard output. */
export const native = async (firelight, ...args) => (await run(firelight, args, { maxBuffer: 1 << 26 })).stdout;

/** Final texts of `firelight listen` on a file. */
export async function heardNatively(firelight, file, model) {
  const out = await native(firelight, 'listen', file, '--no-wait', '--json', '--model', model, '--device', 'cpu', '--exact');
  return out.trim().split('\n').map((line) => JSON.parse(line)).filter((e) => e.event === 'final').map((e) => e.text);
}
