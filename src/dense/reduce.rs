//! Sum, mean, L2 norm and maximum over one axis (`shaders/dense/reduce.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Error, Kernel, Launch, Plan, Recording, Result, Scratch,
    Shader, check_config, count, kernel, read, shader, write,
};

/// What an axis is reduced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// The sum.
    Sum,
    /// The sum divided by the length of the axis.
    Mean,
    /// The square root of the sum of squares. The squares are not scaled: elements above 1.8e19
    /// overflow, and those below 1e-19 may vanish. Its gradient is 0 where the norm is 0.
    L2Norm,
    /// The largest element, and the index of the first such. -0 equals 0; a NaN counts above all.
    Max,
}

/// Who reduces a part of the axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduceVariant {
    /// One invocation: for a large `inner`, or a short axis.
    Columns,
    /// One workgroup: for a small `inner`.
    Rows,
}

/// A reduction of the middle axis of `[outer, n, inner]`, row-major: any axis of any tensor, with
/// the axes before it and the axes after it taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReduceConfig {
    /// The reduction.
    pub reduction: Reduction,
    /// Product of the axes before, at least 1.
    pub outer: u32,
    /// The axis, at least 1.
    pub n: u32,
    /// Product of the axes after, at least 1.
    pub inner: u32,
    /// `None`: chosen from the shape; columns on CPU adapters.
    pub variant: Option<ReduceVariant>,
    /// The longest part of the axis that one pass reduces, at least 2, and on a CPU adapter at most
    /// some 58,000 (64 times as many for rows); a longer axis takes several passes. `None`: 4,096 for columns, 65,536 for rows, less where there are few outputs.
    pub part: Option<u32>,
}

const WORKGROUP: u32 = 64;
/// Items that are added before they go to a total.
const RUN: u32 = 32;
/// Of the backward pass: large workgroups copy faster on CPU adapters.
const BACKWARD: u32 = 256;
/// Items that an invocation of it writes.
const BACKWARD_ITEMS: u32 = 16;

/// What one read takes; the place of its shader in each list below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    /// One element.
    One = 0,
    /// Four columns.
    Columns = 1,
    /// Four neighbours of the axis.
    Along = 2,
}

fn constants(workgroup: u32, item: Item) -> Constants {
    Constants::new().u32("WORKGROUP", workgroup).bool("ALONG", item == Item::Along)
}

impl Item {
    /// The widest that fits.
    fn new(columns: bool, n: u32, inner: u32, length: u32) -> Self {
        if columns && inner.is_multiple_of(4) {
            Self::Columns
        } else if inner == 1 && n.is_multiple_of(4) && length.is_multiple_of(4) {
            Self::Along
        } else {
            Self::One
        }
    }

    /// Elements of the axis, and columns, to an item.
    fn size(self) -> (u32, u32) {
        match self {
            Self::One => (1, 1),
            Self::Columns => (1, 4),
            Self::Along => (4, 1),
        }
    }
}

