// A head of keys or values as HD/4 vectors; joined to the attention kernels.
// Operands: kc and vc of the part it is joined to.
// A vector is a KV, of f32 or f16.
// Source: none.
fn head_size(n4: u32) -> u32 { return n4; }

// Elements 4 c .. 4 c + 3 of the head at index `at`.
fn key(at: u32, c: u32) -> vec4<f32> { return vec4<f32>(kc[at + c]); }
fn value(at: u32, c: u32) -> vec4<f32> { return vec4<f32>(vc[at + c]); }
