//! The helper's side: rows that it holds, and what it does with a request.

use super::super::prepare::Buffer;
use super::super::{MatmulArgs, Rounding, Scratch, run_all};
use super::{FREE, HEAD, HOLD, MULTIPLY, Words};
use crate::cpu::{Isa, ThreadPool};
use firelight_tensor::{AlignedBuf, DType};

/// Rows of a weight.
pub(super) struct Rows {
    id: u32,
    dtype: DType,
    pub(super) n: usize,
    k: usize,
    bytes: AlignedBuf,
}

/// The helper's side: what it holds, and what it does with a request.
pub struct Helper {
    pool: ThreadPool,
    scratch: Scratch,
    request: Buffer,
    reply: Vec<f32>,
    /// By rising number.
    pub(super) held: Vec<Rows>,
}

impl Default for Helper {
    fn default() -> Self {
        Helper {
            pool: ThreadPool::new(1),
            scratch: Scratch::default(),
            request: Buffer::default(),
            reply: Vec::new(),
            held: Vec::new(),
        }
    }
}

impl Helper {
    /// Where a request of `len` bytes is to be put.
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        self.request.resize(len)
    }

    /// Does what the request of `len` bytes in [`Helper::room`] asks for; the reply. One that makes no sense gets an empty one.
    pub fn answer(&mut self, len: usize) -> &[u8] {
        let done = self.done(len);
        if done.is_none() {
            self.reply.clear();
        }
        self.reply()
    }

    /// The last reply.
    pub fn reply(&self) -> &[u8] {
        bytemuck::cast_slice(&self.reply)
    }

    fn done(&mut self, len: usize) -> Option<()> {
        let bytes = self.request.get::<u8>().get(..len)?;
        let (head, payload) = bytes.split_at_checked(HEAD)?;
        let words: Words = bytemuck::pod_read_unaligned(head);
        match words {
            [HOLD, id, dtype, n, k, at, size, ..] => {
                let shape = (n as usize, k as usize);
                let payload = payload.get(..size as usize)?;
                let held = hold(&mut self.held, id, dtype, shape, at as usize, payload).is_some();
                self.reply.clear();
                self.reply.push(f32::from_bits(held.into()));
            }
            [FREE, id, ..] => {
                self.held.retain(|rows| rows.id != id);
                self.reply.clear();
            }
            [MULTIPLY, rounding, t, k, ref ids @ ..] => {
                let (t, k) = (t as usize, k as usize);
                let x: &[f32] = bytemuck::try_cast_slice(payload).ok()?;
                let x = x.get(..t.checked_mul(k)?)?;
                let rows_of = |id: &u32| {
                    let at = self.held.binary_search_by_key(id, |rows| rows.id).ok()?;
                    self.held.get(at).filter(|rows| rows.k == k)
                };
                let of = |rows: &'_ Rows| rows.n * rows.k / rows.dtype.block_len();
                let products: Vec<_> = ids
                    .iter()
                    .filter_map(rows_of)
                    .map(|rows| MatmulArgs {
                        dtype: rows.dtype,
                        weight: &rows.bytes[..of(rows) * rows.dtype.block_bytes()],
                        n: rows.n,
                        k,
                        x,
                        t,
                        rounding: match rounding {
                            0 => Rounding::Never,
                            1 => Rounding::Twice,
                            _ => Rounding::Once,
                        },
                        isa: Isa::detect(),
                        task_work: crate::cpu::matmul::TASK_WORK.default as usize,
                        share: None,
                    })
                    .collect();
                let elements = products.iter().map(|p| p.n).sum::<usize>().checked_mul(t)?;
                self.reply.resize(elements, 0.0);
                let mut outs = Vec::with_capacity(products.len());
                let mut rest = &mut self.reply[..];
                for args in &products {
                    let (out, after) = rest.split_at_mut(args.n * t);
                    outs.push(out);
                    rest = after;
                }
                run_all(&self.pool, &products, &mut self.scratch, &mut outs);
            }
            _ => return None,
        }
        Some(())
    }
}

/// Takes a piece of a weight's rows; the first one makes room for all. `None` if there is none, or it does not fit.
fn hold(
    held: &mut Vec<Rows>,
    id: u32,
    dtype: u32,
    (n, k): (usize, usize),
    at: usize,
    piece: &[u8],
) -> Option<()> {
    if at == 0 {
        let dtype = *DType::ALL.get(dtype as usize)?;
        let size = dtype.bytes_for(k).ok()?.checked_mul(n)?;
        // As on the device: the last word may reach past the last block.
        let bytes = AlignedBuf::zeroed(size.checked_add(4)?).ok()?;
        if held.last().is_some_and(|last| last.id >= id) {
            return None;
        }
        held.push(Rows {
            id,
            dtype,
            n,
            k,
            bytes,
        });
    }
    let rows = held.last_mut().filter(|rows| rows.id == id)?;
    rows.bytes
        .get_mut(at..at.checked_add(piece.len())?)?
        .copy_from_slice(piece);
    Some(())
}
