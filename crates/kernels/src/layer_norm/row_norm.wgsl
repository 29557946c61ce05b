// Normalises the row that starts at `base`, which `element` reads and `sum` is the invocation's share of.
// Operands: those of the part it is joined to; of it `p`, `w`, `b`, `y` and `element` are used here.
// The invocations of a workgroup take every 64th element. Two passes: a large common offset costs no precision.
// Source: Ba et al. 2016; torch.nn.functional.layer_norm.
var<workgroup> partial: array<f32, 64>;

fn normalise(lane: u32, base: u32, sum: f32) {
  let mean = total(lane, sum) / f32(p.d);
  var squares = 0.0;
  for (var i = lane; i < p.d; i += 64u) {
    let v = element(base + i) - mean;
    squares += v * v;
  }
  let scale = 1.0 / sqrt(total(lane, squares) / f32(p.d) + p.eps);
  for (var i = lane; i < p.d; i += 64u) {
    var v = (element(base + i) - mean) * scale * w[i];
    if p.bias == 1u { v += b[i]; }
    y[base + i] = v;
  }
}

// The sum over the workgroup.
fn total(lane: u32, v: f32) -> f32 {
  workgroupBarrier();
  partial[lane] = v;
  workgroupBarrier();
  for (var step = 32u; step > 0u; step >>= 1u) {
    if lane < step { partial[lane] += partial[lane + step]; }
    workgroupBarrier();
  }
  return partial[0];
}
