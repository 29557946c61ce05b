//! Other types for a model's matrices than those of its file: `q4`, or `embed=f16,head=f32,default=q4`.
//!
//! Vectors (norms, biases) stay as they are. A matrix whose rows are no whole blocks of the type asked for gets the nearest type
//! that fits, as llama.cpp's quantiser does: q4_k → q5_0, q5_k → q5_1, q6_k → q8_0, q2_k and q3_k → q4_0, and f16 where no
//! block format fits.

use crate::{Error, Result};
use firelight_tensor::{AlignedBuf, DType, Tensor, TensorInfo};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

/// A type by its name, or one of two grades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Exactly(DType),
    /// q4_k, or q4_1 where rows are no multiples of 256.
    Q4,
}

impl Choice {
    fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "q4" => Choice::Q4,
            "q8" => Choice::Exactly(DType::Q8_0),
            _ => Choice::Exactly(weight_type(name)?),
        })
    }

    fn for_rows(self, cols: usize) -> DType {
        let mut dtype = match self {
            Choice::Exactly(dtype) => dtype,
            Choice::Q4 if cols.is_multiple_of(256) => DType::Q4K,
            Choice::Q4 => DType::Q4_1,
        };
        while !cols.is_multiple_of(dtype.block_len()) {
            dtype = match dtype {
                DType::Q4K => DType::Q5_0,
                DType::Q5K => DType::Q5_1,
                DType::Q6K => DType::Q8_0,
                DType::Q2K | DType::Q3K => DType::Q4_0,
                _ => DType::F16,
            };
        }
        dtype
    }
}

/// The types weights can have, by name.
fn weight_type(name: &str) -> Result<DType> {
    let known = firelight_kernels::dequant::WEIGHT_DTYPES;
    let found = known.iter().copied().find(|dtype| dtype.name() == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|dtype| dtype.name()).collect();
        Error::invalid(format!(
            "no weight type is called `{name}`; expected q4, q8, or one of {}",
            names.join(", ")
        ))
    })
}

/// Which type each component's matrices get; see the module's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dtypes {
    default: Option<Choice>,
    embed: Option<Choice>,
    head: Option<Choice>,
}

impl FromStr for Dtypes {
    type Err = Error;

    /// `TYPE`, or `COMPONENT=TYPE` with commas between them; components are `embed`, `head` (with tied weights the same matrix)
    /// and `default`.
    fn from_str(text: &str) -> Result<Self> {
        let mut dtypes = Dtypes::default();
        for part in text.split(',') {
            let (component, name) = part.split_once('=').unwrap_or(("default", part));
            let place = match component.trim() {
                "default" => &mut dtypes.default,
                "embed" => &mut dtypes.embed,
                "head" => &mut dtypes.head,
                other => {
                    return Err(Error::invalid(format!(
                        "no component is called `{other}`; expected embed, head or default, as in embed=f16,default=q4"
                    )));
                }
            };
            if place.is_some() {
                return Err(Error::invalid(format!(
                    "`{component}` is there twice in `{text}`"
                )));
            }
            *place = Some(Choice::parse(name.trim())?);
        }
        Ok(dtypes)
    }
}

impl Dtypes {
    /// True if every matrix stays as it is.
    pub fn is_empty(&self) -> bool {
        *self == Dtypes::default()
    }

    /// The type for the matrix `name` (upstream's or GGUF's) with rows of `cols` elements, now in `stored`.
    pub fn of(&self, name: &str, stored: DType, cols: usize) -> DType {
        self.asked(name, cols).unwrap_or(stored)
    }

    /// The type that was asked for the matrix `name` with rows of `cols` elements.
    pub(crate) fn asked(&self, name: &str, cols: usize) -> Option<DType> {
        let component = match component(name) {
            Component::Embed => self.embed,
            Component::Head => self.head,
            Component::Other => None,
        };
        let choice = component.or(self.default);
        choice.map(|choice| choice.for_rows(cols))
    }

