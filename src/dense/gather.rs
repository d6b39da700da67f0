//! Rows by index, and rows added up by index (`shaders/dense/gather.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Error, Kernel, Launch, Plan, Recording, Result, Scratch,
    Shader, check_config, count, kernel, read, shader, write,
};

use super::sort::{Sort, SortConfig, SortKey, SortPayload};

/// How many elements of a row an invocation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatherVariant {
    /// One; any width.
    Scalar,
    /// Four; the width must be a multiple of 4.
    Vec4,
}

/// `n` rows of a table of `rows`, each of `width` elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatherConfig {
    /// Rows of the table, 1 to 2^32 - 2.
    pub rows: u32,
    /// Indices, at least 1; of a [`ScatterAdd`] at most 2^32 - 4,096.
    pub n: u32,
    /// Elements of a row, at least 1.
    pub width: u32,
    /// `None`: the fastest that fits.
    pub variant: Option<GatherVariant>,
}

const WORKGROUP: u32 = 64;
const SPAN: u32 = 32;

static GATHER: [Shader; 2] = [
    shader!("dense/gather", "gather", [index], [read("index"), read("x"), write("y")]),
    shader!("dense/gather", "gather", [index], [read("index"), read("x").vec4(), write("y").vec4()]),
];
pub(super) static CLAMP: Shader =
    shader!("dense/gather", "clamp_index", [index], [read("index"), write("keys")]);
pub(super) static STARTS: Shader =
    shader!("dense/gather", "row_starts", [index], [read("sorted"), write("starts_out")]);
static BLOCKS: [Shader; 2] = [
    shader!(
        "dense/gather",
        "sum_blocks",
        [index],
        [read("sorted"), read("order"), read("dy"), write("blocks_out")]
    ),
    shader!(
        "dense/gather",
        "sum_blocks",
        [index],
        [read("sorted"), read("order"), read("dy").vec4(), write("blocks_out").vec4()]
    ),
];
static SPANS: [Shader; 2] = [
    shader!("dense/gather", "sum_spans", [index], [read("sorted"), read("blocks_in"), write("spans_out")]),
    shader!(
        "dense/gather",
        "sum_spans",
        [index],
        [read("sorted"), read("blocks_in").vec4(), write("spans_out").vec4()]
    ),
];
static ADD_ROWS: [Shader; 2] = [
    shader!(
        "dense/gather",
        "add_rows",
        [index],
        [read("starts"), read("order"), read("dy"), read("blocks"), read("spans"), write("dx")]
    ),
    shader!(
        "dense/gather",
        "add_rows",
        [index],
        [
            read("starts"),
            read("order"),
            read("dy").vec4(),
            read("blocks").vec4(),
            read("spans").vec4(),
            write("dx").vec4()
        ]
    ),
];

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    n: u32,
    width: u32,
    count: u32,
    accumulate: u32,
}

impl GatherConfig {
    /// `rows * width` and `n * width`.
    fn counts(&self) -> Result<(u32, u32)> {
        for (what, value) in [("rows", self.rows), ("n", self.n), ("width", self.width)] {
            check_config(value > 0, what, "at least 1", value)?;
        }
        check_config(self.rows < u32::MAX, "rows", "at most 2^32 - 2", self.rows)?;
        Ok((count("the table", &[self.rows, self.width])?, count("the rows", &[self.n, self.width])?))
    }

    /// Index of the shaders, elements taken at once, and the name.
    fn method(&self) -> Result<(usize, u32, &'static str)> {
        let whole = self.width.is_multiple_of(4);
        let fastest = if whole { GatherVariant::Vec4 } else { GatherVariant::Scalar };
        match self.variant.unwrap_or(fastest) {
            GatherVariant::Scalar => Ok((0, 1, "scalar")),
            GatherVariant::Vec4 => {
                check_config(whole, "width", "a multiple of 4 for the vec4 variant", self.width)?;
                Ok((1, 4, "vec4"))
            }
        }
    }

