// Q4_0, 18 bytes per 32: d f16, 16 bytes of nibbles (low: 0..16, high: 16..32). value = d (q - 8).
fn weights8(row: u32, g: u32) -> W8 {
  let block = row * p.row_bytes + (g >> 2u) * 18u;
  let d = half_at(block);
  let at = block + 2u + (g & 1u) * 8u;
  let shift = (g & 2u) * 2u;
  let a = vec4<f32>(bits4(word_at(at), shift, 15u)) - 8.0;
  let b = vec4<f32>(bits4(word_at(at + 4u), shift, 15u)) - 8.0;
  return W8(a * d, b * d);
}
