//! Retrieval from a modern Hopfield network (Ramsauer et al. 2021, arXiv 2008.02217), iterated, with the
//! gradient of the unrolled iteration (`shaders/attention/hopfield.wgsl`, between matrix products and
//! softmaxes).
//!
//! ```text
//! P_s = softmax(beta_h xi_s Y^T)      xi_0: the state,  xi_s = P_(s-1) Y  (equation 3 of the paper)
//! out = P_T V
//! ```
//!
//! A head stops when the change that a step made, the largest of all images, is `epsilon` or less; later
//! steps leave it as it is. The decision is taken on the device and stored there: nothing comes back to
//! the host, and the number of steps that are recorded is fixed. Each `beta_h` enters every step, which
//! published code does for a single number alone.
//!
//! The association matrices `P`, `[B, H, Nq, Nk]`, are stored, for the backward pass those of every step:
//! pattern stores are small. It is not the kernel for attention over thousands of patches.

use super::compose::{Product, given};
use crate::dense::Matmul;
use crate::dense::{
    MatmulConfig, ReduceConfig, ReduceForward, ReduceForwardArgs, Reduction, SoftmaxBackward,
    SoftmaxBackwardArgs, SoftmaxBias, SoftmaxConfig, SoftmaxForward, SoftmaxForwardArgs,
};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Dispatch, Kernel, Launch, Plan, Planned, Recording,
    Result, Scratch, Shader, check_apart, check_config, check_workgroup, count, kernel, read, shader, write,
};

/// What belongs to an image, and what to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HopfieldMode {
    /// Every image has its own states and patterns: state `[B, H, Nq, D]`, stored `[B, H, Nk, D]`, values
    /// `[B, H, Nk, E]`, output `[B, H, Nq, E]`.
    #[default]
    Association,
    /// The states are learned and the same for all images, `[H, Nq, D]`; the rest is as in association.
    Pooling,
    /// Patterns and values are learned and the same for all images: stored `[H, Nk, D]`, values
    /// `[H, Nk, E]`. The head comes first elsewhere too, so that all images meet a store in one product:
    /// state `[H, B, Nq, D]`, output `[H, B, Nq, E]`.
    Lookup,
}

/// Which change decides that a head has converged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HopfieldStop {
    /// The Frobenius norm of the change of `P` of an image and a head, as in published code.
    #[default]
    Association,
    /// The Frobenius norm of the change of the state.
    State,
}

/// Shapes and stopping rule of a retrieval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HopfieldConfig {
    /// What belongs to an image.
    pub mode: HopfieldMode,
    /// Images B, at least 1.
    pub batch: u32,
    /// Heads H, at least 1.
    pub heads: u32,
    /// States Nq of an image and a head, at least 1.
    pub states: u32,
    /// Stored patterns Nk, at least 1.
    pub patterns: u32,
    /// Elements D of a state and of a pattern, at least 1.
    pub width: u32,
    /// Elements E of a value; `None`: the patterns are the values.
    pub values: Option<u32>,
    /// Updates of the state at the most: 0 is a single softmax (attention), `None` goes on until it has
    /// converged or `recorded_steps` are done.
    pub update_steps_max: Option<u32>,
    /// The updates that are recorded where no maximum is given; at most 1,024.
    pub recorded_steps: u32,
    /// What is measured.
    pub stop: HopfieldStop,
    /// A head whose change is this or less stops; at least 0. With 0 it stops at a fixed point alone.
    pub epsilon: f32,
    /// There is a bias of the scores for each image and pattern; `-1e30` or less masks the pattern.
    pub mask: bool,
    /// What every step made stays in the forward pass's scratch, for the backward pass.
    pub keep: bool,
}

impl Default for HopfieldConfig {
    fn default() -> Self {
        Self {
            mode: HopfieldMode::Association,
            batch: 1,
            heads: 1,
            states: 1,
            patterns: 1,
            width: 1,
            values: None,
            update_steps_max: Some(0),
            recorded_steps: 32,
            stop: HopfieldStop::Association,
            epsilon: 1e-4,
            mask: false,
            keep: false,
        }
    }
}

/// Items of an instance that are long enough for a large workgroup.
const LONG: u32 = 1 << 16;

