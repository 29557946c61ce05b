// Scale and shift. y[t, n] <- y[t, n] w[n] + b[n].
// Operands: y f32 [T, N] in place, w f32 [N], b f32 [N].
// One invocation computes one element.
// Source: Ioffe & Szegedy 2015, the affine part of batch normalisation.
struct Params { t: u32, n: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  if i >= p.t * p.n { return; }
  let n = i % p.n;
  y[i] = y[i] * w[n] + b[n];
}
