// Q5_K, 176 bytes per 256: d f16, dmin f16, 12 bytes of 6-bit (scale, min), 32 bytes of high bits, 128 bytes of nibbles.
// As Q4_K with bit j of qh[l] as the value's fifth bit.
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
  let block = row * p.row_bytes + (g >> 5u) * 176u;
  let j = (g & 31u) >> 2u;
  let l = (g & 3u) * 8u;
  let sm = unpack2x16float(w[block >> 2u]) * scale_min(block + 4u, j);
  let at = (block + 48u + 32u * (j >> 1u) + l) >> 2u;
  let high = (block + 16u + l) >> 2u;
  let shift = (j & 1u) * 4u;
  let a = vec4<f32>(bits4(w[at], shift, 15u) + bits4(w[high], j, 1u) * 16u);
  let b = vec4<f32>(bits4(w[at + 1u], shift, 15u) + bits4(w[high + 1u], j, 1u) * 16u);
  return W8(a * sm.x - sm.y, b * sm.x - sm.y);
}
