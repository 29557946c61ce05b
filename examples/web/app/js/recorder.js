// Sound: recording with a level meter, and any file that the browser can decode. Both end as WAV, mono, 16 kHz where the browser can
// do that: what speech models hear, and a form that needs no further decoder.

const RATE = 16_000;

/** The head of a WAV file with so many mono samples of 16 bits. */
function header(samples, rate) {
  const view = new DataView(new ArrayBuffer(44));
  const text = (at, t) => [...t].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, 'RIFF'); view.setUint32(4, 36 + samples * 2, true); text(8, 'WAVEfmt ');
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, rate * 2, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, 'data'); view.setUint32(40, samples * 2, true);
  return view;
}

/** A WAV file. `samples`: mono, −1 to 1. */
export function wav(samples, rate = RATE) {
  const bytes = Int16Array.from(samples, (v) => Math.max(-1, Math.min(1, v)) * 32767);
  return new Blob([header(samples.length, rate), bytes], { type: 'audio/wav' });
}

/** A sound file or recording as `{ blob, seconds, name }`. Throws with words for people. */
export async function decode(file, name = file.name ?? 'recording') {
  // An offline context decodes to its own rate and needs no permission to play.
  const context = new OfflineAudioContext(1, 1, RATE);
  let audio;
  try {
    audio = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`${name} is not sound that this browser can decode.`);
  }
  const mono = new Float32Array(audio.length);
  for (let c = 0; c < audio.numberOfChannels; c++) {
    const channel = audio.getChannelData(c);
    for (let i = 0; i < mono.length; i++) mono[i] += channel[i] / audio.numberOfChannels;
  }
  return { blob: wav(mono), seconds: audio.duration, name };
}

/** A recording under way. */
export class Recorder {
  #stream; #context; #tap; #level = 0; #taken = 0; #onSamples; #ended;
  /** Whole seconds as 16-bit samples; the browser may keep blobs on its disk. */
  #pieces = []; #fresh = [];

  /**
   * Asks for the microphone and starts. `onSamples(samples)` gets mono samples at `rate` as they come, exactly those that are kept. Throws with
   * words for people.
   */
  static async start(onSamples = null) {
    const self = new Recorder();
    self.#onSamples = onSamples;
    if (!navigator.mediaDevices?.getUserMedia) throw new Error('This browser gives no microphone to this page; it needs https or localhost.');
    try {
      self.#stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true } });
    } catch (e) {
      throw new Error(e.name === 'NotFoundError' ? 'No microphone was found.' : 'The microphone was not allowed. It can be allowed in the address bar.');
    }
    try {
      await self.#listen({ sampleRate: RATE }).catch(async () => {
        // Some browsers give a microphone only at its own rate.
        await self.#context?.close();
        await self.#listen({});
      });
    } catch {
      self.#release();
      throw new Error('This browser cannot record.');
    }
    return self;
  }

  async #listen(options) {
    this.#context = new AudioContext(options);
    await this.#context.audioWorklet.addModule(new URL('./tap.js', import.meta.url));
    this.#tap = new AudioWorkletNode(this.#context, 'tap', { numberOfOutputs: 0, channelCount: 1, channelCountMode: 'explicit' });
    this.#tap.port.onmessage = ({ data }) => { this.#take(data.samples); if (data.last) this.#ended?.(); };
    this.#context.createMediaStreamSource(this.#stream).connect(this.#tap);
    await this.#context.resume();
  }

  #take(samples) {
    if (!samples.length) return;
    let sum = 0;
    for (const s of samples) sum += s * s;
    const db = 20 * Math.log10(Math.sqrt(sum / samples.length) || 1e-6);
    this.#level = Math.max(0, Math.min(1, (db + 60) / 55));
    this.#taken += samples.length;
    const kept = new Int16Array(samples.length);
    for (let i = 0; i < samples.length; i++) kept[i] = Math.round(Math.max(-1, Math.min(1, samples[i])) * 32767);
    this.#fresh.push(kept);
    if (this.#fresh.length >= 100) this.#pieces.push(new Blob(this.#fresh.splice(0)));
    this.#onSamples?.(Float32Array.from(kept, (v) => v / 32768));
  }

  #release() {
    for (const t of this.#stream.getTracks()) t.stop();
    if (this.#context?.state !== 'closed') this.#context?.close();
  }

  /** Hz. */
  get rate() { return this.#context.sampleRate; }

  get seconds() { return this.#taken / this.rate; }

  /** How loud it is, 0 to 1; speech is around the middle. */
  level() { return this.#level; }

  /** Ends it; gives the sound as a WAV file, or null if it was thrown away. */
  async stop(keep = true) {
    const ended = new Promise((resolve) => { this.#ended = resolve; });
    this.#tap.port.postMessage('end');
    // A context that the browser has stopped answers nothing.
    await Promise.race([ended, new Promise((resolve) => { setTimeout(resolve, 500); })]);
    const { rate, seconds } = this;
    this.#release();
    this.#onSamples = null;
    if (!keep || !this.#taken) return null;
    const blob = new Blob([header(this.#taken, rate), ...this.#pieces, ...this.#fresh], { type: 'audio/wav' });
    return { blob, seconds, name: 'recording' };
  }
}

/** Draws a level meter into a canvas until `stopped()`; the newest level is at the right. */
export function drawLevels(canvas, recorder, onTime, stopped) {
  const levels = [];
  const quiet = matchMedia('(prefers-reduced-motion: reduce)').matches;
  let last = 0;
  const frame = (now) => {
    if (stopped()) return;
    requestAnimationFrame(frame);
    if (now - last < (quiet ? 250 : 50)) return;
    last = now;
    levels.push(recorder.level());
    onTime(recorder.seconds, levels.at(-1));
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * scale)) { canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale); }
    const g = canvas.getContext('2d');
    g.setTransform(scale, 0, 0, scale, 0, 0);
    g.clearRect(0, 0, width, height);
    g.fillStyle = getComputedStyle(canvas).color;
    const count = Math.floor(width / 6);
    levels.splice(0, Math.max(0, levels.length - count));
    levels.forEach((v, i) => {
      const tall = Math.max(3, v * height);
      const x = width - (levels.length - i) * 6;
      g.beginPath();
      g.roundRect(x, (height - tall) / 2, 3.5, tall, 2);
      g.fill();
    });
  };
  requestAnimationFrame(frame);
}
