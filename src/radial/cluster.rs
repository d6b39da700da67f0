//! Means and covariances of weighted clusters (`shaders/radial/cluster.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Context, Cost, Error, Kernel, Launch, Plan, Recording, Result,
    Scratch, Shader, check_config, count, kernel, read, shader, write,
};

use super::importance::CentreReport;

/// Weighted points, each with the cluster it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Coordinates of a point, 1 to 3.
    pub dims: u32,
    /// Points, at least 1.
    pub points: u32,
    /// Clusters, at least 1.
    pub clusters: u32,
}

/// Shapes of bases from the covariances of clusters (Chen et al. 2023, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClusterShapesConfig {
    /// The clusters.
    pub clusters: ClusterConfig,
    /// What covariances are divided by, above 0: 0.5, or 0.3 for radiance fields.
    pub alpha: f32,
    /// Factor of the covariances, above 0: 1; 4 for hat functions; 1/3 for inverse multiquadrics.
    pub scale: f32,
    /// The least variance along each axis, above 0.
    pub least: [f32; 3],
    /// The most, not below `least`.
    pub most: [f32; 3],
}

impl ClusterShapesConfig {
    /// With the published clips for a field that reaches over `extent` and is sampled at
    /// `resolution` places along each axis: `(extent / resolution / 200)^2` to `(extent / 10)^2`.
    #[must_use]
    pub fn with_clips(clusters: ClusterConfig, extent: [f32; 3], resolution: [u32; 3]) -> Self {
        let square = |x: f64| (x * x) as f32;
        let mut least = [1.0; 3];
        let mut most = [1.0; 3];
        for d in 0..3 {
            let size = f64::from(extent[d]);
            least[d] = square(size / f64::from(resolution[d].max(1)) / 200.0);
            most[d] = square(size / 10.0);
        }
        Self { clusters, alpha: 0.5, scale: 1.0, least, most }
    }
}

/// The variance of a cluster without points, before `scale` and the clips.
const EMPTY: f32 = 1e-10;

const WORKGROUP: u32 = 64;

static CLEAR: Shader = shader!("radial/cluster", "clear", [index, weight], [write("cleared")]);
static FIND_RANGES: Shader = shader!(
    "radial/cluster",
    "find_ranges",
    [index, weight],
    [read("positions"), read("weights"), read("labels"), read("centres"), write("ranges")]
);
macro_rules! adding {
    ($entry:literal) => {
        shader!(
            "radial/cluster",
            $entry,
            [index, weight],
            [
                read("positions"),
                read("weights"),
                read("labels"),
                read("centres"),
                read("found_ranges"),
                write("sums")
            ]
        )
    };
}
static ADD_MEANS: Shader = adding!("add_means");
static ADD_COVARIANCES: Shader = adding!("add_covariances");
static MOVE_CENTRES: Shader = shader!(
    "radial/cluster",
    "move_centres",
    [index, weight],
    [read("done_ranges"), read("done"), write("moved")]
);
static MAKE_SHAPES: Shader = shader!(
    "radial/cluster",
    "make_shapes",
    [index, weight],
    [read("done_ranges"), read("done"), write("shapes"), write("report")]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    points: u32,
    clusters: u32,
    words: u32,
    scale: f32,
    scale_empty: f32,
    least_x: f32,
    least_y: f32,
    least_z: f32,
    most_x: f32,
    most_y: f32,
    most_z: f32,
}

/// The points as the launches of both kernels bind them.
struct Points<'a> {
    positions: BufferView<'a>,
    weights: BufferView<'a>,
    labels: BufferView<'a>,
    centres: BufferView<'a>,
}

impl ClusterConfig {
    fn check(&self) -> Result<()> {
        check_config((1..=3).contains(&self.dims), "dims", "1 to 3", self.dims)?;
        check_config(self.points > 0, "points", "at least 1", self.points)?;
        check_config(self.clusters > 0, "clusters", "at least 1", self.clusters)?;
        count("positions", &[self.points, self.dims])?;
        // Two words for each of at most seven sums.
        count("sums", &[self.clusters, 14])?;
        Ok(())
    }

