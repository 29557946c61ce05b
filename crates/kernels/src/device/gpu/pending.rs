//! Waiting for a submit and reading back without creating buffers in the steady state.

use super::Gpu;
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::DeviceFault;
use crate::memory::Holder;
use crate::{Error, Result};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// A mappable buffer on its way from and to its ring.
pub(super) struct Staging {
    buffer: Arc<Buffer>,
    bytes: u64,
    /// It was asked to be mapped and has not been unmapped.
    mapping: bool,
    home: Option<Arc<Mutex<Vec<Arc<Buffer>>>>>,
}

impl Staging {
    pub(super) fn new(device: &Device, bytes: u64) -> Result<Self> {
        Ok(Staging {
            buffer: device.buffer(bytes, Holder::Staging)?,
            bytes,
            mapping: false,
            home: None,
        })
    }

    pub(super) fn buffer(&self) -> Result<&wgpu::Buffer> {
        self.buffer
            .gpu()
            .ok_or_else(|| Error::invalid("staging on another device"))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Of a submit that nobody waits for: a buffer that is or will be mapped cannot be used by the next one.
        if self.mapping
            && let Some(buffer) = self.buffer.gpu()
        {
            buffer.unmap();
        }
        if let Some(home) = &self.home {
            let mut free = home.lock().unwrap_or_else(PoisonError::into_inner);
            free.push(Arc::clone(&self.buffer));
        }
    }
}

/// The staging buffers of one recording; as many as submits are in flight at once.
#[derive(Default)]
pub(super) struct StagingRing(Arc<Mutex<Vec<Arc<Buffer>>>>);

impl StagingRing {
    pub(super) fn take(&self, _gpu: &Gpu, device: &Device, bytes: u64) -> Result<Staging> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut staging = match free {
            Some(buffer) => Staging {
                buffer,
                bytes,
                mapping: false,
                home: None,
            },
            None => Staging::new(device, bytes)?,
        };
        staging.home = Some(Arc::clone(&self.0));
        Ok(staging)
    }
}

/// A value that a callback delivers once.
struct Oneshot<T>(Arc<Mutex<(Option<T>, Option<Waker>)>>);

impl<T> Clone for Oneshot<T> {
    fn clone(&self) -> Self {
        Oneshot(Arc::clone(&self.0))
    }
}

impl<T> Oneshot<T> {
    fn new() -> Self {
        Oneshot(Arc::new(Mutex::new((None, None))))
    }

    fn send(&self, value: T) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.0 = Some(value);
        if let Some(waker) = slot.1.take() {
            waker.wake();
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn is_ready(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .is_some()
    }
}

impl<T> Future for Oneshot<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                slot.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A submit under way, with what it reads back.
pub(crate) struct Pending {
    device: Device,
    staging: Option<Staging>,
    index: wgpu::SubmissionIndex,
    done: Oneshot<Result<(), String>>,
}

impl Pending {
    pub(super) fn start(
        gpu: &Gpu,
        device: &Device,
        mut staging: Option<Staging>,
        index: wgpu::SubmissionIndex,
    ) -> Result<Self> {
        let done = Oneshot::new();
        let sender = done.clone();
        match &mut staging {
            Some(staging) => {
                staging.mapping = true;
                let range = ..staging.bytes.next_multiple_of(4);
                staging
                    .buffer()?
                    .map_async(wgpu::MapMode::Read, range, move |result| {
                        sender.send(result.map_err(|e| e.to_string()));
                    });
            }
            None => gpu
                .queue
                .on_submitted_work_done(move || sender.send(Ok(()))),
        }
        Ok(Pending {
            device: device.clone(),
            staging,
            index,
            done,
        })
    }

    /// Waits, blocking natively, and gives the bytes read back.
    pub(crate) async fn wait(self) -> Result<Vec<u8>> {
        let Pending {
            device,
            mut staging,
            index,
            done,
        } = self;
        let crate::device::DeviceKind::Gpu(gpu) = device.kind() else {
            return Err(Error::invalid("a submit of another device"));
        };
        #[cfg(not(target_arch = "wasm32"))]
        {
            let wait = wgpu::PollType::Wait {
                submission_index: Some(index),
                timeout: None,
            };
            if let Err(e) = gpu.device.poll(wait) {
                gpu.check_lost()?;
                return Err(Error::device(
                    DeviceFault::Refused,
                    format!("waiting for a submit: {e}"),
                ));
            }
            if !done.is_ready() {
                // The submit is over and its callback did not come: the device went away in between.
                gpu.check_lost()?;
                return Err(Error::device(
                    DeviceFault::Lost,
                    "the device answered no read-back",
                ));
            }
        }
        #[cfg(target_arch = "wasm32")]
        let _ = index;
        if let Err(message) = done.await {
            staging.iter_mut().for_each(|s| s.mapping = false);
            gpu.check_lost()?;
            return Err(Error::device(
                DeviceFault::Lost,
                format!("reading back: {message}"),
            ));
        }
        gpu.check_lost()?;
        let Some(mut staging) = staging else {
            return Ok(Vec::new());
        };
        let buffer = staging.buffer()?;
        let bytes = {
            let view = buffer
                .get_mapped_range(..staging.bytes.next_multiple_of(4))
                .map_err(|e| Error::device(DeviceFault::Lost, format!("reading back: {e}")))?;
            view[..staging.bytes as usize].to_vec()
        };
        buffer.unmap();
        staging.mapping = false;
        Ok(bytes)
    }
}