    /// A launch of one invocation for each of `outputs`.
    pub(super) fn launch(
        &self,
        shader: &'static Shader,
        outputs: u32,
        accumulate: bool,
        caps: &Capabilities,
        cost: Cost,
    ) -> Result<Launch> {
        let lanes = self.method()?.1;
        let constants = Constants::new()
            .u32("WORKGROUP", WORKGROUP)
            .u32("SPAN", SPAN)
            .alias("Words", if lanes == 4 { "vec4<u32>" } else { "u32" })
            .alias("Floats", if lanes == 4 { "vec4<f32>" } else { "f32" });
        let Self { rows, n, width, .. } = *self;
        let width = width / lanes;
        let params = Params { rows, n, width, count: outputs, accumulate: accumulate.into() };
        Launch::new(shader, constants, &params, outputs.div_ceil(WORKGROUP).into(), caps, cost)
    }
}

kernel! {
    /// `y_i = x_index(i)`: rows of a table, zeros where an index is `rows` or more. Elements are
    /// any 32-bit words. Its gradient is [`ScatterAdd`].
    Gather, GatherConfig
}

/// Buffers of [`Gather`].
#[derive(Debug, Clone, Copy)]
pub struct GatherArgs<'a> {
    /// The table, `[rows, width]`.
    pub x: BufferView<'a>,
    /// Which rows, `[n]` u32.
    pub index: BufferView<'a>,
    /// Output, `[n, width]`.
    pub y: BufferView<'a>,
}

impl Gather {
    /// Chooses the variant and the grid.
    pub fn plan(config: &GatherConfig, caps: &Capabilities) -> Result<Plan> {
        let (_, elements) = config.counts()?;
        let (method, lanes, name) = config.method()?;
        let cost = Cost::new(0, 4 * (2 * u64::from(elements) + u64::from(config.n)));
        let launch = config.launch(&GATHER[method], elements / lanes, false, caps, cost)?;
        Ok(Plan::single(name, launch))
    }
}

impl Kernel for Gather {
    type Args<'a> = GatherArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (table, elements) = self.config.counts()?;
        let args = [
            Arg::words("index", args.index, self.config.n.into()),
            Arg::words("x", args.x, table.into()),
            Arg::words("y", args.y, elements.into()),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

/// A [`ScatterAdd`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScatterAddConfig {
    /// The shapes, and the variant.
    pub gather: GatherConfig,
    /// Adds to what `dx` holds, instead of overwriting it.
    pub accumulate: bool,
}

kernel! {
    /// `dx_r` = the sum of `dy_i` over all `i` with `index(i) = r`; indices of `rows` or more are
    /// left out. The order of the additions is fixed: results repeat bit by bit. It is the gradient
    /// of [`Gather`], and its own gradient is a [`Gather`] from the gradient of `dx`.
    ScatterAdd, ScatterAddConfig
}

/// Buffers of [`ScatterAdd`].
#[derive(Debug, Clone, Copy)]
pub struct ScatterAddArgs<'a> {
    /// What is added, `[n, width]`.
    pub dy: BufferView<'a>,
    /// To which rows, `[n]` u32.
    pub index: BufferView<'a>,
    /// The sums, `[rows, width]`; all of it is written.
    pub dx: BufferView<'a>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

/// Scratch buffers: keys, sorted keys, order, starts, sums of blocks, sums of spans; then the sort's.
const OWN_SCRATCH: usize = 6;

impl ScatterAddConfig {
    fn sort(&self) -> SortConfig {
        // Keys are 0 to `rows`.
        SortConfig {
            key: SortKey::U32,
            count: self.gather.n,
            payload: SortPayload::Indices,
            descending: false,
            bits: 32 - self.gather.rows.leading_zeros(),
            variant: None,
        }
    }

