//! Silero's detector of speech, from its safetensors file: 32 ms at a time, on the host.
//!
//! ```text
//! x = the frame with the last W/4 samples before it, W/4 more mirrored at its end    W = 256 at 16 kHz, frame 2·W
//! S = |conv(x)| by a stored transform of W samples every W/2; four convolutions of three taps with relu, the middle two of step 2
//! h, c = LSTM(S, h, c);   p = sigmoid(w · relu(h) + b)
//! ```
//! Source: `tinygrad_model.py` of silero-vad 6.2; torch's order of the gates (input, forget, cell, output). The state is that of one
//! stream of samples.

use crate::{Error, Result};
use firelight_tensor::Weights;
use std::sync::Arc;

/// Speech begins above this probability…
const ON: f32 = 0.5;
/// …and ends below this one.
const OFF: f32 = 0.35;
/// The largest size of a layer that is believed.
const MOST: usize = 4096;

/// One convolution over time: `[OUT, IN, 3]` and a bias.
#[derive(Debug)]
struct Conv {
    weight: Vec<f32>,
    bias: Vec<f32>,
    input: usize,
    step: usize,
}

#[derive(Debug)]
struct Net {
    /// `W`.
    window: usize,
    /// `[W + 2, W]`: real parts, then imaginary ones.
    stft: Vec<f32>,
    convs: Vec<Conv>,
    hidden: usize,
    /// `[4·H, IN + H]`, both matrices side by side, and the sum of their biases.
    lstm: (Vec<f32>, Vec<f32>),
    last: (Vec<f32>, f32),
}

/// See the module's head. Cloning shares the weights.
#[derive(Clone, Debug)]
pub struct SileroVad {
    net: Arc<Net>,
    /// The end of the frame before.
    context: Vec<f32>,
    h: Vec<f32>,
    c: Vec<f32>,
    on: bool,
}

impl SileroVad {
    /// A detector from the tensors of `silero_vad_16k.safetensors`, for samples at 16 kHz.
    ///
    /// # Errors
    /// `Malformed` or `InvalidInput` naming a tensor that is missing or has another shape.
    pub fn new(weights: &Weights) -> Result<Self> {
        let tensor = |name: &str, want: &[Option<usize>]| -> Result<(Vec<usize>, Vec<f32>)> {
            let read = weights.read(name)?;
            let dims = read.shape().to_vec();
            let fits = dims.len() == want.len()
                && dims
                    .iter()
                    .zip(want)
                    .all(|(d, w)| w.is_none_or(|w| w == *d))
                && dims.iter().all(|d| (1..=MOST).contains(d));
            if !fits {
                return Err(Error::malformed(
                    "Silero VAD",
                    0,
                    format!("`{name}` is {dims:?}, expected {want:?} (None: any)"),
                ));
            }
            let values = read.to_f32_vec()?;
            match values.iter().all(|v| v.is_finite()) {
                true => Ok((dims, values)),
                false => Err(Error::malformed(
                    "Silero VAD",
                    0,
                    format!("`{name}` holds no number"),
                )),
            }
        };
        let (dims, stft) = tensor("stft_conv.weight", &[None, Some(1), None])?;
        let window = dims.last().copied().unwrap_or(0);
        if !window.is_multiple_of(4) || dims.first() != Some(&(window + 2)) {
            return Err(Error::malformed(
                "Silero VAD",
                0,
                format!("a transform of {dims:?}"),
            ));
        }
        let (mut input, mut convs) = (window / 2 + 1, Vec::new());
        for (i, step) in [1, 2, 2, 1].into_iter().enumerate() {
            let name = format!("conv{}", i + 1);
            let (dims, weight) = tensor(&format!("{name}.weight"), &[None, Some(input), Some(3)])?;
            let out = dims.first().copied();
            let (_, bias) = tensor(&format!("{name}.bias"), &[out])?;
            convs.push(Conv {
                weight,
                bias,
                input,
                step,
            });
            input = out.unwrap_or(0);
        }
        let (dims, own) = tensor("lstm_cell.weight_hh", &[None, None])?;
        let hidden = dims.last().copied().unwrap_or(0);
        let gates = Some(4 * hidden);
        let (_, ih) = tensor("lstm_cell.weight_ih", &[gates, Some(input)])?;
        if dims.first() != gates.as_ref() {
            return Err(Error::malformed(
                "Silero VAD",
                0,
                format!("an LSTM of {dims:?}"),
            ));
        }
        let (_, b1) = tensor("lstm_cell.bias_ih", &[gates])?;
        let (_, b2) = tensor("lstm_cell.bias_hh", &[gates])?;
        let rows = ih.chunks(input.max(1)).zip(own.chunks(hidden.max(1)));
        let lstm = rows.flat_map(|(a, b)| a.iter().chain(b).copied()).collect();
        let (_, last) = tensor("final_conv.weight", &[Some(1), Some(hidden), Some(1)])?;
        let (_, bias) = tensor("final_conv.bias", &[Some(1)])?;
        let net = Net {
            window,
            stft,
            convs,
            hidden,
            lstm: (lstm, b1.iter().zip(&b2).map(|(a, b)| a + b).collect()),
            last: (last, bias.first().copied().unwrap_or(0.0)),
        };
        Ok(SileroVad {
            context: vec![0.0; window / 4],
            h: vec![0.0; hidden],
            c: vec![0.0; hidden],
            on: false,
            net: Arc::new(net),
        })
    }

