//! Mean losses with their gradients (`shaders/dense/loss.wgsl`).

use super::sum;
use crate::dispatch::{
    Arg, BufferView, Capabilities, Cost, Kernel, Launch, Plan, Recording, Result, Scratch, Shader,
    check_apart, check_config, check_shape, check_workgroup, count, kernel, read, shader, write,
};

/// An elementwise loss, most of them of `d = prediction - target`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Loss {
    /// `d^2`: mean squared error.
    #[default]
    Squared,
    /// `|d|`; the derivative at 0 is 0.
    Absolute,
    /// `d^2 / 2` up to `|d| = delta`, then `delta (|d| - delta / 2)` (Huber 1964).
    Huber {
        /// Where the parabola becomes a line; above 0.
        delta: f32,
    },
    /// `|d| / (|target| + epsilon)`: mean absolute percentage error as a fraction.
    Relative {
        /// Keeps the denominator from 0; above 0. Common: 0.01.
        epsilon: f32,
    },
    /// `d^2 / (prediction^2 + epsilon)`, the denominator held constant in the gradient
    /// (Lehtinen et al. 2018, section 3.3.1).
    RelativeSquared {
        /// Keeps the denominator from 0; above 0. Common: 0.01.
        epsilon: f32,
    },
    /// `-t log s - (1 - t) log(1 - s)` of a target `t` in 0 to 1, where the prediction is the logit of `s`:
    /// cross-entropy of two classes.
    BinaryCrossEntropy,
}

impl Loss {
    fn id(self) -> u32 {
        match self {
            Self::Squared => 0,
            Self::Absolute => 1,
            Self::Huber { .. } => 2,
            Self::Relative { .. } => 3,
            Self::RelativeSquared { .. } => 4,
            Self::BinaryCrossEntropy => 5,
        }
    }

    fn parameter(self) -> f32 {
        match self {
            Self::Huber { delta } => delta,
            Self::Relative { epsilon } | Self::RelativeSquared { epsilon } => epsilon,
            _ => 1.0,
        }
    }

    /// Operations of an element. The exponential and the logarithm count 8 each.
    fn flops(self, gradient: bool) -> u64 {
        match (self, gradient) {
            (Self::BinaryCrossEntropy, true) => 26,
            (Self::BinaryCrossEntropy, false) => 22,
            (_, true) => 5,
            (_, false) => 3,
        }
    }
}

/// An elementwise loss over `count` elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossConfig {
    /// The function.
    pub loss: Loss,
    /// Elements, at least 1.
    pub count: u32,
    /// Factor of the gradient, not of the loss; 1 gives the gradient of the mean.
    pub scale: f32,
    /// Whether the gradient is computed.
    pub gradient: bool,
    /// Weight of what differs between the errors of two elements, 2 i and 2 i + 1: the loss of both grows by
    /// `pairs |d_2i - d_(2i+1)| / 2`. Where they are a function at two places that are near each other, its slope is
    /// held against that of the target. Above 0, `count` is a multiple of 4.
    pub pairs: f32,
}

impl LossConfig {
    /// Of elements by themselves, with the gradient of the mean.
    #[must_use]
    pub fn new(loss: Loss, count: u32) -> Self {
        Self { loss, count, scale: 1.0, gradient: true, pairs: 0.0 }
    }
}

/// How the rows of a cross-entropy are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrossEntropyVariant {
    /// One invocation a row: few classes, and CPU adapters.
    Invocation,
    /// One workgroup a row.
    Workgroup,
}

/// What the logits are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CrossEntropyTarget {
    /// A class a row.
    #[default]
    Classes,
    /// A weight for each class of a row, of any sum: mixed labels, or another model's shares.
    Weights,
}

