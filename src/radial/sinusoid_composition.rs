//! Features of radial bases by multi-frequency sinusoids (`shaders/radial/sinusoid_composition.wgsl`).

use super::radial_basis::fewest_lanes;
use crate::dense::{ReduceConfig, ReduceForward, ReduceForwardArgs, Reduction};
use crate::dispatch::{
    Arg, Binding, BufferView, Capabilities, Constants, Cost, Error, Kernel, Launch, Plan, Recording, Result,
    Scratch, Shader, check_apart, check_config, check_shape, check_workgroup, count, kernel, read, shader,
    write,
};

/// How the features are computed. All variants give the same results to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinusoidCompositionVariant {
    /// One invocation an output; needs nothing.
    Plain,
    /// For CPU adapters: pairs are read eight at a time and shared by shuffles. Needs subgroups of 8.
    Subgroup,
    /// For GPUs: sums over the centres' lists in workgroup memory; the rest as `Plain`, which is faster there.
    Staged,
}

impl SinusoidCompositionVariant {
    fn resolve(config: &SinusoidCompositionConfig, caps: &Capabilities) -> Result<Self> {
        let suits = if caps.cpu { Self::Subgroup } else { Self::Staged };
        match config.variant {
            Some(variant) => variant.check(caps).map(|()| variant),
            None => Ok(suits.check(caps).map_or(Self::Plain, |()| suits)),
        }
    }

    fn check(self, caps: &Capabilities) -> Result<()> {
        let what = "radial/sinusoid_composition";
        if self == Self::Subgroup && caps.subgroups != Some((8, 8)) {
            return Err(Error::FeatureMissing { what, feature: "SUBGROUP of size 8" });
        }
        check_workgroup(what, WORKGROUP, if self == Self::Staged { 1024 } else { 0 }, caps)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Subgroup => "subgroup",
            Self::Staged => "staged",
        }
    }
}

/// Features of `points` points from their bases `phi` at `neighbours` of `centres` centres:
/// `y[n, f] = sum_j w[i_j, f] sin(m_f phi[n, j])` (Chen et al. 2023, equation 7).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SinusoidCompositionConfig {
    /// Points, at least 1.
    pub points: u32,
    /// Centres, at least 1.
    pub centres: u32,
    /// Neighbours of a point, 1 to 32.
    pub neighbours: u32,
    /// Features, at least 1.
    pub features: u32,
    /// Whether there is a sine; without it `phi` itself is weighted. `|m_f phi|` up to 12,000 rad
    /// (to 2^-20 up to 50,000).
    pub sinusoid: bool,
    /// The weights are stored as f16 (`features` must be a multiple of 4); their gradient is f32.
    pub half_weights: bool,
    /// `None`: what suits the device.
    pub variant: Option<SinusoidCompositionVariant>,
}

impl Default for SinusoidCompositionConfig {
    /// The published configuration for pictures.
    fn default() -> Self {
        Self {
            points: 1,
            centres: 1,
            neighbours: 4,
            features: 32,
            sinusoid: true,
            half_weights: false,
            variant: None,
        }
    }
}

/// `n` numbers from `low` to `high`, both above 0, each the same factor from the next: how the
/// frequencies are chosen. The published range for pictures is 2^-3 to 2^12.
#[must_use]
pub fn log_spaced(low: f64, high: f64, n: u32) -> Vec<f32> {
    let last = f64::from(n.max(2) - 1);
    (0..n).map(|i| (low.log2() + (high / low).log2() * f64::from(i) / last).exp2() as f32).collect()
}

const WORKGROUP: u32 = 64;
/// With rows as 64-bit integers: points of a workgroup, forward and backward to phi.
const WIDE_POINTS: u32 = 32;
/// Of weight gradients: items of a workgroup.
const TILE: u32 = 8;

/// Operations of a sine: reduction 8, polynomial 8, sign 2; and its argument.
const SINE_FLOPS: u64 = 19;

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    points: u32,
    centres: u32,
    items: u32,
    count: u32,
}

/// Entry points with one way to read items and weights.
struct Shaders {
    forward: [Shader; 2],
    backward_phi: Shader,
    weight_gradient: [Shader; 2],
    frequency_gradient: [Shader; 2],
}