macro_rules! items {
    ($entry:literal, [$($binding:expr => $wide:expr),* $(,)?]) => {
        [
            shader!("attention/hopfield", $entry, [index, scalars], [$($binding),*]),
            shader!("attention/hopfield", $entry, [index, vectors], [$($wide),*]),
        ]
    };
}

static BEGIN: [Shader; 2] = items!("begin", [
    read("beta") => read("beta"),
    read("state") => read("state").vec4(),
    write("q_out") => write("q_out").vec4(),
    write("flags_out") => write("flags_out"),
]);
static UPDATE: [Shader; 2] = items!("update", [
    read("beta") => read("beta"),
    read("r") => read("r").vec4(),
    write("q_out") => write("q_out").vec4(),
    read("flags") => read("flags"),
    read("q_before") => read("q_before").vec4(),
]);
static ROUTE: [Shader; 2] = items!("route", [
    read("beta") => read("beta"),
    read("dq") => read("dq").vec4(),
    write("dr") => write("dr").vec4(),
    read("flags") => read("flags"),
    write("dq_before") => write("dq_before").vec4(),
]);
static CHANGE: [Shader; 2] = items!("change", [
    read("beta") => read("beta"),
    read("now") => read("now").vec4(),
    read("before") => read("before").vec4(),
    write("change_out") => write("change_out"),
]);
static SCALE_GRADIENT: [Shader; 2] = items!("scale_gradient", [
    read("q") => read("q").vec4(),
    read("dq") => read("dq").vec4(),
    write("shares") => write("shares"),
    read("flags") => read("flags"),
]);
static DECIDE: Shader =
    shader!("attention/hopfield", "decide", [index, scalars], [read("changes"), write("flags_both")]);
static SCALE_SUM: Shader = shader!(
    "attention/hopfield",
    "scale_sum",
    [index, scalars],
    [read("beta"), read("shares_in"), write("dbeta")]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    heads: u32,
    repeat: u32,
    batch: u32,
    length: u32,
    modulus: u32,
    step: u32,
    flag: u32,
    epsilon: f32,
}

/// Elements of the buffers.
struct Sizes {
    instances: u32,
    /// Of the states of all instances, and of the state as given.
    q: u32,
    state: u32,
    p: u32,
    flags: u32,
}

