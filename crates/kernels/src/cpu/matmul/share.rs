//! Rows of products computed by helpers that share no memory with this device: workers of a browser, each with an instance of the
//! engine of its own.
//!
//! A weight's rows are divided once, when it is first multiplied with: the device keeps the first part (and all bytes), each helper
//! gets a copy of one of the others. Of a product everybody computes their own rows; activations and results travel as bytes, by
//! [`Helpers`]. What a helper does with a request is [`Helper::answer`]. Rows are independent, so the result is the same to the bit.
//!
//! The first product is computed by the device as a whole, too, and compared. A helper that computes otherwise or does not answer is
//! never asked again: the device has all weights, computes the missing rows itself and goes on alone.

use super::{MatmulArgs, Rounding};
use firelight_tensor::DType;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod helper;
#[cfg(test)]
mod tests;

pub use helper::Helper;

/// The way to helpers. A request is written once for all of them; each has a reply of its own.
pub trait Helpers: Send + Sync {
    /// Helpers, numbered from 0.
    fn count(&self) -> usize;
    /// Bytes that a request, and a reply, have at most.
    fn room(&self) -> usize;
    /// Writes a part of the next request.
    fn write(&self, at: usize, bytes: &[u8]);
    /// Hands the first `len` bytes written to a helper.
    fn send(&self, helper: usize, len: usize);
    /// Waits for a helper's reply, which has this length. False if none comes within the time that the way allows, or another one.
    fn receive(&self, helper: usize, reply: &mut [u8]) -> bool;
}

/// How products are shared; see [`crate::cpu::Cpu::sharing`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Helpers at work.
    pub helpers: usize,
    /// Jobs that were divided so far.
    pub jobs: u64,
    /// Bytes of weights that the helpers hold.
    pub bytes: u64,
    /// A helper did not answer, or not rightly: there are none any more.
    pub failed: bool,
}

/// Multiply-adds of a job below which handing over costs more than it brings (about 60 µs of one thread's work in a browser).
const MIN_WORK: usize = 1 << 18;

/// Rows that parts are multiples of.
const GRANULE: usize = super::simd::PANEL;

/// What a request begins with; bytes follow at [`HEAD`].
type Words = [u32; 16];
const HEAD: usize = size_of::<Words>();
/// Products of a request at most.
const PRODUCTS: usize = 8;

const HOLD: u32 = 1;
const FREE: u32 = 2;
const MULTIPLY: u32 = 3;

/// The device's side.
pub(crate) struct Shares {
    helpers: Box<dyn Helpers>,
    count: usize,
    /// Held from a request to its last reply.
    turn: Mutex<Vec<f32>>,
    next: AtomicU32,
    failed: AtomicBool,
    /// What they computed once was right.
    proven: AtomicBool,
    jobs: AtomicU64,
    bytes: AtomicU64,
}

