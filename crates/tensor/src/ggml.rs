//! Whisper models as whisper.cpp keeps them, `ggml-base.bin`: sizes, filters, vocabulary and tensors, one after the other.
//!
//! ```text
//! 0x67676d6c u32, eleven sizes i32 (see `GgmlSizes`), type of the matrices i32
//! filters: bands i32, bins i32, f32 each
//! vocabulary: count i32, then per token: length i32, its bytes
//! tensors up to the end: rank i32, length of the name i32, type i32, dimensions i32 each (innermost first), name, the values
//! ```
//! Names are those of OpenAI's checkpoints. Special tokens come after the vocabulary and are not in the file. Little-endian, not
//! aligned. The filters are skipped: they follow from the number of bands.
//!
//! Source: `whisper_model_load` of whisper.cpp 1.7, `convert-pt-to-ggml.py`.

use crate::gguf::types::GgmlType;
use crate::header::{Cursor, MAX_RANK, MAX_TENSORS, TensorSet};
use crate::{ByteSource, Error, Result, Shape, TensorInfo, UnsupportedTensor};
use std::sync::Arc;

const FORMAT: &str = "ggml";
const MAGIC: [u8; 4] = 0x6767_6d6c_u32.to_le_bytes();
/// The longest token and the longest name, in bytes.
const MAX_TEXT: u32 = 1024;
/// The most tokens of a vocabulary.
const MAX_TOKENS: u32 = 1 << 20;

/// The sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GgmlSizes {
    /// Tokens, special ones included.
    pub vocab: u32,
    /// States of the encoder.
    pub audio_ctx: u32,
    /// Width of the encoder.
    pub audio_state: u32,
    /// Heads of the encoder.
    pub audio_head: u32,
    /// Layers of the encoder.
    pub audio_layer: u32,
    /// Positions of the decoder.
    pub text_ctx: u32,
    /// Width of the decoder.
    pub text_state: u32,
    /// Heads of the decoder.
    pub text_head: u32,
    /// Layers of the decoder.
    pub text_layer: u32,
    /// Bands of the features.
    pub mels: u32,
}

/// What is in a file beside its tensors.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GgmlHead {
    /// The sizes.
    pub sizes: GgmlSizes,
    /// The bytes of each token.
    pub tokens: Vec<Vec<u8>>,
}

/// An opened file.
#[derive(Clone, Debug)]
pub struct Ggml {
    pub(crate) set: TensorSet,
    pub(crate) head: Arc<GgmlHead>,
}

impl Ggml {
    /// Whether a file that starts with these bytes is one.
    pub fn is(head: &[u8]) -> bool {
        head.starts_with(&MAGIC)
    }

    /// Opens a file.
    ///
    /// # Errors
    /// `Malformed` if the bytes are no such file or end too soon, `Limit` for too many tokens, tensors or dimensions, `Io` if reading
    /// fails.
    pub fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        let mut c = Cursor::new(FORMAT, source.as_ref());
        if c.bytes::<4>()? != MAGIC {
            return Err(Error::malformed(FORMAT, 0, "no GGML file".to_owned()));
        }
        let mut size = || c.word();
        let sizes = GgmlSizes {
            vocab: size()?,
            audio_ctx: size()?,
            audio_state: size()?,
            audio_head: size()?,
            audio_layer: size()?,
            text_ctx: size()?,
            text_state: size()?,
            text_head: size()?,
            text_layer: size()?,
            mels: size()?,
        };
        let _type = c.word()?;
        let (bands, bins) = (u64::from(c.word()?), u64::from(c.word()?));
        skip(&mut c, bands.saturating_mul(bins).saturating_mul(4))?;
        let count = c.word()?;
        limit("tokens of a vocabulary", MAX_TOKENS.into(), count.into())?;
        let mut tokens = Vec::new();
        for _ in 0..count {
            tokens.push(text(&mut c)?);
        }
        let (mut tensors, mut unsupported) = (Vec::<TensorInfo>::new(), Vec::new());
        while c.at < source.len() {
            limit("tensors of a file", MAX_TENSORS, tensors.len() as u64 + 1)?;
            match tensor(&mut c)? {
                Ok(tensor) => tensors.push(tensor),
                Err(tensor) => unsupported.push(tensor),
            }
        }
        let mut set = TensorSet::default();
        set.add(FORMAT, source, tensors, unsupported)?;
        let head = Arc::new(GgmlHead { sizes, tokens });
        Ok(Ggml { set, head })
    }

    /// What is in it beside its tensors.
    pub fn head(&self) -> &GgmlHead {
        &self.head
    }
}

fn limit(what: &'static str, max: u64, got: u64) -> Result<()> {
    match got > max {
        true => Err(Error::Limit { what, max, got }),
        false => Ok(()),
    }
}

