// Q4_K, 144 bytes per 256: d f16, dmin f16, 12 bytes of 6-bit (scale, min), 128 bytes of nibbles.
// Element e = 32 j + l: value = d s_j q - dmin m_j, q = low (j even) or high (j odd) nibble of qs[32 (j / 2) + l].
fn scale_min(at: u32, j: u32) -> vec2<f32> {
  if j < 4u {
    return vec2<f32>(f32(byte_at(at + j) & 63u), f32(byte_at(at + j + 4u) & 63u));
  }
  let low = byte_at(at + j + 4u);
  return vec2<f32>(
    f32((low & 15u) | ((byte_at(at + j - 4u) >> 6u) << 4u)),
    f32((low >> 4u) | ((byte_at(at + j) >> 6u) << 4u)));
}
fn weights8(row: u32, g: u32) -> W8 {
  let block = row * p.row_bytes + (g >> 5u) * 144u;
  let j = (g & 31u) >> 2u;
  let l = (g & 3u) * 8u;
  let sm = unpack2x16float(w[block >> 2u]) * scale_min(block + 4u, j);
  let at = (block + 16u + 32u * (j >> 1u) + l) >> 2u;
  let shift = (j & 1u) * 4u;
  let a = vec4<f32>(bits4(w[at], shift, 15u));
  let b = vec4<f32>(bits4(w[at + 1u], shift, 15u));
  return W8(a * sm.x - sm.y, b * sm.x - sm.y);
}
