// Q3_K, 110 bytes per 256: 32 bytes of high bits, 64 bytes of 2-bit values, 12 bytes of 6-bit scales, d f16.
// Element e = 128 n + 32 j + l: value = d (s - 32) (((q[32 n + l] >> 2 j) & 3) - (bit 4 n + j of h[l] ? 0 : 4)).
fn scale6(block: u32, i: u32) -> f32 {
  let low = (byte_at(block + 96u + (i & 7u)) >> ((i >> 3u) * 4u)) & 15u;
  let high = (byte_at(block + 104u + (i & 3u)) >> ((i >> 2u) * 2u)) & 3u;
  return f32(low | (high << 4u)) - 32.0;
}
fn weights8(row: u32, g: u32) -> W8 {
  let block = row * p.row_bytes + (g >> 5u) * 110u;
  let e = (g & 31u) * 8u;
  let n = e >> 7u;
  let j = (e >> 5u) & 3u;
  let l = e & 31u;
  let d = half_at(block + 108u) * scale6(block, 8u * n + 2u * j + (l >> 4u));
  let at = block + 32u + 32u * n + l;
  let bit = 4u * n + j;
  let a = vec4<f32>(bits4(word_at(at), 2u * j, 3u) + bits4(word_at(block + l), bit, 1u) * 4u) - 4.0;
  let b = vec4<f32>(bits4(word_at(at + 4u), 2u * j, 3u) + bits4(word_at(block + l + 4u), bit, 1u) * 4u) - 4.0;
  return W8(a * d, b * d);
}
