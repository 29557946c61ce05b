// Pooling over spans. y[i, c] = mean (or sum/sqrt(n), max, weighted mean) of x[r, c] over begin <= r < end.
// Operands: x f32 [T, D], spans u32 [B, 2], y f32 [B, D].
// One invocation computes one element.
// Source: sentence_transformers.models.Pooling.
struct Params { b: u32, rows: u32, d: u32, pool: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  if i >= p.b * p.d { return; }
  let span = spans[i / p.d];
  let column = i % p.d;
  let end = min(span.y, p.rows);
  if span.x >= end {
    y[i] = 0.0;
    return;
  }
  var acc = 0.0;
  if p.pool == 2u { acc = x[span.x * p.d + column]; }
  for (var r = span.x; r < end; r += 1u) {
    let v = x[r * p.d + column];
    switch p.pool {
      case 2u: { acc = max(acc, v); }
      case 3u: { acc += v * f32(r - span.x + 1u); }
      default: { acc += v; }
    }
  }
  let n = f32(end - span.x);
  switch p.pool {
    case 0u: { acc /= n; }
    case 1u: { acc /= sqrt(n); }
    case 3u: { acc /= 0.5 * n * (n + 1.0); }
    default: {}
  }
  y[i] = acc;
}
