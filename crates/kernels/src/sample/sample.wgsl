// Sampling. token ~ softmax(penalised logits / temperature) within top-k, top-p, min-p; argmax at temperature 0.
// Operands: logits f32 [B, V], settings u32 [B, 8], counts u32 [B, V] in place, token u32 [B].
// One workgroup serves one sequence. Borders are found by radix selection on order-preserving keys, eight bits a pass.
// Source: see mod.rs.
struct Params { b: u32, v: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> settings: array<u32>;
@group(0) @binding(3) var<storage, read_write> counts: array<u32>;
@group(0) @binding(4) var<storage, read_write> token: array<u32>;

const THREADS = 256u;
const BAD = 0xffffffffu;
// Probability 1 in the fixed point of the mass histogram.
const ONE = 1073741824.0;

var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> value: array<f32, 256>;
var<workgroup> index: array<u32, 256>;
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
  // The key of -inf, which browsers do not let stand as a constant.
  var best = 0x007fffffu;
  var best_at = BAD;
  for (var v = lane; v < p.v; v += THREADS) {
    let l = logit(base + v, penalty, inv_t);
    if is_nan(l) { best = 0xffffffffu; best_at = BAD; break; }
    let key = key_of(l);
    if key > best { best = key; best_at = v; }
  }
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
  let bits = mix(mix(mix(settings[b * 8u + 5u]) ^ settings[b * 8u + 6u]) ^ settings[b * 8u + 7u]);
  let goal = f32(bits >> 8u) / 16777216.0 * all;
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
