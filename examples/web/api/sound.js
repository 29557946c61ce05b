// Sound that the browser decodes for the engine: AAC, alone or in MP4 and QuickTime, which every browser has a decoder for anyway.

import { FirelightError } from './errors.js';

/** A rate that most recordings have, so that the browser changes nothing; the engine goes on from it. */
const RATE = 48_000;

const starts = (head, at, text) => [...text].every((c, i) => head[at + i] === c.charCodeAt(0));
const isAac = (head) => starts(head, 4, 'ftyp') || (head[0] === 0xff && (head[1] & 0xf6) === 0xf0);

/** Mono samples as a WAV file of 32-bit floats. */
export function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44));
  const text = (at, t) => [...t].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  const size = samples.length * 4;
  text(0, 'RIFF'); view.setUint32(4, 36 + size, true); text(8, 'WAVEfmt ');
  view.setUint32(16, 16, true); view.setUint16(20, 3, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, rate * 4, true); view.setUint16(32, 4, true); view.setUint16(34, 32, true);
  text(36, 'data'); view.setUint32(40, size, true);
  return new Blob([view, samples], { type: 'audio/wav' });
}

/**
 * The same sound in a form that the engine reads.
 * @param {Blob | ArrayBuffer} sound
 * @returns {Promise<Blob | ArrayBuffer>}
 */
export async function readable(sound) {
  const blob = sound instanceof Blob ? sound : null;
  const head = new Uint8Array(blob ? await blob.slice(0, 12).arrayBuffer() : sound.slice(0, 12));
  // Workers have no decoder; the engine says then what it reads.
  if (!isAac(head) || !globalThis.OfflineAudioContext) return sound;
  let audio;
  try {
    audio = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(blob ? await blob.arrayBuffer() : sound.slice(0));
  } catch {
    throw new FirelightError('invalid_input', 'this browser cannot decode the sound', 'Take another recording, or the same one as WAV, FLAC or MP3.');
  }
  const mono = audio.getChannelData(0).slice();
  for (let c = 1; c < audio.numberOfChannels; c++) audio.getChannelData(c).forEach((v, i) => { mono[i] += v; });
  if (audio.numberOfChannels > 1) for (let i = 0; i < mono.length; i++) mono[i] /= audio.numberOfChannels;
  return wav(mono, audio.sampleRate);
}