impl HopfieldConfig {
    /// Updates that are recorded.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.update_steps_max.unwrap_or(self.recorded_steps)
    }

    fn sizes(&self) -> Result<Sizes> {
        let Self { batch, heads, states, patterns, width, .. } = *self;
        let value = self.value_width();
        for (what, value) in [
            ("batch", batch),
            ("heads", heads),
            ("states", states),
            ("patterns", patterns),
            ("width", width),
            ("values", value),
        ] {
            check_config(value > 0, what, "at least 1", value)?;
        }
        check_config(self.steps() <= 1024, "steps", "at most 1024", self.steps())?;
        let epsilon = self.epsilon;
        check_config(epsilon.is_finite() && epsilon >= 0.0, "epsilon", "at least 0 and finite", epsilon)?;
        let images_of_state = if self.mode == HopfieldMode::Pooling { 1 } else { batch };
        let images_of_store = if self.mode == HopfieldMode::Lookup { 1 } else { batch };
        count("stored", &[images_of_store, heads, patterns, width])?;
        count("values", &[images_of_store, heads, patterns, value])?;
        count("out", &[batch, heads, states, value])?;
        Ok(Sizes {
            instances: count("instances", &[batch, heads])?,
            q: count("states", &[batch, heads, states, width])?,
            state: count("state", &[images_of_state, heads, states, width])?,
            p: count("associations", &[batch, heads, states, patterns])?,
            flags: count("active", &[self.steps() + 1, heads])?,
        })
    }

    fn value_width(&self) -> u32 {
        self.values.unwrap_or(self.width)
    }

    /// `m x n` of sums of `k`, where `m` counts states or patterns of one store.
    fn product(&self, m: u32, n: u32, k: u32) -> MatmulConfig {
        let lookup = self.mode == HopfieldMode::Lookup;
        let batch = if lookup { self.heads } else { self.batch * self.heads };
        MatmulConfig { m, n, k, batch, ..Default::default() }
    }

    /// States that meet one store.
    fn rows(&self) -> u32 {
        if self.mode == HopfieldMode::Lookup { self.batch * self.states } else { self.states }
    }

    /// `q Y^T`; also `dP = dr Y^T`.
    fn scores(&self) -> MatmulConfig {
        MatmulConfig { transpose_b: true, ..self.product(self.rows(), self.patterns, self.width) }
    }

    /// `P Y`, also `dq = dS Y`.
    fn retrieve(&self) -> MatmulConfig {
        self.product(self.rows(), self.width, self.patterns)
    }

    /// `P V`.
    fn output(&self) -> MatmulConfig {
        self.product(self.rows(), self.value_width(), self.patterns)
    }

    /// `dP = dout V^T`.
    fn output_backward(&self) -> MatmulConfig {
        MatmulConfig { transpose_b: true, ..self.product(self.rows(), self.patterns, self.value_width()) }
    }

    /// `dV = P^T dout`.
    fn value_gradient(&self) -> MatmulConfig {
        MatmulConfig { transpose_a: true, ..self.product(self.patterns, self.value_width(), self.rows()) }
    }

    /// `dY = dS^T q` and `dY = P^T dr`, added up.
    fn store_gradient(&self, accumulate: bool) -> MatmulConfig {
        let product = self.product(self.patterns, self.width, self.rows());
        MatmulConfig { transpose_a: true, accumulate, ..product }
    }

    fn softmax(&self) -> SoftmaxConfig {
        let lookup = self.mode == HopfieldMode::Lookup;
        let repeat = if lookup { self.states } else { self.heads * self.states };
        SoftmaxConfig {
            rows: self.batch * self.heads * self.states,
            n: self.patterns,
            bias: self.mask.then_some(SoftmaxBias { rows: self.batch, repeat }),
            ..Default::default()
        }
    }

    /// The sum over the images of the gradient of states that they share.
    fn state_sum(&self) -> Option<ReduceConfig> {
        (self.mode == HopfieldMode::Pooling && self.batch > 1).then_some(ReduceConfig {
            reduction: Reduction::Sum,
            outer: 1,
            n: self.batch,
            inner: self.heads * self.states * self.width,
            variant: None,
            part: None,
        })
    }

    /// A launch over `length` elements of each instance. `each`: an invocation an item; otherwise a
    /// workgroup an instance.
    fn launch(&self, s: &Step, shaders: &'static [Shader; 2], caps: &Capabilities) -> Result<Launch> {
        let whole = s.length.is_multiple_of(4);
        let lanes = if whole { 4 } else { 1 };
        let instances = self.batch * self.heads;
        let length = s.length / lanes;
        let modulus =
            if self.mode == HopfieldMode::Pooling { self.heads * length } else { instances * length };
        let params = self.params(if s.each { instances * length } else { instances }, length, modulus, s);
        let groups = if s.each { params.count.div_ceil(64) } else { instances };
        let workgroup = if s.each || length <= LONG { 64 } else { 256 };
        if !s.each {
            caps.check_rounds("states", self.states, length.div_ceil(workgroup).into())?;
            check_workgroup("attention/hopfield", workgroup, 4 * workgroup, caps)?;
        }
        let bytes = u64::from(instances) * u64::from(s.length) * 4 * s.buffers;
        let cost = Cost::new(0, bytes);
        let constants = Constants::new().u32("WORKGROUP", workgroup);
        Launch::new(&shaders[usize::from(whole)], constants, &params, groups.into(), caps, cost)
    }

    /// A launch of one invocation a head.
    fn launch_heads(&self, s: &Step, shader: &'static Shader, caps: &Capabilities) -> Result<Launch> {
        let params = self.params(self.batch * self.heads, 1, 1, s);
        let cost = Cost::new(0, u64::from(self.batch * self.heads) * 4);
        caps.check_rounds("batch", self.batch, self.batch.into())?;
        Launch::new(
            shader,
            Constants::new().u32("WORKGROUP", 64),
            &params,
            self.heads.div_ceil(64).into(),
            caps,
            cost,
        )
    }

    fn params(&self, count: u32, length: u32, modulus: u32, s: &Step) -> Params {
        Params {
            count,
            heads: self.heads,
            repeat: if self.mode == HopfieldMode::Lookup { self.batch } else { 1 },
            batch: self.batch,
            length,
            modulus,
            step: s.step,
            flag: s.flag,
            // The shader compares bits, and those of -0.0 are above all norms.
            epsilon: self.epsilon.abs(),
        }
    }

    fn state_step(&self, step: u32, buffers: u64) -> Step {
        Step { step, length: self.states * self.width, each: true, buffers, flag: 0 }
    }

    fn begin(&self, caps: &Capabilities) -> Result<Launch> {
        self.launch(&self.state_step(0, 2), &BEGIN, caps)
    }

    fn update(&self, step: u32, caps: &Capabilities) -> Result<Launch> {
        self.launch(&self.state_step(step, 2), &UPDATE, caps)
    }

    fn route(&self, step: u32, caps: &Capabilities) -> Result<Launch> {
        self.launch(&self.state_step(step, 3), &ROUTE, caps)
    }

    fn change(&self, caps: &Capabilities) -> Result<Launch> {
        let of_state = self.stop == HopfieldStop::State;
        let length = self.states * if of_state { self.width } else { self.patterns };
        let step = Step { step: 0, length, each: false, buffers: 2, flag: of_state.into() };
        self.launch(&step, &CHANGE, caps)
    }

    fn decide(&self, step: u32, caps: &Capabilities) -> Result<Launch> {
        self.launch_heads(&self.state_step(step, 0), &DECIDE, caps)
    }

    fn scale_gradient(&self, step: u32, caps: &Capabilities) -> Result<Launch> {
        let add = (step < self.steps()).into();
        let step = Step { each: false, flag: add, ..self.state_step(step, 2) };
        self.launch(&step, &SCALE_GRADIENT, caps)
    }

    fn scale_sum(&self, caps: &Capabilities) -> Result<Launch> {
        self.launch_heads(&self.state_step(0, 0), &SCALE_SUM, caps)
    }

    /// States and associations that are held at a time: all of them, or this step's and the last one's.
    fn held(&self) -> usize {
        let all = self.steps() as usize + 1;
        if self.keep { all } else { all.min(2) }
    }
}

