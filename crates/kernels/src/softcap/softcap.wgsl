// Soft cap. x <- c tanh(x / c).
// Operands: x f32 [n] in place.
// One invocation computes one element.
// Source: Gemma Team 2024, final_logit_softcapping.
struct Params { n: u32, cap: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  if i >= p.n { return; }
  // tanh is +-1 in f32 from 10 on; some drivers' tanh overflows. A clamp would hide a NaN.
  let v = x[i];
  let t = tanh(clamp(v / p.cap, -15.0, 15.0));
  x[i] = select(v, p.cap * t, v == v);
}
