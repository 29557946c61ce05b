// Numbers for people.

/** `98.4 MB`; the same units as the `firelight` program. */
export function bytes(n) {
  if (!Number.isFinite(n)) return '?';
  if (n < 1e3) return `${n} B`;
  if (n < 1e6) return `${(n / 1e3).toFixed(0)} kB`;
  if (n < 1e9) return `${(n / 1e6).toFixed(n < 1e8 ? 1 : 0)} MB`;
  return `${(n / 1e9).toFixed(2)} GB`;
}

/** `8 s`, `3 min`, `1 h 5 min`: as precise as a forecast is. */
export function duration(s) {
  if (!Number.isFinite(s)) return '';
  if (s < 90) return `${Math.max(1, Math.round(s))} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return `${Math.floor(s / 3600)} h ${Math.round(s / 60) % 60} min`;
}

/** `0:07`. */
export const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, '0')}`;

/** `1,204`. */
export const count = (n) => Math.round(n).toLocaleString('en');

/** `34 tokens/s`. */
export const rate = (n) => (Number.isFinite(n) ? `${n < 10 ? n.toFixed(1) : Math.round(n)} tokens/s` : '');

/** `smollm2-135m-instruct` becomes `SmolLM2 135M Instruct`: a model's name as a title where it has none. */
export function title(model) {
  if (model?.title) return model.title;
  const word = (w) => (/^\d+(\.\d+)?[mb]$/i.test(w) ? w.toUpperCase() : w[0].toUpperCase() + w.slice(1).replace(/^mol(lm|vlm)/i, (m) => `mol${m.slice(3).toUpperCase()}`));
  return String(model?.name ?? '').split(/[-_\s]+/).filter(Boolean).map(word).join(' ');
}

/** `today`, `yesterday`, `12 Nov`. */
export function day(time, now = Date.now()) {
  const start = (t) => new Date(t).setHours(0, 0, 0, 0);
  const days = Math.round((start(now) - start(time)) / 86_400_000);
  if (days <= 0) return 'Today';
  if (days === 1) return 'Yesterday';
  return new Date(time).toLocaleDateString('en', { day: 'numeric', month: 'short', year: days > 300 ? 'numeric' : undefined });
}
