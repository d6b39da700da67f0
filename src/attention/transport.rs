//! Transport of tokens to experts with a bounded number of tokens each: sparsity-constrained optimal
//! transport (Liu, Puigcerver and Blondel, ICLR 2023, arXiv 2209.15466; `shaders/attention/transport.wgsl`).
//!
//! ```text
//! min <T, C> + gamma / 2 |T|^2    T >= 0, rows sum to a, columns to b, at most k nonzeros a column
//! ```
//!
//! Its duals are piecewise smooth. [`TransportObjective`] gives either of them with its gradient for any
//! potentials; [`TransportSolve`] maximises the semi-dual, whose plans have the column sums `b` exactly.
//! With `k = 1` it is close to transport without the quadratic term, with `k = n` it is quadratically
//! regularised transport. The gradient of the optimal value by the cost is the plan itself (envelope).
//!
//! The solver is accelerated gradient ascent, recorded as a fixed number of iterations: unlike L-BFGS,
//! whose line search waits for the host at every step, it can stand in the middle of a recorded forward
//! pass, and it repeats bit by bit. Steps shrink to nothing over the second half of the iterations, and the
//! potentials whose plan came closest to the row sums are the result. With `k = n` it converges to
//! rounding. With fewer, a tie for the `k`-th place at the optimum is a kink of the dual, where no plan
//! with `k` nonzeros has the row sums exactly: look at `dalpha`.

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Scratch, Shader,
    check_apart, check_config, check_workgroup, count, kernel, read, shader, write,
};

use super::compose::given;

/// Shapes and the two parameters of a transport.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransportConfig {
    /// Tokens n, 1 to 2^28.
    pub tokens: u32,
    /// Experts m, at least 1.
    pub experts: u32,
    /// Tokens k that an expert takes at the most, at least 1; more than `tokens` is as many.
    pub nonzeros: u32,
    /// Strength of the quadratic term, above 0.
    pub gamma: f32,
}

/// Which dual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportDual {
    /// Over the potentials of the tokens and of the experts.
    Dual,
    /// Over the potentials of the tokens; the columns of the plan have their sums in any case.
    SemiDual,
}

/// Configuration of [`TransportObjective`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransportObjectiveConfig {
    /// The transport.
    pub transport: TransportConfig,
    /// Which dual.
    pub dual: TransportDual,
}

/// Configuration of [`TransportSolve`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransportSolveConfig {
    /// The transport.
    pub transport: TransportConfig,
    /// Steps of ascent, at least 1. Small problems take 50 to 400.
    pub iterations: u32,
    /// Length of a step, in units of `gamma`; above 0. The gradient's Lipschitz constant is the number of
    /// experts that share a token, by `gamma`: 0.5 suits two.
    pub step: f32,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self { tokens: 1, experts: 1, nonzeros: 1, gamma: 1.0 }
    }
}

impl Default for TransportSolveConfig {
    fn default() -> Self {
        Self { transport: TransportConfig::default(), iterations: 200, step: 0.5 }
    }
}

static COLUMNS: Shader = shader!(
    "attention/transport",
    "columns",
    [index],
    [read("cost"), read("alpha"), read("of_expert"), write("plan"), write("shares"), write("masses")]
);
static TOKEN_GRADIENT: Shader =
    shader!("attention/transport", "token_gradient", [index], [read("plan_in"), read("a"), write("dalpha")]);
static OBJECTIVE: Shader = shader!(
    "attention/transport",
    "objective",
    [index],
    [
        read("alpha_in"),
        read("a"),
        read("beta_in"),
        read("b_in"),
        read("shares_in"),
        read("masses_in"),
        write("value")
    ]
);
static ASCEND: Shader = shader!(
    "attention/transport",
    "ascend",
    [index],
    [read("gradient"), write("point"), write("iterate"), write("best"), write("progress")]
);
static SLOTS: Shader = shader!(
    "attention/transport",
    "slots",
    [index],
    [read("plan_in"), write("slot_token"), write("slot_weight")]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    tokens: u32,
    experts: u32,
    nonzeros: u32,
    index_digits: u32,
    gamma: f32,
    step: f32,
    flag: u32,
}