static SUM_COLUMNS: [Shader; 3] = [
    shader!("dense/reduce", "sum_columns", [index, scalars], [read("x"), write("y")]),
    shader!("dense/reduce", "sum_columns", [index, vectors], [read("x").vec4(), write("y").vec4()]),
    shader!("dense/reduce", "sum_along", [index, vectors], [read("x").vec4(), write("y")]),
];
static SUM_ROWS: [Shader; 3] = [
    shader!("dense/reduce", "sum_rows", [index, scalars], [read("x"), write("y")]),
    shader!("dense/reduce", "sum_rows", [index, scalars], [read("x"), write("y")]),
    shader!("dense/reduce", "sum_rows", [index, vectors], [read("x").vec4(), write("y")]),
];
static MAX_COLUMNS: [Shader; 3] = [
    shader!("dense/reduce", "max_columns", [index, scalars], [read("x"), write("y"), write("index")]),
    shader!(
        "dense/reduce",
        "max_columns",
        [index, vectors],
        [read("x").vec4(), write("y").vec4(), write("index").vec4()]
    ),
    shader!("dense/reduce", "max_along", [index, vectors], [read("x").vec4(), write("y"), write("index")]),
];
static MAX_ROWS: [Shader; 3] = [
    shader!("dense/reduce", "max_rows", [index, scalars], [read("x"), write("y"), write("index")]),
    shader!("dense/reduce", "max_rows", [index, scalars], [read("x"), write("y"), write("index")]),
    shader!("dense/reduce", "max_rows", [index, vectors], [read("x").vec4(), write("y"), write("index")]),
];
static MAX_COLUMNS_AGAIN: [Shader; 3] = [
    shader!(
        "dense/reduce",
        "max_columns_again",
        [index, scalars],
        [read("x"), write("y"), write("index"), read("x_index")]
    ),
    shader!(
        "dense/reduce",
        "max_columns_again",
        [index, vectors],
        [read("x").vec4(), write("y").vec4(), write("index").vec4(), read("x_index").vec4()]
    ),
    shader!(
        "dense/reduce",
        "max_along_again",
        [index, vectors],
        [read("x").vec4(), write("y"), write("index"), read("x_index").vec4()]
    ),
];
static MAX_ROWS_AGAIN: [Shader; 3] = [
    shader!(
        "dense/reduce",
        "max_rows_again",
        [index, scalars],
        [read("x"), write("y"), write("index"), read("x_index")]
    ),
    shader!(
        "dense/reduce",
        "max_rows_again",
        [index, scalars],
        [read("x"), write("y"), write("index"), read("x_index")]
    ),
    shader!(
        "dense/reduce",
        "max_rows_again",
        [index, vectors],
        [read("x").vec4(), write("y"), write("index"), read("x_index").vec4()]
    ),
];
static SUM_BACKWARD: [Shader; 3] = [
    shader!("dense/reduce", "sum_backward", [index, scalars], [read("dy"), write("dx")]),
    shader!("dense/reduce", "sum_backward", [index, vectors], [read("dy").vec4(), write("dx").vec4()]),
    shader!("dense/reduce", "sum_backward_along", [index, vectors], [read("dy"), write("dx").vec4()]),
];
static MAX_BACKWARD: [Shader; 3] = [
    shader!("dense/reduce", "max_backward", [index, scalars], [read("dy"), write("dx"), read("index")]),
    shader!(
        "dense/reduce",
        "max_backward",
        [index, vectors],
        [read("dy").vec4(), write("dx").vec4(), read("index").vec4()]
    ),
    shader!(
        "dense/reduce",
        "max_backward_along",
        [index, vectors],
        [read("dy"), write("dx").vec4(), read("index")]
    ),
];
static NORM_BACKWARD: [Shader; 3] = [
    shader!(
        "dense/reduce",
        "norm_backward",
        [index, scalars],
        [read("dy"), write("dx"), read("x"), read("y")]
    ),
    shader!(
        "dense/reduce",
        "norm_backward",
        [index, vectors],
        [read("dy").vec4(), write("dx").vec4(), read("x").vec4(), read("y").vec4()]
    ),
    shader!(
        "dense/reduce",
        "norm_backward_along",
        [index, vectors],
        [read("dy"), write("dx").vec4(), read("x").vec4(), read("y")]
    ),
];

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    n: u32,
    inner: u32,
    parts: u32,
    length: u32,
    count: u32,
    square: u32,
    root: u32,
    scale: f32,
    backward: Chunks,
}

/// What the invocations of a backward pass are told apart by, with factors and shifts to divide by.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Chunks {
    slab_rows: u32,
    slab: u32,
    by_slab: [u32; 2],
    by_inner: [u32; 2],
    chunks: u32,
    by_chunks: [u32; 2],
}

/// Factor and shift of a division by `d` (`divide` in the shader).
fn divisor(d: u32) -> [u32; 2] {
    let shift = u64::from(d).next_power_of_two().trailing_zeros();
    let factor = ((1u64 << 32) * ((1u64 << shift) - u64::from(d))) / u64::from(d) + 1;
    [factor as u32, shift]
}