/// What the launches of [`HopfieldConfig::launch`] differ by.
struct Step {
    step: u32,
    length: u32,
    each: bool,
    /// Buffers of that length that must be read or written.
    buffers: u64,
    flag: u32,
}

kernel! {
    /// `out = P_T V` after the updates of the state.
    HopfieldForward, HopfieldConfig
}

/// Buffers of [`HopfieldForward`]; the shapes are those of the [`HopfieldMode`].
#[derive(Debug, Clone, Copy)]
pub struct HopfieldForwardArgs<'a> {
    /// The states at the start.
    pub state: BufferView<'a>,
    /// The patterns.
    pub stored: BufferView<'a>,
    /// The values; given exactly if configured.
    pub values: Option<BufferView<'a>>,
    /// The inverse temperature of each head, `[H]`, above 0.
    pub beta: BufferView<'a>,
    /// Bias of the scores, `[B, Nk]`; given exactly if configured.
    pub mask: Option<BufferView<'a>>,
    /// Output. A state whose patterns are all masked gives zeros.
    pub out: BufferView<'a>,
    /// u32, `[steps + 1, H]`: 1 in row `s` where update `s + 1` changes the head, and in the last row
    /// where the head has not converged. The column sums of all rows but the last are the updates taken.
    pub active: BufferView<'a>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

/// Scratch of the forward pass: scores, r, changes; then states and associations, `held` of each; then
/// that of the products and the softmax.
const OWN: usize = 3;

impl HopfieldForward {
    /// Two products, a softmax and the decision for each step, and the products before and after.
    pub fn plan(config: &HopfieldConfig, caps: &Capabilities) -> Result<Plan> {
        let sizes = config.sizes()?;
        let scores = Matmul::plan(&config.scores(), caps)?;
        let softmax = SoftmaxForward::plan(&config.softmax(), caps)?;
        let retrieve = Matmul::plan(&config.retrieve(), caps)?;
        let output = Matmul::plan(&config.output(), caps)?;
        let mut plan = Plan { variant: scores.variant, ..Plan::default() };
        let bytes = |n: u32| u64::from(n) * 4;
        plan.scratch = vec![bytes(sizes.p), bytes(sizes.q), bytes(sizes.instances)];
        plan.scratch.extend(vec![bytes(sizes.q); config.held()]);
        plan.scratch.extend(vec![bytes(sizes.p); config.held()]);
        for part in [&scores, &softmax, &retrieve, &output] {
            plan.scratch.extend(&part.scratch);
        }
        let associate = [scores.launches, softmax.launches].concat();
        plan.launches.push(config.begin(caps)?);
        plan.launches.extend(associate.clone());
        for step in 1..=config.steps() {
            plan.launches.extend(retrieve.launches.clone());
            plan.launches.push(config.update(step, caps)?);
            plan.launches.extend(associate.clone());
            plan.launches.push(config.change(caps)?);
            plan.launches.push(config.decide(step, caps)?);
        }
        plan.launches.extend(output.launches);
        Ok(plan)
    }
}

