// Unfold. y[b, oy, ox, (c KH + ky) KW + kx] = x[b, oy SH + ky - PH, ox SW + kx - PW, c], 0 outside and beyond the patch.
// Operands: x f32 [B, H, W, C], y f32 [B OH OW, LDY].
// One invocation moves one element.
// Source: torch.nn.functional.unfold.
struct Params {
  b: u32, h: u32, w: u32, c: u32, oh: u32, ow: u32, kh: u32, kw: u32,
  sh: u32, sw: u32, ph: u32, pw: u32, ldy: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  let patches = p.b * p.oh * p.ow;
  if i >= patches * p.ldy { return; }
  let col = i % p.ldy;
  let patch_ = i / p.ldy;
  var value = 0.0;
  if col < p.c * p.kh * p.kw {
    let kx = col % p.kw;
    let ky = (col / p.kw) % p.kh;
    let c = col / (p.kw * p.kh);
    // What lies before the grid wraps round and is beyond its end.
    let iy = (patch_ / p.ow) % p.oh * p.sh + ky - p.ph;
    let ix = patch_ % p.ow * p.sw + kx - p.pw;
    if iy < p.h && ix < p.w {
      value = x[((patch_ / (p.ow * p.oh) * p.h + iy) * p.w + ix) * p.c + c];
    }
  }
  y[i] = value;
}