    /// Samples of a frame: 512.
    pub fn frame(&self) -> usize {
        2 * self.net.window
    }

    /// How probable it is that somebody speaks in the next frame, 0…1; a shorter one is filled up with zeros.
    pub fn probability(&mut self, frame: &[f32]) -> f32 {
        let net = Arc::clone(&self.net);
        let (w, n) = (net.window, self.frame());
        let mut x = std::mem::take(&mut self.context);
        x.extend_from_slice(frame.get(..n).unwrap_or(frame));
        x.resize(w / 4 + n, 0.0);
        self.context = x[n..].to_vec();
        // Mirrored without the last sample itself.
        let end: Vec<f32> = x.iter().rev().skip(1).take(w / 4).copied().collect();
        x.extend(end);
        // Channels of a moment lie together: [T, C].
        let bins = w / 2 + 1;
        let mut now: Vec<f32> = Vec::with_capacity(4 * bins);
        for part in x.windows(w).step_by(w / 2) {
            let (re, im) = net.stft.split_at(bins * w);
            let rows = re.chunks_exact(w).zip(im.chunks_exact(w));
            now.extend(rows.map(|(re, im)| dot(re, part).hypot(dot(im, part))));
        }
        for conv in &net.convs {
            now = conv.run(&now);
        }
        self.step(&net, &now);
        let (weight, bias) = &net.last;
        let sum: f32 = weight
            .iter()
            .zip(&self.h)
            .map(|(w, h)| w * h.max(0.0))
            .sum();
        sigmoid(sum + bias)
    }

    /// Judges the next frame. Between both bounds it stays as it was.
    pub fn speech(&mut self, frame: &[f32]) -> bool {
        let p = self.probability(frame);
        self.on = p > ON || self.on && p >= OFF;
        self.on
    }

    /// Forgets what was heard.
    pub fn reset(&mut self) {
        for state in [&mut self.context, &mut self.h, &mut self.c] {
            state.fill(0.0);
        }
        self.on = false;
    }

    /// The cell: `x` of one moment.
    fn step(&mut self, net: &Net, x: &[f32]) {
        let both: Vec<f32> = x.iter().chain(&self.h).copied().collect();
        let (weight, bias) = &net.lstm;
        let rows = weight.chunks_exact(both.len()).zip(bias);
        let gates: Vec<f32> = rows.map(|(row, b)| dot(row, &both) + b).collect();
        let gate = |part: usize, i: usize| gates.get(part * net.hidden + i).copied().unwrap_or(0.0);
        for (i, (h, c)) in self.h.iter_mut().zip(&mut self.c).enumerate() {
            *c = sigmoid(gate(1, i)) * *c + sigmoid(gate(0, i)) * gate(2, i).tanh();
            *h = sigmoid(gate(3, i)) * c.tanh();
        }
    }
}

impl Conv {
    /// `[T, IN]` to `[T', OUT]`, zeros around, relu.
    fn run(&self, x: &[f32]) -> Vec<f32> {
        let t = x.len() / self.input.max(1);
        let mut out = Vec::with_capacity(t.div_ceil(self.step) * self.bias.len());
        for at in (0..t).step_by(self.step) {
            // Three moments, tap by tap, in the weights' order: channel, then tap.
            let mut near = vec![0.0; 3 * self.input];
            for tap in 0..3 {
                let Some(row) = (at + tap).checked_sub(1).filter(|r| *r < t) else {
                    continue;
                };
                let row = &x[row * self.input..][..self.input];
                for (to, from) in near.iter_mut().skip(tap).step_by(3).zip(row) {
                    *to = *from;
                }
            }
            let rows = self.weight.chunks_exact(near.len()).zip(&self.bias);
            out.extend(rows.map(|(w, b)| (dot(w, &near) + b).max(0.0)));
        }
        out
    }
}

/// Eight sums side by side, as wide registers have them.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8
        .remainder()
        .iter()
        .zip(b8.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a8.zip(b8) {
        for ((s, x), y) in sums.iter_mut().zip(x).zip(y) {
            *s += x * y;
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
