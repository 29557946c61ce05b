// Merging parts of attention. out = sum_i exp(top_i - top) acc_i / sum_i exp(top_i - top) total_i, with top the largest of all.
// Operands: parts f32 [T, NH, P, HD + 4], out f32 [T, NH*HD].
// One invocation computes four elements of one head.
// Source: Milakov & Gimelshein 2018; Dao et al. 2023 (Flash-Decoding).
struct Params { heads: u32, hd: u32, parts: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  let n4 = p.hd / 4u;
  let head = i / n4;
  if head >= p.heads { return; }
  let size = n4 + 1u;
  let first = head * p.parts * size;
  var top = parts[first + n4].x;
  for (var k = 1u; k < p.parts; k += 1u) { top = max(top, parts[first + k * size + n4].x); }
  var acc = vec4<f32>();
  var total = 0.0;
  for (var k = 0u; k < p.parts; k += 1u) {
    let about = parts[first + k * size + n4];
    let weight = exp(about.x - top);
    total += weight * about.y;
    acc += weight * parts[first + k * size + i % n4];
  }
  out[i] = acc / total;
}