macro_rules! shaders {
    ($items:ident, $stored:ident, $weights:expr, $frequencies:expr, $y:expr, $dy:expr, $dw:expr, $dm:expr) => {
        shaders!(@ [index, $items, sine, $stored, composition, composition_rows],
            [read("phi"), read("neighbours"), $weights("weights"), $frequencies, $y],
            [read("phi"), read("neighbours"), $weights("weights"), $frequencies, $dy, write("dphi")],
            [read("phi"), read("order"), read("starts"), $frequencies, $dy, $dw],
            [read("phi"), read("order"), read("starts"), $frequencies, $dy, $dm, $weights("weights_in")])
    };
    (@ $common:tt, $forward:tt, $phi:tt, $weight:tt, $frequency:tt) => {
        Shaders {
            forward: [
                shader!("radial/sinusoid_composition", "forward", $common, $forward),
                shader!("radial/sinusoid_composition_subgroup", "forward", $common, $forward),
            ],
            backward_phi: shader!("radial/sinusoid_composition", "backward_phi", $common, $phi),
            weight_gradient: [
                shader!("radial/sinusoid_composition", "weight_gradient", $common, $weight),
                shader!("radial/sinusoid_composition_subgroup", "weight_gradient", $common, $weight),
            ],
            frequency_gradient: [
                shader!("radial/sinusoid_composition", "frequency_gradient", $common, $frequency),
                shader!("radial/sinusoid_composition_subgroup", "frequency_gradient", $common, $frequency),
            ],
        }
    };
}

const fn four(name: &'static str) -> Binding {
    read(name).vec4()
}

const fn halves(name: &'static str) -> Binding {
    read(name).stride(8)
}

/// With rows as 64-bit integers.
struct Wide {
    forward: Shader,
    backward_phi: Shader,
    weight_gradient: Shader,
    frequency_gradient: Shader,
}

static WIDE: Wide = {
    const fn wide(name: &'static str) -> Binding {
        read(name).stride(32)
    }
    macro_rules! wide {
        ($entry:literal, $bindings:tt) => {
            shader!(
                "radial/sinusoid_composition_wide",
                $entry,
                [index, vectors, sine, stored_floats, composition, wide],
                $bindings
            )
        };
    }
    Wide {
        forward: wide!(
            "forward",
            [
                read("phi"),
                read("neighbours"),
                wide("weights"),
                read("frequencies").vec4(),
                write("y_rows").stride(32)
            ]
        ),
        backward_phi: wide!(
            "backward_phi",
            [
                read("phi"),
                read("neighbours"),
                wide("weights"),
                read("frequencies").vec4(),
                wide("dy"),
                write("dphi")
            ]
        ),
        weight_gradient: wide!(
            "weight_gradient",
            [
                read("phi"),
                read("order"),
                read("starts"),
                read("frequencies").vec4(),
                wide("dy"),
                write("dweights").vec4()
            ]
        ),
        frequency_gradient: wide!(
            "frequency_gradient",
            [
                read("phi"),
                read("order"),
                read("starts"),
                read("frequencies").vec4(),
                wide("dy"),
                write("dfrequencies").vec4(),
                four("weights_in")
            ]
        ),
    }
};

static SCALARS: Shaders = shaders!(
    scalars,
    stored_floats,
    read,
    read("frequencies"),
    write("y"),
    read("dy"),
    write("dweights"),
    write("dfrequencies")
);
static VECTORS: Shaders = shaders!(
    vectors,
    stored_floats,
    four,
    read("frequencies").vec4(),
    write("y").vec4(),
    read("dy").vec4(),
    write("dweights").vec4(),
    write("dfrequencies").vec4()
);
static HALVES: Shaders = shaders!(
    vectors,
    stored_halves,
    halves,
    read("frequencies").vec4(),
    write("y").vec4(),
    read("dy").vec4(),
    write("dweights").vec4(),
    write("dfrequencies").vec4()
);