    /// Entries of a symmetric matrix.
    fn entries(&self) -> u32 {
        self.dims * (self.dims + 1) / 2
    }

    /// Clearing, ranges and sums of `terms` terms, then `last` over the clusters.
    fn plan(
        &self,
        terms: u32,
        add: &'static Shader,
        last: &'static Shader,
        params: Params,
        caps: &Capabilities,
    ) -> Result<Plan> {
        let Self { dims, points, clusters } = *self;
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP).u32("D", dims).u32("TERMS", terms);
        let (ranges, sums) = (2 * clusters, 2 * clusters * terms);
        let (n, m) = (u64::from(points), u64::from(clusters));
        let launch = |shader, over: u32, words: u32, flops: u64, moved: u64| {
            let params = Params { points, clusters, words, ..params };
            let groups = over.div_ceil(WORKGROUP).into();
            Launch::new(shader, constants.clone(), &params, groups, caps, Cost::new(flops, 4 * moved))
        };
        let read = n * u64::from(dims + 2) + m * u64::from(dims);
        let launches = vec![
            launch(&CLEAR, ranges, ranges, 0, ranges.into())?,
            launch(&CLEAR, sums, sums, 0, sums.into())?,
            launch(&FIND_RANGES, points, 0, n * u64::from(dims), read + u64::from(ranges))?,
            launch(add, points, 0, n * u64::from(2 * terms), read + u64::from(ranges + sums))?,
            launch(last, clusters, 0, m * u64::from(terms), u64::from(ranges + sums) + m * u64::from(terms))?,
        ];
        let scratch = vec![u64::from(ranges) * 4, u64::from(sums) * 4];
        Ok(Plan { variant: "fixed point", launches, scratch })
    }

    fn bind<'a>(
        &self,
        context: &Context,
        plan: &Plan,
        points: &Points<'a>,
        last: &[Arg<'a>],
        scratch: &'a Scratch,
    ) -> Result<Recording> {
        let [clear_ranges, clear_sums, find, add, finish] = &plan.launches[..] else {
            return Err(Error::IndexOverflow { what: "launches", elements: 0 });
        };
        let &[range_bytes, sum_bytes] = &plan.scratch[..] else {
            return Err(Error::IndexOverflow { what: "scratch", elements: 0 });
        };
        let ranges = Arg { what: "ranges", view: scratch.view(0)?, need: range_bytes };
        let sums = Arg { what: "sums", view: scratch.view(1)?, need: sum_bytes };
        let n = u64::from(self.points);
        let d = u64::from(self.dims);
        let points = [
            Arg::words("positions", points.positions, n * d),
            Arg::words("weights", points.weights, n),
            Arg::words("labels", points.labels, n),
            Arg::words("centres", points.centres, u64::from(self.clusters) * d),
        ];
        let mut recording = Recording::single(context.bind(clear_ranges, &[ranges])?);
        recording.push(context.bind(clear_sums, &[sums])?);
        recording.push(context.bind(find, &[&points[..], &[ranges]].concat())?);
        recording.push(context.bind(add, &[&points[..], &[ranges, sums]].concat())?);
        recording.push(context.bind(finish, &[&[ranges, sums], last].concat())?);
        Ok(recording)
    }
}

kernel! {
    /// Moves each centre to the weighted mean of its points: with labels from the nearest centre, a
    /// step of Lloyd's k-means. The same bits in every run.
    ClusterMeans, ClusterConfig
}