impl TransportConfig {
    /// Slots of an expert.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.nonzeros.min(self.tokens)
    }

    /// Elements of the plan.
    fn count(&self) -> Result<u32> {
        let Self { tokens, experts, nonzeros, gamma } = *self;
        check_config((1..=1 << 28).contains(&tokens), "tokens", "1 to 2^28", tokens)?;
        check_config(experts > 0, "experts", "at least 1", experts)?;
        check_config(nonzeros > 0, "nonzeros", "at least 1", nonzeros)?;
        check_config(gamma.is_finite() && gamma > 0.0, "gamma", "above 0 and finite", gamma)?;
        count("plan", &[experts, tokens])
    }

    fn workgroup(&self, caps: &Capabilities) -> u32 {
        let few = caps.cpu && self.rounds(64) <= caps.rounds();
        if few || self.tokens <= 512 { 64 } else { 256 }
    }

    /// Rounds of a column's loops at the most: 64 steps of Newton's method, eight digits of a value and
    /// those of an index, and four more passes over the tokens, with a tree for each.
    fn rounds(&self, workgroup: u32) -> u64 {
        (64 + 8 + 7 + 4) * (u64::from(self.tokens.div_ceil(workgroup)) + 16)
    }

    fn launch(
        &self,
        shader: &'static Shader,
        (semi, step, flag): (bool, f32, bool),
        groups: u32,
        cost: Cost,
        caps: &Capabilities,
    ) -> Result<Launch> {
        let workgroup = self.workgroup(caps);
        caps.check_rounds("tokens", self.tokens, self.rounds(workgroup))?;
        caps.check_rounds("experts", self.experts, self.experts.into())?;
        check_workgroup("attention/transport", workgroup, 8 * workgroup + 80, caps)?;
        let digits = (32 - (self.tokens - 1).leading_zeros()).div_ceil(4);
        let params = Params {
            tokens: self.tokens,
            experts: self.experts,
            nonzeros: self.slots(),
            index_digits: digits,
            gamma: self.gamma,
            step,
            flag: flag.into(),
        };
        let constants = Constants::new().u32("WORKGROUP", workgroup).bool("SEMI", semi);
        Launch::new(shader, constants, &params, groups.into(), caps, cost)
    }

    /// The plan, and each expert's share of the objective and mass.
    fn columns(&self, dual: TransportDual, caps: &Capabilities) -> Result<Launch> {
        let n = u64::from(self.count()?);
        let semi = dual == TransportDual::SemiDual;
        self.launch(&COLUMNS, (semi, 0.0, false), self.experts, Cost::new(6 * n, 8 * n), caps)
    }

    fn token_gradient(&self, caps: &Capabilities) -> Result<Launch> {
        let n = u64::from(self.count()?);
        let groups = self.tokens.div_ceil(self.workgroup(caps));
        self.launch(&TOKEN_GRADIENT, (true, 0.0, false), groups, Cost::new(n, 4 * n), caps)
    }

    fn objective(&self, dual: TransportDual, caps: &Capabilities) -> Result<Launch> {
        let cost = Cost::new(0, 8 * (u64::from(self.tokens) + u64::from(self.experts)));
        let has_beta = dual == TransportDual::Dual;
        self.launch(&OBJECTIVE, (true, 0.0, has_beta), 1, cost, caps)
    }

    fn ascend(&self, step: f32, first: bool, caps: &Capabilities) -> Result<Launch> {
        let cost = Cost::new(0, 20 * u64::from(self.tokens));
        self.launch(&ASCEND, (true, step, first), 1, cost, caps)
    }

    fn slot_list(&self, caps: &Capabilities) -> Result<Launch> {
        let n = u64::from(self.count()?);
        self.launch(&SLOTS, (true, 0.0, false), self.experts, Cost::new(0, 4 * n), caps)
    }
}

kernel! {
    /// A dual objective, to be maximised, with its gradient and the plan that belongs to the potentials.
    TransportObjective, TransportObjectiveConfig
}