    /// Whole blocks, and whole spans.
    fn sums(&self) -> (u32, u32) {
        (self.gather.n / SPAN, self.gather.n / (SPAN * SPAN))
    }
}

impl ScatterAdd {
    /// Chooses the variant; the passes of the sort, and the grids.
    pub fn plan(config: &ScatterAddConfig, caps: &Capabilities) -> Result<Plan> {
        let gather = &config.gather;
        let GatherConfig { rows, n, width, .. } = *gather;
        let (table, elements) = gather.counts()?;
        let (method, lanes, name) = gather.method()?;
        let sort = Sort::plan(&config.sort(), caps)?;
        let (blocks, spans) = config.sums();
        let wide = u64::from;
        let mut plan = Plan { variant: name, ..Plan::default() };
        let mut push = |shader, outputs, cost| -> Result<()> {
            plan.launches.push(gather.launch(shader, outputs, config.accumulate, caps, cost)?);
            Ok(())
        };
        push(&CLAMP, n, Cost::new(0, 8 * wide(n)))?;
        push(&STARTS, rows + 1, Cost::new(0, 4 * (wide(n) + wide(rows))))?;
        if blocks > 0 {
            // Each row of dy is read once, here or in the last launch: counted there.
            let cost = Cost::new(wide(elements), 8 * wide(blocks));
            push(&BLOCKS[method], blocks * (width / lanes), cost)?;
        }
        if spans > 0 {
            let cost = Cost::new(wide(blocks) * wide(width), 8 * wide(spans));
            push(&SPANS[method], spans * (width / lanes), cost)?;
        }
        let written = wide(table) * if config.accumulate { 2 } else { 1 };
        let cost = Cost::new(0, 4 * (wide(elements) + wide(n) + wide(rows) + written));
        push(&ADD_ROWS[method], table / lanes, cost)?;
        plan.launches.splice(1..1, sort.launches);
        let sums = |sums: u32| wide(sums.max(1)) * wide(width) * 4;
        plan.scratch =
            vec![wide(n) * 4, wide(n) * 4, wide(n) * 4, (wide(rows) + 1) * 4, sums(blocks), sums(spans)];
        plan.scratch.extend(sort.scratch);
        Ok(plan)
    }
}

impl Kernel for ScatterAdd {
    type Args<'a> = ScatterAddArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let GatherConfig { rows, n, width, .. } = self.config.gather;
        let (table, elements) = self.config.gather.counts()?;
        let scratch: Vec<_> =
            (0..self.plan.scratch.len()).map(|i| args.scratch.view(i)).collect::<Result<_>>()?;
        // No launch sees both.
        if args.index.buffer == args.dx.buffer {
            return Err(Error::Aliased { what: "dx", other: "index" });
        }
        let (own, sort_scratch) = scratch.split_at(OWN_SCRATCH.min(scratch.len()));
        let &[keys, sorted, order, starts, blocks, spans] = own else {
            return Err(Error::BufferTooSmall {
                what: "scratch",
                need: OWN_SCRATCH as u64,
                have: own.len() as u64,
            });
        };
        let (whole_blocks, whole_spans) = self.config.sums();
        let sums = |what, view, sums: u32| Arg::words(what, view, u64::from(sums.max(1)) * u64::from(width));
        let blocks = sums("blocks", blocks, whole_blocks);
        let spans = sums("spans", spans, whole_spans);
        let sorted_arg = Arg::words("sorted", sorted, n.into());
        let order_arg = Arg::words("order", order, n.into());
        let starts = Arg::words("starts", starts, u64::from(rows) + 1);
        let dy = Arg::words("dy", args.dy, elements.into());
        let dx = Arg::words("dx", args.dx, table.into());

        let mut lists = vec![vec![sorted_arg, starts]];
        if whole_blocks > 0 {
            lists.push(vec![sorted_arg, order_arg, dy, blocks]);
        }
        if whole_spans > 0 {
            lists.push(vec![sorted_arg, blocks, spans]);
        }
        lists.push(vec![starts, order_arg, dy, blocks, spans, dx]);

        let launches = &self.plan.launches;
        let sorted_by = launches.len() - lists.len();
        let clamped = [Arg::words("index", args.index, n.into()), Arg::words("keys", keys, n.into())];
        let mut recording = Recording::single(self.context.bind(&launches[0], &clamped)?);
        recording.append(Sort::bind(
            &self.context,
            &launches[1..sorted_by],
            &self.config.sort(),
            (keys, sorted),
            (None, Some(order)),
            sort_scratch,
        )?);
        for (launch, list) in launches[sorted_by..].iter().zip(&lists) {
            recording.push(self.context.bind(launch, list)?);
        }
        Ok(recording)
    }
}
