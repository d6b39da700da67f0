//! The global L2 norm of all gradients, and clipping by it (`shaders/dense/norm.wgsl`).

use super::optimizer::StepValues;
use super::sum;
use crate::dispatch::{
    Arg, BufferView, Capabilities, Cost, Kernel, Launch, Plan, Recording, Result, Scratch, Shader,
    check_apart, check_config, check_shape, check_workgroup, count, kernel, read, shader, write,
};

/// Clipping of the gradients of a whole model by their common norm.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipConfig {
    /// Elements of each gradient buffer, each at least 1.
    pub counts: Vec<u32>,
    /// The largest norm that is let through, above 0; `f32::MAX` only measures and guards.
    pub max_norm: f32,
}

/// Of one element an item, and of four.
static SQUARES: [Shader; 2] = [
    shader!(
        "dense/norm",
        "squares",
        [index, scalars, block_sum, item_sum],
        [read("gradient"), write("partial_sum")]
    ),
    shader!(
        "dense/norm",
        "squares",
        [index, vectors, block_sum, item_sum],
        [read("gradient").vec4(), write("partial_sum")]
    ),
];
static FINISH: Shader =
    shader!("dense/norm", "finish", [index, scalars, block_sum, item_sum], [read("total"), write("step")]);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    items: u32,
    offset: u32,
    max_norm: f32,
}

kernel! {
    /// Writes the norm of all gradients and the scale `min(1, max_norm / norm)` into the `step` buffer
    /// (Pascanu et al. 2013, algorithm 1).
    Clip, ClipConfig
}

/// Buffers of [`Clip`].
#[derive(Debug, Clone, Copy)]
pub struct ClipArgs<'a> {
    /// The gradients, in the order of [`ClipConfig::counts`]; may be ranges of one buffer.
    pub gradients: &'a [BufferView<'a>],
    /// [`StepValues`]. Its `gradient_scale` is read (the norm is that of the scaled gradients),
    /// multiplied by the clipping factor and written back; 0 if the norm is not finite, which skips
    /// the step. `gradient_norm` is written: the norm before clipping, or NaN.
    pub step: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl Clip {
    /// Lays out the partial sums of all buffers.
    pub fn plan(config: &ClipConfig, caps: &Capabilities) -> Result<Plan> {
        let max_norm = config.max_norm;
        check_config(max_norm.is_finite() && max_norm > 0.0, "max_norm", "above 0 and finite", max_norm)?;
        check_config(!config.counts.is_empty(), "counts", "at least one buffer", 0)?;
        check_workgroup("dense/norm", 256, 1024, caps)?;
        let constants = sum::constants();
        let of = |&n: &u32| u64::from(sum::groups(sum::items(n).1) * sum::WORKGROUP);
        let partials: u64 = config.counts.iter().map(of).sum();
        let partials = count("partial sums", &[u32::try_from(partials).unwrap_or(u32::MAX)])?;
        check_config(partials < u32::MAX, "counts", "fewer than 2^32 partial sums", partials)?;
        let mut plan = Plan { variant: "squares", ..Plan::default() };
        let mut offset = 0;
        for &count in &config.counts {
            check_config(count > 0, "counts", "at least 1 each", count)?;
            let (width, items) = sum::items(count);
            let groups = sum::groups(items);
            let params = Params { items, offset, max_norm };
            let cost = Cost::new(u64::from(count) * 2, u64::from(count) * 4);
            plan.launches.push(Launch::new(
                &SQUARES[width],
                constants.clone(),
                &params,
                groups.into(),
                caps,
                cost,
            )?);
            offset += groups * sum::WORKGROUP;
        }
        sum::plan(&mut plan, partials, 1.0, caps)?;
        plan.scratch.push(4);
        let params = Params { items: 1, offset: 0, max_norm };
        plan.launches.push(Launch::new(&FINISH, constants, &params, 1, caps, Cost::new(4, 16))?);
        Ok(plan)
    }
}

impl Kernel for Clip {
    type Args<'a> = ClipArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let counts = &self.config.counts;
        let (buffers, plan) = (counts.len(), &self.plan);
        let same = args.gradients.len() == buffers;
        check_shape(same, "gradients", format!("{buffers} buffers"), args.gradients.len())?;
        let step = Arg::words("step", args.step, StepValues::WORDS);
        let mut recording = Recording::new();
        for ((launch, &view), &n) in plan.launches.iter().zip(args.gradients).zip(counts) {
            let gradient = Arg::words("gradients", view, n.into());
            check_apart(&[step], &[Some(gradient)])?;
            let partial = sum::partial(plan, args.scratch, 0)?;
            recording.push(self.context.bind(launch, &[gradient, partial])?);
        }
        let total = sum::partial(plan, args.scratch, plan.scratch.len() - 1)?;
        let (tail, finish) = (&plan.launches[buffers..plan.launches.len() - 1], plan.launches.len() - 1);
        sum::bind(&self.context, plan, tail, total, args.scratch, &mut recording)?;
        recording.push(self.context.bind(&plan.launches[finish], &[total, step])?);
        Ok(recording)
    }
}
