//! Recordings: dispatches with their buffers bound, ready to be encoded any number of times.

use std::ops::Range;
use std::sync::Arc;

use super::buffer::Arg;
use super::context::Context;
use super::error::Result;
use super::grid::Cost;
use super::launch::Launch;
use super::params::Slot;
use super::pipeline::Pipeline;
use super::timing::Timer;

/// A launch with its buffers bound.
#[derive(Debug, Clone)]
pub struct Dispatch {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    slot: Arc<Slot>,
    launch: Arc<Launch>,
    buffers: Vec<(&'static str, wgpu::Buffer, Range<u64>)>,
}

impl Dispatch {
    pub(super) fn new(
        pipeline: Arc<Pipeline>,
        bind_group: wgpu::BindGroup,
        slot: Arc<Slot>,
        launch: &Launch,
        args: &[Arg<'_>],
    ) -> Self {
        let buffers = args
            .iter()
            .map(|arg| {
                let end = arg.view.offset + arg.need.max(4).min(arg.view.size);
                (arg.what, arg.view.buffer.clone(), arg.view.offset..end)
            })
            .collect();
        Self { pipeline, bind_group, slot, launch: Arc::new(launch.clone()), buffers }
    }

    /// The shader, permutation, parameters and grid.
    #[must_use]
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// The bound buffers with the names of the arguments and the byte ranges.
    #[must_use]
    pub fn buffers(&self) -> &[(&'static str, wgpu::Buffer, Range<u64>)] {
        &self.buffers
    }

    fn encode_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        let [x, y, z] = self.launch.grid;
        if x * y * z == 0 {
            return;
        }
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[self.slot.offset]);
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Dispatches that passed every check. Encoding them cannot fail and allocates nothing.
///
/// It holds the buffers it works on alive.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    dispatches: Vec<Dispatch>,
}

impl Recording {
    /// An empty recording.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a dispatch.
    pub fn push(&mut self, dispatch: Dispatch) {
        self.dispatches.push(dispatch);
    }

    /// A recording of one dispatch.
    #[must_use]
    pub fn single(dispatch: Dispatch) -> Self {
        Self { dispatches: vec![dispatch] }
    }

    /// Adds the dispatches of another recording.
    pub fn append(&mut self, other: Self) {
        self.dispatches.extend(other.dispatches);
    }

    /// The dispatches, in order.
    #[must_use]
    pub fn dispatches(&self) -> &[Dispatch] {
        &self.dispatches
    }

    /// The least work of all dispatches.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.dispatches.iter().map(|dispatch| dispatch.launch.cost).sum()
    }

    /// Records all dispatches into one compute pass of their own.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.encode_timed(encoder, None);
    }

    /// As [`encode`](Self::encode), with the pass timed.
    pub fn encode_timed(&self, encoder: &mut wgpu::CommandEncoder, timer: Option<&Timer>) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: self.dispatches.first().map(|d| d.launch.shader.name),
            timestamp_writes: timer.map(Timer::writes),
        });
        self.encode_in(&mut pass);
    }

    /// Records all dispatches into a pass of the caller's. Bind group 0 and the pipeline of the
    /// pass are changed.
    pub fn encode_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        for dispatch in &self.dispatches {
            dispatch.encode_in(pass);
        }
    }

    /// The same work in pieces of at most `weight` each (see [`Cost::weight`]), to be submitted
    /// one by one so that a driver's watchdog never fires. A single workgroup is never split.
    pub fn chunks(&self, context: &Context, weight: u64) -> Result<Vec<Self>> {
        let limits = &context.capabilities().limits;
        let mut chunks = vec![Self::new()];
        let mut filled = 0u64;
        for dispatch in &self.dispatches {
            let whole = dispatch.launch.cost.weight() <= weight;
            let pieces = if whole {
                vec![dispatch.clone()]
            } else {
                let split = dispatch.launch.split(weight, limits)?;
                split.iter().map(|launch| context.rebind(dispatch, launch)).collect::<Result<_>>()?
            };
            for piece in pieces {
                let cost = piece.launch.cost.weight();
                if filled > 0 && filled.saturating_add(cost) > weight {
                    chunks.push(Self::new());
                    filled = 0;
                }
                filled = filled.saturating_add(cost).max(1);
                if let Some(last) = chunks.last_mut() {
                    last.push(piece);
                }
            }
        }
        Ok(chunks)
    }
}
