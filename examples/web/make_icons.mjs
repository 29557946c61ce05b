#!/usr/bin/env node
// Draws the icons of the app into app/icons: the flame as SVG, and as PNG for those who take nothing else. No dependency: the
// flame is filled by counting crossings of its outline on a fine grid.
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { crc32, deflateSync } from 'node:zlib';

const out = join(dirname(fileURLToPath(import.meta.url)), 'app', 'icons');

// Cubic curves in a square of 64: the outer flame and the bright one inside of it. A start, then three points per curve.
const OUTER = [[33, 7], [36, 16], [48, 22], [48, 37], [48, 45.8], [40.8, 53], [32, 53], [23.2, 53], [16, 45.8], [16, 37], [16, 30], [19, 25], [23, 21], [23, 25], [24, 28], [27, 30], [28, 21], [28, 14], [33, 7]];
const INNER = [[33, 30], [34, 34.5], [40, 36.5], [40, 43], [40, 47.4], [36.4, 50.5], [32, 50.5], [27.6, 50.5], [24, 47.4], [24, 43], [24, 39.5], [26, 37], [28, 35.5], [28.4, 37], [29, 38.2], [30.2, 39], [30.6, 35.5], [31, 33], [33, 30]];
const COLOURS = { paper: [40, 29, 22], outer: [239, 133, 60], inner: [255, 211, 138] };

const hex = (c) => `#${c.map((v) => v.toString(16).padStart(2, '0')).join('')}`;
const path = (p) => `M${p[0]}${[...Array((p.length - 1) / 3).keys()].map((i) => `C${p.slice(1 + 3 * i, 4 + 3 * i).join(' ')}`).join('')}z`;

function polygon(p) {
  const points = [];
  for (let i = 0; i + 3 < p.length; i += 3) {
    for (let s = 0; s < 24; s++) {
      const t = s / 24;
      const w = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t ** 3];
      points.push([0, 1].map((k) => w.reduce((sum, v, j) => sum + v * p[i + j][k], 0)));
    }
  }
  return points;
}

function inside(points, x, y) {
  let odd = false;
  for (let i = 0, j = points.length - 1; i < points.length; j = i++) {
    const [[xi, yi], [xj, yj]] = [points[i], points[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
  }
  return odd;
}

/** Pixels of a square icon. `scale`: the flame's size; `radius`: of the background's corners, in units of 64. */
function draw(size, { scale, radius }) {
  const [outer, inner] = [polygon(OUTER), polygon(INNER)];
  const N = 4;
  const rgba = Buffer.alloc(size * size * 4);
  for (let py = 0; py < size; py++) {
    for (let px = 0; px < size; px++) {
      const sum = [0, 0, 0, 0];
      for (let s = 0; s < N * N; s++) {
        const [x, y] = [((px + ((s % N) + 0.5) / N) / size) * 64, ((py + (Math.floor(s / N) + 0.5) / N) / size) * 64];
        const [cx, cy] = [Math.max(radius - x, 0, x - (64 - radius)), Math.max(radius - y, 0, y - (64 - radius))];
        if (Math.hypot(cx, cy) > radius) continue;
        const [fx, fy] = [(x - 32) / scale + 32, (y - 32) / scale + 31];
        const c = inside(inner, fx, fy) ? COLOURS.inner : inside(outer, fx, fy) ? COLOURS.outer : COLOURS.paper;
        for (let k = 0; k < 3; k++) sum[k] += c[k];
        sum[3]++;
      }
      const at = (py * size + px) * 4;
      for (let k = 0; k < 3; k++) rgba[at + k] = sum[3] ? Math.round(sum[k] / sum[3]) : 0;
      rgba[at + 3] = Math.round((sum[3] / (N * N)) * 255);
    }
  }
  return rgba;
}

function png(size, rgba) {
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
    const [length, crc] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    crc.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, crc]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(size, 0);
  head.writeUInt32BE(size, 4);
  head.set([8, 6, 0, 0, 0], 8);
  const lines = Buffer.alloc(size * (size * 4 + 1));
  for (let y = 0; y < size; y++) rgba.copy(lines, y * (size * 4 + 1) + 1, y * size * 4, (y + 1) * size * 4);
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', head), chunk('IDAT', deflateSync(lines, { level: 9 })), chunk('IEND', Buffer.alloc(0))]);
}

await mkdir(out, { recursive: true });
await writeFile(join(out, 'icon.svg'), `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="15" fill="${hex(COLOURS.paper)}"/>`
  + `<g transform="translate(0 1)"><path fill="${hex(COLOURS.outer)}" d="${path(OUTER)}"/><path fill="${hex(COLOURS.inner)}" d="${path(INNER)}"/></g></svg>\n`);
for (const size of [192, 512]) await writeFile(join(out, `icon-${size}.png`), png(size, draw(size, { scale: 1, radius: 15 })));
// A maskable icon fills its square; what matters stays within the inner 80 %.
await writeFile(join(out, 'maskable-512.png'), png(512, draw(512, { scale: 0.85, radius: 0 })));
