//! Helpers played by threads with a memory of their own: what they get and give are bytes.

use super::super::tests::{Random, same_bits, weights};
use super::super::{Scratch, run, run_all};
use super::*;
use crate::cpu::{Isa, ThreadPool};
use crate::linear::linear;
use crate::{CpuOptions, Device, Recorder, Weight};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// What a played helper does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The last one is silent from its so manyth request on.
    Silent(usize),
    /// Replies have a wrong bit from the so manyth request on.
    Bit(usize),
    /// No room for weights.
    Full,
}

/// Requests to a helper, and its replies.
type Line = (Sender<Vec<u8>>, Receiver<Vec<u8>>);

struct Played {
    request: Mutex<Vec<u8>>,
    lines: Vec<Mutex<Line>>,
    room: usize,
    patience: Duration,
    /// Rows of weights that the helpers hold.
    rows: Arc<AtomicUsize>,
}

impl Played {
    fn new(count: usize, room: usize, fault: Fault) -> Self {
        let rows = Arc::<AtomicUsize>::default();
        let line = |i: usize| {
            let (ask, asked) = channel::<Vec<u8>>();
            let (reply, replies) = channel();
            let rows = Arc::clone(&rows);
            std::thread::spawn(move || {
                let mut helper = Helper::default();
                let mut before = 0;
                for (at, request) in asked.iter().enumerate() {
                    if matches!(fault, Fault::Silent(n) if i + 1 == count && at >= n) {
                        // The line stays open.
                        continue;
                    }
                    helper.room(request.len()).copy_from_slice(&request);
                    let mut bytes = helper.answer(request.len()).to_vec();
                    let now: usize = helper.held.iter().map(|held| held.n).sum();
                    rows.fetch_add(now.wrapping_sub(before), Ordering::SeqCst);
                    before = now;
                    match fault {
                        Fault::Bit(n) if at >= n && bytes.len() > 4 => bytes[0] ^= 1,
                        Fault::Full if bytes.len() == 4 => bytes.fill(0),
                        _ => {}
                    }
                    if reply.send(bytes).is_err() {
                        return;
                    }
                }
            });
            Mutex::new((ask, replies))
        };
        Played {
            request: Mutex::default(),
            lines: (0..count).map(line).collect(),
            room,
            patience: match fault {
                Fault::Silent(_) => Duration::from_millis(200),
                _ => Duration::from_secs(20),
            },
            rows,
        }
    }
}

impl Helpers for Played {
    fn count(&self) -> usize {
        self.lines.len()
    }

