// Sums over a subgroup of what rows.wgsl computes; joined after it.
// Operands: none.
// Every invocation of the subgroup gets the sums.
// Source: none.
fn add_up(sum: vec4<f32>) -> vec4<f32> {
  if ROWS == 1u { return vec4<f32>(subgroupAdd(sum.x), 0.0, 0.0, 0.0); }
  return subgroupAdd(sum);
}
