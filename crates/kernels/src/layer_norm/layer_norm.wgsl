// Layer normalisation. y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * w + b.
// Operands: x f32 [R, D], w f32 [D], b f32 [D] (read if p.bias is 1), y f32 [R, D].
// One workgroup works on one row: see row_norm.wgsl, which is joined to this.
// Source: Ba et al. 2016; torch.nn.functional.layer_norm.
struct Params { rows: u32, d: u32, eps: f32, bias: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = id.x + id.y * groups.x;
  if row >= p.rows { return; }
  let base = row * p.d;
  var sum = 0.0;
  for (var i = lane; i < p.d; i += 64u) { sum += x[base + i]; }
  normalise(lane, base, sum);
}

fn element(i: u32) -> f32 { return x[i]; }