    /// These for a model whose head is its embedding: the one matrix gets the type that either name says. `encoder`: the family,
    /// if it has no head at all.
    pub(crate) fn tied(mut self, encoder: Option<&String>) -> Result<Self> {
        let Some(head) = self.head.take() else {
            return Ok(self);
        };
        if let Some(family) = encoder {
            return Err(Error::invalid(format!(
                "`head` of a {family} model, which has none; expected embed or default"
            )));
        }
        if self.embed.is_some_and(|embed| embed != head) {
            return Err(Error::invalid(
                "`embed` and `head` in different types: this model's head is its embedding, one matrix; give it one of the two",
            ));
        }
        self.embed = Some(head);
        Ok(self)
    }

    /// These, and for a head without a type of its own (with `tied` weights the embedding) what llama.cpp gives it beside
    /// block-quantised layers: q6_k.
    pub(crate) fn with_better_head(mut self, tied: bool) -> Self {
        let quantised = |choice: &Choice| match choice {
            Choice::Exactly(dtype) => dtype.is_quantized() && *dtype != DType::Q8_0,
            Choice::Q4 => true,
        };
        if self.default.as_ref().is_some_and(quantised) {
            let place = if tied {
                &mut self.embed
            } else {
                &mut self.head
            };
            place.get_or_insert(Choice::Exactly(DType::Q6K));
        }
        self
    }
}

enum Component {
    Embed,
    Head,
    Other,
}

fn component(name: &str) -> Component {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or(name);
    match last {
        "embed_tokens" | "word_embeddings" | "wte" | "token_embd" => Component::Embed,
        "lm_head" | "output" if !name.contains("layer") => Component::Head,
        _ => Component::Other,
    }
}

/// Weights converted at a time by a thread: so few that their buffers stay in its cache and are not new pages each time.
const PIECE: usize = 1 << 16;

