//! Loading a model whose files are still arriving: tensors go to the device one after another, as their bytes come.
//!
//! [`load`] first runs the model's own loading with a planning checkpoint: arrays are allocated, what belongs in them is noted.
//! Then the notes are worked off in file order, in pieces of a few MiB, each when its bytes are there. So host memory holds a piece
//! and not a tensor, models are written without a thought of this, and native and browser programs load the same way.

use crate::checkpoint::Checkpoint;
use crate::fill::Fill;
use crate::models::{self, CausalLm};
use crate::source::CancelToken;
use crate::{Error, Result};
use firelight_kernels::Device;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

/// A future that stays on its thread.
pub type Waiting<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Tells when bytes of a checkpoint's files can be read.
pub trait Arrivals {
    /// Waits until bytes `range` of file `part` (as [`firelight_tensor::Weights::sources`] counts) can be read.
    fn arrived(&self, part: usize, range: Range<u64>) -> Waiting<'_>;

    /// If a read failed because its bytes were not there yet: waits for these bytes.
    fn missing(&self) -> Option<Waiting<'_>>;
}

/// Files that are there.
pub struct Here;

impl Arrivals for Here {
    fn arrived(&self, _: usize, _: Range<u64>) -> Waiting<'_> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn missing(&self) -> Option<Waiting<'_>> {
        None
    }
}

/// Bytes given to the device before it is waited for.
const IN_FLIGHT: u64 = 32 << 20;

