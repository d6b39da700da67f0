//! The tail of every reduction to one number: partial sums to their sum (`shaders/dense/sum.wgsl`).

use crate::dispatch::{Arg, Capabilities, Constants, Cost, Launch, Plan, Recording, Result, Scratch, Shader};
use crate::dispatch::{check_workgroup, read, shader, write};

const SPAN: u32 = 1024;

static REDUCE: Shader =
    shader!("dense/sum", "reduce", [index, block_sum], [read("partial_in"), write("sum_out")]);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    factor: f32,
}

/// Adds the launches that turn `partials` values into `factor` times their sum, and a scratch
/// buffer for the input of each.
pub(crate) fn plan(plan: &mut Plan, mut partials: u32, factor: f32, caps: &Capabilities) -> Result<()> {
    check_workgroup("dense/sum", 256, 1024, caps)?;
    loop {
        plan.scratch.push(u64::from(partials) * 4);
        let groups = partials.div_ceil(SPAN);
        let factor = if groups == 1 { factor } else { 1.0 };
        let cost = Cost::new(partials.into(), u64::from(partials) * 4);
        let params = Params { count: partials, factor };
        plan.launches.push(Launch::new(&REDUCE, Constants::new(), &params, groups.into(), caps, cost)?);
        if groups <= 1 {
            return Ok(());
        }
        partials = groups;
    }
}

/// The whole of scratch buffer `index`.
pub(crate) fn partial<'a>(plan: &Plan, scratch: &'a Scratch, index: usize) -> Result<Arg<'a>> {
    let bytes = plan.scratch.get(index).copied().unwrap_or(0);
    Ok(Arg::words("scratch", scratch.view(index)?, bytes / 4))
}

/// Binds the launches that [`plan`] added; launch `i` reads scratch buffer `i`, the last one writes `out`.
pub(crate) fn bind<'a>(
    context: &crate::Context,
    plan: &Plan,
    launches: &[Launch],
    out: Arg<'a>,
    scratch: &'a Scratch,
    recording: &mut Recording,
) -> Result<()> {
    for (i, launch) in launches.iter().enumerate() {
        let last = i + 1 == launches.len();
        let out = if last { out } else { partial(plan, scratch, i + 1)? };
        recording.push(context.bind(launch, &[partial(plan, scratch, i)?, out])?);
    }
    Ok(())
}
