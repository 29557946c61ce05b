// Columns. y[r, j] = x[r, first + j].
// Operands: x E [R, LDX], y E [R, N]; E is f32 or u32.
// One invocation moves one element.
// Source: torch.narrow.
struct Params { rows: u32, ldx: u32, first: u32, n: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<E>;
@group(0) @binding(2) var<storage, read_write> y: array<E>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  if i >= p.rows * p.n { return; }
  y[i] = x[(i / p.n) * p.ldx + p.first + i % p.n];
}
