//! Random points on and around a triangle mesh (`shaders/radial/mesh_sample.wgsl`).

use crate::dense::RandomState;
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, count, kernel, read, shader, write,
};

/// Points on the surface of a [`MeshBvh`](super::MeshBvh), near it, and anywhere in a cube, one kind after
/// the other.
///
/// The choice of the triangles and of the place in each is the same on every adapter; the positions are, to
/// rounding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeshSampleConfig {
    /// Triangles of the mesh.
    pub triangles: u32,
    /// Points on the surface, near it, and anywhere; together 1 to 2^30.
    pub counts: [u32; 3],
    /// Standard deviation of the distance along each axis of the points near the surface.
    pub sigma: f32,
    /// The same of the points on the surface; 0: they lie on it.
    pub surface_sigma: f32,
    /// Above 0, points come in pairs: each second one is the one before moved along each axis with this standard
    /// deviation. All counts are even then. A function's values at both tell of its slope.
    pub pair_sigma: f32,
    /// The cube of the points anywhere: its smallest coordinate and the length of its edges.
    pub cube: [f32; 2],
    /// Distinguishes uses of one state.
    pub stream: u32,
    /// Whether the points of a kind, at most 2^24 then, are shared out: each into an equal part of the surface
    /// (in the order of the leaves) or of the cube (along a Morton curve). So no region is left out by chance,
    /// and neighbours in memory are neighbours in space.
    pub stratified: bool,
}

const WORKGROUP: u32 = 64;

static SAMPLE: Shader = shader!(
    "radial/mesh_sample",
    "sample_mesh",
    [index, random],
    [read("state"), read("corners").vec4(), read("starts"), write("positions")]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    points: u32,
    triangles: u32,
    surface: u32,
    near: u32,
    stream: u32,
    sigma: f32,
    low: f32,
    size: f32,
    surface_sigma: f32,
    pair_sigma: f32,
}

kernel! {
    /// Random points on and around a mesh.
    MeshSample, MeshSampleConfig
}

/// Buffers of [`MeshSample`].
#[derive(Debug, Clone, Copy)]
pub struct MeshSampleArgs<'a> {
    /// [`RandomState`], u32 `[4]`.
    pub state: BufferView<'a>,
    /// [`MeshBuffers::corners`](super::MeshBuffers::corners).
    pub corners: BufferView<'a>,
    /// [`MeshBvh::area_starts`](super::MeshBvh::area_starts), u32 `[triangles]`.
    pub starts: BufferView<'a>,
    /// Output, `[points, 3]`.
    pub positions: BufferView<'a>,
}

impl MeshSampleConfig {
    /// All points.
    fn points(&self) -> u64 {
        self.counts.iter().map(|&n| u64::from(n)).sum()
    }
}

impl MeshSample {
    /// One invocation a point.
    pub fn plan(config: &MeshSampleConfig, caps: &Capabilities) -> Result<Plan> {
        let MeshSampleConfig { triangles, counts, sigma, surface_sigma, pair_sigma, .. } = *config;
        let MeshSampleConfig { cube, stream, stratified, .. } = *config;
        let points = config.points();
        let fits = (1..=1 << 30).contains(&points);
        check_config(fits, "counts", "together 1 to 2^30", counts)?;
        let few = !stratified || counts.iter().all(|&n| n <= 1 << 24);
        check_config(few, "counts", "at most 2^24 each if stratified", counts)?;
        check_config(triangles > 0, "triangles", "at least 1", triangles)?;
        let points = points as u32;
        let [surface, near, _] = counts;
        let sigmas = [("sigma", sigma), ("surface_sigma", surface_sigma), ("pair_sigma", pair_sigma)];
        for (what, sigma) in sigmas {
            check_config(sigma.is_finite() && sigma >= 0.0, what, "finite and at least 0", sigma)?;
        }
        let pairs = pair_sigma > 0.0;
        let even = counts.iter().all(|n| n.is_multiple_of(2));
        check_config(!pairs || even, "counts", "even with pairs", counts)?;
        check_config(cube.iter().all(|x| x.is_finite()), "cube", "finite", cube)?;
        count("positions", &[points, 3])?;
        count("corners", &[triangles, 12])?;
        let params = Params {
            points,
            triangles,
            surface,
            near,
            stream,
            sigma,
            low: cube[0],
            size: cube[1],
            surface_sigma,
            pair_sigma,
        };
        // Integer operations of up to two (in pairs three) blocks of random words and of the normal numbers; a
        // bisection.
        let operations = if pairs { 600 } else { 400 } + 4 * u64::from(triangles.ilog2());
        let cost = Cost::new(u64::from(points) * operations, u64::from(points) * 12);
        let groups = points.div_ceil(WORKGROUP).into();
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP).bool("STRATIFIED", stratified);
        let constants = constants.bool("PAIRS", pairs);
        Ok(Plan::single("point", Launch::new(&SAMPLE, constants, &params, groups, caps, cost)?))
    }
}

impl Kernel for MeshSample {
    type Args<'a> = MeshSampleArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let triangles = u64::from(self.config.triangles);
        let args = [
            Arg::words("state", args.state, RandomState::WORDS),
            Arg::words("corners", args.corners, triangles * 12),
            Arg::words("starts", args.starts, triangles),
            Arg::words("positions", args.positions, self.config.points() * 3),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}
