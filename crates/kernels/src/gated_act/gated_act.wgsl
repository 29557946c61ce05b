// Gated activation. y = act(gate) * up.
// Operands: gate f32 [n], up f32 [n], y f32 [n].
// One invocation computes one element.
// Source: Shazeer 2020; gelu_pytorch_tanh.
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
  let g = gate[i];
  let s = 1.0 / (1.0 + exp(-clamp(g, -80.0, 80.0)));
  var a = g * s;
  if p.act == 2u { a = s; }
  if p.act == 1u {
    // tanh is +-1 in f32 from 10 on; some drivers' tanh overflows.
    a = 0.5 * g * (1.0 + tanh(clamp(0.7978845608 * (g + 0.044715 * g * g * g), -15.0, 15.0)));
  }
  y[i] = a * up[i];
}
