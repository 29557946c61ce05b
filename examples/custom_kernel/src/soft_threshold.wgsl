// Soft threshold. y = sign(x) * max(|x| - lambda, 0).
// Operands: x f32 [N], y f32 [N].
// One invocation computes one element.
// Source: Donoho 1995.
struct Params { n: u32, lambda: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  if i >= p.n { return; }
  // The formula without a branch, and without a -0.
  y[i] = max(x[i] - p.lambda, 0.0) + min(x[i] + p.lambda, 0.0);
}
