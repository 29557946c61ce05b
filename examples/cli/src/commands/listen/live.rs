//! Sound as it comes: bare samples on standard input, or a microphone.

#[cfg(feature = "microphone")]
use anyhow::{Context, Result};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
#[cfg(feature = "microphone")]
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Blocks that wait while a text is made, at most: minutes of sound.
const QUEUE: usize = 8192;

/// A source of mono samples.
pub(super) struct Live {
    /// Their rate, Hz.
    pub(super) rate: u32,
    /// The samples; ends with the source.
    pub(super) blocks: Receiver<std::io::Result<Vec<f32>>>,
    /// Samples that came while the queue was full.
    pub(super) lost: Arc<AtomicUsize>,
    /// The device records while this lives.
    #[cfg(feature = "microphone")]
    _stream: Option<cpal::Stream>,
}

/// Bare 16-bit little-endian mono samples from standard input.
pub(super) fn input(rate: u32) -> Live {
    let (sender, blocks) = sync_channel(QUEUE);
    std::thread::spawn(move || read(std::io::stdin().lock(), &sender));
    Live {
        rate,
        blocks,
        lost: Arc::default(),
        #[cfg(feature = "microphone")]
        _stream: None,
    }
}

/// Sends what `source` gives, as soon as it is there, until nobody wants it.
fn read(mut source: impl Read, sender: &SyncSender<std::io::Result<Vec<f32>>>) {
    let mut bytes = [0; 4096];
    // A sample may come in two halves.
    let mut have = 0;
    loop {
        let block = match source.read(&mut bytes[have..]) {
            Ok(0) => return,
            Ok(n) => {
                let (samples, half) = bytes[..have + n].as_chunks::<2>();
                let block = samples
                    .iter()
                    .map(|s| f32::from(i16::from_le_bytes(*s)) / 32_768.0);
                let (block, half) = (block.collect(), half.first().copied());
                have = usize::from(half.is_some());
                bytes[0] = half.unwrap_or(0);
                Ok(block)
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => Err(e),
        };
        let failed = block.is_err();
        if sender.send(block).is_err() || failed {
            return;
        }
    }
}

/// The microphone whose name contains `name`, or the system's own choice.
#[cfg(feature = "microphone")]
pub(super) fn microphone(name: Option<&str>) -> Result<Live> {
    use cpal::SampleFormat;
    use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
    let host = cpal::default_host();
    let device = match name {
        None => host
            .default_input_device()
            .context("there is no microphone")?,
        Some(wanted) => {
            let mut known = Vec::new();
            let mut found = None;
            for device in host.input_devices().context("cannot list microphones")? {
                let name = device.description().map(|d| d.name().to_owned());
                let name = name.unwrap_or_default();
                if found.is_none() && name.contains(wanted) {
                    found = Some(device);
                }
                known.push(name);
            }
            found.with_context(|| {
                format!(
                    "no microphone is called {wanted}; there are: {}",
                    known.join(", ")
                )
            })?
        }
    };
    let config = device
        .default_input_config()
        .context("the microphone cannot be used")?;
    let (sender, blocks) = sync_channel(QUEUE);
    let lost = Arc::<AtomicUsize>::default();
    let sink = Sink {
        channels: usize::from(config.channels()).max(1),
        sender,
        lost: Arc::clone(&lost),
    };
    let rate = config.sample_rate();
    let stream = match config.sample_format() {
        SampleFormat::F32 => sink.open::<f32>(&device, config.into()),
        SampleFormat::I16 => sink.open::<i16>(&device, config.into()),
        SampleFormat::U16 => sink.open::<u16>(&device, config.into()),
        SampleFormat::I32 => sink.open::<i32>(&device, config.into()),
        other => anyhow::bail!("the microphone gives samples as {other}, which is not served"),
    };
    let stream = stream.context("cannot open the microphone")?;
    stream.play().context("cannot start the microphone")?;
    Ok(Live {
        rate,
        blocks,
        lost,
        _stream: Some(stream),
    })
}

/// Where a microphone's samples go.
#[cfg(feature = "microphone")]
struct Sink {
    channels: usize,
    sender: SyncSender<std::io::Result<Vec<f32>>>,
    lost: Arc<AtomicUsize>,
}

#[cfg(feature = "microphone")]
impl Sink {
    fn open<T: cpal::SizedSample>(
        self,
        device: &cpal::Device,
        config: cpal::StreamConfig,
    ) -> Result<cpal::Stream, cpal::Error>
    where
        f32: cpal::FromSample<T>,
    {
        use cpal::traits::DeviceTrait;
        let failed = self.sender.clone();
        let heard = move |data: &[T], _: &cpal::InputCallbackInfo| {
            let frames = data.chunks(self.channels);
            let block: Vec<f32> = frames
                .map(|frame| {
                    let sum: f32 = frame
                        .iter()
                        .map(|&x| <f32 as cpal::Sample>::from_sample(x))
                        .sum();
                    sum / frame.len() as f32
                })
                .collect();
            let samples = block.len();
            // The device does not wait.
            if self.sender.try_send(Ok(block)).is_err() {
                self.lost.fetch_add(samples, Ordering::Relaxed);
            }
        };
        let error = move |e: cpal::Error| {
            // What was late is heard as a gap; anything else ends it.
            if e.kind() != cpal::ErrorKind::Xrun && e.kind() != cpal::ErrorKind::RealtimeDenied {
                drop(failed.try_send(Err(std::io::Error::other(e.to_string()))));
            }
        };
        device.build_input_stream(config, heard, error, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte, then three, then one, …
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            self.1 = 4 - self.1;
            let n = self.1.min(self.0.len());
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn samples_come_in_halves() {
        let values: Vec<i16> = (0..1000).map(|i| (i * 65 - 32_000) as i16).collect();
        let mut bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        bytes.push(9);
        let (sender, blocks) = sync_channel(QUEUE);
        read(Drops(&bytes, 1), &sender);
        drop(sender);
        let heard: Vec<f32> = blocks.iter().flat_map(|b| b.expect("samples")).collect();
        let want: Vec<f32> = values.iter().map(|&v| f32::from(v) / 32_768.0).collect();
        assert_eq!(heard, want);
    }
}