/// Buffers of [`ClusterMeans`].
#[derive(Debug, Clone, Copy)]
pub struct ClusterMeansArgs<'a> {
    /// The points, `[points, dims]`. One that is not finite takes no part.
    pub positions: BufferView<'a>,
    /// Their weights, `[points]`. NaN, infinity, negative numbers and numbers above 1e27 count as 0.
    pub weights: BufferView<'a>,
    /// Their clusters, u32 `[points]`. A point whose cluster does not exist takes no part.
    pub labels: BufferView<'a>,
    /// The centres, `[clusters, dims]`; updated. One without points, or whose points weigh nothing, stays.
    pub centres: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl ClusterMeans {
    /// Clears, finds the ranges, adds, and moves the centres.
    pub fn plan(config: &ClusterConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        config.plan(1 + config.dims, &ADD_MEANS, &MOVE_CENTRES, Params::default(), caps)
    }
}

impl Kernel for ClusterMeans {
    type Args<'a> = ClusterMeansArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let &ClusterMeansArgs { positions, weights, labels, centres, scratch } = args;
        let points = Points { positions, weights, labels, centres };
        let n = u64::from(self.config.clusters) * u64::from(self.config.dims);
        let moved = [Arg::words("centres", centres, n)];
        self.config.bind(&self.context, &self.plan, &points, &moved, scratch)
    }
}

kernel! {
    /// The shape of a basis for each cluster: the inverse of the covariance of its points about its
    /// centre, clipped and scaled. The same bits in every run.
    ClusterShapes, ClusterShapesConfig
}

/// Buffers of [`ClusterShapes`].
#[derive(Debug, Clone, Copy)]
pub struct ClusterShapesArgs<'a> {
    /// As in [`ClusterMeansArgs`], `[points, dims]`.
    pub positions: BufferView<'a>,
    /// As there, `[points]`.
    pub weights: BufferView<'a>,
    /// As there, u32 `[points]`.
    pub labels: BufferView<'a>,
    /// The centres, `[clusters, dims]`.
    pub centres: BufferView<'a>,
    /// The shapes, `[clusters, dims (dims + 1) / 2]`: x; or xx, xy, yy; or xx, xy, xz, yy, yz, zz of a
    /// symmetric positive definite matrix `K`, so that `r^2 = (x - c)^T K (x - c)`; overwritten.
    pub shapes: BufferView<'a>,
    /// [`CentreReport`], u32 `[8]`; `empty`, `clamped` and `indefinite` are added to.
    pub report: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl ClusterShapes {
    /// Clears, finds the ranges, adds, and inverts.
    pub fn plan(config: &ClusterShapesConfig, caps: &Capabilities) -> Result<Plan> {
        let ClusterShapesConfig { clusters, alpha, scale, least, most } = *config;
        clusters.check()?;
        let is_factor = |x: f32| x.is_finite() && x > 0.0;
        check_config(is_factor(alpha), "alpha", "above 0 and finite", alpha)?;
        check_config(is_factor(scale), "scale", "above 0 and finite", scale)?;
        for (&low, &high) in least.iter().zip(&most).take(clusters.dims as usize) {
            // So that inverses and products of two stay within f32.
            let ordered = low >= 1e-18 && low <= high && high <= 1e18;
            check_config(ordered, "least, most", "1e-18 to 1e18, least not above most", (least, most))?;
        }
        let [least_x, least_y, least_z] = least;
        let [most_x, most_y, most_z] = most;
        let params = Params {
            scale: scale / alpha,
            scale_empty: EMPTY * scale,
            least_x,
            least_y,
            least_z,
            most_x,
            most_y,
            most_z,
            ..Params::default()
        };
        clusters.plan(1 + clusters.entries(), &ADD_COVARIANCES, &MAKE_SHAPES, params, caps)
    }
}

impl Kernel for ClusterShapes {
    type Args<'a> = ClusterShapesArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let &ClusterShapesArgs { positions, weights, labels, centres, shapes, report, scratch } = args;
        let clusters = self.config.clusters;
        let points = Points { positions, weights, labels, centres };
        let n = u64::from(clusters.clusters) * u64::from(clusters.entries());
        let last = [Arg::words("shapes", shapes, n), Arg::words("report", report, CentreReport::WORDS)];
        clusters.bind(&self.context, &self.plan, &points, &last, scratch)
    }
}