/// Cross-entropy of `rows` distributions over `classes` classes, from logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossEntropyConfig {
    /// Rows, at least 1.
    pub rows: u32,
    /// Classes, at least 1.
    pub classes: u32,
    /// Factor of the gradient, not of the loss; 1 gives the gradient of the mean.
    pub scale: f32,
    /// Whether the gradient is computed.
    pub gradient: bool,
    /// What the logits are held against.
    pub target: CrossEntropyTarget,
    /// Share of a row's weight that is spread evenly over all classes, 0 to 1 (label smoothing, Szegedy
    /// et al. 2016, section 7; 0.1 there).
    pub smoothing: f32,
    /// `None`: by the number of classes and the adapter.
    pub variant: Option<CrossEntropyVariant>,
}

impl CrossEntropyConfig {
    /// Of classes, with the gradient of the mean, not smoothed.
    #[must_use]
    pub fn new(rows: u32, classes: u32) -> Self {
        let target = CrossEntropyTarget::Classes;
        Self { rows, classes, scale: 1.0, gradient: true, target, smoothing: 0.0, variant: None }
    }

    /// Elements of the target.
    fn target_words(&self) -> u64 {
        let each = match self.target {
            CrossEntropyTarget::Classes => 1,
            CrossEntropyTarget::Weights => self.classes.into(),
        };
        u64::from(self.rows) * each
    }
}

/// Of the cross-entropy.
const WORKGROUP: u32 = 256;

macro_rules! forms {
    ($name:ident, $with:ident, $entry:literal, $entry_with:literal) => {
        static $name: Shader = shader!(
            "dense/loss",
            $entry,
            [index, scalars, block_sum, item_sum],
            [read("logits"), read("target_bits"), write("partial_sum")]
        );
        static $with: Shader = shader!(
            "dense/loss",
            $entry_with,
            [index, scalars, block_sum, item_sum],
            [read("logits"), read("target_bits"), write("partial_sum"), write("gradient")]
        );
    };
}
forms!(ROWS, ROWS_GRADIENT, "rows", "rows_gradient");
forms!(ROW, ROW_GRADIENT, "row", "row_gradient");

/// Of one element an item, and of four.
static ELEMENTS: [Shader; 2] = [
    shader!(
        "dense/loss",
        "elements",
        [index, scalars, block_sum, item_sum],
        [read("prediction"), read("target_value"), write("partial_sum")]
    ),
    shader!(
        "dense/loss",
        "elements",
        [index, vectors, block_sum, item_sum],
        [read("prediction").vec4(), read("target_value").vec4(), write("partial_sum")]
    ),
];
static ELEMENTS_GRADIENT: [Shader; 2] = [
    shader!(
        "dense/loss",
        "elements_gradient",
        [index, scalars, block_sum, item_sum],
        [read("prediction"), read("target_value"), write("partial_sum"), write("gradient_items")]
    ),
    shader!(
        "dense/loss",
        "elements_gradient",
        [index, vectors, block_sum, item_sum],
        [
            read("prediction").vec4(),
            read("target_value").vec4(),
            write("partial_sum"),
            write("gradient_items").vec4()
        ]
    ),
];

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    items: u32,
    rows: u32,
    classes: u32,
    factor: f32,
    parameter: f32,
    pairs: f32,
    kept: f32,
    spread: f32,
}

/// Binds a loss's launch and those of its reduction.
fn bind<'a>(
    context: &crate::Context,
    plan: &Plan,
    inputs: [Arg<'a>; 2],
    gradient: Option<Arg<'a>>,
    loss: BufferView<'a>,
    scratch: &'a Scratch,
) -> Result<Recording> {
    let loss = Arg::words("loss", loss, 1);
    let outputs: Vec<_> = gradient.into_iter().chain([loss]).collect();
    check_apart(&outputs, &inputs.map(Some))?;
    let mut args = vec![inputs[0], inputs[1], sum::partial(plan, scratch, 0)?];
    args.extend(gradient);
    let mut recording = Recording::single(context.bind(&plan.launches[0], &args)?);
    sum::bind(context, plan, &plan.launches[1..], loss, scratch, &mut recording)?;
    Ok(recording)
}

