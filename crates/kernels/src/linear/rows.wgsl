// Eight elements of a row of w times up to four rows of x; joined to products of few rows, which so read a weight once for all of them.
// Operands: x and p.t, p.k of the part it is joined to.
// The lanes of a vec4 are rows of x; of the lanes from ROWS on nothing is computed.
// Source: none.
override ROWS: u32 = 1u;
// Of a workgroup; with fewer, more of its 64 invocations share a row of w.
override OUTPUTS: u32 = 8u;

// How many times OUTPUTS covers n outputs.
fn blocks(n: u32) -> u32 { return (n + OUTPUTS - 1u) / OUTPUTS; }

// Where rows t0, t0 + 1, ... begin; those beyond the last repeat it and are not stored.
fn begins(t0: u32) -> vec4<u32> {
  return min(vec4<u32>(t0, t0 + 1u, t0 + 2u, t0 + 3u), vec4<u32>(p.t - 1u)) * (p.k / 4u);
}

fn products(v: W8, g: u32, at: vec4<u32>) -> vec4<f32> {
  let i = at + vec4<u32>(2u * g);
  var d = vec4<f32>();
  d.x = dot(v.lo, x[i.x]) + dot(v.hi, x[i.x + 1u]);
  if ROWS > 1u { d.y = dot(v.lo, x[i.y]) + dot(v.hi, x[i.y + 1u]); }
  if ROWS > 2u { d.z = dot(v.lo, x[i.z]) + dot(v.hi, x[i.z + 1u]); }
  if ROWS > 3u { d.w = dot(v.lo, x[i.w]) + dot(v.hi, x[i.w + 1u]); }
  return d;
}
