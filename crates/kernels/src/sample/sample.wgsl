// Sampling. token ~ softmax(penalised logits / temperature) within top-k, top-p, min-p; argmax at temperature 0.
// Operands: logits f32 [B, V], settings u32 [B, 8], counts u32 [B, V] in place, token u32 [B].
// One workgroup serves one sequence. What a small top-k leaves is listed on a second reading of the logits, and the rest is done
// with the list. Else borders are found by radix selection on order-preserving keys, eight bits a reading.
// Source: see mod.rs.
struct Params { b: u32, v: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> settings: array<u32>;
@group(0) @binding(3) var<storage, read_write> counts: array<u32>;
@group(0) @binding(4) var<storage, read_write> token: array<u32>;

const THREADS = 256u;
const BAD = 0xffffffffu;
// The key of -inf.
const NOTHING = 0x007fffffu;
// The most of top-k that a list is made for, and the most in it: four times what random logits bring.
const FEW = 128u;
const LISTED = 512u;
// Probability 1 in the fixed point of the mass histogram.
const ONE = 1073741824.0;

var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> value: array<f32, 256>;
var<workgroup> index: array<u32, 256>;
var<workgroup> ids: array<u32, LISTED>;
var<workgroup> keys: array<u32, LISTED>;
var<workgroup> weights: array<f32, LISTED>;
var<workgroup> listed: atomic<u32>;
// Radix selection: the key bits found so far, and how much is still to be covered.
var<workgroup> found: u32;
var<workgroup> rest: u32;

fn mix(x: u32) -> u32 {
  let state = x * 747796405u + 2891336453u;
  let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
  return (word >> 22u) ^ word;
}

// Keys order as the floats do.
fn key_of(l: f32) -> u32 {
  let bits = bitcast<u32>(l);
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn of_key(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}

fn is_nan(l: f32) -> bool { return (bitcast<u32>(l) & 0x7fffffffu) > 0x7f800000u; }

// The penalised logit divided by the temperature.
fn logit(at: u32, penalty: f32, inv_t: f32) -> f32 {
  var l = logits[at];
  if penalty != 1.0 && counts[at] > 0u { l = select(l * penalty, l / penalty, l > 0.0); }
  return l * inv_t;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let b = id.x + id.y * groups.x;
  if b >= p.b { return; }
  let base = b * p.v;
  let temperature = bitcast<f32>(settings[b * 8u]);
  let top_k = settings[b * 8u + 1u];
  let top_p = bitcast<f32>(settings[b * 8u + 2u]);
  let min_p = bitcast<f32>(settings[b * 8u + 3u]);
  let penalty = bitcast<f32>(settings[b * 8u + 4u]);
  let greedy = temperature <= 0.0;
  let inv_t = select(1.0 / temperature, 1.0, greedy);

  // The largest logit, lowest id first; a NaN wins over everything and is reported.
  var best = NOTHING;
  var best_at = BAD;
  for (var first = lane; first < p.v; first += 4u * THREADS) {
    // Four loads on their way at a time; beyond the last it is read again.
    for (var u = 0u; u < 4u; u += 1u) {
      let v = min(first + u * THREADS, p.v - 1u);
      let l = logit(base + v, penalty, inv_t);
      let key = select(key_of(l), BAD, is_nan(l));
      if key > best { best = key; best_at = select(v, BAD, key == BAD); }
    }
  }
  let own = best;
  index[lane] = best_at;
  atomicStore(&bins[lane], best);
  workgroupBarrier();
  for (var step = 128u; step > 0u; step >>= 1u) {
    if lane < step {
      let a = atomicLoad(&bins[lane]);
      let o = atomicLoad(&bins[lane + step]);
      if o > a || (o == a && index[lane + step] < index[lane]) {
        atomicStore(&bins[lane], o);
        index[lane] = index[lane + step];
      }
    }
    workgroupBarrier();
  }
  let top_at = workgroupUniformLoad(&index[0]);
  if top_at == BAD || greedy {
    if lane == 0u {
      token[b] = top_at;
      if top_at != BAD { counts[base + top_at] += 1u; }
    }
    return;
  }
  let top = logit(base + top_at, penalty, inv_t);
  let drawn = draw(b);

  if top_k > 0u && top_k <= FEW && top_k < p.v {
    // Each invocation has seen a largest key of its own: of those, the k-th largest is not above the k-th largest of all.
    keys[lane] = own;
    workgroupBarrier();
    var larger = 0u;
    for (var i = 0u; i < THREADS; i += 1u) {
      if keys[i] > own || (keys[i] == own && i < lane) { larger += 1u; }
    }
    if larger == top_k - 1u { found = own; }
    if lane == 0u { atomicStore(&listed, 0u); }
    let least = max(workgroupUniformLoad(&found), NOTHING + 1u);
    for (var first = lane; first < p.v; first += 4u * THREADS) {
      for (var u = 0u; u < 4u; u += 1u) {
        let v = first + u * THREADS;
        let key = key_of(logit(base + min(v, p.v - 1u), penalty, inv_t));
        if v < p.v && key >= least {
          let at = atomicAdd(&listed, 1u);
          if at < LISTED { ids[at] = v; keys[at] = key; }
        }
      }
    }
    workgroupBarrier();
    if lane == 0u { rest = atomicLoad(&listed); }
    let n = workgroupUniformLoad(&rest);
    if n <= LISTED {
      choose(n, lane, top, top_at, top_k, top_p, min_p, drawn);
      if lane == 0u {
        token[b] = found;
        counts[base + found] += 1u;
      }
      return;
    }
  }

  // The border of top-k: the k-th largest key.
  var border = 0u;
  if top_k > 0u && top_k < p.v {
    if lane == 0u { found = 0u; rest = top_k; }
    for (var shift = 24; shift >= 0; shift -= 8) {
      let s = u32(shift);
      atomicStore(&bins[lane], 0u);
      workgroupBarrier();
      for (var v = lane; v < p.v; v += THREADS) {
        let key = key_of(logit(base + v, penalty, inv_t));
        if s == 24u || (key >> (s + 8u)) == (found >> (s + 8u)) { atomicAdd(&bins[(key >> s) & 255u], 1u); }
      }
      workgroupBarrier();
      if lane == 0u { descend(s); }
      workgroupBarrier();
    }
    border = workgroupUniformLoad(&found);
  }

  // The mass above it.
  var sum = 0.0;
  for (var v = lane; v < p.v; v += THREADS) {
    let l = logit(base + v, penalty, inv_t);
    if key_of(l) >= border { sum += exp(l - top); }
  }
  let mass = add_up(sum, lane);

  // The border of top-p: the largest key with enough mass from it on.
  if top_p < 1.0 {
    if lane == 0u { found = 0u; rest = max(u32(top_p * ONE), 1u); }
    for (var shift = 24; shift >= 0; shift -= 8) {
      let s = u32(shift);
      atomicStore(&bins[lane], 0u);
      workgroupBarrier();
      for (var v = lane; v < p.v; v += THREADS) {
        let l = logit(base + v, penalty, inv_t);
        let key = key_of(l);
        if key >= border && (s == 24u || (key >> (s + 8u)) == (found >> (s + 8u))) {
          atomicAdd(&bins[(key >> s) & 255u], u32(round(exp(l - top) / mass * ONE)));
        }
      }
      workgroupBarrier();
      if lane == 0u { descend(s); }
      workgroupBarrier();
    }
    border = max(border, workgroupUniformLoad(&found));
  }
  if min_p > 0.0 { border = max(border, key_of(top + log(min_p))); }

  // One draw over what is left, in the order of the ids; an invocation sums a run of ids.
  let run = (p.v + THREADS - 1u) / THREADS;
  let start = min(lane * run, p.v);
  let stop = min(start + run, p.v);
  sum = 0.0;
  for (var v = start; v < stop; v += 1u) {
    let l = logit(base + v, penalty, inv_t);
    if key_of(l) >= border { sum += exp(l - top); }
  }
  value[lane] = sum;
  index[lane] = top_at;
  workgroupBarrier();
  var before = 0.0;
  var all = 0.0;
  for (var i = 0u; i < THREADS; i += 1u) {
    if i == lane { before = all; }
    all += value[i];
  }
  let goal = drawn * all;
  if lane == 0u { found = top_at; }
  workgroupBarrier();
  // Exactly one run holds the goal: the partial sums are the same numbers in every invocation.
  if sum > 0.0 && goal >= before && goal < before + sum {
    var at = before;
    var last = top_at;
    for (var v = start; v < stop; v += 1u) {
      let l = logit(base + v, penalty, inv_t);
      if key_of(l) >= border {
        last = v;
        at += exp(l - top);
        if at > goal { break; }
      }
    }
    found = last;
  }
  workgroupBarrier();
  if lane == 0u {
    token[b] = found;
    counts[base + found] += 1u;
  }
}

// A number from 0 to below 1 of a generator that counts.
fn draw(b: u32) -> f32 {
  let bits = mix(mix(mix(settings[b * 8u + 5u]) ^ settings[b * 8u + 6u]) ^ settings[b * 8u + 7u]);
  return f32(bits >> 8u) / 16777216.0;
}

// Draws from the `n` in the list, into `found`.
fn choose(n: u32, lane: u32, top: f32, top_at: u32, top_k: u32, top_p: f32, min_p: f32, drawn: f32) {
  // In the order of the ids, whatever order they came in.
  var id = array<u32, 2>();
  var key = array<u32, 2>();
  var place = array<u32, 2>(LISTED, LISTED);
  for (var i = 0u; i < 2u; i += 1u) {
    let at = lane + i * THREADS;
    if at < n {
      id[i] = ids[at];
      key[i] = keys[at];
      place[i] = 0u;
      for (var j = 0u; j < n; j += 1u) { place[i] += select(0u, 1u, ids[j] < id[i]); }
    }
  }
  workgroupBarrier();
  for (var i = 0u; i < 2u; i += 1u) {
    if place[i] < LISTED { ids[place[i]] = id[i]; keys[place[i]] = key[i]; }
  }
  workgroupBarrier();
  // Top-k; ties at its border stay in.
  var sum = 0.0;
  for (var i = 0u; i < 2u; i += 1u) {
    if place[i] < LISTED {
      var larger = 0u;
      for (var j = 0u; j < n; j += 1u) { larger += select(0u, 1u, keys[j] > key[i]); }
      let weight = select(0.0, exp(of_key(key[i]) - top), larger < top_k);
      weights[place[i]] = weight;
      sum += weight;
    }
  }
  let mass = add_up(sum, lane);
  // Top-p: what is above must not be enough. Min-p.
  let enough = max(u32(min(top_p, 1.0) * ONE), 1u);
  let border = select(0u, key_of(top + log(min_p)), min_p > 0.0);
  var out = array<bool, 2>(false, false);
  for (var i = 0u; i < 2u; i += 1u) {
    if place[i] < LISTED {
      var above = 0u;
      for (var j = 0u; j < n; j += 1u) {
        if keys[j] > key[i] { above += u32(round(weights[j] / mass * ONE)); }
      }
      out[i] = (top_p < 1.0 && above >= enough) || key[i] < border;
    }
  }
  workgroupBarrier();
  for (var i = 0u; i < 2u; i += 1u) {
    if place[i] < LISTED && out[i] { weights[place[i]] = 0.0; }
  }
  workgroupBarrier();
  if lane == 0u {
    var all = 0.0;
    for (var i = 0u; i < n; i += 1u) { all += weights[i]; }
    let goal = drawn * all;
    var at = 0.0;
    found = top_at;
    for (var i = 0u; i < n; i += 1u) {
      if weights[i] > 0.0 {
        found = ids[i];
        at += weights[i];
        if at > goal { break; }
      }
    }
  }
  workgroupBarrier();
}

// Picks the digit of this pass: from the top bin down until `rest` is covered.
fn descend(s: u32) {
  var left = rest;
  var digit = 0u;
  for (var i = 255i; i >= 0; i -= 1) {
    let n = atomicLoad(&bins[i]);
    digit = u32(i);
    if n >= left { break; }
    // Rounding may leave a little uncovered: then the lowest digit that occurs is taken.
    if i > 0 { left -= n; }
  }
  found |= digit << s;
  rest = left;
}

fn add_up(v: f32, lane: u32) -> f32 {
  value[lane] = v;
  workgroupBarrier();
  for (var step = 128u; step > 0u; step >>= 1u) {
    if lane < step { value[lane] += value[lane + step]; }
    workgroupBarrier();
  }
  let total = workgroupUniformLoad(&value[0]);
  workgroupBarrier();
  return total;
}
