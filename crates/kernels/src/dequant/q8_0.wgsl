// Q8_0, 34 bytes per 32: d f16, 32 signed bytes. value = d q.
fn signed4(word: u32) -> vec4<f32> {
  let v = bitcast<vec4<i32>>(vec4<u32>(word << 24u, word << 16u, word << 8u, word));
  return vec4<f32>(v >> vec4<u32>(24u));
}
fn weights8(row: u32, g: u32) -> W8 {
  let block = row * p.row_bytes + (g >> 2u) * 34u;
  let d = half_at(block);
  let at = block + 2u + (g & 3u) * 8u;
  return W8(signed4(word_at(at)) * d, signed4(word_at(at + 4u)) * d);
}