/// Fills `out` with rows of `cols` elements of type `to`, of which `read(row, bytes)` gives those from `row` on in `info`'s type: on
/// as many threads as there are cores.
///
/// # Errors
/// What `read` returns, or `Malformed` if a value cannot be quantised (NaN, or beyond f16's range).
pub(crate) fn convert(
    info: &TensorInfo,
    cols: usize,
    to: DType,
    out: &mut [u8],
    read: impl Fn(usize, &mut [u8]) -> Result<()> + Sync,
) -> Result<()> {
    let (from_row, to_row) = (info.dtype.bytes_for(cols)?, to.bytes_for(cols)?);
    let rows = (PIECE / cols).max(1);
    let pieces = out.chunks_mut(rows * to_row).enumerate();
    let convert = |(i, out): (usize, &mut [u8])| -> Result<()> {
        let count = out.len() / to_row;
        let mut bytes = AlignedBuf::zeroed(count * from_row)?;
        read(i * rows, &mut bytes)?;
        let tensor = Tensor::new(info.dtype, &[count, cols], bytes)?;
        let tensor = tensor.cast(to).map_err(|e| {
            Error::malformed(format!("tensor `{}` as {to}", info.name), e.to_string())
        })?;
        out.copy_from_slice(tensor.bytes());
        Ok(())
    };
    let threads = match cfg!(target_arch = "wasm32") {
        true => 1,
        false => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let threads = threads.min(pieces.len());
    if threads < 2 {
        let mut pieces = pieces;
        return pieces.try_for_each(convert);
    }
    let pieces = Mutex::new(pieces);
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| std::iter::from_fn(next).try_for_each(convert)))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| match worker.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use firelight_tensor::{MemSource, Weights};
    use std::sync::Arc;

    #[test]
    fn specifications() {
        let d: Dtypes = "embed=f16, head=f32,default=q4".parse().expect("parses");
        assert_eq!(d.of("embed_tokens", DType::BF16, 512), DType::F16);
        assert_eq!(d.of("lm_head", DType::BF16, 512), DType::F32);
        assert_eq!(d.of("layers.0.mlp.up_proj", DType::BF16, 512), DType::Q4K);
        assert_eq!(d.of("layers.0.mlp.up_proj", DType::BF16, 576), DType::Q4_1);
        assert_eq!(d.of("layers.0.mlp.up_proj", DType::BF16, 40), DType::F16);
        assert_eq!(d.of("token_embd.weight", DType::BF16, 512), DType::F16);
        // A layer's own output projection is no head.
        assert_eq!(
            d.of("blk.0.attn_output.weight", DType::BF16, 512),
            DType::Q4K
        );
        let d: Dtypes = "q6_k".parse().expect("parses");
        assert_eq!(d.of("lm_head", DType::F32, 512), DType::Q6K);
        assert_eq!(d.of("lm_head", DType::F32, 96), DType::Q8_0);
        assert_eq!(Dtypes::default().of("lm_head", DType::F32, 96), DType::F32);
        for (text, part) in [
            ("q9", "q9"),
            ("tail=q4", "tail"),
            ("q4,q8", "twice"),
            ("embed=", "``"),
            ("i8", "i8"),
        ] {
            let e = text.parse::<Dtypes>().expect_err(text).to_string();
            assert!(e.contains(part), "{text}: {e}");
        }
    }

    #[test]
    fn a_head_that_is_the_embedding_has_its_type() {
        let d: Dtypes = "head=f16,default=q4".parse().expect("parses");
        let tied = d.tied(None).expect("one matrix").with_better_head(true);
        assert_eq!(tied.of("embed_tokens", DType::F32, 512), DType::F16);
        let same: Dtypes = "embed=q8,head=q8_0".parse().expect("parses");
        assert!(same.tied(None).is_ok());
        let two: Dtypes = "embed=q8,head=f32".parse().expect("parses");
        let e = two.tied(None).expect_err("one matrix").to_string();
        assert!(e.contains("`embed` and `head`"), "{e}");
        let e = d.tied(Some(&"bert".to_owned())).expect_err("no head");
        assert!(e.to_string().contains("bert"), "{e}");
        assert!(
            "q4".parse::<Dtypes>()
                .expect("parses")
                .tied(Some(&"bert".into()))
                .is_ok()
        );
    }

    #[test]
    fn the_head_keeps_more_bits() {
        let d: Dtypes = "q4_0".parse().expect("parses");
        let (tied, own) = (d.with_better_head(true), d.with_better_head(false));
        assert_eq!(tied.of("token_embd", DType::F16, 512), DType::Q6K);
        assert_eq!(own.of("token_embd", DType::F16, 512), DType::Q4_0);
        assert_eq!(own.of("output", DType::F16, 512), DType::Q6K);
        let d: Dtypes = "f16".parse().expect("parses");
        assert_eq!(d.with_better_head(true), d);
    }

    #[test]
    fn pieces_equal_the_whole_and_nan_is_refused() {
        // Enough rows for several pieces, the last one shorter.
        let (rows, cols) = (5000, 512);
        let mut values: Vec<f32> = (0..rows * cols)
            .map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0)
            .collect();
        let info = |values: &[f32]| {
            let tensor = Tensor::from_f32(values, &[rows, cols]).expect("f32");
            let tensors = [("w", &tensor)];
            let file = firelight_tensor::safetensors::write_to_vec(&Default::default(), tensors);
            let source = MemSource::new("w", file.expect("a file"));
            let weights = Weights::open(Arc::new(source)).expect("opens");
            weights.info("w").expect("w").clone()
        };
        let read = |values: &[f32], first: usize, out: &mut [u8]| {
            convert(&info(values), cols, DType::Q8_0, out, |row, bytes| {
                let at = (first + row) * cols;
                let values = &values[at..at + bytes.len() / 4];
                bytes.copy_from_slice(bytemuck::cast_slice(values));
                Ok(())
            })
        };
        let whole = Tensor::from_f32(&values, &[rows, cols]).expect("f32");
        let whole = whole.cast(DType::Q8_0).expect("quantises");
        let row = DType::Q8_0.bytes_for(cols).expect("whole blocks");
        let mut out = vec![0; rows * row];
        read(&values, 0, &mut out).expect("reads");
        assert_eq!(out, whole.bytes());
        let mut part = vec![0; 3 * row];
        read(&values, 4321, &mut part).expect("reads");
        assert_eq!(part, whole.bytes()[4321 * row..4324 * row]);
        values[4_999 * cols + 3] = f32::NAN;
        let e = read(&values, 0, &mut out).expect_err("NaN").to_string();
        assert!(e.contains("NaN") && e.contains("`w`"), "{e}");
    }
}
