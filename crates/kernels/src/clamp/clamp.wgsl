// Clamp. y = min(max(x, lo), hi).
// Operands: x f32 [n], y f32 [n].
// One invocation computes one element.
// Source: torch.clamp.
struct Params { n: u32, lo: f32, hi: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  if i >= p.n { return; }
  // Not the built-in: what it makes of a NaN is the driver's choice.
  let v = x[i];
  y[i] = select(select(v, p.lo, v < p.lo), p.hi, v > p.hi);
}