/// Buffers of [`TransportObjective`].
#[derive(Debug, Clone, Copy)]
pub struct TransportObjectiveArgs<'a> {
    /// Cost of a token at an expert, expert by expert, `[m, n]`. The more negative `-cost` is, the less it
    /// is wanted; a cost of 1e30, or of infinity, forbids.
    pub cost: BufferView<'a>,
    /// Mass of each token, `[n]`, at least 0.
    pub a: BufferView<'a>,
    /// Mass of each expert, `[m]`, at least 0.
    pub b: BufferView<'a>,
    /// Potentials of the tokens, `[n]`.
    pub alpha: BufferView<'a>,
    /// Potentials of the experts, `[m]`; given exactly for the dual.
    pub beta: Option<BufferView<'a>>,
    /// The plan, `[m, n]`: overwritten. Of equal candidates for the last place the first tokens are taken.
    pub plan: BufferView<'a>,
    /// Gradient by `alpha`, `[n]`: overwritten. It is what the plan's row sums lack.
    pub dalpha: BufferView<'a>,
    /// `[1 + m]`: the objective, then what the column sums lack, which is the dual's gradient by `beta`:
    /// overwritten.
    pub value: BufferView<'a>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl TransportObjective {
    /// Three launches.
    pub fn plan(config: &TransportObjectiveConfig, caps: &Capabilities) -> Result<Plan> {
        let TransportObjectiveConfig { transport, dual } = *config;
        let launches = vec![
            transport.columns(dual, caps)?,
            transport.token_gradient(caps)?,
            transport.objective(dual, caps)?,
        ];
        let variant = if dual == TransportDual::Dual { "dual" } else { "semi-dual" };
        Ok(Plan { variant, launches, scratch: vec![u64::from(transport.experts) * 4; 2] })
    }
}

impl Kernel for TransportObjective {
    type Args<'a> = TransportObjectiveArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let TransportConfig { tokens, experts, .. } = self.config.transport;
        let elements = u64::from(self.config.transport.count()?);
        let beta = given("beta", self.config.dual == TransportDual::Dual, args.beta)?;
        let of_tokens = |what, view| Arg::words(what, view, tokens.into());
        let of_experts = |what, view| Arg::words(what, view, experts.into());
        let plan = Arg::words("plan", args.plan, elements);
        let cost = Arg::words("cost", args.cost, elements);
        let (a, b) = (of_tokens("a", args.a), of_experts("b", args.b));
        let (alpha, dalpha) = (of_tokens("alpha", args.alpha), of_tokens("dalpha", args.dalpha));
        // Without beta, the shader never reads what stands for it.
        let beta = beta.map_or(b, |beta| of_experts("beta", beta));
        let shares = of_experts("scratch", args.scratch.view(0)?);
        let masses = of_experts("scratch", args.scratch.view(1)?);
        let value = Arg::words("value", args.value, u64::from(experts) + 1);
        check_apart(&[plan, dalpha, value], &[cost, a, b, alpha, beta].map(Some))?;
        let lists: [&[Arg<'_>]; 3] = [
            &[cost, alpha, beta, plan, shares, masses],
            &[plan, a, dalpha],
            &[alpha, a, beta, b, shares, masses, value],
        ];
        let mut recording = Recording::new();
        for (launch, list) in self.plan.launches.iter().zip(lists) {
            recording.push(self.context.bind(launch, list)?);
        }
        Ok(recording)
    }
}

kernel! {
    /// The plan of least cost, by ascent on the semi-dual; dense and as a list of slots.
    TransportSolve, TransportSolveConfig
}

/// Buffers of [`TransportSolve`].
#[derive(Debug, Clone, Copy)]
pub struct TransportSolveArgs<'a> {
    /// Cost of a token at an expert, expert by expert, `[m, n]`.
    pub cost: BufferView<'a>,
    /// Mass of each token, `[n]`, at least 0.
    pub a: BufferView<'a>,
    /// Mass of each expert, `[m]`, at least 0; as much in all as that of the tokens.
    pub b: BufferView<'a>,
    /// Potentials of the tokens, `[n]`: overwritten.
    pub alpha: BufferView<'a>,
    /// The plan, `[m, n]`: overwritten. It is also the gradient of the least cost by `cost`.
    pub plan: BufferView<'a>,
    /// What the plan's row sums lack, `[n]`: overwritten; how far the ascent has come.
    pub dalpha: BufferView<'a>,
    /// `[1 + m]`: the semi-dual, which is the least cost, then what the column sums lack: overwritten.
    pub value: BufferView<'a>,
    /// Tokens of each expert, u32 `[m, slots]`, in their order: overwritten; `u32::MAX` in an empty slot.
    pub slot_token: BufferView<'a>,
    /// The plan's entry for each slot, `[m, slots]`: overwritten; 0 in an empty slot.
    pub slot_weight: BufferView<'a>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl TransportSolveConfig {
    /// The length of a step: `step` gamma, and over the second half less and less.
    fn length(&self, iteration: u32) -> f32 {
        let part = f64::from(iteration) / f64::from(self.iterations);
        (f64::from(self.step) * f64::from(self.transport.gamma) * (2.0 - 2.0 * part).min(1.0)) as f32
    }
}

