// Residual sum, scaled. h <- (h + x) s.
// Operands: h f32 [n] in place, x f32 [n].
// One invocation computes one element.
// Source: Gemma4TextDecoderLayer of transformers.
struct Params { n: u32, scale: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> h: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  if i >= p.n { return; }
  h[i] = (h[i] + x[i]) * p.scale;
}
