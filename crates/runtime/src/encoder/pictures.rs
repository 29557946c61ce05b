//! Pictures in the space of texts: the other tower of a model like CLIP.

use super::{EncoderRun, Flight, LoadedEncoder, Want};
use crate::source::CancelToken;
use crate::{Error, Result};
use firelight_kernels::{Array, Recorder};
use firelight_tensor::Tensor;
use firelight_vision::{Image, Processor};

/// What the rest of the runtime needs to know of a tower for pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureSpec {
    /// A side of the square pictures it sees, in pixels.
    pub side: usize,
    /// Hidden states of a picture.
    pub tokens: usize,
    /// Elements of a hidden state.
    pub hidden: usize,
    /// Elements of a picture's vector, and of a text's.
    pub dims: usize,
    /// What becomes of the cosine of two vectors.
    pub similarity: Similarity,
}

/// What a model makes of the cosine between a picture and a text: `logit = cosine · scale + bias`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Factor, already raised from the logarithm that checkpoints keep.
    pub scale: f32,
    /// Added.
    pub bias: f32,
    /// Each pair has a probability of its own, the logit's sigmoid (SigLIP); otherwise those of a picture's texts sum to 1 (CLIP).
    pub sigmoid: bool,
}

impl Similarity {
    /// Probabilities of a picture's texts from their cosines.
    pub fn probabilities(&self, cosines: &[f32]) -> Vec<f32> {
        let logits: Vec<f32> = cosines.iter().map(|c| c * self.scale + self.bias).collect();
        match self.sigmoid {
            true => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            false => crate::pipelines::classify::softmax(&logits),
        }
    }
}

/// A tower for pictures.
pub trait PictureEncoder: Send + Sync {
    /// Sizes.
    fn spec(&self) -> &PictureSpec;

    /// What makes pictures ready.
    fn processor(&self) -> &Processor;

    /// Records `B` pictures, f32 `[B, 3, S, S]` one after the other: the last hidden states, f32 `[B · tokens, D]`.
    ///
    /// # Errors
    /// What the kernels refuse.
    fn forward(&self, rec: &mut Recorder, pixels: &[f32]) -> Result<Array>;

    /// Records the pictures' vectors out of their hidden states, f32 `[B, P]`, of any length.
    ///
    /// # Errors
    /// What the kernels refuse.
    fn pooler(&self, rec: &mut Recorder, hidden: &Array) -> Result<Array>;
}

impl LoadedEncoder {
    /// Its tower for pictures.
    ///
    /// # Errors
    /// `Unsupported` if it has none.
    pub fn sees(&self) -> Result<&dyn PictureEncoder> {
        self.model.pictures().ok_or_else(|| {
            Error::Unsupported(format!(
                "{}: this model reads texts alone; take one for pictures and texts (CLIP, SigLIP)",
                self.checkpoint.root().display()
            ))
        })
    }

    /// A picture as the tower takes it, f32 `[3, S, S]`. Work of the host, for any thread.
    ///
    /// # Errors
    /// As [`LoadedEncoder::sees`], and what the processor refuses.
    pub fn prepare(&self, picture: &Image) -> Result<Tensor> {
        let tower = self.sees()?;
        let side = tower.spec().side;
        let mut made = tower.processor().process(std::slice::from_ref(picture))?;
        let shape = made.pixel_values.shape();
        if shape != [1, 3, side, side] {
            return Err(Error::malformed(
                "preprocessor_config.json",
                format!("pictures become {shape:?}, and the tower takes [1, 3, {side}, {side}]"),
            ));
        }
        made.pixel_values = made.pixel_values.reshape(&[3, side, side])?;
        Ok(made.pixel_values)
    }
}

impl EncoderRun {
    /// Pictures of a batch that the device works well with.
    ///
    /// # Errors
    /// As [`LoadedEncoder::sees`].
    pub fn batch_pictures(&self) -> Result<usize> {
        let tokens = self.model().sees()?.spec().tokens;
        Ok((self.batch_tokens() / tokens.max(1)).clamp(1, 64))
    }

    /// Runs the tower over prepared pictures in batches of at most `batch`; one result per picture: [`Want::Hidden`] or
    /// [`Want::Pooler`]. `progress` gets pictures done and in all.
    ///
    /// # Errors
    /// `InvalidInput` for a tensor of another shape or another [`Want`], `BadLogits` if the model gives NaN, `Cancelled`, or
    /// `Device` if there is no rung left.
    pub async fn run_pictures(
        &self,
        pictures: &[Tensor],
        want: Want,
        batch: usize,
        cancel: &CancelToken,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Vec<f32>>> {
        let side = self.model().sees()?.spec().side;
        let wrong = pictures
            .iter()
            .find(|p| p.shape() != [3, side, side] || p.as_f32().is_none());
        if let Some(wrong) = wrong {
            return Err(Error::invalid(format!(
                "a picture {} {:?}; this tower takes f32 [3, {side}, {side}]",
                wrong.dtype(),
                wrong.shape()
            )));
        }
        if !matches!(want, Want::Hidden | Want::Pooler) {
            return Err(Error::invalid(format!(
                "{want:?} of pictures; they have hidden states and a pooler"
            )));
        }
        let order: Vec<usize> = (0..pictures.len()).collect();
        let batches: Vec<Vec<usize>> = order.chunks(batch.max(1)).map(<[_]>::to_vec).collect();
        let submit = |model: &LoadedEncoder, batch: &[usize]| submit(model, pictures, batch, want);
        self.batched(&batches, submit, cancel, progress).await
    }
}

fn submit(
    model: &LoadedEncoder,
    pictures: &[Tensor],
    batch: &[usize],
    want: Want,
) -> Result<Flight> {
    let tower = model.sees()?;
    let mut pixels = Vec::new();
    for &i in batch {
        pixels.extend_from_slice(pictures[i].as_f32().unwrap_or_default());
    }
    let mut rec = Recorder::new(&model.device);
    let hidden = tower.forward(&mut rec, &pixels)?;
    let out = match want {
        Want::Hidden => hidden,
        _ => tower.pooler(&mut rec, &hidden)?,
    };
    rec.read_back(&out);
    let each = out.elements() / batch.len().max(1);
    let texts = batch.iter().map(|&i| (i, each)).collect();
    let submission = rec.finish()?.submit()?;
    Ok(Flight { texts, submission })
}

#[cfg(test)]
mod tests {
    use super::Similarity;

    #[test]
    fn probabilities_are_shared_or_each_its_own() {
        let clip = Similarity {
            scale: 100.0,
            bias: 0.0,
            sigmoid: false,
        };
        let p = clip.probabilities(&[0.3, 0.2, 0.3]);
        assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6 && p[0] == p[2] && p[1] < 1e-4);
        let siglip = Similarity {
            scale: 10.0,
            bias: -1.0,
            sigmoid: true,
        };
        let p = siglip.probabilities(&[0.1, 0.9]);
        assert!((p[0] - 0.5).abs() < 1e-6 && p[1] > 0.99);
    }
}