    fn room(&self) -> usize {
        self.room
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        let mut request = self.request.lock().unwrap();
        let len = request.len().max(at + bytes.len());
        request.resize(len, 0);
        request[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn send(&self, helper: usize, len: usize) {
        let bytes = self.request.lock().unwrap()[..len].to_vec();
        self.lines[helper].lock().unwrap().0.send(bytes).unwrap();
    }

    fn receive(&self, helper: usize, reply: &mut [u8]) -> bool {
        let line = self.lines[helper].lock().unwrap();
        match line.1.recv_timeout(self.patience) {
            Ok(bytes) if bytes.len() == reply.len() => {
                reply.copy_from_slice(&bytes);
                true
            }
            _ => false,
        }
    }
}

const TYPES: [DType; 5] = [DType::F32, DType::F16, DType::Q4_1, DType::Q8_0, DType::Q6K];

/// Three products of the same activations with and without helpers; outputs of both, and what was shared.
fn both(
    dtype: DType,
    t: usize,
    rounding: Rounding,
    shares: &Arc<Shares>,
    copies: &Copies,
) -> [Vec<Vec<f32>>; 2] {
    let mut random = Random::new(t as u64 + 1);
    // The second one has too few rows for everybody to get some.
    let (k, sizes) = (768, [500, 33, 257]);
    let all: Vec<u8> = weights(dtype, sizes.iter().sum::<usize>() * k, &mut random);
    let x: Vec<f32> = (0..t * k).map(|_| random.normal()).collect();
    let row = dtype.bytes_for(k).unwrap();
    [false, true].map(|shared| {
        let mut from = 0;
        let products = sizes.map(|n| {
            let weight = &all[from..from + n * row];
            let offset = from as u64;
            from += n * row;
            MatmulArgs {
                dtype,
                weight,
                n,
                k,
                x: &x,
                t,
                rounding,
                isa: Isa::detect(),
                task_work: crate::cpu::matmul::TASK_WORK.default as usize,
                share: shared.then_some(Offer {
                    shares,
                    copies,
                    offset,
                }),
            }
        });
        let mut outs = sizes.map(|n| vec![f32::NAN; t * n]);
        let pool = ThreadPool::new(2);
        let mut scratch = Scratch::default();
        let [a, b, c] = &mut outs;
        run_all(&pool, &products, &mut scratch, &mut [a, b, c]);
        // Alone, as columns of a wider result.
        let mut wide = vec![7.0; t * 600];
        run(&pool, &products[0], &mut scratch, &mut wide, 600, 50);
        outs.into_iter().chain([wide]).collect()
    })
}

fn same(of: &[Vec<Vec<f32>>; 2]) -> bool {
    let [alone, shared] = of;
    alone.iter().zip(shared).all(|(a, b)| same_bits(a, b))
}

#[test]
fn helpers_change_no_bit() {
    for count in [1, 2, 3] {
        let shares = Arc::new(Shares::new(Box::new(Played::new(
            count,
            1 << 20,
            Fault::None,
        ))));
        for dtype in TYPES {
            for (t, rounding) in [
                (1, Rounding::Twice),
                (3, Rounding::Once),
                (9, Rounding::Twice),
                (33, Rounding::Never),
            ] {
                let copies = Copies::default();
                let before = shares.sharing();
                let made = both(dtype, t, rounding, &shares, &copies);
                assert!(same(&made), "{count} helpers, {dtype}, t={t}, {rounding:?}");
                let after = shares.sharing();
                assert_eq!(after.jobs, before.jobs + 2, "{dtype}, t={t}");
                let theirs = after.bytes as usize * 768 / dtype.bytes_for(768 * 768).unwrap();
                assert!(
                    theirs > 700 * count / (count + 1),
                    "{theirs} rows elsewhere"
                );
                drop(copies);
                assert_eq!(shares.sharing().bytes, 0, "freed");
            }
        }
        assert!(!shares.sharing().failed);
    }
}

#[test]
fn what_helpers_compute_is_used_when_the_first_was_right() {
    // Three weights are given, then the first job comes.
    for (wrong, used) in [(3, false), (4, true)] {
        let played = Played::new(1, 1 << 20, Fault::Bit(wrong));
        let shares = Arc::new(Shares::new(Box::new(played)));
        let made = both(DType::Q4_1, 2, Rounding::Twice, &shares, &Copies::default());
        assert_eq!(same(&made), !used, "wrong from {wrong} on");
        assert_eq!(shares.sharing().failed, !used, "wrong from {wrong} on");
    }
}

#[test]
fn weights_larger_than_a_request_go_in_pieces() {
    // 500 rows of 480 bytes, pieces of less than 10 KiB.
    let shares = Arc::new(Shares::new(Box::new(Played::new(2, 10_000, Fault::None))));
    let copies = Copies::default();
    assert!(same(&both(
        DType::Q4_1,
        1,
        Rounding::Twice,
        &shares,
        &copies
    )));
    assert_eq!(shares.sharing().jobs, 2);
    // Activations or results that have no room stay here.
    assert!(same(&both(
        DType::Q4_1,
        9,
        Rounding::Twice,
        &shares,
        &copies
    )));
    assert_eq!(shares.sharing().jobs, 2);
}

#[test]
fn a_silent_helper_is_done_without() {
    // Three weights are given to each, then the first job comes.
    for silent in [0, 1, 3, 4] {
        let played = Played::new(2, 1 << 20, Fault::Silent(silent));
        let shares = Arc::new(Shares::new(Box::new(played)));
        let copies = Copies::default();
        let made = both(DType::Q4_1, 1, Rounding::Twice, &shares, &copies);
        assert!(same(&made), "silent after {silent}");
        let sharing = shares.sharing();
        assert_eq!((sharing.failed, sharing.helpers), (true, 0), "{silent}");
    }
}

#[test]
fn a_helper_without_room_gets_nothing() {
    let played = Played::new(2, 1 << 20, Fault::Full);
    let rows = Arc::clone(&played.rows);
    let shares = Arc::new(Shares::new(Box::new(played)));
    let copies = Copies::default();
    assert!(same(&both(
        DType::F16,
        3,
        Rounding::Twice,
        &shares,
        &copies
    )));
    let sharing = shares.sharing();
    assert_eq!((sharing.jobs, sharing.bytes, sharing.helpers), (0, 0, 2));
    assert_eq!(rows.load(Ordering::SeqCst), 0, "what one took is freed");
}

#[test]
fn a_device_shares_weights_until_they_change_or_go() {
    let options = CpuOptions {
        threads: Some(1),
        ..CpuOptions::default()
    };
    let device = Device::cpu(&options).unwrap();
    let played = Played::new(1, 1 << 20, Fault::None);
    let rows = Arc::clone(&played.rows);
    let cpu = device.as_cpu().unwrap();
    cpu.share_with(Box::new(played)).unwrap();
    let again = Played::new(1, 1 << 20, Fault::None);
    assert!(cpu.share_with(Box::new(again)).is_err());

    let mut random = Random::new(3);
    let (n, k) = (640, 512);
    let bytes = [(); 2].map(|()| weights(DType::Q8_0, n * k, &mut random));
    let fill = |weight: &Weight, bytes: &[u8]| {
        let all = |into: &mut [u8]| {
            into.copy_from_slice(bytes);
            Ok::<(), crate::Error>(())
        };
        device.fill(&weight.shards()[0].array, all).unwrap();
    };
    let x: Vec<f32> = (0..k).map(|_| random.normal()).collect();
    let x = device.upload_f32(&x, &[1, k]).unwrap();
    let product = |device: &Device, x, weight: &Weight| {
        let mut rec = Recorder::new(device);
        let y = linear(&mut rec, x, weight).unwrap();
        rec.finish().unwrap().submit().unwrap();
        pollster::block_on(device.read_f32(&y)).unwrap()
    };
    let weight = Weight::empty(&device, DType::Q8_0, n, k).unwrap();
    let alone = Device::cpu(&options).unwrap();
    let x_alone = alone
        .upload_f32(&pollster::block_on(device.read_f32(&x)).unwrap(), &[1, k])
        .unwrap();
    for (round, bytes) in bytes.iter().enumerate() {
        fill(&weight, bytes);
        assert_eq!(rows.load(Ordering::SeqCst), 0, "what changed is freed");
        let other = Weight::load(&alone, DType::Q8_0, n, k, |_, into| {
            into.copy_from_slice(bytes);
            Ok::<(), crate::Error>(())
        })
        .unwrap();
        let (here, there) = (
            product(&device, &x, &weight),
            product(&alone, &x_alone, &other),
        );
        assert!(same_bits(&here, &there), "round {round}");
        assert_eq!(cpu.sharing().jobs, round as u64 + 1);
        assert_eq!(rows.load(Ordering::SeqCst), n / 2);
    }
    assert_eq!(
        cpu.sharing().bytes,
        device.memory().bytes(crate::Holder::Weights) / 2 - 8
    );
    // What is no weight, and what is small, is not shared.
    let own = device
        .upload_f32(&vec![0.5; n * k], &[n, k])
        .and_then(|w| Weight::from_array(&w))
        .unwrap();
    product(&device, &x, &own);
    let small = Weight::empty(&device, DType::Q8_0, 64, k).unwrap();
    product(&device, &x, &small);
    assert_eq!(cpu.sharing().jobs, 2);
    drop(weight);
    assert_eq!((cpu.sharing().bytes, rows.load(Ordering::SeqCst)), (0, 0));
}

#[test]
fn requests_that_make_no_sense_get_nothing() {
    let words = |head: &[u32]| {
        let mut words = Words::default();
        words[..head.len()].copy_from_slice(head);
        words
    };
    const NOTHING: [u8; 0] = [];
    let mut helper = Helper::default();
    let mut ask = |words: Words, payload: &[u8]| {
        let len = HEAD + payload.len();
        let room = helper.room(len);
        room[..HEAD].copy_from_slice(bytemuck::bytes_of(&words));
        room[HEAD..].copy_from_slice(payload);
        helper.answer(len).to_vec()
    };
    let f32s = DType::ALL.iter().position(|&d| d == DType::F32).unwrap() as u32;
    let (no, yes) = (0u32.to_ne_bytes(), 1u32.to_ne_bytes());
    // Of an unknown type, too large, beyond its end, a second piece without a first.
    assert_eq!(ask(words(&[HOLD, 1, 9999, 8, 8, 0, 0]), &[]), no);
    assert_eq!(
        ask(words(&[HOLD, 1, f32s, u32::MAX, u32::MAX, 0, 0]), &[]),
        no
    );
    assert_eq!(ask(words(&[HOLD, 1, f32s, 1, 8, 0, 64]), &[0; 64]), no);
    assert_eq!(ask(words(&[HOLD, 2, f32s, 1, 8, 16, 16]), &[0; 16]), no);
    assert_eq!(ask(words(&[HOLD, 2, f32s, 1, 8, 0, 99]), &[0; 16]), NOTHING);
    // A number is not used twice.
    assert_eq!(ask(words(&[HOLD, 3, f32s, 2, 8, 0, 64]), &[0; 64]), yes);
    assert_eq!(ask(words(&[HOLD, 3, f32s, 2, 8, 0, 64]), &[0; 64]), no);
    // Too few activations; rows of another length and unknown ones have no outputs.
    assert_eq!(ask(words(&[MULTIPLY, 0, 2, 8, 3]), &[0; 32]), NOTHING);
    assert_eq!(
        ask(words(&[MULTIPLY, 0, u32::MAX, u32::MAX, 3]), &[0; 32]),
        NOTHING
    );
    assert_eq!(ask(words(&[MULTIPLY, 0, 1, 4, 3]), &[0; 16]), NOTHING);
    assert_eq!(ask(words(&[MULTIPLY, 0, 1, 8, 7]), &[0; 32]), NOTHING);
    assert_eq!(ask(words(&[MULTIPLY, 0, 1, 8, 3]), &[0; 32]), [0; 8]);
    assert_eq!(ask(words(&[FREE, 3]), &[]), NOTHING);
    assert_eq!(ask(words(&[MULTIPLY, 0, 1, 8, 3]), &[0; 32]), NOTHING);
    assert_eq!(ask(words(&[17]), &[]), NOTHING);
    assert_eq!(helper.answer(3), NOTHING);
}
