// f16 rows: four words of two halves.
fn weights8(row: u32, g: u32) -> W8 {
  let i = (row * p.row_bytes) / 4u + g * 4u;
  return W8(
    vec4<f32>(unpack2x16float(w[i]), unpack2x16float(w[i + 1u])),
    vec4<f32>(unpack2x16float(w[i + 2u]), unpack2x16float(w[i + 3u])));
}
