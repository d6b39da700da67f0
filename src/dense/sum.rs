//! The tail of every reduction to one number: partial sums to their sum (`shaders/dense/sum.wgsl`).

use crate::dispatch::{Arg, Capabilities, Constants, Cost, Launch, Plan, Recording, Result, Scratch, Shader};
use crate::dispatch::{check_workgroup, read, shader, write};

/// Invocations of a first pass, each of which leaves a partial sum: large workgroups copy faster on
/// CPU adapters.
pub(crate) const WORKGROUP: u32 = 256;
/// Items that an invocation of a first pass adds.
pub(crate) const ITEMS: u32 = 8;
/// Items that an invocation of this sum adds.
const LEVEL: u32 = 4;

/// Of one value an item, and of four.
static REDUCE: [Shader; 2] = [
    shader!(
        "dense/sum",
        "reduce",
        [index, scalars, block_sum, item_sum],
        [read("partial_in"), write("sum_out")]
    ),
    shader!(
        "dense/sum",
        "reduce",
        [index, vectors, block_sum, item_sum],
        [read("partial_in").vec4(), write("sum_out")]
    ),
];

/// The items of an array: 0 and as many as elements, or 1 and a fourth of them.
pub(crate) fn items(count: u32) -> (usize, u32) {
    if count.is_multiple_of(4) { (1, count / 4) } else { (0, count) }
}

/// Workgroups of a first pass over so many items.
pub(crate) fn groups(items: u32) -> u32 {
    items.div_ceil(WORKGROUP * ITEMS)
}

/// The constants of a first pass.
pub(crate) fn constants() -> Constants {
    Constants::new().u32("WORKGROUP", WORKGROUP).u32("ITEMS", ITEMS)
}

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    items: u32,
    factor: f32,
}

/// Adds the launches that turn `partials` values into `factor` times their sum, and a scratch
/// buffer for the input of each.
pub(crate) fn plan(plan: &mut Plan, mut partials: u32, factor: f32, caps: &Capabilities) -> Result<()> {
    check_workgroup("dense/sum", 256, 1024, caps)?;
    let constants = Constants::new().u32("ITEMS", LEVEL);
    loop {
        plan.scratch.push(u64::from(partials) * 4);
        let (width, items) = items(partials);
        let groups = items.div_ceil(256 * LEVEL);
        let factor = if groups == 1 { factor } else { 1.0 };
        let cost = Cost::new(partials.into(), u64::from(partials) * 4);
        let params = Params { items, factor };
        plan.launches.push(Launch::new(
            &REDUCE[width],
            constants.clone(),
            &params,
            groups.into(),
            caps,
            cost,
        )?);
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
