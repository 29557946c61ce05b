//! The time of each dispatch: a pass of its own between two timestamps.

use super::pending::{Pending, Staging};
use super::{Gpu, Prepared, Step};
use crate::Result;
use crate::device::Device;
use std::time::Instant;

/// Dispatches of one query set; WebGPU allows 4,096 queries in it.
const DISPATCHES: usize = 2_048;

impl Gpu {
    pub(crate) fn has_timestamps(&self) -> bool {
        let features = self.device.features();
        features.contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Start and length of each dispatch in nanoseconds, from the first one's start.
    pub(crate) async fn profile(
        &self,
        device: &Device,
        prepared: &Prepared,
    ) -> Result<Vec<(u64, u64)>> {
        self.check_lost()?;
        if !self.has_timestamps() {
            return self.profile_by_host(device, prepared).await;
        }
        let mut times = Vec::with_capacity(prepared.steps.len());
        for steps in prepared.steps.chunks(DISPATCHES) {
            times.extend(self.stamped(device, steps).await?);
        }
        let first = times.first().map_or(0, |t: &(u64, u64)| t.0);
        let period = f64::from(self.queue.get_timestamp_period());
        let ns = |ticks: u64| (ticks as f64 * period) as u64;
        Ok(times
            .into_iter()
            .map(|(begin, end)| {
                (
                    ns(begin.saturating_sub(first)),
                    ns(end.saturating_sub(begin)),
                )
            })
            .collect())
    }

    /// The ticks at which each step begins and ends.
    async fn stamped(&self, device: &Device, steps: &[Step]) -> Result<Vec<(u64, u64)>> {
        let count = 2 * steps.len() as u32;
        let bytes = 8 * u64::from(count);
        let (queries, resolved) = self.scoped(
            || "making timestamp queries".to_owned(),
            || {
                let queries = self.device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: None,
                    ty: wgpu::QueryType::Timestamp,
                    count,
                });
                let resolved = self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size: bytes,
                    usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                    mapped_at_creation: false,
                });
                (queries, resolved)
            },
        )?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for (i, step) in steps.iter().enumerate() {
            let at = 2 * i as u32;
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &queries,
                    beginning_of_pass_write_index: Some(at),
                    end_of_pass_write_index: Some(at + 1),
                }),
            });
            step.dispatch(&mut pass);
        }
        encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
        let staging = Staging::new(device, bytes)?;
        encoder.copy_buffer_to_buffer(&resolved, 0, staging.buffer()?, 0, bytes);
        let index = self.queue.submit([encoder.finish()]);
        let read = Pending::start(self, device, Some(staging), index)?
            .wait()
            .await?;
        let ticks = read.as_chunks::<16>().0.iter().map(|pair| {
            let word = |at: usize| {
                let bytes = pair.get(at..at + 8).and_then(|b| b.try_into().ok());
                bytes.map_or(0, u64::from_le_bytes)
            };
            (word(0), word(8))
        });
        Ok(ticks.collect())
    }

    /// Each step submitted and waited for: what the queue costs is in it.
    async fn profile_by_host(
        &self,
        device: &Device,
        prepared: &Prepared,
    ) -> Result<Vec<(u64, u64)>> {
        let begin = Instant::now();
        let mut times = Vec::with_capacity(prepared.steps.len());
        for step in &prepared.steps {
            let start = begin.elapsed();
            let mut encoder = self.device.create_command_encoder(&Default::default());
            step.dispatch(&mut encoder.begin_compute_pass(&Default::default()));
            let index = self.queue.submit([encoder.finish()]);
            Pending::start(self, device, None, index)?.wait().await?;
            let took = begin.elapsed() - start;
            times.push((start.as_nanos() as u64, took.as_nanos() as u64));
        }
        Ok(times)
    }
}

impl Step {
    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[self.param_offset]);
        let [x, y, z] = self.grid;
        pass.dispatch_workgroups(x, y, z);
    }
}