impl Shares {
    pub(crate) fn new(helpers: Box<dyn Helpers>) -> Self {
        Shares {
            count: helpers.count(),
            helpers,
            turn: Mutex::default(),
            next: AtomicU32::new(1),
            failed: AtomicBool::new(false),
            proven: AtomicBool::new(false),
            jobs: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn sharing(&self) -> Sharing {
        let failed = !self.alive();
        Sharing {
            helpers: if failed { 0 } else { self.count },
            jobs: self.jobs.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            failed,
        }
    }

    /// Whether the helpers are there.
    pub(crate) fn alive(&self) -> bool {
        self.count > 0 && !self.failed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<f32>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a reply.
    fn receive(&self, helper: usize, reply: &mut [u8]) -> bool {
        let came = self.alive() && self.helpers.receive(helper, reply);
        if !came {
            self.failed.store(true, Ordering::Relaxed);
        }
        came
    }

    /// The rows of part `i`, 0 being the device's own.
    fn part(&self, n: usize, i: usize) -> Range<usize> {
        let border = |i: usize| (n.div_ceil(GRANULE) * i / (self.count + 1) * GRANULE).min(n);
        // What rounding leaves goes to the helpers: the device has other work besides.
        border(i)..if i == self.count { n } else { border(i + 1) }
    }

    /// Gives the helpers their rows of a weight; 0 if one cannot take them.
    fn hold(&self, args: &MatmulArgs<'_>) -> u32 {
        let turn = self.lock();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(dtype) = DType::ALL.iter().position(|&d| d == args.dtype) else {
            return 0;
        };
        let mut taken = true;
        for helper in 0..self.count {
            let rows = self.part(args.n, helper + 1);
            let bytes = &args.weight[rows.start * args.row_bytes()..rows.end * args.row_bytes()];
            let mut at = 0;
            for piece in bytes.chunks(self.helpers.room() - HEAD) {
                let mut words = Words::default();
                let head = [HOLD, id, dtype as u32, rows.len() as u32, args.k as u32];
                words[..5].copy_from_slice(&head);
                words[5..7].copy_from_slice(&[at, piece.len() as u32]);
                at += piece.len() as u32;
                self.helpers.write(0, bytemuck::bytes_of(&words));
                self.helpers.write(HEAD, piece);
                self.helpers.send(helper, HEAD + piece.len());
                let mut held = [0u8; 4];
                taken &= self.receive(helper, &mut held) && held != [0; 4];
            }
        }
        drop(turn);
        if !taken {
            self.free(id);
            return 0;
        }
        id
    }

    fn free(&self, id: u32) {
        let _turn = self.lock();
        if !self.alive() {
            return;
        }
        let mut words = Words::default();
        words[..2].copy_from_slice(&[FREE, id]);
        self.helpers.write(0, bytemuck::bytes_of(&words));
        (0..self.count).for_each(|helper| self.helpers.send(helper, HEAD));
        for helper in 0..self.count {
            self.receive(helper, &mut []);
        }
    }
}

/// A weight that the helpers have their rows of.
struct Copied {
    /// Where it is in its buffer.
    range: Range<u64>,
    /// 0: the helpers have no room for it.
    id: u32,
    /// Bytes that helpers hold.
    bytes: u64,
    shares: Arc<Shares>,
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.shares.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.id != 0 {
            self.shares.free(self.id);
        }
    }
}

/// What helpers hold of a buffer; they free it with the buffer.
#[derive(Default)]
pub(crate) struct Copies(Mutex<Vec<Copied>>);

impl Copies {
    fn lock(&self) -> MutexGuard<'_, Vec<Copied>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The buffer's contents are about to change.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }
}

/// A product's weight, of which helpers may have rows.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    pub(crate) shares: &'a Arc<Shares>,
    pub(crate) copies: &'a Copies,
    /// The first byte in the buffer.
    pub(crate) offset: u64,
}

impl Offer<'_> {
    /// The weight's number with the helpers, who get their rows of it now if they have not; 0 if there is none.
    fn id(&self, args: &MatmulArgs<'_>) -> u32 {
        let range = self.offset..self.offset + args.weight.len() as u64;
        let mut list = self.copies.lock();
        if let Some(copied) = list.iter().find(|c| c.range == range) {
            return copied.id;
        }
        let id = self.shares.hold(args);
        let theirs = args.n - self.shares.part(args.n, 0).len();
        let bytes = if id == 0 {
            0
        } else {
            theirs * args.row_bytes()
        } as u64;
        self.shares.bytes.fetch_add(bytes, Ordering::Relaxed);
        let shares = Arc::clone(self.shares);
        list.push(Copied {
            range,
            id,
            bytes,
            shares,
        });
        id
    }
}

/// Products whose rows the helpers are computing their part of.
pub(super) struct Job<'a> {
    shares: &'a Shares,
    reply: MutexGuard<'a, Vec<f32>>,
    /// By product: outputs, and whether the helpers have some of them.
    products: Vec<(usize, bool)>,
    t: usize,
    finished: bool,
}

/// A request without a reply: none can follow.
impl Drop for Job<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.shares.failed.store(true, Ordering::Relaxed);
        }
    }
}

