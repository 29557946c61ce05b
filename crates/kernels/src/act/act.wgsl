// Activation with bias. y[t, n] = f(y[t, n] + b[n]).
// Operands: y f32 [T, N] in place, b f32 [N] (read if p.bias is 1).
// One invocation computes one element; `activate` is in activation.wgsl.
// Source: ACT2FN in transformers.
struct Params { t: u32, n: u32, act: u32, bias: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  if i >= p.t * p.n { return; }
  var v = y[i];
  if p.bias == 1u { v += b[i % p.n]; }
  y[i] = activate(p.act, v);
}
