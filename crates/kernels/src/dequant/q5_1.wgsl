// Q5_1, 24 bytes per 32: d f16, m f16, 32 high bits, 16 bytes of nibbles. value = d q + m.
fn weights8(row: u32, g: u32) -> W8 {
  let block = (row * p.row_bytes + (g >> 2u) * 24u) >> 2u;
  let dm = unpack2x16float(w[block]);
  let high = w[block + 1u];
  let at = block + 2u + (g & 1u) * 2u;
  let shift = (g & 2u) * 2u;
  let e = (g & 3u) * 8u;
  let a = vec4<f32>(bits4(w[at], shift, 15u) + spread4(high, e, 16u));
  let b = vec4<f32>(bits4(w[at + 1u], shift, 15u) + spread4(high, e + 4u, 16u));
  return W8(a * dm.x + dm.y, b * dm.x + dm.y);
}
