// Four queries of one head against rounds of 128 keys: online softmax, and the sums of their values.
// Operands: those of the part it is joined to.
// The lanes of a vec4 are the queries. An invocation has one key of each round, then four elements of the values' sums.
// Source: Dao et al. 2022 (online softmax).
const LOWEST = -3.0e38;
// Four queries; later each query's partial sums, less those in `fold`.
var<workgroup> qs: array<vec4<f32>, 512>;
var<workgroup> weight: array<vec4<f32>, 128>;
var<workgroup> fold: array<vec4<f32>, 128>;

// What is known after some rounds: the largest score, the sum of the weights, four elements of each query's sum of values.
struct Sums { top: vec4<f32>, total: vec4<f32>, a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32> }

fn nothing_yet() -> Sums {
  return Sums(vec4<f32>(LOWEST), vec4<f32>(), vec4<f32>(), vec4<f32>(), vec4<f32>(), vec4<f32>());
}

// The products of elements c of a key with those of the queries.
fn products(c: u32, n4: u32, key: vec4<f32>) -> vec4<f32> {
  return vec4<f32>(dot(qs[c], key), dot(qs[c + n4], key), dot(qs[c + 2u * n4], key), dot(qs[c + 3u * n4], key));
}

// Turns the scores of a round's keys, LOWEST where not seen, into `weight`.
fn weigh(sums: ptr<function, Sums>, lane: u32, scores: vec4<f32>, seen: vec4<bool>) {
  fold[lane] = scores;
  workgroupBarrier();
  for (var step = 64u; step > 0u; step >>= 1u) {
    if lane < step { fold[lane] = max(fold[lane], fold[lane + step]); }
    workgroupBarrier();
  }
  let top = max((*sums).top, fold[0]);
  weight[lane] = select(vec4<f32>(), exp(scores - top), seen);
  let shrink = exp((*sums).top - top);
  workgroupBarrier();
  (*sums).top = top;
  (*sums).total *= shrink;
  (*sums).a0 *= shrink.x;
  (*sums).a1 *= shrink.y;
  (*sums).a2 *= shrink.z;
  (*sums).a3 *= shrink.w;
}

// Adds four elements of a key's value with the key's weights.
fn take(sums: ptr<function, Sums>, e: vec4<f32>, value: vec4<f32>) {
  (*sums).total += e;
  (*sums).a0 += e.x * value;
  (*sums).a1 += e.y * value;
  (*sums).a2 += e.z * value;
  (*sums).a3 += e.w * value;
}

// Adds up what the teams of n4 invocations have; the first of them gets it.
fn add_teams(sums: ptr<function, Sums>, lane: u32, n4: u32) {
  weight[lane] = (*sums).total;
  fold[lane] = (*sums).a0;
  qs[lane] = (*sums).a1;
  qs[lane + 128u] = (*sums).a2;
  qs[lane + 256u] = (*sums).a3;
  workgroupBarrier();
  if lane >= n4 { return; }
  for (var c = 1u; c < 128u / n4; c += 1u) {
    let at = lane + c * n4;
    (*sums).total += weight[at];
    (*sums).a0 += fold[at];
    (*sums).a1 += qs[at];
    (*sums).a2 += qs[at + 128u];
    (*sums).a3 += qs[at + 256u];
  }
}
