// Mask logits. logits[b, v] = -inf where bit v of mask[b] is 0.
// Operands: logits f32 [B, V] in place, mask u32 [B, ceil(V/32)].
// One invocation serves one logit.
// Source: see mod.rs.
struct Params { b: u32, v: u32, low: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  if i >= p.b * p.v { return; }
  let b = i / p.v;
  let v = i % p.v;
  let word = mask[b * ((p.v + 31u) / 32u) + v / 32u];
  // A NaN stays.
  let nan = (bitcast<u32>(logits[i]) & 0x7fffffffu) > 0x7f800000u;
  if ((word >> (v % 32u)) & 1u) == 0u && !nan { logits[i] = bitcast<f32>(p.low); }
}
