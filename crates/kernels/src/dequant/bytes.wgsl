// Reading bytes, words and halves of `w` at 2-byte aligned addresses.
// Operands: w (the packed weight), p.row_bytes.

struct W8 { lo: vec4<f32>, hi: vec4<f32> }

// Four bytes at a 2-byte aligned address.
fn word_at(byte: u32) -> u32 {
  let i = byte >> 2u;
  let lo = w[i];
  if (byte & 2u) == 0u { return lo; }
  return (lo >> 16u) | (w[i + 1u] << 16u);
}

fn byte_at(byte: u32) -> u32 {
  return (w[byte >> 2u] >> ((byte & 3u) * 8u)) & 0xffu;
}

// An f16 at a 2-byte aligned address; needs no f16 feature.
fn half_at(byte: u32) -> f32 {
  let pair = unpack2x16float(w[byte >> 2u]);
  return select(pair.x, pair.y, (byte & 2u) != 0u);
}

// The four bytes of a word, each shifted and masked.
fn bits4(word: u32, shift: u32, mask: u32) -> vec4<u32> {
  return (vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u) >> vec4<u32>(shift)) & vec4<u32>(mask);
}

// Bits `i .. i+4` of a word, one per lane, as 0 or `one`.
fn spread4(word: u32, i: u32, one: u32) -> vec4<u32> {
  let b = word >> i;
  return (vec4<u32>(b, b >> 1u, b >> 2u, b >> 3u) & vec4<u32>(1u)) * one;
}