impl ReduceConfig {
    /// Elements of x, and of y.
    fn counts(&self) -> Result<(u32, u32)> {
        for (what, value) in [("outer", self.outer), ("n", self.n), ("inner", self.inner)] {
            check_config(value > 0, what, "at least 1", value)?;
        }
        check_config(self.part.is_none_or(|part| part >= 2), "part", "at least 2", self.part)?;
        let elements = count("x", &[self.outer, self.n, self.inner])?;
        Ok((elements, self.outer * self.inner))
    }

    /// Parts of an axis of length `n`, and how long each is.
    fn split(&self, n: u32, variant: ReduceVariant) -> (u32, u32) {
        // As many parts as keep a large device busy, none of them too short to be worth a pass.
        let outputs = self.outer * self.inner;
        let (longest, shortest, busy) = match variant {
            ReduceVariant::Columns => (4096, 128, 16_384u32),
            ReduceVariant::Rows => (65_536, 4096, 256),
        };
        let wanted = n.div_ceil(busy.div_ceil(outputs)).clamp(shortest, longest);
        // A multiple of 4, so that items can lie along the axis.
        let length = self.part.unwrap_or(wanted.next_multiple_of(4)).min(n);
        (n.div_ceil(length), length)
    }

    fn scale(&self) -> f32 {
        if self.reduction == Reduction::Mean { 1.0 / self.n as f32 } else { 1.0 }
    }
}

kernel! {
    /// Reduces the middle axis of `x`, `[outer, n, inner]`, to `y`, `[outer, inner]`.
    ReduceForward, ReduceConfig
}

/// Buffers of [`ReduceForward`].
#[derive(Debug, Clone, Copy)]
pub struct ReduceForwardArgs<'a> {
    /// Input, `[outer, n, inner]`.
    pub x: BufferView<'a>,
    /// Output, `[outer, inner]`.
    pub y: BufferView<'a>,
    /// For the maximum: where along the axis it was found, `[outer, inner]` u32.
    pub index: Option<BufferView<'a>>,
    /// As the plan asks for; empty for a short axis.
    pub scratch: &'a Scratch,
}

impl ReduceForward {
    /// Chooses the variant, the passes and their grids.
    pub fn plan(config: &ReduceConfig, caps: &Capabilities) -> Result<Plan> {
        config.counts()?;
        // CPU adapters gain nothing from neighbours that read neighbours, and lose by barriers.
        let columns = config.inner >= 16 || config.n <= 32 || caps.cpu;
        let variant =
            config.variant.unwrap_or(if columns { ReduceVariant::Columns } else { ReduceVariant::Rows });
        let by_columns = variant == ReduceVariant::Columns;
        let name = if by_columns { "columns" } else { "rows" };
        let is_max = config.reduction == Reduction::Max;
        let mut plan = Plan { variant: name, ..Plan::default() };
        let mut n = config.n;
        loop {
            let (parts, length) = config.split(n, variant);
            let (first, last) = (plan.launches.is_empty(), parts == 1);
            let results = count("parts", &[config.outer, parts, config.inner])?;
            let norm = config.reduction == Reduction::L2Norm;
            let item = Item::new(by_columns, n, config.inner, length);
            let (elements_each, columns_each) = item.size();
            let results_each = results / columns_each;
            let length = length / elements_each;
            let params = Params {
                n: n / elements_each,
                inner: config.inner / columns_each,
                parts,
                length,
                count: results_each,
                square: (norm && first).into(),
                root: (norm && last).into(),
                scale: if last { config.scale() } else { 1.0 },
                backward: Chunks::default(),
            };
            let shaders = match (is_max, first, by_columns) {
                (false, _, true) => &SUM_COLUMNS,
                (false, _, false) => &SUM_ROWS,
                (true, true, true) => &MAX_COLUMNS,
                (true, true, false) => &MAX_ROWS,
                (true, false, true) => &MAX_COLUMNS_AGAIN,
                (true, false, false) => &MAX_ROWS_AGAIN,
            };
            let shader = &shaders[item as usize];
            // CPU adapters want long stretches of each row, and so neighbouring columns together.
            let long = caps.cpu && item == Item::Columns && !is_max && config.inner >= 256;
            let (workgroup, columns) = if long { (8, 8) } else { (WORKGROUP, 1) };
            let (groups, own) = if by_columns {
                (results_each.div_ceil(workgroup * columns), length)
            } else {
                (results, length.div_ceil(WORKGROUP))
            };
            let elements = u64::from(n) * u64::from(config.outer) * u64::from(config.inner);
            let words = if is_max { 2 } else { 1 };
            let read = if first { elements } else { words * elements };
            let flops = elements * if norm && first { 2 } else { 1 };
            let cost = Cost::new(flops, 4 * (read + words * u64::from(results)));
            let run = own.next_power_of_two().min(RUN);
            caps.check_rounds(
                "part",
                config.part.unwrap_or(length),
                u64::from(own) + 2 * u64::from(own / run),
            )?;
            let constants = constants(workgroup, item)
                .u32("ITEMS", 1)
                .u32("RUN", run)
                .u32("UNROLL", if long { run.min(4) } else { run })
                .u32("COLUMNS", columns);
            plan.launches.push(Launch::new(shader, constants, &params, groups.into(), caps, cost)?);
            if last {
                return Ok(plan);
            }
            plan.scratch.extend((0..words).map(|_| u64::from(results) * 4));
            n = parts;
        }
    }
}

