//! Grid encodings with their derivatives in space (`shaders/radial/grid_encoding.wgsl`): jets, and
//! the double backward pass.
//!
//! Smoothstep has a continuous first derivative; its second jumps at the borders of cells. Linear
//! interpolation has second derivatives between the axes only, and all of them jump.

use super::Differential;
use super::grid_encoding::{
    CLEAR, CONVERT, GridEncodingConfig, GridEncodingForward, GridEncodingVariant, WORKGROUP, upload_levels,
};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Context, Cost, Error, Kernel, Launch, Plan, Planned, Recording, Result,
    Scratch, Shader, check_config, count, read, shader, write,
};

/// A grid, and which derivatives it gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GridEncodingJetConfig {
    /// The grid. Its variant must be that of the fixed point, or `None`.
    pub grid: GridEncodingConfig,
    /// [`Differential::Jet`] or [`Differential::Along`]. For values alone there is
    /// [`GridEncodingForward`].
    pub differential: Differential,
}

impl GridEncodingJetConfig {
    fn check(&self, caps: &Capabilities) -> Result<()> {
        GridEncodingForward::plan(&self.grid, caps)?;
        let fixed = matches!(self.grid.variant, None | Some(GridEncodingVariant::FixedPoint));
        check_config(fixed, "variant", "the fixed point for derivatives", self.grid.variant)?;
        let derivatives = self.differential != Differential::Value;
        check_config(derivatives, "differential", "a jet or along a direction", self.differential)?;
        self.output_count().map(drop)
    }

    /// Elements of the output: `[1 + dims, N, levels * features]` for jets, else `[N, levels * features]`.
    pub fn output_count(&self) -> Result<u32> {
        let planes = self.differential.planes(self.grid.dims);
        count("encoded", &[planes, self.grid.points, self.grid.outputs()])
    }

    fn launch(
        &self,
        shader: &'static Shader,
        values: u32,
        groups: u64,
        cost: Cost,
        caps: &Capabilities,
    ) -> Result<Launch> {
        self.grid.launch_of(self.differential, shader, values, groups, cost, caps)
    }

    /// Workgroups of a pass over points and levels.
    fn groups(&self) -> u64 {
        u64::from(self.grid.points.div_ceil(WORKGROUP)) * u64::from(self.grid.levels)
    }

    fn cost(&self) -> Cost {
        let planes = u64::from(self.differential.planes(self.grid.dims));
        self.grid.cost(2 * u64::from(1 + self.grid.dims), 4 * planes)
    }
}

static FORWARD: Shader = shader!(
    "radial/grid_encoding",
    "jet_forward",
    [index],
    [read("levels").stride(32), read("positions"), read("table"), read("direction"), write("jets_out")]
);
static BACKWARD_INPUT: Shader = shader!(
    "radial/grid_encoding",
    "jet_backward_input",
    [index],
    [
        read("levels").stride(32),
        read("positions"),
        read("table"),
        read("direction"),
        read("dy_jets"),
        write("jet_dx")
    ]
);
static LARGEST: Shader = shader!(
    "radial/grid_encoding",
    "jet_largest",
    [index],
    [
        read("levels").stride(32),
        read("positions"),
        write("jet_largest_bits"),
        read("direction"),
        read("dy_jets")
    ]
);
static BACKWARD_TABLE: Shader = shader!(
    "radial/grid_encoding",
    "jet_backward_table",
    [index],
    [
        read("levels").stride(32),
        read("positions"),
        read("jet_range"),
        read("direction"),
        read("dy_jets"),
        write("jet_sums")
    ]
);

