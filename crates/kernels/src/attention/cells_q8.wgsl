// A head of keys or values as blocks of 34 bytes (q8_0: an f16 scale, 32 signed bytes), two of which are 17 words; joined to the
// attention kernels.
// Operands: kc and vc of the part it is joined to.
// Source: GGML's q8_0.
fn head_size(n4: u32) -> u32 { return n4 / 16u * 17u; }

fn four(bits: u32) -> vec4<f32> {
  return vec4<f32>(vec4<i32>(vec4<u32>(bits << 24u, bits << 16u, bits << 8u, bits)) >> vec4<u32>(24u));
}

// Elements 4 c .. 4 c + 3 of the head at index `at`. The first block of two begins with a word, the second within one.
fn key(at: u32, c: u32) -> vec4<f32> {
  let pair = at + c / 16u * 17u;
  let i = c % 16u;
  if i < 8u { return four((kc[pair + i] >> 16u) | (kc[pair + i + 1u] << 16u)) * unpack2x16float(kc[pair]).x; }
  return four(kc[pair + i + 1u]) * unpack2x16float(kc[pair + 8u]).y;
}
fn value(at: u32, c: u32) -> vec4<f32> {
  let pair = at + c / 16u * 17u;
  let i = c % 16u;
  if i < 8u { return four((vc[pair + i] >> 16u) | (vc[pair + i + 1u] << 16u)) * unpack2x16float(vc[pair]).x; }
  return four(vc[pair + i + 1u]) * unpack2x16float(vc[pair + 8u]).y;
}