impl Kernel for ReduceForward {
    type Args<'a> = ReduceForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (elements, outputs) = self.config.counts()?;
        let is_max = self.config.reduction == Reduction::Max;
        let missing = || Error::Shape { what: "index", need: "a buffer".into(), got: "none".into() };
        let words = |what, view, n: u64| Arg::words(what, view, n);
        let step = if is_max { 2 } else { 1 };
        // With several passes no launch sees both the input and the output.
        for (view, what) in [(Some(args.y), "y"), (args.index.filter(|_| is_max), "index")] {
            if view.is_some_and(|view| view.buffer == args.x.buffer) {
                return Err(Error::Aliased { what, other: "x" });
            }
        }
        let mut recording = Recording::new();
        let (mut x, mut x_index, mut n) = (args.x, None, u64::from(elements));
        let last = self.plan.launches.len() - 1;
        for (pass, launch) in self.plan.launches.iter().enumerate() {
            let (y, index, m) = if pass == last {
                (args.y, args.index, u64::from(outputs))
            } else {
                let at = pass * step;
                let index = if is_max { Some(args.scratch.view(at + 1)?) } else { None };
                (args.scratch.view(at)?, index, self.plan.scratch[at] / 4)
            };
            let mut list = vec![words("x", x, n), words("y", y, m)];
            if is_max {
                list.push(words("index", index.ok_or_else(missing)?, m));
                if let Some(view) = x_index {
                    list.push(words("partial index", view, n));
                }
            }
            recording.push(self.context.bind(launch, &list)?);
            (x, x_index, n) = (y, index, m);
        }
        Ok(recording)
    }
}

kernel! {
    /// The gradient of [`ReduceForward`], `[outer, n, inner]`. `variant` and `part` are not used.
    ReduceBackward, ReduceConfig
}

/// Buffers of [`ReduceBackward`].
#[derive(Debug, Clone, Copy)]
pub struct ReduceBackwardArgs<'a> {
    /// Gradient of the output, `[outer, inner]`.
    pub dy: BufferView<'a>,
    /// For the L2 norm: the forward pass's input, `[outer, n, inner]`.
    pub x: Option<BufferView<'a>>,
    /// For the L2 norm: the forward pass's output, `[outer, inner]`.
    pub y: Option<BufferView<'a>>,
    /// For the maximum: what the forward pass wrote, `[outer, inner]`.
    pub index: Option<BufferView<'a>>,
    /// Gradient of the input, `[outer, n, inner]`; overwritten.
    pub dx: BufferView<'a>,
}

