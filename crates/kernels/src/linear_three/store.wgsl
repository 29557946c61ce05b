// Stores one output of up to four rows of x (rows.wgsl) in q (0), k (1) or v (2); joined to both variants.
// Operands: q, k, v, p.t, p.nq, p.nk and p.nv of the part it is joined to.
// Rows beyond the last, and outputs beyond a weight's rows, are not stored.
// Source: none.
fn store(which: u32, t: u32, n: u32, sum: vec4<f32>) {
  let width = select(select(p.nv, p.nk, which == 1u), p.nq, which == 0u);
  if n >= width { return; }
  let at = t * width + n;
  put(which, at, sum.x);
  if ROWS > 1u && t + 1u < p.t { put(which, at + width, sum.y); }
  if ROWS > 2u && t + 2u < p.t { put(which, at + 2u * width, sum.z); }
  if ROWS > 3u && t + 3u < p.t { put(which, at + 3u * width, sum.w); }
}

fn put(which: u32, at: u32, value: f32) {
  if which == 0u {
    q[at] = value;
  } else if which == 1u {
    k[at] = value;
  } else { v[at] = value; }
}
