// Pictures for tests, made without any decoder but the browser's.

/** The picture that `picture` of crates/vision/tests draws, as a BMP file of 24 bits: what is compared is the processor, not a decoder. */
export function drawn(width, height, seed) {
  const row = (3 * width + 3) & ~3;
  const file = Buffer.alloc(54 + row * height);
  file.write('BM', 0, 'latin1');
  file.writeUInt32LE(file.length, 2);
  file.writeUInt32LE(54, 10);
  file.writeUInt32LE(40, 14);
  file.writeInt32LE(width, 18);
  file.writeInt32LE(height, 22);
  file.writeUInt16LE(1, 26);
  file.writeUInt16LE(24, 28);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) {
        // As 32 bit numbers, which wrap.
        let v = Math.imul(x, 73856093) ^ Math.imul(y, 19349663) ^ ((Math.imul(c, 83492791) + Math.imul(seed, 2654435761)) | 0);
        v = Math.imul(v ^ (v >>> 15), 0x2c1b3c6d);
        v = Math.imul(v ^ (v >>> 12), 0x297a2d39);
        v ^= v >>> 15;
        const value = [v, x * 5 + y * 3 + c * 40, (v & 1) * 255, c * 100 + 30][((x >> 3) + (y >> 3)) & 3];
        // Rows from below, blue first.
        file[54 + (height - 1 - y) * row + 3 * x + 2 - c] = value & 255;
      }
    }
  }
  return file;
}

/**
 * A film of one picture, for Chromium's camera that is a file: `rgba` is `[width, height, bytes]`, drawn `times` as large. Every second pixel
 * keeps its colour, all keep their brightness, as with any camera.
 */
export function film([width, height, rgba], times) {
  const [w, h] = [width * times, height * times];
  const plane = (step, weights, base) => {
    const out = Buffer.alloc((w / step) * (h / step));
    for (let y = 0; y < h; y += step) {
      for (let x = 0; x < w; x += step) {
        const at = 4 * (Math.floor(y / times) * width + Math.floor(x / times));
        const value = base + weights.reduce((sum, k, c) => sum + k * rgba[at + c], 0);
        out[(y / step) * (w / step) + x / step] = Math.max(0, Math.min(255, Math.round(value)));
      }
    }
    return out;
  };
  // BT.601, as the file's head says by saying nothing.
  const frame = [plane(1, [0.257, 0.504, 0.098], 16), plane(2, [-0.148, -0.291, 0.439], 128), plane(2, [0.439, -0.368, -0.071], 128)];
  const parts = [Buffer.from(`YUV4MPEG2 W${w} H${h} F15:1 Ip A1:1 C420jpeg\n`)];
  for (let i = 0; i < 4; i++) parts.push(Buffer.from('FRAME\n'), ...frame);
  return Buffer.concat(parts);
}

/** Pixels of a file as the page's browser decodes it: `[width, height, rgba]`. */
export async function pixels(page, file) {
  const [width, height, text] = await page.evaluate(async (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
    let out = '';
    for (let i = 0; i < data.length; i += 8192) out += String.fromCharCode(...data.subarray(i, i + 8192));
    return [bitmap.width, bitmap.height, btoa(out)];
  }, file.toString('base64'));
  return [width, height, Buffer.from(text, 'base64')];
}
