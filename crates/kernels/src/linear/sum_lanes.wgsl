// Sums over the invocations that share a row of w of what rows.wgsl computes; joined after it.
// Operands: `partial`, in workgroup memory, of the part it is joined to: LANES sums a row, one row after the other.
// All invocations `gather`, each at the place of its own sum; after a barrier any may ask for the total of a row.
// Source: none.
override LANES: u32 = 8u;

// Leaves eight sums of a row.
fn gather(at: u32) {
  if LANES > 8u {
    workgroupBarrier();
    if at % LANES < 8u {
      for (var s = 8u; s < LANES; s += 8u) { partial[at] += partial[at + s]; }
    }
  }
}

// Of the row whose sums begin there.
fn total(at: u32) -> vec4<f32> {
  let a = partial[at] + partial[at + 1u] + (partial[at + 2u] + partial[at + 3u]);
  let b = partial[at + 4u] + partial[at + 5u] + (partial[at + 6u] + partial[at + 7u]);
  return a + b;
}