fn check_gradient(wanted: bool, given: Option<BufferView<'_>>) -> Result<()> {
    let need = if wanted { "a buffer" } else { "none, as configured" };
    check_shape(wanted == given.is_some(), "gradient", need, given.map(|view| view.size))
}

kernel! {
    /// The mean of an elementwise loss, and its gradient.
    ElementwiseLoss, LossConfig
}

/// Buffers of [`ElementwiseLoss`].
#[derive(Debug, Clone, Copy)]
pub struct ElementwiseLossArgs<'a> {
    /// Predictions, `[count]`.
    pub prediction: BufferView<'a>,
    /// Targets, `[count]`.
    pub target: BufferView<'a>,
    /// The mean loss, `[1]`. NaN if any prediction, target or loss is NaN or infinite.
    pub loss: BufferView<'a>,
    /// `scale * d loss / d prediction`, `[count]`; overwritten. Given exactly if configured.
    pub gradient: Option<BufferView<'a>>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl ElementwiseLoss {
    /// Chooses the launches.
    pub fn plan(config: &LossConfig, caps: &Capabilities) -> Result<Plan> {
        let LossConfig { loss, count, scale, gradient, pairs } = *config;
        check_config(count > 0, "count", "at least 1", count)?;
        check_config(scale.is_finite(), "scale", "finite", scale)?;
        check_config(pairs.is_finite() && pairs >= 0.0, "pairs", "finite and at least 0", pairs)?;
        let paired = pairs > 0.0;
        check_config(!paired || count.is_multiple_of(4), "count", "a multiple of 4 with pairs", count)?;
        let parameter = loss.parameter();
        check_config(parameter.is_finite() && parameter > 0.0, "loss", "above 0 and finite", loss)?;
        check_workgroup("dense/loss", sum::WORKGROUP, 0, caps)?;
        let n = u64::from(count);
        let (width, items) = sum::items(count);
        let groups = sum::groups(items);
        let factor = (f64::from(scale) / f64::from(count)) as f32;
        let params = Params { items, rows: 0, classes: 0, factor, parameter, pairs, kept: 1.0, spread: 0.0 };
        let (shader, buffers) = if gradient { (&ELEMENTS_GRADIENT[width], 3) } else { (&ELEMENTS[width], 2) };
        let constants = sum::constants().u32("LOSS", loss.id()).bool("PAIRS", paired);
        let constants = constants.bool("SOFT", false).bool("SMOOTH", false);
        let cost = Cost::new(n * (loss.flops(gradient) + if paired { 6 } else { 0 }), n * 4 * buffers);
        let first = Launch::new(shader, constants, &params, groups.into(), caps, cost)?;
        let mut plan = Plan::single("elements", first);
        sum::plan(&mut plan, groups * sum::WORKGROUP, (1.0 / f64::from(count)) as f32, caps)?;
        Ok(plan)
    }
}

impl Kernel for ElementwiseLoss {
    type Args<'a> = ElementwiseLossArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let n = self.config.count.into();
        check_gradient(self.config.gradient, args.gradient)?;
        let inputs = [Arg::words("prediction", args.prediction, n), Arg::words("target", args.target, n)];
        let gradient = args.gradient.map(|view| Arg::words("gradient", view, n));
        bind(&self.context, &self.plan, inputs, gradient, args.loss, args.scratch)
    }
}

kernel! {
    /// The mean cross-entropy, and its gradient: of a row `sum_c t_c (log(sum_k exp z_k) - z_c)`, where the
    /// weights `t` are 1 for the target class and 0 for all others, or given.
    CrossEntropy, CrossEntropyConfig
}

