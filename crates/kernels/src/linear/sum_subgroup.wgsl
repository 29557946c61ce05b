// Sums over a subgroup of what rows.wgsl computes, and over the subgroups that share a row of w; joined after it.
// Operands: `partial`, in workgroup memory, of the part it is joined to.
// Every invocation of the subgroup gets the sums of `add_up`.
// Source: none.
fn add_up(sum: vec4<f32>) -> vec4<f32> {
  if ROWS == 1u { return vec4<f32>(subgroupAdd(sum.x), 0.0, 0.0, 0.0); }
  return subgroupAdd(sum);
}

fn total(at: u32, share: u32) -> vec4<f32> {
  var sum = partial[at];
  for (var s = 1u; s < share; s += 1u) { sum += partial[at + s]; }
  return sum;
}
