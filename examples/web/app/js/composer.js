// The message box: text, pictures (drop, paste, file, camera), sound (record, file). Buttons for what the model cannot take are not there.
import { $, h, icon, iconButton, openDialog } from './dom.js';
import * as format from './format.js';
import { decode } from './recorder.js';
import { record } from './recording.js';
import { pref } from './preferences.js';

const MAX_PICTURES = 8;
const MAX_BYTES = 64e6;

export class Composer {
  #form = $('composer');
  #prompt = $('prompt');
  #send = $('send');
  #images = [];
  #sound = null;
  #accepts = { images: false, audio: false, hears: false, text: true };
  #busy = false;
  #recording = false;

  /**
   * `onSend({ text, images, audio, heard })` (`heard`: what was said in a recording), `onStop()`, `onProblem(words)`, `onSound(file)`: a sound that is
   * to be written down; `mayHear()` resolves to whether a speech model may be used.
   */
  constructor({ onSend, onStop, onProblem, onSound, mayHear }) {
    Object.assign(this, { onSend, onStop, onProblem, onSound, mayHear });
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

  /** What the model takes, and whether what is said can be written down (`hears`): for a model without text that is the message. */
  allow({ images, audio, hears = false, text = true }) {
    this.#accepts = { images, audio, hears, text };
    $('attach-images').hidden = !images;
    $('attach-audio').hidden = !audio && !hears;
    this.#form.classList.toggle('by-ear', !text);
    this.#prompt.hidden = !text;
    const label = (id, words) => { $(id).title = words; $(id).setAttribute('aria-label', words); };
    label('add-recording', audio ? 'Record sound' : text ? 'Dictate' : 'Record');
    label('add-sound', audio ? 'Add a sound file' : text ? 'Write down a sound file' : 'Open a sound file');
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

  /** Adds to what is written already. */
  append(text) {
    const before = this.#prompt.value.trimEnd();
    this.text = before && text ? `${before} ${text}` : before || text;
    this.#prompt.scrollTop = this.#prompt.scrollHeight;
  }

  focus() { if (!matchMedia('(pointer: coarse)').matches) (this.#prompt.hidden ? $('add-recording') : this.#prompt).focus(); }

  set hidden(value) { this.#form.hidden = value; }

  #refresh() {
    const something = this.#prompt.value.trim() !== '' || this.#images.length > 0 || this.#sound !== null;
    this.#send.disabled = !this.#busy && !something;
    // Without text there is nothing to send, but something to stop.
    this.#send.hidden = !this.#accepts.text && !this.#busy;
    for (const id of ['add-recording', 'add-sound']) $(id).disabled = this.#recording || (this.#busy && !this.#accepts.text);
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
      } else if ((kind === 'audio' || kind === 'video') && this.#accepts.hears) {
        used = true;
        this.onSound(file);
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
    const useful = () => this.#accepts.hears || (!this.#form.hidden && (this.#accepts.images || this.#accepts.audio));
    addEventListener('dragenter', (e) => { if (hasFiles(e)) { depth++; $('drop').hidden = !useful(); } });
    addEventListener('dragleave', (e) => { if (hasFiles(e) && --depth <= 0) { depth = 0; $('drop').hidden = true; } });
    // Without this a dropped file would replace the page.
    addEventListener('dragover', (e) => { if (hasFiles(e)) e.preventDefault(); });
    addEventListener('drop', (e) => {
      if (!hasFiles(e)) return;
      e.preventDefault();
      depth = 0;
      $('drop').hidden = true;
      if (!this.#form.hidden || this.#accepts.hears) this.#take([...e.dataTransfer.files]);
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
    if (this.#recording) return;
    const hears = !this.#accepts.audio;
    this.#recording = true;
    try {
      if (hears && !(await this.mayHear())) return;
      const made = await record({ hears });
      if (made && !hears) this.#sound = made.sound;
      else if (made && this.#accepts.text) this.append(made.text);
      else if (made) await this.onSend({ text: '', images: [], audio: made.sound, heard: made.text });
    } catch (e) {
      this.onProblem(e.message);
      // What was recorded is not lost: as a message it can be tried again.
      if (this.#accepts.text) this.append(e.text ?? '');
      else if (e.sound) await this.onSend({ text: '', images: [], audio: e.sound });
    } finally {
      this.#recording = false;
      this.#showAttachments();
      this.focus();
    }
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