/// Loads a checkpoint's model onto a device, as its bytes arrive. `progress` gets bytes loaded and bytes in all.
///
/// # Errors
/// As [`models::load`]; `Cancelled`; what `arrivals` fails with.
pub async fn load(
    checkpoint: &Checkpoint,
    device: &Device,
    arrivals: &dyn Arrivals,
    cancel: &CancelToken,
    progress: &mut (dyn FnMut(u64, u64) + '_),
) -> Result<Box<dyn CausalLm>> {
    let (narrow, mut most) = (checkpoint.narrow(), 0);
    let mut progress = |loaded: u64, total| {
        most = loaded.max(most);
        progress(most, total);
    };
    let before = narrow.is_refuted();
    match once(checkpoint, device, arrivals, cancel, &mut progress).await {
        Err(_) if narrow.is_refuted() != before => {
            once(checkpoint, device, arrivals, cancel, &mut progress).await
        }
        loaded => loaded,
    }
}

async fn once(
    checkpoint: &Checkpoint,
    device: &Device,
    arrivals: &dyn Arrivals,
    cancel: &CancelToken,
    progress: &mut (dyn FnMut(u64, u64) + '_),
) -> Result<Box<dyn CausalLm>> {
    let total = checkpoint.weights().total_bytes();
    let (model, mut fills) = loop {
        let plan = checkpoint.planning();
        match models::load(&plan, device, &mut |_, _| ()) {
            Ok(model) => break (model, plan.into_plan()),
            Err(e) => match arrivals.missing() {
                Some(wait) => wait.await?,
                None => return Err(e),
            },
        }
    };
    fills.sort_by_key(|f| {
        let (part, range) = f.range();
        (part, range.start)
    });
    let (mut loaded, mut in_flight) = (0, 0);
    for fill in &fills {
        let (part, range) = fill.range();
        let len = range.end - range.start;
        let mut at = 0;
        while at < len {
            if cancel.heard().await {
                return Err(Error::Cancelled);
            }
            let step = fill.piece().min(len - at);
            let wanted = range.start + at..range.start + at + step;
            fill_piece(checkpoint, device, arrivals, fill, part, wanted, at).await?;
            at += step;
            loaded += step;
            in_flight += step;
            progress(loaded.min(total), total);
            if in_flight >= IN_FLIGHT {
                device.flushed().await?;
                in_flight = 0;
            }
        }
    }
    device.flushed().await?;
    Ok(model)
}

async fn fill_piece(
    checkpoint: &Checkpoint,
    device: &Device,
    arrivals: &dyn Arrivals,
    fill: &Fill,
    part: usize,
    wanted: Range<u64>,
    at: u64,
) -> Result<()> {
    let step = wanted.end - wanted.start;
    arrivals.arrived(part, wanted).await?;
    loop {
        match fill.run(checkpoint, device, at, step) {
            Ok(()) => return Ok(()),
            Err(e) => match arrivals.missing() {
                Some(wait) => wait.await?,
                None => return Err(e),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, EngineOptions, GenerateOptions, Session};
    use firelight_tensor::{ByteSource, FileSource};
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    /// A file of which only what was waited for can be read.
    struct Slow {
        file: FileSource,
        there: Mutex<Vec<bool>>,
        wanted: Mutex<Option<Range<u64>>>,
    }

    const BLOCK: u64 = 1000;

    impl Slow {
        fn bring(&self, range: Range<u64>) {
            let mut there = self.there.lock().unwrap();
            for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
                if let Some(block) = there.get_mut(block as usize) {
                    *block = true;
                }
            }
        }
    }

    impl ByteSource for Slow {
        fn len(&self) -> u64 {
            self.file.len()
        }
        fn name(&self) -> &str {
            self.file.name()
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> firelight_tensor::Result<()> {
            let range = offset..offset + buf.len() as u64;
            let there = self.there.lock().unwrap();
            for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
                if there.get(block as usize) != Some(&true) {
                    *self.wanted.lock().unwrap() = Some(range);
                    return Err(firelight_tensor::Error::InvalidInput(
                        "not there yet".into(),
                    ));
                }
            }
            self.file.read_at(offset, buf)
        }
    }

    struct Coming(Arc<Slow>, Mutex<usize>);

    impl Arrivals for Coming {
        fn arrived(&self, part: usize, range: Range<u64>) -> Waiting<'_> {
            assert_eq!(part, 0);
            *self.1.lock().unwrap() += 1;
            Box::pin(async move {
                self.0.bring(range);
                Ok(())
            })
        }
        fn missing(&self) -> Option<Waiting<'_>> {
            let range = self.0.wanted.lock().unwrap().take()?;
            Some(self.arrived(0, range))
        }
    }

    fn answer(engine: &Engine, model: &crate::LoadedModel) -> Vec<u32> {
        let mut session = Session::new(engine, model).expect("a session");
        let options = GenerateOptions {
            max_tokens: 12,
            ignore_eos: true,
            ..Default::default()
        };
        let prompt = [3, 5, 7, 11, 13];
        let cancel = CancelToken::new();
        let mut ignore = |_| ();
        let answer = session.generate(&prompt, &options, &cancel, &mut ignore);
        pollster::block_on(answer).expect("an answer").ids
    }

    #[test]
    fn a_model_loads_while_its_file_arrives() {
        let engine = pollster::block_on(Engine::new(EngineOptions {
            device: crate::DeviceChoice::Cpu,
            self_test: false,
            ..Default::default()
        }))
        .expect("a CPU");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/llama");
        let whole = pollster::block_on(engine.load(&folder, &mut |_, _| ())).expect("loads");

        let file = FileSource::open(folder.join("model.safetensors")).expect("the weights");
        let blocks = file.len().div_ceil(BLOCK) as usize;
        let slow = Arc::new(Slow {
            file,
            there: Mutex::new(vec![false; blocks]),
            wanted: Mutex::default(),
        });
        let small = ["config.json", "tokenizer.json", "tokenizer_config.json"];
        let files: BTreeMap<String, Vec<u8>> = small
            .into_iter()
            .filter_map(|n| Some((n.to_owned(), std::fs::read(folder.join(n)).ok()?)))
            .collect();
        let coming = Coming(Arc::clone(&slow), Mutex::new(0));
        // The header, too, is read when it is there.
        let checkpoint = loop {
            let source: Arc<dyn ByteSource> = Arc::clone(&slow) as _;
            match Checkpoint::from_parts("llama", vec![source], files.clone()) {
                Ok(checkpoint) => break Arc::new(checkpoint),
                Err(e) => match coming.missing() {
                    Some(wait) => pollster::block_on(wait).expect("arrives"),
                    None => panic!("{e}"),
                },
            }
        };
        let mut seen = (0, 0);
        let cancel = CancelToken::new();
        let mut watch = |done, total| {
            assert!(done >= seen.0, "progress went back");
            seen = (done, total);
        };
        let load = engine.load_arriving(checkpoint, &coming, &cancel, &mut watch);
        let streamed = pollster::block_on(load).expect("loads");
        assert_eq!(seen.0, seen.1);
        assert!(*coming.1.lock().unwrap() > 10, "tensors were waited for");
        assert_eq!(answer(&engine, &whole), answer(&engine, &streamed));
    }

    #[test]
    fn a_cancelled_load_says_so_and_leaves_no_memory_behind() {
        let engine = pollster::block_on(Engine::new(EngineOptions {
            device: crate::DeviceChoice::Cpu,
            self_test: false,
            ..Default::default()
        }))
        .expect("a CPU");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/llama");
        let checkpoint = Arc::new(Checkpoint::open(folder).expect("opens"));
        let cancel = CancelToken::new();
        let mut stop = |_, _| cancel.cancel();
        let load = engine.load_arriving(Arc::clone(&checkpoint), &Here, &cancel, &mut stop);
        let Err(error) = pollster::block_on(load) else {
            panic!("it was cancelled")
        };
        assert!(matches!(error, Error::Cancelled), "{error}");
        engine.device().trim();
        assert_eq!(engine.device().memory().total_bytes(), 0);
    }
}
