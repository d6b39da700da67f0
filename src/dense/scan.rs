//! Prefix sums (`shaders/dense/scan.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Context, Cost, Error, Kernel, Launch, Plan, Recording, Result,
    Scratch, Shader, check_config, kernel, read, shader, write,
};

/// What is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanElement {
    /// Unsigned integers, modulo 2^32.
    U32,
    /// f32.
    F32,
}

/// A prefix sum over `count` elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanConfig {
    /// Their type.
    pub element: ScanElement,
    /// Elements, at least 1 and at most 2^32 - 512.
    pub count: u32,
    /// `y_i` without `x_i` itself.
    pub exclusive: bool,
    /// From the last element to the first. The gradient of a scan is the scan of the output's
    /// gradient with this flag flipped.
    pub reverse: bool,
}

const WORKGROUP: u32 = 64;
const ITEMS: u32 = 8;
const BLOCK: u32 = WORKGROUP * ITEMS;

static SUMS: Shader = shader!("dense/scan", "sums", [index], [read("x"), write("sums")]);
static SCAN: Shader = shader!("dense/scan", "scan", [index], [read("x"), write("y")]);
static SCAN_BLOCKS: Shader =
    shader!("dense/scan", "scan_blocks", [index], [read("x"), write("y"), read("offsets")]);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    exclusive: u32,
    reverse: u32,
}

kernel! {
    /// `y_i = x_0 + ... + x_i`, or without the last term.
    Scan, ScanConfig
}

/// Buffers of [`Scan`].
#[derive(Debug, Clone, Copy)]
pub struct ScanArgs<'a> {
    /// Input, `[count]`.
    pub x: BufferView<'a>,
    /// Output, `[count]`; of another buffer than `x`.
    pub y: BufferView<'a>,
    /// As the plan asks for; empty up to 512 elements.
    pub scratch: &'a Scratch,
}

/// The lengths of the levels: `count`, the number of its blocks, and so on, to one block.
fn levels(count: u32) -> Vec<u32> {
    let mut levels = vec![count];
    let mut n = count;
    while n > BLOCK {
        n = n.div_ceil(BLOCK);
        levels.push(n);
    }
    levels
}

impl Scan {
    /// The levels and their grids.
    pub fn plan(config: &ScanConfig, caps: &Capabilities) -> Result<Plan> {
        let ScanConfig { element, count, exclusive, reverse } = *config;
        check_config(count > 0, "count", "at least 1", count)?;
        check_config(count <= u32::MAX - BLOCK + 1, "count", "at most 2^32 - 512", count)?;
        let constants = Constants::new()
            .u32("WORKGROUP", WORKGROUP)
            .u32("ITEMS", ITEMS)
            .alias("Element", if element == ScanElement::U32 { "u32" } else { "f32" });
        let levels = levels(count);
        let launch = |shader: &'static Shader, level: usize, exclusive: bool| {
            let n = levels[level];
            let reverse = reverse && level == 0;
            let params = Params { count: n, exclusive: exclusive.into(), reverse: reverse.into() };
            // What the sums of blocks read is read once more: once would do.
            let cost = match std::ptr::eq(shader, &SUMS) {
                true => Cost::new(0, 4 * u64::from(n.div_ceil(BLOCK))),
                false => Cost::new(n.into(), 8 * u64::from(n)),
            };
            Launch::new(shader, constants.clone(), &params, n.div_ceil(BLOCK).into(), caps, cost)
        };
        let top = levels.len() - 1;
        let mut plan = Plan { variant: "levels", ..Plan::default() };
        for level in 0..top {
            plan.launches.push(launch(&SUMS, level, true)?);
        }
        for level in (0..=top).rev() {
            let shader = if level == top { &SCAN } else { &SCAN_BLOCKS };
            plan.launches.push(launch(shader, level, level > 0 || exclusive)?);
        }
        // Of each level above the first: the sums, then their prefix sums.
        plan.scratch = levels[1..].iter().flat_map(|&n| [u64::from(n) * 4; 2]).collect();
        Ok(plan)
    }

    /// Binds the launches of a plan for `count` elements; `scratch` as that plan asks for.
    pub(crate) fn bind(
        context: &Context,
        launches: &[Launch],
        count: u32,
        x: BufferView<'_>,
        y: BufferView<'_>,
        scratch: &[BufferView<'_>],
    ) -> Result<Recording> {
        let levels = levels(count);
        let top = levels.len() - 1;
        if scratch.len() < 2 * top || launches.len() != 2 * top + 1 {
            return Err(Error::BufferTooSmall {
                what: "scratch",
                need: 2 * top as u64,
                have: scratch.len() as u64,
            });
        }
        let words = |what, view, level: usize| Arg::words(what, view, levels[level].into());
        let source = |level: usize| if level == 0 { x } else { scratch[2 * level - 2] };
        let target = |level: usize| if level == 0 { y } else { scratch[2 * level - 1] };
        let mut recording = Recording::new();
        for (level, launch) in launches[..top].iter().enumerate() {
            let args = [words("x", source(level), level), words("sums", source(level + 1), level + 1)];
            recording.push(context.bind(launch, &args)?);
        }
        for (level, launch) in (0..=top).rev().zip(&launches[top..]) {
            let mut args = vec![words("x", source(level), level), words("y", target(level), level)];
            if level < top {
                args.push(words("offsets", target(level + 1), level + 1));
            }
            recording.push(context.bind(launch, &args)?);
        }
        Ok(recording)
    }
}

impl Kernel for Scan {
    type Args<'a> = ScanArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let scratch: Vec<_> =
            (0..self.plan.scratch.len()).map(|i| args.scratch.view(i)).collect::<Result<_>>()?;
        Self::bind(&self.context, &self.plan.launches, self.config.count, args.x, args.y, &scratch)
    }
}
