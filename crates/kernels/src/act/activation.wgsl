// The activation functions, by the numbers of `Activation`.
// Operands: none; a part that `act` and `gated_act` share.
// A function of one number; no barriers.
// Source: ACT2FN in transformers; erf as a rational function of degree 13 over 8 after Eigen's `generic_fast_erf_float`.
fn activate(act: u32, x: f32) -> f32 {
  switch act {
    case 0u: { return x * logistic(x); }
    // tanh is +-1 in f32 from 10 on; some drivers' tanh overflows.
    case 1u: { return 0.5 * x * (1.0 + tanh(clamp(0.7978845608 * (x + 0.044715 * x * x * x), -15.0, 15.0))); }
    case 2u: { return 0.5 * x * (1.0 + erf(x * 0.70710678118)); }
    case 3u: { return x * logistic(1.702 * x); }
    case 4u: { return max(x, 0.0); }
    case 5u: { return tanh(clamp(x, -15.0, 15.0)); }
    default: { return logistic(x); }
  }
}

fn logistic(x: f32) -> f32 { return 1.0 / (1.0 + exp(-clamp(x, -80.0, 80.0))); }

fn erf(x: f32) -> f32 {
  // There erf rounds to +-1.
  if abs(x) >= 3.92 { return sign(x); }
  let s = x * x;
  var a = -2.72614225801306e-10;
  a = a * s + 2.77068142495902e-08;
  a = a * s - 2.10102402082508e-06;
  a = a * s - 5.69250639462346e-05;
  a = a * s - 7.34990630326855e-04;
  a = a * s - 2.95459980854025e-03;
  a = a * s - 1.60960333262415e-02;
  var b = -1.45660718464996e-05;
  b = b * s - 2.13374055278905e-04;
  b = b * s - 1.68282697438203e-03;
  b = b * s - 7.37332916720468e-03;
  b = b * s - 1.42647390514189e-02;
  return x * a / b;
}
