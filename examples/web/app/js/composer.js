// The message box: text, pictures (drop, paste, file, camera), sound (record, file). Buttons for what the model cannot take are not there.
import { $, h, icon, iconButton, openDialog } from './dom.js';
import * as format from './format.js';
import { Recorder, decode, drawLevels } from './recorder.js';
import { pref } from './preferences.js';

const MAX_PICTURES = 8;
const MAX_BYTES = 64e6;

export class Composer {
  #form = $('composer');
  #prompt = $('prompt');
  #send = $('send');
  #images = [];
  #sound = null;
  #accepts = { images: false, audio: false };
  #busy = false;
  #recorder = null;

  /** `onSend({ text, images, audio })`, `onStop()`, `onProblem(words)`. */
  constructor({ onSend, onStop, onProblem }) {
    Object.assign(this, { onSend, onStop, onProblem });
    this.#form.addEventListener('submit', (e) => { e.preventDefault(); this.#submit(); });
    this.#prompt.addEventListener('input', () => this.#refresh());
    this.#prompt.addEventListener('keydown', (e) => {
      // On a touch keyboard Enter is a new line, as everywhere there; while a word is being composed it belongs to that.
      const sends = pref('enterSends') && !matchMedia('(pointer: coarse)').matches;
      if (e.key === 'Enter' && !e.isComposing && (e.ctrlKey || e.metaKey || (sends && !e.shiftKey && !e.altKey))) { e.preventDefault(); this.#submit(); }
    });
    this.#prompt.addEventListener('paste', (e) => {
      const files = [...(e.clipboardData?.files ?? [])];
      if (files.length && this.#take(files)) e.preventDefault();
    });
    $('add-image').addEventListener('click', () => this.#choose('image/*', true));
    $('add-sound').addEventListener('click', () => this.#choose('audio/*,video/*', false));
    $('add-photo').addEventListener('click', () => this.#photo());
    $('add-recording').addEventListener('click', () => this.#record());
    this.#dropTarget();
    this.allow(this.#accepts);
    this.#refresh();
  }

  /** What the model takes beside text. */
  allow({ images, audio }) {
    this.#accepts = { images, audio };
    $('attach-images').hidden = !images;
    $('attach-audio').hidden = !audio;
    if (!images) this.#images = [];
    if (!audio) this.#sound = null;
    this.#showAttachments();
  }

  /** An answer is being written: the button stops it. */
  set busy(value) {
    this.#busy = value;
    this.#refresh();
  }

  set placeholder(text) { this.#prompt.placeholder = text; }

  set text(text) { this.#prompt.value = text; this.#refresh(); }

  focus() { if (!matchMedia('(pointer: coarse)').matches) this.#prompt.focus(); }

  set hidden(value) { this.#form.hidden = value; }

  #refresh() {
    const something = this.#prompt.value.trim() !== '' || this.#images.length > 0 || this.#sound !== null;
    this.#send.disabled = !this.#busy && !something;
    const label = this.#busy ? 'Stop' : 'Send';
    if (this.#send.getAttribute('aria-label') !== label) {
      this.#send.setAttribute('aria-label', label);
      this.#send.title = label;
      this.#send.replaceChildren(icon(this.#busy ? 'stop' : 'send'));
    }
    // Where the style sheet cannot let it grow.
    if (!CSS.supports('field-sizing', 'content')) {
      this.#prompt.style.height = 'auto';
      this.#prompt.style.height = `${this.#prompt.scrollHeight}px`;
    }
  }

  #submit() {
    if (this.#busy) { this.onStop(); return; }
    if (this.#send.disabled) return;
    const text = this.#prompt.value.trim();
    const images = this.#images.map((i) => i.blob);
    const audio = this.#sound;
    for (const i of this.#images) URL.revokeObjectURL(i.url);
    this.#images = [];
    this.#sound = null;
    this.#prompt.value = '';
    this.#showAttachments();
    this.onSend({ text, images, audio });
  }

  /** Files from anywhere. True if one of them is of use. */
  #take(files) {
    let used = false;
    for (const file of files) {
      const [kind] = file.type.split('/');
      if (file.size > MAX_BYTES) { this.onProblem(`${file.name} is ${format.bytes(file.size)}; at most ${format.bytes(MAX_BYTES)} can be added.`); continue; }
      if (kind === 'image' && this.#accepts.images) {
        if (this.#images.length >= MAX_PICTURES) { this.onProblem(`At most ${MAX_PICTURES} pictures in one message.`); break; }
        this.#images.push({ blob: file, url: URL.createObjectURL(file), name: file.name });
        used = true;
      } else if ((kind === 'audio' || kind === 'video') && this.#accepts.audio) {
        used = true;
        decode(file).then((s) => { this.#sound = s; this.#showAttachments(); }, (e) => this.onProblem(e.message));
      } else if (kind === 'image' || kind === 'audio' || kind === 'video') {
        this.onProblem(`This model does not take ${kind === 'image' ? 'pictures' : 'sound'}. A model that does can be chosen above.`);
      }
    }
    this.#showAttachments();
    return used;
  }

  #choose(accept, multiple) {
    const input = h('input', { type: 'file', accept, multiple });
    input.addEventListener('change', () => this.#take([...input.files]));
    input.click();
  }

  #dropTarget() {
    let depth = 0;
    const hasFiles = (e) => [...(e.dataTransfer?.types ?? [])].includes('Files');
    const useful = () => !this.#form.hidden && (this.#accepts.images || this.#accepts.audio);
    addEventListener('dragenter', (e) => { if (hasFiles(e)) { depth++; $('drop').hidden = !useful(); } });
    addEventListener('dragleave', (e) => { if (hasFiles(e) && --depth <= 0) { depth = 0; $('drop').hidden = true; } });
    // Without this a dropped file would replace the page.
    addEventListener('dragover', (e) => { if (hasFiles(e)) e.preventDefault(); });
    addEventListener('drop', (e) => {
      if (!hasFiles(e)) return;
      e.preventDefault();
      depth = 0;
      $('drop').hidden = true;
      if (!this.#form.hidden) this.#take([...e.dataTransfer.files]);
    });
  }

  #showAttachments() {
    const remove = (label, fn) => iconButton('close', label, () => { fn(); this.#showAttachments(); this.#prompt.focus(); });
    const pictures = this.#images.map((image, n) => h('div.attachment', {},
      h('img', { src: image.url, alt: image.name || `Picture ${n + 1}` }),
      remove(`Remove picture ${n + 1}`, () => { URL.revokeObjectURL(image.url); this.#images = this.#images.filter((i) => i !== image); })));
    const sound = this.#sound && h('div.attachment', {},
      h('div.chip', {}, icon('sound'), h('span', {}, `${this.#sound.name} · ${format.clock(this.#sound.seconds)}`)),
      remove('Remove the sound', () => { this.#sound = null; }));
    $('attachments').replaceChildren(...pictures, ...(sound ? [sound] : []));
    $('attachments').hidden = !pictures.length && !sound;
    this.#refresh();
  }

  async #record() {
    if (this.#recorder) return;
    try {
      this.#recorder = await Recorder.start();
    } catch (e) {
      this.onProblem(e.message);
      return;
    }
    const bar = $('recording');
    const time = h('span.time', {}, '0:00');
    const level = h('span.sr', { role: 'meter', 'aria-label': 'Level', 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': 0 });
    const canvas = h('canvas');
    const end = (keep) => async () => {
      const recorder = this.#recorder;
      this.#recorder = null;
      bar.hidden = true;
      bar.replaceChildren();
      $('add-recording').disabled = false;
      this.#prompt.focus();
      try {
        const sound = await recorder.stop(keep);
        if (sound) this.#sound = sound;
      } catch (e) {
        this.onProblem(e.message);
      }
      this.#showAttachments();
    };
    const done = h('button.quiet', { type: 'button', onclick: end(true) }, 'Done');
    bar.replaceChildren(h('span.rec', { 'aria-hidden': 'true' }), time, canvas, level, iconButton('trash', 'Discard the recording', end(false)), done);
    bar.hidden = false;
    $('add-recording').disabled = true;
    done.focus();
    const recorder = this.#recorder;
    drawLevels(canvas, recorder, (s, v) => { time.textContent = format.clock(s); level.setAttribute('aria-valuenow', Math.round(v * 100)); }, () => this.#recorder !== recorder);
  }

  async #photo() {
    const body = $('camera-body');
    let stream;
    try {
      if (!navigator.mediaDevices?.getUserMedia) throw new Error('none');
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment', width: { ideal: 1280 } } });
    } catch (e) {
      this.onProblem(e.name === 'NotAllowedError' ? 'The camera was not allowed. It can be allowed in the address bar.' : 'No camera was found.');
      return;
    }
    const video = h('video', { autoplay: true, muted: true, playsInline: true, srcObject: stream, 'aria-label': 'What the camera sees' });
    const shoot = h('button.primary', { type: 'button', onclick: () => {
      const canvas = h('canvas', { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext('2d').drawImage(video, 0, 0);
      canvas.toBlob((blob) => {
        if (blob) this.#take([new File([blob], 'photo.jpg', { type: 'image/jpeg' })]);
        $('camera').close();
      }, 'image/jpeg', 0.92);
    } }, 'Take the photo');
    body.replaceChildren(video, shoot);
    $('camera').addEventListener('close', () => { for (const t of stream.getTracks()) t.stop(); body.replaceChildren(); this.#prompt.focus(); }, { once: true });
    openDialog($('camera'));
    shoot.focus();
  }
}