impl Kernel for HopfieldForward {
    type Args<'a> = HopfieldForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (context, config) = (&self.context, &self.config);
        let caps = context.capabilities();
        let sizes = config.sizes()?;
        let values = given("values", config.values.is_some(), args.values)?.unwrap_or(args.stored);
        let bias = given("mask", config.mask, args.mask)?;
        // The parts check sizes.
        let whole = |what, view| Arg::words(what, view, 0);
        check_apart(
            &[whole("out", args.out), whole("active", args.active)],
            &[
                Some(whole("state", args.state)),
                Some(whole("stored", args.stored)),
                args.values.map(|view| whole("values", view)),
                Some(whole("beta", args.beta)),
                bias.map(|view| whole("mask", view)),
            ],
        )?;
        let scores = Product::new(context, config.scores())?;
        let softmax = SoftmaxForward::new(context, config.softmax())?;
        let retrieve = Product::new(context, config.retrieve())?;
        let output = Product::new(context, config.output())?;
        let held = config.held();
        let softmax_scratch = softmax.planned().scratch.len();
        let [own, q, p, s0, s1, s2, s3] = args.scratch.split([
            OWN,
            held,
            held,
            scores.scratch,
            softmax_scratch,
            retrieve.scratch,
            output.scratch,
        ])?;
        let [score, r, changes] = [own.view(0)?, own.view(1)?, own.view(2)?];
        let beta = Arg::words("beta", args.beta, config.heads.into());
        let of_q = |what, view| Arg::words(what, view, sizes.q.into());
        let flags = Arg::words("active", args.active, sizes.flags.into());
        let changes = Arg::words("scratch", changes, sizes.instances.into());
        let associate = |q, p| -> Result<Recording> {
            let mut recording = scores.prepare(q, args.stored, score, &s0)?;
            let of_softmax = SoftmaxForwardArgs { x: score, bias, y: p, scratch: &s1 };
            recording.append(softmax.prepare(&of_softmax)?);
            Ok(recording)
        };
        let state = Arg::words("state", args.state, sizes.state.into());
        let begin = [beta, state, of_q("scratch", q.view(0)?), flags];
        let mut recording = Recording::single(context.bind(&config.begin(caps)?, &begin)?);
        recording.append(associate(q.view(0)?, p.view(0)?)?);
        for step in 1..=config.steps() {
            let (now, before) = (step as usize % held, (step as usize - 1) % held);
            let [q_now, q_before, p_now, p_before] =
                [q.view(now)?, q.view(before)?, p.view(now)?, p.view(before)?];
            recording.append(retrieve.prepare(p_before, args.stored, r, &s2)?);
            let update = [beta, of_q("scratch", r), of_q("scratch", q_now), flags, of_q("scratch", q_before)];
            recording.push(context.bind(&config.update(step, caps)?, &update)?);
            recording.append(associate(q_now, p_now)?);
            let pair = match config.stop {
                HopfieldStop::Association => {
                    [p_now, p_before].map(|v| Arg::words("scratch", v, sizes.p.into()))
                }
                HopfieldStop::State => [q_now, q_before].map(|v| of_q("scratch", v)),
            };
            recording.push(context.bind(&config.change(caps)?, &[beta, pair[0], pair[1], changes])?);
            recording.push(context.bind(&config.decide(step, caps)?, &[changes, flags])?);
        }
        let last = p.view(config.steps() as usize % held)?;
        recording.append(output.prepare(last, values, args.out, &s3)?);
        Ok(recording)
    }
}

kernel! {
    /// The gradient of the unrolled iteration. A head that had stopped hands its gradient through.
    HopfieldBackward, HopfieldConfig
}