fn skip(c: &mut Cursor<'_>, bytes: u64) -> Result<()> {
    if bytes > c.source.len().saturating_sub(c.at) {
        let what = format!("{bytes} bytes go beyond the file's end (truncated?)");
        return Err(Error::malformed(FORMAT, c.at, what));
    }
    c.at += bytes;
    Ok(())
}

fn text(c: &mut Cursor<'_>) -> Result<Vec<u8>> {
    let len = c.word()?;
    limit("bytes of a token or name", MAX_TEXT.into(), len.into())?;
    let mut bytes = vec![0; len as usize];
    c.fill(&mut bytes)?;
    Ok(bytes)
}

fn tensor(c: &mut Cursor<'_>) -> Result<Result<TensorInfo, UnsupportedTensor>> {
    let start = c.at;
    let fault = |what: String| Error::malformed(FORMAT, start, what);
    let (rank, len, kind) = (c.word()?, c.word()?, c.word()?);
    limit("dimensions of a tensor", MAX_RANK, rank.into())?;
    limit("bytes of a token or name", MAX_TEXT.into(), len.into())?;
    let mut dims = Vec::new();
    for _ in 0..rank {
        dims.push(c.word()? as usize);
    }
    let columns = dims.first().copied().unwrap_or(1);
    dims.reverse();
    let mut name = vec![0; len as usize];
    c.fill(&mut name)?;
    let name = String::from_utf8(name).map_err(|_| fault("a name in UTF-8 expected".to_owned()))?;
    // A convolution's bias is `[D, 1]` there.
    if name.ends_with(".bias") {
        dims.retain(|&d| d != 1);
    }
    let ggml_type = GgmlType::from_id(kind);
    let Some((block, bytes)) = ggml_type.block() else {
        return Err(fault(format!("tensor `{name}` has the type {kind}")));
    };
    let elements = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
    let nbytes = elements.and_then(|n| (n / block).checked_mul(bytes));
    let (Some(nbytes), 0) = (nbytes, columns as u64 % block) else {
        return Err(fault(format!(
            "tensor `{name}` {dims:?} in blocks of {block}"
        )));
    };
    let shape = Shape::new(dims)?;
    let offset = c.at;
    skip(c, nbytes)?;
    Ok(match ggml_type {
        GgmlType::Known(dtype) => Ok(TensorInfo {
            name,
            dtype,
            shape,
            nbytes: crate::header::to_usize(nbytes)?,
            part: 0,
            offset,
        }),
        other => Err(UnsupportedTensor {
            name,
            type_name: other.name(),
            shape,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemSource, Weights};

    fn put(out: &mut Vec<u8>, words: &[u32]) {
        out.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    }

    fn file() -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, &[0x6767_6d6c, 5, 6, 8, 1, 2, 7, 8, 1, 3, 2, 1]);
        put(&mut out, &[2, 3, 0, 0, 0, 0, 0, 0, 2, 1]);
        out.push(b'a');
        put(&mut out, &[0]);
        put(&mut out, &[2, 3, 1, 2, 3]);
        out.extend(b"w.a");
        out.extend((0..6u16).flat_map(u16::to_le_bytes));
        put(&mut out, &[1, 1, 9, 32]);
        out.push(b'q');
        out.extend([0; 36]);
        put(&mut out, &[1, 1, 8, 32]);
        out.push(b'p');
        out.extend([1; 34]);
        out
    }

    fn open(bytes: Vec<u8>) -> Result<Weights> {
        Weights::open(Arc::new(MemSource::new("m", bytes)))
    }

    #[test]
    fn sizes_tokens_and_tensors() {
        let weights = open(file()).unwrap();
        let head = weights.ggml_head().unwrap();
        let sizes = head.sizes;
        assert_eq!((sizes.vocab, sizes.audio_layer, sizes.mels), (5, 2, 2));
        assert_eq!(head.tokens, [b"a".to_vec(), Vec::new()]);
        assert_eq!(weights.names().collect::<Vec<_>>(), ["w.a", "p"]);
        let a = weights.read("w.a").unwrap();
        assert_eq!((a.shape(), a.bytes()[10]), (&[3, 2][..], 5));
        assert_eq!(weights.unsupported()[0].type_name, "Q8_1");
        assert_eq!(weights.read("p").unwrap().bytes(), [1; 34]);
    }

    #[test]
    fn damaged_files_are_errors() {
        let whole = file();
        let ends: Vec<usize> = (0..whole.len())
            .filter(|&cut| open(whole[..cut].to_vec()).is_ok())
            .collect();
        // Between tensors nothing tells that more should come.
        assert_eq!(ends.len(), 3, "{ends:?}");
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = open(bytes);
            }
        }
    }
}