impl ReduceBackward {
    /// Chooses the shader and the grid.
    pub fn plan(config: &ReduceConfig, caps: &Capabilities) -> Result<Plan> {
        let (elements, outputs) = config.counts()?;
        let (e, o) = (u64::from(elements), u64::from(outputs));
        let (shaders, flops, reads) = match config.reduction {
            Reduction::Sum | Reduction::Mean => (&SUM_BACKWARD, e, o),
            Reduction::Max => (&MAX_BACKWARD, 0, 2 * o),
            Reduction::L2Norm => (&NORM_BACKWARD, 2 * e, e + 2 * o),
        };
        let item = Item::new(true, config.n, config.inner, config.n);
        let (elements_each, columns_each) = item.size();
        let (n, inner) = (config.n / elements_each, config.inner / columns_each);
        // As many rows side by side as make a slab a workgroup wide.
        let items = n.min(BACKWARD_ITEMS);
        let slab_rows = (BACKWARD / inner).clamp(1, n.div_ceil(items));
        let (slab, chunks) = (slab_rows * inner, n.div_ceil(slab_rows * items));
        let backward = Chunks {
            slab_rows,
            slab,
            by_slab: divisor(slab),
            by_inner: divisor(inner),
            chunks,
            by_chunks: divisor(chunks),
        };
        let invocations = count("invocations", &[config.outer, chunks, slab])?;
        let params = Params {
            n,
            inner,
            parts: 1,
            length: n,
            count: invocations,
            square: 0,
            root: 0,
            scale: config.scale(),
            backward,
        };
        let constants =
            constants(BACKWARD, item).u32("ITEMS", items).u32("RUN", 1).u32("UNROLL", 1).u32("COLUMNS", 1);
        let cost = Cost::new(flops, 4 * (reads + e));
        let groups = invocations.div_ceil(BACKWARD).into();
        let launch = Launch::new(&shaders[item as usize], constants, &params, groups, caps, cost)?;
        Ok(Plan::single("elementwise", launch))
    }
}

impl Kernel for ReduceBackward {
    type Args<'a> = ReduceBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (elements, outputs) = self.config.counts()?;
        let (e, o) = (elements.into(), outputs.into());
        let need = |what, view: Option<_>, n| {
            let missing = || Error::Shape { what, need: "a buffer".into(), got: "none".into() };
            view.ok_or_else(missing).map(|view| Arg::words(what, view, n))
        };
        let mut list = vec![Arg::words("dy", args.dy, o), Arg::words("dx", args.dx, e)];
        match self.config.reduction {
            Reduction::Sum | Reduction::Mean => {}
            Reduction::Max => list.push(need("index", args.index, o)?),
            Reduction::L2Norm => list.extend([need("x", args.x, e)?, need("y", args.y, o)?]),
        }
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `divide` of the shader.
    fn divide(i: u32, [factor, shift]: [u32; 2]) -> u32 {
        let t = ((u64::from(i) * u64::from(factor)) >> 32) as u32;
        (t + ((i - t) >> shift.min(1))) >> (shift.max(1) - 1)
    }

    #[test]
    fn division_by_products_is_exact() {
        let mut divisors: Vec<u32> = (1..300).collect();
        divisors.extend([641, 65_535, 65_536, 65_537, 1_000_003, (1 << 31) - 1, 1 << 31, (1 << 31) + 1]);
        for d in divisors {
            for k in [0, 1, 2, 3, 1000, u32::MAX / d / 2, u32::MAX / d] {
                let at = k.min(u32::MAX / d) * d;
                for i in [at.saturating_sub(1), at, at.saturating_add(1), u32::MAX, u32::MAX - 1] {
                    assert_eq!(divide(i, divisor(d)), i / d, "{i} / {d}");
                }
            }
        }
    }
}