/// Declares one of the three kernels: like `kernel!`, with the table of levels in a buffer of its own.
macro_rules! jet_kernel {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            context: Context,
            config: GridEncodingJetConfig,
            plan: Plan,
            levels: wgpu::Buffer,
        }

        impl $name {
            /// Plans for the context's device and uploads the table of levels.
            pub fn new(context: &Context, config: GridEncodingJetConfig) -> Result<Self> {
                let plan = Self::plan(&config, context.capabilities())?;
                let levels = upload_levels(context, &config.grid)?;
                Ok(Self { context: context.clone(), config, plan, levels })
            }

            /// The configuration it was planned for.
            #[must_use]
            pub fn config(&self) -> &GridEncodingJetConfig {
                &self.config
            }

            fn levels(&self) -> Arg<'_> {
                Arg::new("levels", BufferView::new(&self.levels), u64::from(self.config.grid.levels), 32)
            }

            fn vectors<'a>(&self, what: &'static str, view: BufferView<'a>) -> Arg<'a> {
                let grid = &self.config.grid;
                Arg::words(what, view, u64::from(grid.points) * u64::from(grid.dims))
            }

            /// What is not used is stood for by the positions.
            fn direction<'a>(&self, view: Option<BufferView<'a>>, positions: Arg<'a>) -> Result<Arg<'a>> {
                match view {
                    _ if self.config.differential != Differential::Along => Ok(positions),
                    Some(view) => Ok(self.vectors("direction", view)),
                    None => Err(Error::Config {
                        what: "direction",
                        need: "a buffer, since the configuration asks for it".into(),
                        got: "none".into(),
                    }),
                }
            }

            fn encoded<'a>(&self, what: &'static str, view: BufferView<'a>) -> Result<Arg<'a>> {
                Ok(Arg::words(what, view, self.config.output_count()?.into()))
            }
        }

        impl Planned for $name {
            fn context(&self) -> &Context {
                &self.context
            }

            fn planned(&self) -> &Plan {
                &self.plan
            }
        }
    };
}

jet_kernel! {
    /// Encodes positions, with derivatives.
    ///
    /// Along the gradient `ddx` of a loss with respect to the result of
    /// [`GridEncodingBackwardInput`](super::GridEncodingBackwardInput), it gives that loss's gradient
    /// with respect to `dy`.
    GridEncodingJetForward
}

/// Buffers of [`GridEncodingJetForward`].
#[derive(Debug, Clone, Copy)]
pub struct GridEncodingJetForwardArgs<'a> {
    /// Positions in `[0, 1]`, `[N, dims]`; others are clamped, and have no derivative along the axes
    /// where they are.
    pub positions: BufferView<'a>,
    /// The table, `[entries, features]`.
    pub table: BufferView<'a>,
    /// Directions, `[N, dims]`; for [`Differential::Along`].
    pub direction: Option<BufferView<'a>>,
    /// Output, `[1 + dims, N, levels, features]` or, along a direction, `[N, levels, features]`.
    pub encoded: BufferView<'a>,
}

impl GridEncodingJetForward {
    /// One invocation a point and level.
    pub fn plan(config: &GridEncodingJetConfig, caps: &Capabilities) -> Result<Plan> {
        config.check(caps)?;
        let launch = config.launch(&FORWARD, 0, config.groups(), config.cost(), caps)?;
        Ok(Plan::single("point-level", launch))
    }
}