/// Buffers of [`CrossEntropy`].
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyArgs<'a> {
    /// Logits, `[rows, classes]`.
    pub logits: BufferView<'a>,
    /// Target classes, u32 `[rows]`, or weights, f32 `[rows, classes]`, as configured. A class that is
    /// not below `classes`, or weights of 0, skip the row: no loss, zero gradient. The mean is over all
    /// `rows` all the same.
    pub target: BufferView<'a>,
    /// The mean loss, `[1]`. NaN if any logit or weight is NaN or infinite.
    pub loss: BufferView<'a>,
    /// `scale * d loss / d logits`, `[rows, classes]`; overwritten. Given exactly if configured.
    pub gradient: Option<BufferView<'a>>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl CrossEntropy {
    /// Chooses the variant and the launches.
    pub fn plan(config: &CrossEntropyConfig, caps: &Capabilities) -> Result<Plan> {
        let CrossEntropyConfig { rows, classes, scale, gradient, target, smoothing, variant } = *config;
        check_config(rows > 0, "rows", "at least 1", rows)?;
        check_config(classes > 0, "classes", "at least 1", classes)?;
        check_config(scale.is_finite(), "scale", "finite", scale)?;
        check_config((0.0..=1.0).contains(&smoothing), "smoothing", "0 to 1", smoothing)?;
        let n = u64::from(count("logits", &[rows, classes])?);
        // Strided loops step over the end of a row by up to a workgroup.
        check_config(classes <= u32::MAX - WORKGROUP, "classes", "below 2^32 - 256", classes)?;
        // The maximum, the sum, and the gradient.
        let rounds = 3 * u64::from(classes);
        let default = if (caps.cpu || classes <= 64) && rounds <= caps.rounds() {
            CrossEntropyVariant::Invocation
        } else {
            CrossEntropyVariant::Workgroup
        };
        let variant = variant.unwrap_or(default);
        let sharing = if variant == CrossEntropyVariant::Workgroup { u64::from(WORKGROUP) } else { 1 };
        caps.check_rounds("classes", classes, rounds / sharing)?;
        let (groups, shader, name, bytes) = match (variant, gradient) {
            (CrossEntropyVariant::Invocation, false) => (rows.div_ceil(WORKGROUP), &ROWS, "invocation", 4),
            (CrossEntropyVariant::Invocation, true) => {
                (rows.div_ceil(WORKGROUP), &ROWS_GRADIENT, "invocation", 4)
            }
            (CrossEntropyVariant::Workgroup, false) => (rows, &ROW, "workgroup", 8),
            (CrossEntropyVariant::Workgroup, true) => (rows, &ROW_GRADIENT, "workgroup", 8),
        };
        check_workgroup("dense/loss", WORKGROUP, WORKGROUP * bytes, caps)?;
        let factor = (f64::from(scale) / f64::from(rows)) as f32;
        let spread = (f64::from(smoothing) / f64::from(classes)) as f32;
        let params = Params {
            items: 0,
            rows,
            classes,
            factor,
            parameter: 0.0,
            pairs: 0.0,
            kept: 1.0 - smoothing,
            spread,
        };
        // Weights are smoothed in any case: by 0 where nothing is.
        let soft = target == CrossEntropyTarget::Weights;
        let constants = sum::constants().u32("LOSS", 0).bool("PAIRS", false).bool("SOFT", soft);
        let constants = constants.bool("SMOOTH", !soft && smoothing > 0.0);
        let (flops, buffers) = if gradient { (7, 2) } else { (4, 1) };
        let cost = Cost::new(n * flops, n * 4 * buffers + config.target_words() * 4);
        let first = Launch::new(shader, constants, &params, groups.into(), caps, cost)?;
        let mut plan = Plan::single(name, first);
        sum::plan(&mut plan, groups, (1.0 / f64::from(rows)) as f32, caps)?;
        Ok(plan)
    }
}

impl Kernel for CrossEntropy {
    type Args<'a> = CrossEntropyArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let CrossEntropyConfig { rows, classes, gradient, .. } = self.config;
        let n = u64::from(rows) * u64::from(classes);
        check_gradient(gradient, args.gradient)?;
        let target = Arg::words("target", args.target, self.config.target_words());
        let inputs = [Arg::words("logits", args.logits, n), target];
        let gradient = args.gradient.map(|view| Arg::words("gradient", view, n));
        bind(&self.context, &self.plan, inputs, gradient, args.loss, args.scratch)
    }
}