impl SinusoidCompositionConfig {
    fn check(&self) -> Result<()> {
        check_config(self.points > 0, "points", "at least 1", self.points)?;
        check_config(self.centres > 0, "centres", "at least 1", self.centres)?;
        check_config((1..=32).contains(&self.neighbours), "neighbours", "1 to 32", self.neighbours)?;
        check_config(self.features > 0, "features", "at least 1", self.features)?;
        let whole = !self.half_weights || self.features.is_multiple_of(4);
        check_config(whole, "features", "a multiple of 4 where weights are f16", self.features)?;
        count("neighbours", &[self.points, self.neighbours])?;
        count("weights", &[self.centres, self.features])?;
        // Points of a workgroup are numbered beyond the last.
        count("features", &[self.points.saturating_add(WIDE_POINTS - 1), self.features])?;
        count("pairs", &[self.points.saturating_add(WIDE_POINTS - 1), self.neighbours]).map(drop)
    }

    /// Features taken at once.
    fn width(&self) -> u32 {
        if self.features.is_multiple_of(4) { 4 } else { 1 }
    }

    /// Neighbours for which an invocation of the plain backward pass reads dy once.
    fn slots(&self) -> u32 {
        if self.neighbours > 2 { 4 } else { 1 }
    }

    fn items(&self) -> u32 {
        self.features / self.width()
    }

    /// Lanes for a row as 64-bit integers, where the variant takes them.
    fn wide(&self, variant: SinusoidCompositionVariant, caps: &Capabilities) -> Option<u32> {
        let is_wide = variant == SinusoidCompositionVariant::Subgroup
            && caps.int64
            && !self.half_weights
            && [8, 16, 32, 64].contains(&self.features);
        is_wide.then_some(self.features / 8)
    }

    fn shaders(&self) -> &'static Shaders {
        match (self.width(), self.half_weights) {
            (1, _) => &SCALARS,
            (_, false) => &VECTORS,
            (_, true) => &HALVES,
        }
    }

    fn pairs(&self) -> u64 {
        u64::from(self.points) * u64::from(self.neighbours)
    }

    fn weights(&self) -> u64 {
        u64::from(self.centres) * u64::from(self.features)
    }

    fn weight_bytes(&self) -> u64 {
        self.weights() * if self.half_weights { 2 } else { 4 }
    }

    fn outputs(&self) -> u64 {
        u64::from(self.points) * u64::from(self.features)
    }

    /// Operations for `psi` (or its slope) of every pair and feature, and `more` besides.
    fn flops(&self, more: u64) -> u64 {
        self.pairs() * u64::from(self.features) * (more + if self.sinusoid { SINE_FLOPS } else { 0 })
    }

    fn launch(
        &self,
        shader: &'static Shader,
        [workgroup, lanes]: [u32; 2],
        (count, groups): (u64, u64),
        cost: Cost,
        caps: &Capabilities,
    ) -> Result<Launch> {
        let constants = Constants::new()
            .u32("WORKGROUP", workgroup)
            .u32("K", self.neighbours)
            .u32("SLOTS", self.slots())
            .u32("TILE", TILE)
            .u32("LANES", lanes)
            .u32("EIGHTS", WIDE_POINTS / 8)
            .bool("SINE", self.sinusoid);
        let shuffles = ["subgroup", "wide"].iter().any(|name| shader.file().contains(name));
        let constants = if shuffles { constants.subgroups() } else { constants };
        let Self { points, centres, .. } = *self;
        // Counts were checked to fit.
        let params = Params { points, centres, items: self.items(), count: count as u32 };
        Launch::new(shader, constants, &params, groups, caps, cost)
    }

    fn phi<'a>(&self, view: BufferView<'a>) -> Arg<'a> {
        Arg::words("phi", view, self.pairs())
    }

    fn stored<'a>(&self, view: BufferView<'a>) -> Arg<'a> {
        Arg::new("weights", view, self.weight_bytes() / 4, 4)
    }

    /// The frequencies; where there are none, the weights, which can be bound as well: they are not
    /// read there.
    fn frequencies<'a>(&self, view: Option<BufferView<'a>>, other: BufferView<'a>) -> Result<Arg<'a>> {
        match (view, self.sinusoid) {
            (Some(view), true) => Ok(Arg::words("frequencies", view, self.features.into())),
            (None, false) => Ok(Arg::words("weights", other, self.width().into())),
            (view, _) => {
                let need = if self.sinusoid { "a buffer" } else { "none, as configured" };
                Err(Error::Shape {
                    what: "frequencies",
                    need: need.into(),
                    got: if view.is_some() { "a buffer" } else { "none" }.into(),
                })
            }
        }
    }
}