/// Buffers of [`HopfieldBackward`].
#[derive(Debug, Clone, Copy)]
pub struct HopfieldBackwardArgs<'a> {
    /// The patterns, as in the forward pass.
    pub stored: BufferView<'a>,
    /// The values; given exactly if configured.
    pub values: Option<BufferView<'a>>,
    /// The inverse temperature of each head, `[H]`.
    pub beta: BufferView<'a>,
    /// What the forward pass decided, `[steps + 1, H]`.
    pub active: BufferView<'a>,
    /// The scratch of the forward pass, which was configured to keep it and has not run again since.
    pub forward: &'a Scratch,
    /// Gradient of the output.
    pub dout: BufferView<'a>,
    /// Gradient of the state, as `state`; overwritten.
    pub dstate: BufferView<'a>,
    /// Gradient of the patterns, as `stored`; overwritten. Without values of their own it holds that of the
    /// values too. `None`: not wanted.
    pub dstored: Option<BufferView<'a>>,
    /// Gradient of the values; overwritten. `None`: not wanted, or the patterns are the values.
    pub dvalues: Option<BufferView<'a>>,
    /// Gradient of the inverse temperatures, `[H]`; overwritten. `None`: not wanted.
    pub dbeta: Option<BufferView<'a>>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

/// Scratch of the backward pass: dP, dS, dr, two for dq, shares of the gradient of beta.
const OWN_BACKWARD: usize = 6;

impl HopfieldBackward {
    /// The steps in reverse, with every gradient.
    pub fn plan(config: &HopfieldConfig, caps: &Capabilities) -> Result<Plan> {
        let sizes = config.sizes()?;
        check_config(config.keep, "keep", "true: the backward pass needs every step", config.keep)?;
        let output = Matmul::plan(&config.output_backward(), caps)?;
        let value = Matmul::plan(&config.value_gradient(), caps)?;
        let softmax = SoftmaxBackward::plan(&config.softmax(), caps)?;
        let scores = Matmul::plan(&config.scores(), caps)?;
        let retrieve = Matmul::plan(&config.retrieve(), caps)?;
        let store = Matmul::plan(&config.store_gradient(true), caps)?;
        let sum = config.state_sum().map(|sum| ReduceForward::plan(&sum, caps)).transpose()?;
        let mut plan = Plan { variant: output.variant, ..Plan::default() };
        let bytes = |n: u32| u64::from(n) * 4;
        plan.scratch = [sizes.p, sizes.p, sizes.q, sizes.q, sizes.q, sizes.instances].map(bytes).into();
        for part in [&output, &value, &softmax, &scores, &retrieve, &store] {
            plan.scratch.extend(&part.scratch);
        }
        plan.scratch.extend(sum.iter().flat_map(|sum| &sum.scratch));
        plan.launches = [output.launches, value.launches].concat();
        for step in (0..=config.steps()).rev() {
            plan.launches.extend([&softmax, &retrieve, &store].iter().flat_map(|p| p.launches.clone()));
            plan.launches.push(config.scale_gradient(step, caps)?);
            plan.launches.push(config.route(step, caps)?);
            if step > 0 {
                plan.launches.extend([&scores, &store].iter().flat_map(|p| p.launches.clone()));
            }
        }
        plan.launches.extend(sum.into_iter().flat_map(|sum| sum.launches));
        plan.launches.push(config.scale_sum(caps)?);
        Ok(plan)
    }
}

