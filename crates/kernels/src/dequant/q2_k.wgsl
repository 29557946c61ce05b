// Q2_K, 84 bytes per 256: 16 bytes of (scale, min) nibbles, 64 bytes of 2-bit values, d f16, dmin f16.
// Element e = 128 n + 32 j + l: value = d (s & 15) ((q[32 n + l] >> 2 j) & 3) - dmin (s >> 4), s = scales[8 n + 2 j + l / 16].
fn weights8(row: u32, g: u32) -> W8 {
  let block = row * p.row_bytes + (g >> 5u) * 84u;
  let e = (g & 31u) * 8u;
  let n = e >> 7u;
  let j = (e >> 5u) & 3u;
  let l = e & 31u;
  let s = byte_at(block + 8u * n + 2u * j + (l >> 4u));
  let d = half_at(block + 80u) * f32(s & 15u);
  let m = half_at(block + 82u) * f32(s >> 4u);
  let at = block + 16u + 32u * n + l;
  let a = vec4<f32>(bits4(word_at(at), 2u * j, 3u));
  let b = vec4<f32>(bits4(word_at(at + 4u), 2u * j, 3u));
  return W8(a * d - m, b * d - m);
}