kernel! {
    /// Features from bases.
    SinusoidCompositionForward, SinusoidCompositionConfig
}

/// Buffers of [`SinusoidCompositionForward`].
#[derive(Debug, Clone, Copy)]
pub struct SinusoidCompositionForwardArgs<'a> {
    /// The bases, `[N, K]`; 0 where there is no neighbour.
    pub phi: BufferView<'a>,
    /// Indices of the neighbours, u32 `[N, K]`.
    pub neighbours: BufferView<'a>,
    /// `[C, features]`, f32 or f16 as configured; at least 16 bytes if `features` is a multiple of 4.
    pub weights: BufferView<'a>,
    /// `[features]`; none without a sine.
    pub frequencies: Option<BufferView<'a>>,
    /// Output, `[N, features]`.
    pub y: BufferView<'a>,
}

impl SinusoidCompositionForward {
    /// Chooses the variant.
    pub fn plan(config: &SinusoidCompositionConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let variant = SinusoidCompositionVariant::resolve(config, caps)?;
        let bytes = 8 * config.pairs() + config.weight_bytes() + 4 * config.outputs();
        let cost = Cost::new(config.flops(2), bytes);
        let items = u64::from(config.items());
        let count = u64::from(config.points) * items;
        let shaders = &config.shaders().forward;
        let launch = if let Some(lanes) = config.wide(variant, caps) {
            let groups = config.points.div_ceil(WIDE_POINTS).into();
            config.launch(&WIDE.forward, [8, lanes], (0, groups), cost, caps)?
        } else if variant == SinusoidCompositionVariant::Subgroup {
            let groups = u64::from(config.points.div_ceil(8)) * items.div_ceil(8);
            config.launch(&shaders[1], [8, 1], (count, groups), cost, caps)?
        } else {
            let groups = count.div_ceil(WORKGROUP.into());
            config.launch(&shaders[0], [WORKGROUP, 1], (count, groups), cost, caps)?
        };
        Ok(Plan::single(variant.name(), launch))
    }
}

impl Kernel for SinusoidCompositionForward {
    type Args<'a> = SinusoidCompositionForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = &self.config;
        let args = [
            config.phi(args.phi),
            Arg::words("neighbours", args.neighbours, config.pairs()),
            config.stored(args.weights),
            config.frequencies(args.frequencies, args.weights)?,
            Arg::words("y", args.y, config.outputs()),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

/// Which gradients are wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SinusoidCompositionBackwardConfig {
    /// As in the forward pass.
    pub forward: SinusoidCompositionConfig,
    /// That of the bases: not needed while centres, shapes and positions are frozen.
    pub phi: bool,
    /// That of the weights.
    pub weights: bool,
    /// That of the frequencies: not needed while they are fixed, as published.
    pub frequencies: bool,
}

kernel! {
    /// Gradients of the bases, the weights and the frequencies.
    SinusoidCompositionBackward, SinusoidCompositionBackwardConfig
}

/// Buffers of [`SinusoidCompositionBackward`].
#[derive(Debug, Clone, Copy)]
pub struct SinusoidCompositionBackwardArgs<'a> {
    /// As in the forward pass, `[N, K]`.
    pub phi: BufferView<'a>,
    /// As in the forward pass, u32 `[N, K]`.
    pub neighbours: BufferView<'a>,
    /// As in the forward pass.
    pub weights: BufferView<'a>,
    /// As in the forward pass.
    pub frequencies: Option<BufferView<'a>>,
    /// `order` of [`InvertedIndex`](crate::dense::InvertedIndex) of the neighbours, u32 `[N K]`.
    pub order: BufferView<'a>,
    /// Its `starts`, u32 `[C + 1]`.
    pub starts: BufferView<'a>,
    /// Gradient of the output, `[N, features]`.
    pub dy: BufferView<'a>,
    /// Gradient of the bases, `[N, K]`; overwritten. Given exactly if configured, like the next two.
    pub dphi: Option<BufferView<'a>>,
    /// Gradient of the weights, f32 `[C, features]`; overwritten.
    pub dweights: Option<BufferView<'a>>,
    /// Gradient of the frequencies, `[features]`; overwritten.
    pub dfrequencies: Option<BufferView<'a>>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl SinusoidCompositionBackwardConfig {
    /// The sum over the centres that ends the frequencies' gradient.
    fn reduce(&self) -> ReduceConfig {
        ReduceConfig {
            reduction: Reduction::Sum,
            outer: 1,
            n: self.forward.centres,
            inner: self.forward.features,
            variant: None,
            part: None,
        }
    }
}

