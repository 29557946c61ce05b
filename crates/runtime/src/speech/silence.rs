//! The silence that fills a window, remembered.
//!
//! A Whisper was trained on windows of 30 s, most of which are silent after a short clip. Encoding the clip alone costs a fraction and
//! is not the same: its states look at the silent ones, too, and so does the decoder, which repeats itself where they are missing. What
//! the silent states are hardly hangs on the clip, however. So silence is encoded once in the whole window, the keys and values
//! of each layer are kept, and those of a clip are put beside them, in place of as much silence: attention does not mind the order.
//! With whisper-tiny.en a clip's states are then 8 to 15 % from those of the whole window, and 25 to 55 % without; the texts
//! are the same but for a comma.
//!
//! ```text
//! rows   0 … first−S     first−S …      first−S+n … first     first … first+n   … first+room
//!        nothing         silence that   silence that          the clip's own    nothing
//!                        is replaced    is seen
//! ```

use super::{Hears, SpeechModel};
use crate::{Error, Result};
use firelight_kernels::columns::columns_into;
use firelight_kernels::{Array, DType, Device, Holder, Recorder, Span};

/// Where the keys and values of an encoder's layers are.
#[derive(Debug)]
pub enum Keys<'a> {
    /// Each layer's own, and gone after it.
    Own,
    /// They are put here as well, f32 `[B·S, D]` per layer.
    Kept(&'a mut Vec<[Array; 2]>),
    /// One clip's, beside those of the silence after it.
    Beside(&'a Silence),
}

/// See the module's head.
#[derive(Debug)]
pub struct Silence {
    /// Of the encoder's layers, f32 `[first + room, D]`.
    encoder: Vec<[Array; 2]>,
    /// Of the decoder's cross-attention.
    cross: Vec<[Array; 2]>,
    /// States of the window, `S`.
    states: usize,
    /// The clip's first row.
    first: usize,
    /// The most states of a clip.
    room: usize,
}

/// A feature of silence in a window with a voice of usual loudness: the floor, 8 below the loudest.
const FEATURE: f32 = -0.9;

impl Silence {
    /// The most frames of a clip beside it, for a window of `frames`: half of it. What is longer gains little.
    pub(super) fn most(frames: usize) -> usize {
        frames / 2
    }

    /// Hears silence.
    pub(super) async fn of(device: &Device, model: &dyn SpeechModel) -> Result<Self> {
        let Hears::Mel { mels, frames } = model.spec().hears else {
            return Err(Error::invalid("silence after samples; there is no window"));
        };
        let input = device.upload_f32(&vec![FEATURE; frames * mels], &[1, frames, mels])?;
        let mut rec = Recorder::new(device);
        let mut kept = Vec::new();
        let out = model.encode(&mut rec, &input, Keys::Kept(&mut kept))?;
        let cross = model.cross(&mut rec, &out)?;
        drop(rec.finish()?.submit()?.wait().await?);
        let (states, room) = (model.states(frames), model.states(Self::most(frames)));
        // Views begin on borders of 256 bytes.
        let first = states.next_multiple_of(64);
        let long = |from: Vec<[Array; 2]>| -> Result<Vec<[Array; 2]>> {
            let one = |from: Array| -> Result<Array> {
                let row = from.nbytes() / states.max(1) as u64;
                let shape = [first + room, from.elements() / states.max(1)];
                let to = device.array(DType::F32, &shape, Holder::Activations)?;
                device.copy_all(&[Span {
                    from: &from,
                    from_byte: 0,
                    to: &to,
                    to_byte: (first - states) as u64 * row,
                    bytes: from.nbytes(),
                }])?;
                Ok(to)
            };
            let both = |[k, v]: [Array; 2]| Ok([one(k)?, one(v)?]);
            from.into_iter().map(both).collect()
        };
        Ok(Silence {
            encoder: long(kept)?,
            cross: long(cross)?,
            states,
            first,
            room,
        })
    }

    /// The rows that a clip of `n` states sees: its own and those of the silence that it leaves.
    pub fn span(&self, n: u32) -> [u32; 2] {
        let (first, states) = (self.first as u32, self.states as u32);
        [first - states + n, first + n]
    }

    /// Puts a clip's keys and values f32 `[n, D]` of the encoder's layer `layer` beside those of silence: all of them.
    ///
    /// # Errors
    /// `InvalidInput` for a layer that the encoder has not or a clip that is too long.
    pub fn beside(
        &self,
        rec: &mut Recorder,
        layer: usize,
        own: [&Array; 2],
    ) -> Result<[&Array; 2]> {
        let all = self.encoder.get(layer);
        let all = all.ok_or_else(|| Error::invalid(format!("silence of layer {layer}")))?;
        self.put(rec, all, own)?;
        Ok(all.each_ref())
    }

    /// The same for the keys and values of the cross-attention.
    pub(super) fn cross(&self, rec: &mut Recorder, own: &[[Array; 2]]) -> Result<Vec<[Array; 2]>> {
        for (all, own) in self.cross.iter().zip(own) {
            self.put(rec, all, own.each_ref())?;
        }
        Ok(self.cross.clone())
    }

    fn put(&self, rec: &mut Recorder, all: &[Array; 2], own: [&Array; 2]) -> Result<()> {
        for (all, own) in all.iter().zip(own) {
            let n = own.shape().first().copied().unwrap_or(0);
            if n > self.room {
                return Err(Error::invalid(format!(
                    "{n} states of a clip beside silence; there is room for {}",
                    self.room
                )));
            }
            columns_into(rec, own, 0, &all.rows(self.first, n)?)?;
        }
        Ok(())
    }
}