impl TransportSolve {
    /// Three launches an iteration, and four at the end.
    pub fn plan(config: &TransportSolveConfig, caps: &Capabilities) -> Result<Plan> {
        let TransportSolveConfig { transport, iterations, step } = *config;
        transport.count()?;
        check_config((1..=100_000).contains(&iterations), "iterations", "1 to 100,000", iterations)?;
        check_config(step.is_finite() && step > 0.0, "step", "above 0 and finite", step)?;
        count("slots", &[transport.experts, transport.slots()])?;
        let dual = TransportDual::SemiDual;
        let columns = transport.columns(dual, caps)?;
        let gradient = transport.token_gradient(caps)?;
        let mut launches = vec![transport.ascend(0.0, true, caps)?];
        for i in 0..iterations {
            launches.extend([columns.clone(), gradient.clone()]);
            launches.push(transport.ascend(config.length(i), false, caps)?);
        }
        launches.extend([columns, gradient, transport.objective(dual, caps)?, transport.slot_list(caps)?]);
        let of_experts = u64::from(transport.experts) * 4;
        let of_tokens = u64::from(transport.tokens) * 4;
        Ok(Plan {
            variant: "ascent",
            launches,
            scratch: vec![of_experts, of_experts, of_tokens, of_tokens, 8],
        })
    }
}

impl Kernel for TransportSolve {
    type Args<'a> = TransportSolveArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let transport = &self.config.transport;
        let elements = u64::from(transport.count()?);
        let of_tokens = |what, view| Arg::words(what, view, transport.tokens.into());
        let of_experts = |what, view| Arg::words(what, view, transport.experts.into());
        let slots =
            |what, view| Arg::words(what, view, u64::from(transport.experts) * u64::from(transport.slots()));
        let plan = Arg::words("plan", args.plan, elements);
        let cost = Arg::words("cost", args.cost, elements);
        let (a, b) = (of_tokens("a", args.a), of_experts("b", args.b));
        let (alpha, dalpha) = (of_tokens("alpha", args.alpha), of_tokens("dalpha", args.dalpha));
        let shares = of_experts("scratch", args.scratch.view(0)?);
        let masses = of_experts("scratch", args.scratch.view(1)?);
        let point = of_tokens("scratch", args.scratch.view(2)?);
        let iterate = of_tokens("scratch", args.scratch.view(3)?);
        let progress = Arg::words("scratch", args.scratch.view(4)?, 2);
        let value = Arg::words("value", args.value, u64::from(transport.experts) + 1);
        let (slot_token, slot_weight) =
            (slots("slot_token", args.slot_token), slots("slot_weight", args.slot_weight));
        check_apart(&[alpha, plan, dalpha, value, slot_token, slot_weight], &[cost, a, b].map(Some))?;
        let mut recording = Recording::new();
        for launch in &self.plan.launches {
            let shader = launch.shader().entry();
            // The last look is at the best point, those before it at where the momentum went.
            let at_end = recording.dispatches().len() + 4 >= self.plan.launches.len();
            let list = match shader {
                "columns" => vec![cost, if at_end { alpha } else { point }, b, plan, shares, masses],
                "token_gradient" => vec![plan, a, dalpha],
                "ascend" => vec![dalpha, point, iterate, alpha, progress],
                "objective" => vec![alpha, a, b, b, shares, masses, value],
                _ => vec![plan, slot_token, slot_weight],
            };
            recording.push(self.context.bind(launch, &list)?);
        }
        Ok(recording)
    }
}
