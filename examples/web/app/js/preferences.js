// What the user chose. Small, so it is in localStorage; where that is switched off it lasts as long as the page.

const KEY = 'firelight-preferences';

export const defaults = Object.freeze({
  model: '', device: 'auto', rung: '',
  system: '', temperature: 0.2, topP: 0.9, topK: 0, repetitionPenalty: 1, maxTokens: 1024, seed: '', greedy: false,
  summarise: true, enterSends: true,
});

let current = { ...defaults };
try {
  const saved = JSON.parse(localStorage.getItem(KEY) ?? '{}');
  for (const key of Object.keys(defaults)) if (typeof saved[key] === typeof defaults[key]) current[key] = saved[key];
} catch { /* nothing saved, or not readable: the defaults */ }

/** The value of one. */
export const pref = (key) => current[key];

/** Changes some. */
export function setPrefs(changes) {
  current = { ...current, ...changes };
  try { localStorage.setItem(KEY, JSON.stringify(current)); } catch { /* lasts as long as the page */ }
}

/** `light`, `dark` or `system`. */
export function theme() {
  return document.documentElement.dataset.theme ?? 'system';
}

export function setTheme(name) {
  if (name === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  try {
    if (name === 'system') localStorage.removeItem('firelight-theme');
    else localStorage.setItem('firelight-theme', name);
  } catch { /* lasts as long as the page */ }
}

/** What a chat call takes. `again`: another draw than last time. */
export function sampling(again = false) {
  const seed = current.seed === '' || again ? undefined : Number(current.seed);
  const common = { maxTokens: current.maxTokens, repetitionPenalty: current.repetitionPenalty };
  return current.greedy ? { ...common, greedy: true }
    : { ...common, temperature: current.temperature, topP: current.topP, topK: current.topK, ...(seed === undefined ? {} : { seed }) };
}
