// Embedding gather. out[t, :] = scale * w[ids[t] - row0, :].
// Operands: ids u32 [T], w packed [V, K], out f32 [T, K].
// One invocation writes eight consecutive elements of one row.
// Source: torch.nn.functional.embedding.
struct Params { t: u32, k: u32, rows: u32, row0: u32, scale: f32, row_bytes: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  let per_row = p.k / 8u;
  let t = i / per_row;
  if t >= p.t { return; }
  let row = ids[t] - p.row0;
  if row >= p.rows { return; }
  let v = weights8(row, i % per_row);
  out[i * 2u] = v.lo * p.scale;
  out[i * 2u + 1u] = v.hi * p.scale;
}