impl SinusoidCompositionBackward {
    /// Chooses the variant; one launch for each gradient, and the sum of the frequencies'.
    pub fn plan(config: &SinusoidCompositionBackwardConfig, caps: &Capabilities) -> Result<Plan> {
        type Variant = SinusoidCompositionVariant;
        let SinusoidCompositionBackwardConfig { forward, phi, weights, frequencies } = config;
        forward.check()?;
        check_config(*phi || *weights || *frequencies, "gradients", "at least one", config)?;
        let sine = forward.sinusoid || !frequencies;
        check_config(sine, "frequencies", "no gradient without a sine", frequencies)?;
        let variant = Variant::resolve(forward, caps)?;
        let mut plan = Plan { variant: variant.name(), ..Plan::default() };
        let shaders = forward.shaders();
        let (pairs, items) = (forward.pairs(), u64::from(forward.items()));
        let inputs = 8 * pairs + 4 * forward.outputs();
        let wide = forward.wide(variant, caps);
        if *phi {
            let cost = Cost::new(forward.flops(4), inputs + forward.weight_bytes() + 4 * pairs);
            plan.launches.push(if let Some(lanes) = wide {
                let groups = forward.points.div_ceil(WIDE_POINTS).into();
                forward.launch(&WIDE.backward_phi, [8, lanes], (0, groups), cost, caps)?
            } else {
                caps.check_rounds("features", forward.features, items)?;
                let slots =
                    u64::from(forward.points) * u64::from(forward.neighbours.div_ceil(forward.slots()));
                let (shader, groups) = (&shaders.backward_phi, slots.div_ceil(WORKGROUP.into()));
                forward.launch(shader, [WORKGROUP, 1], (slots, groups), cost, caps)?
            });
        }
        let fewest = fewest_lanes("points", pairs, 32, caps)?;
        let lanes = if variant == Variant::Staged { WORKGROUP / TILE } else { 1 }.max(fewest);
        let groups = u64::from(forward.centres) * items.div_ceil(TILE.into());
        let lists = inputs + 4 * u64::from(forward.centres) + 4 * forward.weights();
        // It takes eight pairs in a round.
        let subgroup = variant == Variant::Subgroup && fewest <= 8;
        let lanes = if subgroup { 1 } else { lanes };
        let (lists_of, groups, [workgroup, lanes]) = match wide {
            Some(lanes) if subgroup => {
                let of = [&WIDE.weight_gradient, &WIDE.frequency_gradient];
                (of, u64::from(forward.centres), [8, lanes])
            }
            _ => {
                let i = usize::from(subgroup);
                let of = [&shaders.weight_gradient[i], &shaders.frequency_gradient[i]];
                (of, groups, [TILE * lanes, lanes])
            }
        };
        if *weights {
            let cost = Cost::new(forward.flops(2), lists);
            plan.launches.push(forward.launch(lists_of[0], [workgroup, lanes], (0, groups), cost, caps)?);
        }
        if *frequencies {
            let cost = Cost::new(forward.flops(3), lists + forward.weight_bytes());
            plan.launches.push(forward.launch(lists_of[1], [workgroup, lanes], (0, groups), cost, caps)?);
            let sum = ReduceForward::plan(&config.reduce(), caps)?;
            plan.launches.extend(sum.launches);
            plan.scratch.push(4 * forward.weights());
            plan.scratch.extend(sum.scratch);
        }
        Ok(plan)
    }
}

