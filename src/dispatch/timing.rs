//! Time on the GPU's own clock, by timestamps at the edges of a compute pass.

use super::buffer::BufferView;
use super::context::Context;
use super::error::{Error, Result};
use super::readback::Readback;

/// Two timestamps around a compute pass.
#[derive(Debug)]
pub struct Timer {
    context: Context,
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

impl Timer {
    /// `FeatureMissing` where the device has no `TIMESTAMP_QUERY`: measure wall time then.
    pub fn new(context: &Context) -> Result<Self> {
        if !context.capabilities().timestamps {
            return Err(Error::FeatureMissing { what: "timer", feature: "TIMESTAMP_QUERY" });
        }
        let queries = super::scope::checked(context.device(), || {
            context.device().create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("patchfield timer"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            })
        })?;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = context.create_buffer("timer", 16, usage)?;
        Ok(Self { context: context.clone(), queries, resolved })
    }

    /// What to put into the descriptor of a pass of the caller's.
    #[must_use]
    pub fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }

    /// Records the copy of the two timestamps; call it after the timed pass, in the same encoder.
    /// On `Err` the encoder is untouched.
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder) -> Result<Readback> {
        Readback::record_after(&self.context, encoder, BufferView::new(&self.resolved), |encoder| {
            encoder.resolve_query_set(&self.queries, 0..2, &self.resolved, 0);
        })
    }

    /// Seconds between the two timestamps that [`resolve`](Self::resolve) read back.
    #[must_use]
    pub fn seconds(&self, bytes: &[u8]) -> f64 {
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes[..bytes.len() / 8 * 8]);
        let span = match ticks[..] {
            [begin, end, ..] => end.saturating_sub(begin),
            _ => 0,
        };
        span as f64 * f64::from(self.context.queue().get_timestamp_period()) * 1e-9
    }
}
