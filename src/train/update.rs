//! The last part of a training step: gradients clipped by their common norm, and one optimiser step over
//! every parameter.

use super::tensor::Tensor;
use crate::dense::{
    Clip, ClipArgs, ClipConfig, Method, Optimizer, OptimizerArgs, OptimizerConfig, StepValues,
};
use crate::dispatch::{BufferView, Context, Kernel, Planned, Recording, Result, check_config};

/// How parameters are updated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateConfig {
    /// The rule.
    pub method: Method,
    /// Weight decay of the parameters that take it.
    pub weight_decay: f32,
    /// The largest norm of all gradients together that is let through, above 0; `f32::MAX` only
    /// measures it.
    pub max_norm: f32,
}

impl Default for UpdateConfig {
    /// AdamW with a decay of 0.05, gradients clipped at a norm of 1.
    fn default() -> Self {
        Self { method: Method::adam_w(), weight_decay: 0.05, max_norm: 1.0 }
    }
}

/// A parameter with its gradient.
#[derive(Debug, Clone, Copy)]
pub struct Updated<'a> {
    /// The parameter.
    pub parameter: &'a Tensor,
    /// Its gradient.
    pub gradient: &'a Tensor,
    /// Whether weight decay acts on it.
    pub decays: bool,
}

/// The state of an optimiser: its moments, and what changes from step to step.
#[derive(Debug, Clone)]
pub struct Update {
    method: Method,
    values: wgpu::Buffer,
    moments: Vec<[Option<Tensor>; 2]>,
}

impl Update {
    /// Moments of zeros, and the dispatches of a step, to follow those of the gradients.
    pub fn new(context: &Context, config: &UpdateConfig, all: &[Updated<'_>]) -> Result<(Self, Recording)> {
        check_config(!all.is_empty(), "parameters", "at least one", 0)?;
        let UpdateConfig { method, weight_decay, max_norm } = *config;
        let values = context.create_storage("step", StepValues::WORDS * 4)?;
        let counts = all.iter().map(|one| one.gradient.len()).collect();
        let clip = Clip::new(context, ClipConfig { counts, max_norm })?;
        let gradients: Vec<_> = all.iter().map(|one| one.gradient.view()).collect();
        let mut recording = clip.prepare(&ClipArgs {
            gradients: &gradients,
            step: BufferView::new(&values),
            scratch: &clip.create_scratch()?,
        })?;
        let mut moments = Vec::with_capacity(all.len());
        for one in all {
            let own = method.moments().map(|wanted| {
                let zeros = vec![0.0; one.parameter.len() as usize];
                wanted.then(|| Tensor::from_slice(context, "moment", one.parameter.shape(), &zeros))
            });
            let [first, second] = own.map(Option::transpose);
            let own = [first?, second?];
            let weight_decay = if one.decays { weight_decay } else { 0.0 };
            let config =
                OptimizerConfig { weight_decay, ..OptimizerConfig::new(one.parameter.len(), method) };
            recording.append(Optimizer::new(context, config)?.prepare(&OptimizerArgs {
                step: BufferView::new(&values),
                gradient: one.gradient.view(),
                parameter: one.parameter.view(),
                moment1: own[0].as_ref().map(Tensor::view),
                moment2: own[1].as_ref().map(Tensor::view),
            })?);
            moments.push(own);
        }
        Ok((Self { method, values, moments }, recording))
    }

    /// Sets the step (from 1) and the learning rate for the next submission, through `Queue::write_buffer`.
    pub fn set(&self, context: &Context, step: u64, rate: f32) -> Result<()> {
        context.write(&self.values, 0, StepValues::new(step, rate, self.method.betas()).bytes())
    }

    /// [`StepValues`] as the last step left them: the norm of the gradients is among them.
    #[must_use]
    pub fn values(&self) -> &wgpu::Buffer {
        &self.values
    }

    /// Of the moments, as the method has them.
    #[must_use]
    pub fn betas(&self) -> [f32; 2] {
        self.method.betas()
    }

    /// The moments of each parameter, in order, as the method has them.
    #[must_use]
    pub fn moments(&self) -> &[[Option<Tensor>; 2]] {
        &self.moments
    }
}
