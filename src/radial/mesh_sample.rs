//! Random points on and around a triangle mesh (`shaders/radial/mesh_sample.wgsl`).

use crate::dense::RandomState;
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, count, kernel, read, shader, write,
};

/// Points on the surface of a [`MeshBvh`](super::MeshBvh), near it, and anywhere in a cube.
///
/// The kinds take turns, so that any run of points has them in the ratio asked for. The choice of the triangles and of
/// the place in each is the same on every adapter; the positions are, to rounding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeshSampleConfig {
    /// Points, 1 to 2^30.
    pub points: u32,
    /// Triangles of the mesh.
    pub triangles: u32,
    /// Points on the surface, near it, and anywhere, of each `sum of the three`; the published
    /// training of distance fields takes 4 : 3 : 1.
    pub ratio: [u32; 3],
    /// Standard deviation of the distance along each axis of the points near the surface.
    pub sigma: f32,
    /// The cube of the points anywhere: its smallest coordinate and the length of its edges.
    pub cube: [f32; 2],
    /// Distinguishes uses of one state.
    pub stream: u32,
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
    period: u32,
    stream: u32,
    sigma: f32,
    low: f32,
    size: f32,
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

impl MeshSample {
    /// One invocation a point.
    pub fn plan(config: &MeshSampleConfig, caps: &Capabilities) -> Result<Plan> {
        let MeshSampleConfig { points, triangles, ratio, sigma, cube, stream } = *config;
        check_config((1..=1 << 30).contains(&points), "points", "1 to 2^30", points)?;
        check_config(triangles > 0, "triangles", "at least 1", triangles)?;
        let [surface, near, everywhere] = ratio;
        let small = ratio.iter().all(|&n| n <= 1 << 16);
        let period = if small { surface + near + everywhere } else { 0 };
        check_config(period > 0, "ratio", "at most 65,536 each and not all 0", ratio)?;
        check_config(sigma.is_finite() && sigma >= 0.0, "sigma", "finite and at least 0", sigma)?;
        check_config(cube.iter().all(|x| x.is_finite()), "cube", "finite", cube)?;
        count("positions", &[points, 3])?;
        count("corners", &[triangles, 12])?;
        let params =
            Params { points, triangles, surface, near, period, stream, sigma, low: cube[0], size: cube[1] };
        // Integer operations of up to two blocks of random words and of the normal numbers; a bisection.
        let operations = 400 + 4 * u64::from(triangles.ilog2());
        let cost = Cost::new(u64::from(points) * operations, u64::from(points) * 12);
        let groups = points.div_ceil(WORKGROUP).into();
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP);
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
            Arg::words("positions", args.positions, u64::from(self.config.points) * 3),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}
