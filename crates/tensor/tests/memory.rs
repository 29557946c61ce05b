//! Memory while opening and reading, counted by the allocator: hostile claims allocate nothing, and reading a tensor of a
//! large file takes that tensor and no more.

use firelight_tensor::gguf::Writer;
use firelight_tensor::{FileSource, MemSource, Tensor, Weights};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; the counters do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(
            HELD.fetch_add(layout.size(), Relaxed) + layout.size(),
            Relaxed,
        );
        // SAFETY: the caller's duty is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's duty is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes held at once by `f` beyond what was held before.
fn peak(f: impl FnOnce()) -> usize {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    f();
    PEAK.load(Relaxed) - before
}

fn gguf(tensors: u64, entries: u64, body: &[u8]) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(tensors.to_le_bytes());
    file.extend(entries.to_le_bytes());
    file.extend(body);
    file
}

/// One test, so that no other runs in this process meanwhile.
#[test]
fn memory_is_bounded() {
    // The counter counts.
    assert!(peak(|| drop(std::hint::black_box(vec![1u8; 5_000_000]))) >= 5_000_000);

    // Files of about 1 MB that claim far more.
    const SIZE: usize = 1 << 20;
    let mut hostile = Vec::new();
    for claim in [SIZE as u64 / 8, SIZE as u64, 1 << 32, 1 << 60, u64::MAX] {
        for (tensors, entries) in [(claim, 0), (0, claim)] {
            hostile.push(gguf(tensors, entries, &vec![0; SIZE]));
            hostile.push(gguf(tensors, entries, &vec![1; SIZE]));
        }
        for kind in 0..13u32 {
            let mut body = [&1u64.to_le_bytes()[..], b"k", &9u32.to_le_bytes()].concat();
            body.extend(kind.to_le_bytes());
            body.extend(claim.to_le_bytes());
            body.resize(SIZE, 0);
            hostile.push(gguf(0, 1, &body));
        }
        let mut st = claim.to_le_bytes().to_vec();
        st.extend(b"{\"a\":{\"dtype\":\"F32\",\"shape\":[");
        st.extend(b"1,".repeat(SIZE / 2));
        hostile.push(st);
        let mut st = (SIZE as u64).to_le_bytes().to_vec();
        st.extend(b"{\"__metadata__\":{");
        st.extend((0..SIZE / 8).flat_map(|i| format!("\"{i}\":\"\",").into_bytes()));
        st.truncate(SIZE + 8);
        hostile.push(st);
    }
    for (i, file) in hostile.into_iter().enumerate() {
        let source = Arc::new(MemSource::new("hostile", file));
        let used = peak(|| drop(Weights::open(source)));
        assert!(used < 16 * SIZE, "file {i}: {used} bytes");
    }

    // A file of 65 MB, read with positioned reads.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.gguf");
    let big = Tensor::from_f32(&vec![1.0; 8 << 20], &[8 << 20]).unwrap();
    let small = Tensor::from_f32(&vec![2.0; 1 << 18], &[1 << 18]).unwrap();
    let out = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    Writer::new()
        .write_all(out, [("a", &big), ("b", &big), ("small", &small)])
        .unwrap();
    drop((big, small));
    let used = peak(|| {
        let weights = Weights::open(Arc::new(FileSource::open(&path).unwrap())).unwrap();
        assert_eq!(weights.read("small").unwrap().bytes().len(), 1 << 20);
    });
    assert!(used < 3 << 20, "{used} bytes for a tensor of 1 MB");
    // Mapped, it is lent without a copy.
    #[cfg(feature = "mmap")]
    {
        let used = peak(|| {
            let weights = Weights::open_path(&path).unwrap();
            let tensor = weights.read("a").unwrap();
            assert!(tensor.data().is_lent() && tensor.as_f32().unwrap().iter().all(|&v| v == 1.0));
        });
        assert!(used < 1 << 20, "{used} bytes for a mapped tensor");
    }
}
