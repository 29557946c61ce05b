// Q6_K, 210 bytes per 256: 128 bytes of low nibbles, 64 bytes of high 2-bit parts, 16 signed scales, d f16.
// Element e = 128 n + 32 j + l: q = nibble (j / 2) of ql[64 n + 32 (j % 2) + l] + 16 ((qh[32 n + l] >> 2 j) & 3);
// value = d s[8 n + 2 j + l / 16] (q - 32).
fn weights8(row: u32, g: u32) -> W8 {
  let block = row * p.row_bytes + (g >> 5u) * 210u;
  let e = (g & 31u) * 8u;
  let n = e >> 7u;
  let j = (e >> 5u) & 3u;
  let l = e & 31u;
  let s = bitcast<i32>(byte_at(block + 192u + 8u * n + 2u * j + (l >> 4u)) << 24u) >> 24u;
  let d = half_at(block + 208u) * f32(s);
  let low = block + 64u * n + 32u * (j & 1u) + l;
  let high = block + 128u + 32u * n + l;
  let shift = (j >> 1u) * 4u;
  let a = vec4<f32>(bits4(word_at(low), shift, 15u) + bits4(word_at(high), 2u * j, 3u) * 16u) - 32.0;
  let b = vec4<f32>(bits4(word_at(low + 4u), shift, 15u) + bits4(word_at(high + 4u), 2u * j, 3u) * 16u) - 32.0;
  return W8(a * d, b * d);
}
