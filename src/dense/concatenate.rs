//! Rows of two matrices side by side, with a bias (`shaders/dense/concatenate.wgsl`).

use super::{ReduceConfig, ReduceForward, ReduceForwardArgs, Reduction};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Scratch, Shader,
    check_apart, check_config, check_shape, count, kernel, read, shader, write,
};

/// `y_r = [a_r, b_r] + bias` for each of `rows` rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConcatenateConfig {
    /// Rows, at least 1.
    pub rows: u32,
    /// Columns of `a`, at least 1.
    pub first: u32,
    /// Columns of `b`, at least 1.
    pub second: u32,
    /// There is a bias.
    pub bias: bool,
}

const WORKGROUP: u32 = 256;

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    first: u32,
    second: u32,
}

static CONCATENATE: [Shader; 2] = [
    shader!(
        "dense/concatenate",
        "concatenate",
        [index, scalars, stored_floats],
        [read("a"), read("b"), read("bias"), write("y")]
    ),
    shader!(
        "dense/concatenate",
        "concatenate",
        [index, quads, vectors, stored_quads],
        [read("a").vec4(), read("b").vec4(), read("bias").vec4(), write("y").vec4()]
    ),
];
static SPLIT: [Shader; 2] = [
    shader!(
        "dense/concatenate",
        "split",
        [index, scalars, stored_floats],
        [read("dy"), write("da"), write("db")]
    ),
    shader!(
        "dense/concatenate",
        "split",
        [index, quads, vectors, stored_quads],
        [read("dy").vec4(), write("da").vec4(), write("db").vec4()]
    ),
];

impl ConcatenateConfig {
    /// Columns of `y`.
    fn width(&self) -> u32 {
        self.first.saturating_add(self.second)
    }

    fn launch(&self, shaders: &'static [Shader; 2], caps: &Capabilities) -> Result<(&'static str, Launch)> {
        let Self { rows, first, second, bias } = *self;
        for (what, value) in [("rows", rows), ("first", first), ("second", second)] {
            check_config(value > 0, what, "at least 1", value)?;
        }
        let elements = count("y", &[rows, self.width()])?;
        let four = first.is_multiple_of(4) && second.is_multiple_of(4);
        let (name, each) = if four { ("vec4", 4) } else { ("scalar", 1) };
        let params = Params { count: elements / each, first: first / each, second: second / each };
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP).bool("BIAS", bias);
        let bytes = 8 * u64::from(elements);
        let groups = params.count.div_ceil(WORKGROUP).into();
        let shader = &shaders[usize::from(four)];
        Ok((name, Launch::new(shader, constants, &params, groups, caps, Cost::new(0, bytes))?))
    }

    /// The bias's gradient.
    fn sum(&self) -> ReduceConfig {
        ReduceConfig {
            reduction: Reduction::Sum,
            outer: 1,
            n: self.rows,
            inner: self.width(),
            variant: None,
            part: None,
        }
    }

    fn check_bias(&self, what: &'static str, bias: Option<BufferView<'_>>) -> Result<()> {
        let need = if self.bias { "a buffer" } else { "none, as configured" };
        check_shape(bias.is_some() == self.bias, what, need, bias.map(|view| view.size))
    }

    fn args<'a>(&self, names: [&'static str; 3], [a, b, y]: [BufferView<'a>; 3]) -> [Arg<'a>; 3] {
        let rows = u64::from(self.rows);
        [
            Arg::words(names[0], a, rows * u64::from(self.first)),
            Arg::words(names[1], b, rows * u64::from(self.second)),
            Arg::words(names[2], y, rows * u64::from(self.width())),
        ]
    }
}

kernel! {
    /// `y_r = [a_r, b_r] + bias`.
    ConcatenateForward, ConcatenateConfig
}

/// Buffers of [`ConcatenateForward`].
#[derive(Debug, Clone, Copy)]
pub struct ConcatenateForwardArgs<'a> {
    /// `[rows, first]`
    pub a: BufferView<'a>,
    /// `[rows, second]`
    pub b: BufferView<'a>,
    /// `[first + second]`, if configured.
    pub bias: Option<BufferView<'a>>,
    /// Output, `[rows, first + second]`.
    pub y: BufferView<'a>,
}

impl ConcatenateForward {
    /// One dispatch.
    pub fn plan(config: &ConcatenateConfig, caps: &Capabilities) -> Result<Plan> {
        let (name, launch) = config.launch(&CONCATENATE, caps)?;
        Ok(Plan::single(name, launch))
    }
}

impl Kernel for ConcatenateForward {
    type Args<'a> = ConcatenateForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        self.config.check_bias("bias", args.bias)?;
        let [a, b, y] = self.config.args(["a", "b", "y"], [args.a, args.b, args.y]);
        // Without a bias, anything that can be bound: it is not read.
        let bias = args.bias.map_or(a, |view| Arg::words("bias", view, self.config.width().into()));
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &[a, b, bias, y])?))
    }
}

kernel! {
    /// Gradients of both inputs and of the bias.
    ConcatenateBackward, ConcatenateConfig
}

/// Buffers of [`ConcatenateBackward`].
#[derive(Debug, Clone, Copy)]
pub struct ConcatenateBackwardArgs<'a> {
    /// Gradient of the output, `[rows, first + second]`.
    pub dy: BufferView<'a>,
    /// Gradient of `a`, `[rows, first]`; overwritten.
    pub da: BufferView<'a>,
    /// Gradient of `b`, `[rows, second]`; overwritten.
    pub db: BufferView<'a>,
    /// Gradient of the bias, `[first + second]`, if there is one; overwritten.
    pub dbias: Option<BufferView<'a>>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl ConcatenateBackward {
    /// A dispatch, and a sum over the rows.
    pub fn plan(config: &ConcatenateConfig, caps: &Capabilities) -> Result<Plan> {
        let (name, launch) = config.launch(&SPLIT, caps)?;
        let mut plan = Plan::single(name, launch);
        if config.bias {
            let mut sum = ReduceForward::plan(&config.sum(), caps)?;
            // dy is counted above: one reading would do.
            if let Some(first) = sum.launches.first_mut() {
                first.cost.bytes =
                    first.cost.bytes.saturating_sub(4 * u64::from(config.rows) * u64::from(config.width()));
            }
            plan.launches.extend(sum.launches);
            plan.scratch = sum.scratch;
        }
        Ok(plan)
    }
}

impl Kernel for ConcatenateBackward {
    type Args<'a> = ConcatenateBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        self.config.check_bias("dbias", args.dbias)?;
        let [da, db, dy] = self.config.args(["da", "db", "dy"], [args.da, args.db, args.dy]);
        let dbias = args.dbias.map(|view| Arg::words("dbias", view, self.config.width().into()));
        let outputs: Vec<_> = [da, db].into_iter().chain(dbias).collect();
        check_apart(&outputs, &[Some(dy)])?;
        let mut recording = Recording::single(self.context.bind(&self.plan.launches[0], &[dy, da, db])?);
        if let Some(y) = args.dbias {
            let sum = ReduceForward::new(&self.context, self.config.sum())?;
            let args = ReduceForwardArgs { x: args.dy, y, index: None, scratch: args.scratch };
            recording.append(sum.prepare(&args)?);
        }
        Ok(recording)
    }
}
