// The progress ring: one figure that never goes back, the phase, speed, time left.
import { h, icon } from './dom.js';
import * as format from './format.js';

const RADIUS = 44;
const LENGTH = 2 * Math.PI * RADIUS;
const PHASES = [['processor', 'Processor'], ['weights', 'Weights'], ['compiling', 'Compiling']];

function svg(tag, attributes) {
  const el = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [k, v] of Object.entries(attributes)) el.setAttribute(k, v);
  return el;
}

/** A small or large ring: `{ node, set(fraction) }`. */
export function ring(className) {
  const arc = svg('circle', { class: 'arc', cx: 50, cy: 50, r: RADIUS, 'stroke-dasharray': LENGTH, 'stroke-dashoffset': LENGTH });
  const node = svg('svg', { class: className, viewBox: '0 0 100 100', 'aria-hidden': 'true' });
  node.append(svg('circle', { cx: 50, cy: 50, r: RADIUS }), arc);
  return { node, set: (f) => arc.setAttribute('stroke-dashoffset', LENGTH * (1 - Math.min(1, Math.max(0, f)))) };
}

/** What is under way, in words: `41.2 of 98.4 MB · 12 MB/s · 5 s left`. */
export function figures(p) {
  if (p.phase === 'compiling') return 'Preparing the device';
  const parts = [];
  if (p.total > 0) parts.push(`${format.bytes(p.loaded)} of ${format.bytes(p.total)}`);
  if (p.fromCache) parts.push('from this device');
  else if (p.bytesPerSecond > 0) parts.push(`${format.bytes(p.bytesPerSecond)}/s`);
  if (!p.fromCache && p.etaSeconds > 0) parts.push(`${format.duration(p.etaSeconds)} left`);
  return parts.join(' · ');
}

/**
 * Loading a model: `{ node, small, update(progress) }`; `node` fills the stage, `small` stands below a conversation. `say` announces
 * quarters.
 */
export function loadingView({ name, onCancel, say }) {
  const circle = ring('');
  const number = h('span', {}, '0');
  const percent = h('div.percent', { 'aria-hidden': 'true' }, number, h('small', {}, '%'));
  const bar = h('div.ring', { role: 'progressbar', 'aria-label': `Loading ${name}`, 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': 0 }, circle.node, percent);
  const line = h('p.figures', {}, 'Starting the engine');
  const phases = PHASES.map(([key, label]) => h('li', { 'data-phase': key }, h('span.mark'), label));
  const node = h('div.loading', {}, bar, h('h2', {}, name), line, h('ol.phases', { 'aria-label': 'Phases' }, phases),
    h('button.quiet', { type: 'button', onclick: onCancel }, 'Cancel'));
  const short = h('span', {}, '0 %');
  const small = h('div.notice', {}, icon('chip'), h('div', {}, `Loading ${name}: `, short), h('button.link', { type: 'button', onclick: onCancel }, 'Cancel'));
  let [shown, quarter, phase] = [0, 0, ''];
  const update = (p) => {
    // The engine promises that it never goes back; a page that shows it twice should not be the one to break it.
    shown = Math.max(shown, Math.min(1, p.fraction || 0));
    circle.set(shown);
    const whole = Math.floor(shown * 100);
    number.textContent = whole;
    short.textContent = `${whole} %`;
    line.textContent = figures(p);
    bar.setAttribute('aria-valuenow', whole);
    bar.setAttribute('aria-valuetext', `${whole} percent, ${p.phase}, ${figures(p)}`);
    if (p.phase !== phase) {
      phase = p.phase;
      const at = PHASES.findIndex(([key]) => key === phase);
      phases.forEach((li, i) => {
        li.className = i < at ? 'past' : i === at ? 'now' : '';
        if (i === at) li.setAttribute('aria-current', 'step'); else li.removeAttribute('aria-current');
      });
    }
    if (Math.floor(shown * 4) > quarter && shown < 1) {
      quarter = Math.floor(shown * 4);
      say?.(`${whole} percent`);
    }
  };
  return { node, small, update };
}