/// Asks the helpers for their rows of these products of the same activations, if there are any and it pays.
pub(super) fn begin<'a>(products: &[MatmulArgs<'a>]) -> Option<Job<'a>> {
    let first = products.first()?;
    let shares: &'a Shares = first.share?.shares;
    let (t, k) = (first.t, first.k);
    let work = |n: usize| n.saturating_mul(k).saturating_mul(t);
    let room = shares.helpers.room();
    let outputs: usize = products.iter().map(|p| p.n).sum();
    // A reply is at most one part, rounded up; the largest of all parts is smaller than this.
    let reply = outputs.div_ceil(shares.count + 1) + 2 * GRANULE * products.len();
    if !shares.alive()
        || work(outputs) < MIN_WORK
        || products.len() > PRODUCTS
        || HEAD + t * k * 4 > room
        || t.saturating_mul(reply) > room / 4
    {
        return None;
    }
    let mut ids = [0; PRODUCTS];
    for (id, args) in ids.iter_mut().zip(products) {
        *id = args.share.map_or(0, |offer| offer.id(args));
    }
    if ids == [0; PRODUCTS] || !shares.alive() {
        return None;
    }
    let turn = shares.lock();
    let mut words = Words::default();
    let rounding = match first.rounding {
        Rounding::Never => 0,
        Rounding::Twice => 1,
        Rounding::Once => 2,
    };
    words[..4].copy_from_slice(&[MULTIPLY, rounding, t as u32, k as u32]);
    words[4..4 + PRODUCTS].copy_from_slice(&ids);
    let x: &[u8] = bytemuck::cast_slice(first.x);
    shares.helpers.write(0, bytemuck::bytes_of(&words));
    shares.helpers.write(HEAD, x);
    (0..shares.count).for_each(|helper| shares.helpers.send(helper, HEAD + x.len()));
    shares.jobs.fetch_add(1, Ordering::Relaxed);
    Some(Job {
        shares,
        reply: turn,
        products: products
            .iter()
            .zip(ids)
            .map(|(p, id)| (p.n, id != 0))
            .collect(),
        t,
        finished: false,
    })
}

impl Job<'_> {
    /// The rows of product `i` that the device computes itself.
    pub(super) fn own(&self, i: usize) -> Range<usize> {
        match self.products[i] {
            (n, true) if self.proven() => self.shares.part(n, 0),
            (n, _) => 0..n,
        }
    }

    /// False for the first job: the device computes all of it, too, and compares.
    pub(super) fn proven(&self) -> bool {
        self.shares.proven.load(Ordering::Relaxed)
    }

    /// Waits for the others and gives `put(product, token, row, values)` what they computed, which says whether that may be. False if
    /// it may not, or one did not answer: then the rows that are not the device's own are to be computed, all of them.
    pub(super) fn finish(
        mut self,
        mut put: impl FnMut(usize, usize, usize, &[f32]) -> bool,
    ) -> bool {
        self.finished = true;
        let mut all = true;
        for helper in 0..self.shares.count {
            let rows = |n: usize| self.shares.part(n, helper + 1);
            let shared = || self.products.iter().enumerate().filter(|(_, p)| p.1);
            let len: usize = shared().map(|(_, p)| rows(p.0).len()).sum();
            let reply = &mut *self.reply;
            reply.resize(len * self.t, 0.0);
            // The others are waited for in any case: none may still be at work when the next request is written.
            let bytes = bytemuck::cast_slice_mut(reply);
            if !self.shares.receive(helper, bytes) {
                all = false;
                continue;
            }
            let mut rest = &reply[..];
            for (i, rows) in shared().map(|(i, p)| (i, rows(p.0))) {
                let (values, after) = rest.split_at(rows.len() * self.t);
                rest = after;
                // Empty for a helper without rows of it.
                for (token, values) in values.chunks(rows.len().max(1)).enumerate() {
                    all &= put(i, token, rows.start, values);
                }
            }
        }
        match all {
            true => self.shares.proven.store(true, Ordering::Relaxed),
            false => self.shares.failed.store(true, Ordering::Relaxed),
        }
        all
    }
}
