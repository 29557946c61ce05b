// Sound: recording with a level meter, and any file that the browser can decode. Both end as WAV, mono, 16 kHz: what speech models
// hear, and a form that needs no further decoder.

const RATE = 16_000;

/** 16-bit PCM in a WAV file. `samples`: mono, −1 to 1. */
export function wav(samples, rate = RATE) {
  const view = new DataView(new ArrayBuffer(44 + samples.length * 2));
  const text = (at, t) => [...t].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, 'RIFF'); view.setUint32(4, 36 + samples.length * 2, true); text(8, 'WAVEfmt ');
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, rate * 2, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, 'data'); view.setUint32(40, samples.length * 2, true);
  for (let i = 0; i < samples.length; i++) view.setInt16(44 + i * 2, Math.max(-1, Math.min(1, samples[i])) * 32767, true);
  return new Blob([view], { type: 'audio/wav' });
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
  #stream; #media; #pieces = []; #context; #analyser; #samples;

  /** Asks for the microphone and starts. Throws with words for people. */
  static async start() {
    const self = new Recorder();
    if (!navigator.mediaDevices?.getUserMedia) throw new Error('This browser gives no microphone to this page; it needs https or localhost.');
    try {
      self.#stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, noiseSuppression: true } });
    } catch (e) {
      throw new Error(e.name === 'NotFoundError' ? 'No microphone was found.' : 'The microphone was not allowed. It can be allowed in the address bar.');
    }
    self.#media = new MediaRecorder(self.#stream);
    self.#media.ondataavailable = (e) => { if (e.data.size) self.#pieces.push(e.data); };
    self.#media.start(250);
    self.started = performance.now();
    self.#context = new AudioContext();
    self.#analyser = self.#context.createAnalyser();
    self.#analyser.fftSize = 1024;
    self.#samples = new Float32Array(self.#analyser.fftSize);
    self.#context.createMediaStreamSource(self.#stream).connect(self.#analyser);
    return self;
  }

  get seconds() { return (performance.now() - this.started) / 1000; }

  /** How loud it is, 0 to 1; speech is around the middle. */
  level() {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    let sum = 0;
    for (const s of this.#samples) sum += s * s;
    const db = 20 * Math.log10(Math.sqrt(sum / this.#samples.length) || 1e-6);
    return Math.max(0, Math.min(1, (db + 60) / 55));
  }

  /** Ends it; gives the sound, or null if it was thrown away. */
  async stop(keep = true) {
    const ended = new Promise((resolve) => { this.#media.onstop = resolve; });
    if (this.#media.state !== 'inactive') { this.#media.stop(); await ended; }
    for (const t of this.#stream.getTracks()) t.stop();
    await this.#context.close();
    return keep && this.#pieces.length ? decode(new Blob(this.#pieces, { type: this.#media.mimeType }), 'recording') : null;
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