impl Kernel for GridEncodingJetForward {
    type Args<'a> = GridEncodingJetForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let positions = self.vectors("positions", args.positions);
        let args = [
            self.levels(),
            positions,
            Arg::words("table", args.table, self.config.grid.parameter_count()?.into()),
            self.direction(args.direction, positions)?,
            self.encoded("encoded", args.encoded)?,
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

jet_kernel! {
    /// The gradient of the positions, which takes the second derivatives of the encoding.
    GridEncodingJetBackwardInput
}

/// Buffers of [`GridEncodingJetBackwardInput`].
#[derive(Debug, Clone, Copy)]
pub struct GridEncodingJetBackwardInputArgs<'a> {
    /// As in the forward pass, `[N, dims]`.
    pub positions: BufferView<'a>,
    /// As in the forward pass, `[entries, features]`.
    pub table: BufferView<'a>,
    /// As in the forward pass.
    pub direction: Option<BufferView<'a>>,
    /// Gradient of the output, of its shape.
    pub dy: BufferView<'a>,
    /// Gradient of the positions, `[N, dims]`; overwritten.
    pub dx: BufferView<'a>,
}

impl GridEncodingJetBackwardInput {
    /// One invocation a point.
    pub fn plan(config: &GridEncodingJetConfig, caps: &Capabilities) -> Result<Plan> {
        config.check(caps)?;
        let groups = config.grid.points.div_ceil(WORKGROUP).into();
        Ok(Plan::single("point", config.launch(&BACKWARD_INPUT, 0, groups, config.cost(), caps)?))
    }
}

impl Kernel for GridEncodingJetBackwardInput {
    type Args<'a> = GridEncodingJetBackwardInputArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let positions = self.vectors("positions", args.positions);
        let args = [
            self.levels(),
            positions,
            Arg::words("table", args.table, self.config.grid.parameter_count()?.into()),
            self.direction(args.direction, positions)?,
            self.encoded("dy", args.dy)?,
            self.vectors("dx", args.dx),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

jet_kernel! {
    /// The gradient of the table, in 64-bit fixed point: the same bits in every run.
    ///
    /// Each term is rounded to 2^-29 of a bound of the largest, `|G_0| + 1.5 sum_t |G_t| scale` with
    /// `G` the gradient of value and derivatives.
    GridEncodingJetBackwardTable
}

/// Buffers of [`GridEncodingJetBackwardTable`].
#[derive(Debug, Clone, Copy)]
pub struct GridEncodingJetBackwardTableArgs<'a> {
    /// As in the forward pass, `[N, dims]`.
    pub positions: BufferView<'a>,
    /// As in the forward pass.
    pub direction: Option<BufferView<'a>>,
    /// Gradient of the output, of its shape. If any element is NaN or infinite, or the bound above
    /// overflows, the whole gradient of the table is NaN.
    pub dy: BufferView<'a>,
    /// Gradient of the table, `[entries, features]`; overwritten.
    pub dtable: BufferView<'a>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl GridEncodingJetBackwardTable {
    /// Clears the sums, finds the range, adds, and converts.
    pub fn plan(config: &GridEncodingJetConfig, caps: &Capabilities) -> Result<Plan> {
        config.check(caps)?;
        let table = config.grid.parameter_count()?;
        let blocks = |n: u32| u64::from(n.div_ceil(WORKGROUP));
        let bytes = |n: u32, each: u64| Cost::new(0, u64::from(n) * each);
        let (encoded, groups) = (config.output_count()?, config.groups());
        // The passes that the plain encoding has too are the same pipelines.
        let plain = |shader, values, groups, cost| {
            config.grid.launch_of(Differential::Value, shader, values, groups, cost, caps)
        };
        Ok(Plan {
            variant: "fixed point",
            launches: vec![
                plain(&CLEAR, 1, 1, Cost::default())?,
                plain(&CLEAR, 2 * table, blocks(2 * table), bytes(2 * table, 4))?,
                config.launch(&LARGEST, 0, groups, bytes(encoded, 4), caps)?,
                config.launch(&BACKWARD_TABLE, 0, groups, config.cost(), caps)?,
                plain(&CONVERT, table, blocks(table), bytes(table, 12))?,
            ],
            scratch: vec![u64::from(table) * 8, 4],
        })
    }
}

impl Kernel for GridEncodingJetBackwardTable {
    type Args<'a> = GridEncodingJetBackwardTableArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let table = u64::from(self.config.grid.parameter_count()?);
        let sums = Arg::words("scratch 0", args.scratch.view(0)?, 2 * table);
        let range = Arg::words("scratch 1", args.scratch.view(1)?, 1);
        let positions = self.vectors("positions", args.positions);
        let direction = self.direction(args.direction, positions)?;
        let dy = self.encoded("dy", args.dy)?;
        let dtable = Arg::words("dtable", args.dtable, table);
        let bound: [&[Arg<'_>]; 5] = [
            &[range],
            &[sums],
            &[self.levels(), positions, range, direction, dy],
            &[self.levels(), positions, range, direction, dy, sums],
            &[sums, range, dtable],
        ];
        let mut recording = Recording::new();
        for (launch, args) in self.plan.launches.iter().zip(bound) {
            recording.push(self.context.bind(launch, args)?);
        }
        Ok(recording)
    }
}