impl Kernel for SinusoidCompositionBackward {
    type Args<'a> = SinusoidCompositionBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let SinusoidCompositionBackwardConfig { forward, phi, weights, frequencies } = &self.config;
        let given = |what, view: Option<BufferView<'_>>, wanted: bool| {
            let need = if wanted { "a buffer" } else { "none, as configured" };
            check_shape(view.is_some() == wanted, what, need, view.map(|view| view.size))
        };
        given("dphi", args.dphi, *phi)?;
        given("dweights", args.dweights, *weights)?;
        given("dfrequencies", args.dfrequencies, *frequencies)?;
        let pairs = forward.pairs();
        let (bases, stored) = (forward.phi(args.phi), forward.stored(args.weights));
        let m = forward.frequencies(args.frequencies, args.weights)?;
        let dy = Arg::words("dy", args.dy, forward.outputs());
        let neighbours = Arg::words("neighbours", args.neighbours, pairs);
        let lists = [
            Arg::words("order", args.order, pairs),
            Arg::words("starts", args.starts, u64::from(forward.centres) + 1),
        ];
        let dphi = args.dphi.map(|view| Arg::words("dphi", view, pairs));
        let dweights = args.dweights.map(|view| Arg::words("dweights", view, forward.weights()));
        let features = u64::from(forward.features);
        let dfrequencies = args.dfrequencies.map(|view| Arg::words("dfrequencies", view, features));
        let outputs: Vec<_> = [dphi, dweights, dfrequencies].into_iter().flatten().collect();
        // Lists and neighbours are read for some of the gradients.
        let [order, starts] = lists.map(|list| (*weights || *frequencies).then_some(list));
        let read = [Some(bases), phi.then_some(neighbours), Some(stored), Some(m), Some(dy), order, starts];
        check_apart(&outputs, &read)?;
        let mut recording = Recording::new();
        let mut launches = self.plan.launches.iter();
        if let (Some(dphi), Some(launch)) = (dphi, dphi.and_then(|_| launches.next())) {
            recording.push(self.context.bind(launch, &[bases, neighbours, stored, m, dy, dphi])?);
        }
        if let (Some(gradient), Some(launch)) = (dweights, dweights.and_then(|_| launches.next())) {
            recording.push(self.context.bind(launch, &[bases, lists[0], lists[1], m, dy, gradient])?);
        }
        if let (Some(y), Some(launch)) = (args.dfrequencies, args.dfrequencies.and_then(|_| launches.next()))
        {
            let x = args.scratch.view(0)?;
            let each = Arg::words("scratch 0", x, forward.weights());
            recording.push(self.context.bind(launch, &[bases, lists[0], lists[1], m, dy, each, stored])?);
            let scratch = Scratch(args.scratch.0.get(1..).unwrap_or_default().to_vec());
            let sum = ReduceForward::new(&self.context, self.config.reduce())?;
            recording.append(sum.prepare(&ReduceForwardArgs { x, y, index: None, scratch: &scratch })?);
        }
        Ok(recording)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_a_cpu_adapter_would_cut_off_are_refused() {
        let cpu = Capabilities { cpu: true, ..Capabilities::baseline() };
        let plan = |features, phi: bool, caps: &Capabilities| {
            let forward = SinusoidCompositionConfig { features, ..Default::default() };
            let config =
                SinusoidCompositionBackwardConfig { forward, phi, weights: !phi, frequencies: false };
            SinusoidCompositionBackward::plan(&config, caps)
        };
        assert!(plan(240_000, true, &cpu).is_ok());
        assert!(plan(240_004, true, &cpu).unwrap_err().to_string().contains("at most 240000"));
        assert!(plan(60_001, true, &cpu).unwrap_err().to_string().contains("at most 60000"));
        assert!(plan(240_004, true, &Capabilities::baseline()).is_ok());
        assert!(plan(240_004, false, &cpu).is_ok());
    }
}
