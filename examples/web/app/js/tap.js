// In the audio thread: hands the microphone's samples to the page, a tenth of a second at a time.
class Tap extends AudioWorkletProcessor {
  #piece = new Float32Array(Math.round(sampleRate / 10));
  #filled = 0;
  #open = true;

  constructor() {
    super();
    // What has not filled a piece yet, and then nothing more.
    this.port.onmessage = () => {
      this.#open = false;
      this.port.postMessage({ samples: this.#piece.slice(0, this.#filled), last: true });
    };
  }

  process([input]) {
    const samples = input?.[0];
    for (let at = 0; samples && this.#open && at < samples.length;) {
      const n = Math.min(samples.length - at, this.#piece.length - this.#filled);
      this.#piece.set(samples.subarray(at, at + n), this.#filled);
      at += n;
      this.#filled += n;
      if (this.#filled === this.#piece.length) {
        this.port.postMessage({ samples: this.#piece.slice(), last: false });
        this.#filled = 0;
      }
    }
    return this.#open;
  }
}

registerProcessor('tap', Tap);
