// Q4_1, 20 bytes per 32: d f16, m f16, 16 bytes of nibbles (low: 0..16, high: 16..32). value = d q + m.
fn weights8(row: u32, g: u32) -> W8 {
  let block = (row * p.row_bytes + (g >> 2u) * 20u) >> 2u;
  let dm = unpack2x16float(w[block]);
  let at = block + 1u + (g & 1u) * 2u;
  let shift = (g & 2u) * 2u;
  let a = vec4<f32>(bits4(w[at], shift, 15u));
  let b = vec4<f32>(bits4(w[at + 1u], shift, 15u));
  return W8(a * dm.x + dm.y, b * dm.x + dm.y);
}
