// Gated activation. y = act(gate) * up.
// Operands: gate f32 [n], up f32 [n], y f32 [n].
// One invocation computes one element; `activate` is act's activation.wgsl.
// Source: Shazeer 2020.
struct Params { n: u32, act: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gate: array<f32>;
@group(0) @binding(2) var<storage, read> up: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  if i >= p.n { return; }
  y[i] = activate(p.act, gate[i]) * up[i];
}
