// bf16 rows: four words of two halves, each the upper half of an f32.
fn pair(word: u32) -> vec2<f32> {
  return bitcast<vec2<f32>>(vec2<u32>(word << 16u, word & 0xffff0000u));
}
fn weights8(row: u32, g: u32) -> W8 {
  let i = (row * p.row_bytes) / 4u + g * 4u;
  return W8(vec4<f32>(pair(w[i]), pair(w[i + 1u])), vec4<f32>(pair(w[i + 2u]), pair(w[i + 3u])));
}