impl Kernel for HopfieldBackward {
    type Args<'a> = HopfieldBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (context, config) = (&self.context, &self.config);
        let caps = context.capabilities();
        let sizes = config.sizes()?;
        let own_values = given("values", config.values.is_some(), args.values)?;
        if own_values.is_none() {
            given("dvalues", false, args.dvalues)?;
        }
        // The parts check sizes.
        let whole = |what, view| Arg::words(what, view, 0);
        let outputs: Vec<_> = [
            Some(whole("dstate", args.dstate)),
            args.dstored.map(|view| whole("dstored", view)),
            args.dvalues.map(|view| whole("dvalues", view)),
            args.dbeta.map(|view| whole("dbeta", view)),
        ]
        .into_iter()
        .flatten()
        .collect();
        check_apart(
            &outputs,
            &[
                Some(whole("stored", args.stored)),
                own_values.map(|view| whole("values", view)),
                Some(whole("beta", args.beta)),
                Some(whole("active", args.active)),
                Some(whole("dout", args.dout)),
            ],
        )?;
        let held = config.held();
        let [_, q, p] = args.forward.split([OWN, held, held])?;
        let output = Product::new(context, config.output_backward())?;
        let value = Product::new(context, config.value_gradient())?;
        let softmax = SoftmaxBackward::new(context, config.softmax())?;
        let scores = Product::new(context, config.scores())?;
        let retrieve = [false, true]
            .map(|accumulate| Product::new(context, MatmulConfig { accumulate, ..config.retrieve() }));
        let [retrieve, retrieve_more] = retrieve;
        let (retrieve, retrieve_more) = (retrieve?, retrieve_more?);
        let [store, store_more] =
            [false, true].map(|more| Product::new(context, config.store_gradient(more)));
        let (store, store_more) = (store?, store_more?);
        let sum = config.state_sum().map(|sum| ReduceForward::new(context, sum)).transpose()?;
        let [own, s0, s1, s2, s3, s4, s5, s6] = args.scratch.split([
            OWN_BACKWARD,
            output.scratch,
            value.scratch,
            softmax.planned().scratch.len(),
            scores.scratch,
            retrieve.scratch,
            store.scratch,
            sum.as_ref().map_or(0, |sum| sum.planned().scratch.len()),
        ])?;
        let [dp, ds, dr, shares] = [own.view(0)?, own.view(1)?, own.view(2)?, own.view(5)?];
        let beta = Arg::words("beta", args.beta, config.heads.into());
        let of_q = |view| Arg::words("scratch", view, sizes.q.into());
        let flags = Arg::words("active", args.active, sizes.flags.into());
        let shares = Arg::words("scratch", shares, sizes.instances.into());
        let bind =
            |launch: Result<Launch>, args: &[Arg<'_>]| -> Result<Dispatch> { context.bind(&launch?, args) };
        let last = p.view(config.steps() as usize)?;
        let mut recording = output.prepare(args.dout, own_values.unwrap_or(args.stored), dp, &s0)?;
        // Whether dstored holds something to add to.
        let mut begun = false;
        if let Some(d) = if own_values.is_some() { args.dvalues } else { args.dstored } {
            recording.append(value.prepare(last, args.dout, d, &s1)?);
            begun = own_values.is_none();
        }
        let mut add_to_store = |recording: &mut Recording, a, b| -> Result<()> {
            let Some(d) = args.dstored else { return Ok(()) };
            let product = if begun { &store_more } else { &store };
            begun = true;
            recording.append(product.prepare(a, b, d, &s5)?);
            Ok(())
        };
        for step in (0..=config.steps()).rev() {
            let at = step as usize;
            let (q_now, p_now) = (q.view(at)?, p.view(at)?);
            // The gradient that comes past inactive heads lies where this step's goes.
            let (dq, dq_before) = (own.view(3 + at % 2)?, own.view(3 + (at + 1) % 2)?);
            let of_softmax = SoftmaxBackwardArgs { y: p_now, dy: dp, dx: ds, scratch: &s2 };
            recording.append(softmax.prepare(&of_softmax)?);
            let product = if step == config.steps() { &retrieve } else { &retrieve_more };
            recording.append(product.prepare(ds, args.stored, dq, &s4)?);
            add_to_store(&mut recording, ds, q_now)?;
            if args.dbeta.is_some() {
                let scale = config.scale_gradient(step, caps);
                recording.push(bind(scale, &[of_q(q_now), of_q(dq), shares, flags])?);
            }
            // The first step's gradient is the state's, or each image's share of it.
            let out = if step > 0 || sum.is_some() {
                of_q(dr)
            } else {
                Arg::words("dstate", args.dstate, sizes.q.into())
            };
            recording.push(bind(config.route(step, caps), &[beta, of_q(dq), out, flags, of_q(dq_before)])?);
            if step > 0 {
                recording.append(scores.prepare(dr, args.stored, dp, &s3)?);
                add_to_store(&mut recording, p.view(at - 1)?, dr)?;
            }
        }
        if let Some(sum) = &sum {
            let to_state = ReduceForwardArgs { x: dr, y: args.dstate, index: None, scratch: &s6 };
            recording.append(sum.prepare(&to_state)?);
        }
        if let Some(dbeta) = args.dbeta {
            let dbeta = Arg::words("dbeta", dbeta, config.heads.into());
            recording.push(bind(config.scale_sum(caps), &[beta, shares, dbeta])?);
        }
        Ok(recording)
    }
}
