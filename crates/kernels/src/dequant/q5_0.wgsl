// Q5_0, 22 bytes per 32: d f16, 32 high bits, 16 bytes of nibbles. value = d (q - 16).
fn weights8(row: u32, g: u32) -> W8 {
  let block = row * p.row_bytes + (g >> 2u) * 22u;
  let d = half_at(block);
  let high = word_at(block + 2u);
  let at = block + 6u + (g & 1u) * 8u;
  let shift = (g & 2u) * 2u;
  let e = (g & 3u) * 8u;
  let a = vec4<f32>(bits4(word_at(at), shift, 15u) + spread4(high, e, 16u)) - 16.0;
  let b = vec4<f32>(bits4(word_at(at + 4u), shift, 15u) + spread4(high, e + 4u, 16u)) - 16.0;
  return W8(a * d, b * d);
}
