//! Signed distances to a triangle mesh (`shaders/radial/mesh_distance.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Scratch, Shader,
    check_apart, check_config, check_workgroup, count, kernel, read, shader, write,
};

/// How inside and outside are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum MeshSign {
    /// Not at all: distances are 0 or above.
    None,
    /// By the generalised winding number (Jacobson et al. 2013), a node of the tree counting as one dipole
    /// for points farther away than `beta` times its radius (Barill et al. 2018, order 1).
    Approximate {
        /// Accuracy, above 0; the paper's is 2. The error falls about with `beta^-3`.
        beta: f32,
    },
    /// By the same number, summed over all triangles; on a CPU adapter at most 60,000.
    #[default]
    Exact,
}

/// How the triangles are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeshDistanceVariant {
    /// Through the tree.
    Bvh,
    /// All triangles for every point; on a CPU adapter at most 60,000.
    BruteForce,
}

/// Distances from `points` points to the triangles of a [`MeshBvh`](super::MeshBvh).
///
/// The distance is exact to rounding: its error is a few units of the distance plus the size of the
/// triangles. A point counts as inside where `|winding| > 1/2`, whichever way the triangles are
/// oriented. For a closed mesh the number is 0 or 1 but on the surface; for an open one, or one that
/// cuts itself, it is what is left of a solid angle, and a sign is doubtful where it is near 1/2.
/// Coordinates of points up to 1e18; those that are not finite give NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeshDistanceConfig {
    /// Points, at least 1.
    pub points: u32,
    /// Triangles of the tree.
    pub triangles: u32,
    /// Leaves of the tree.
    pub leaves: u32,
    /// Whether there is a sign, and where it comes from.
    pub sign: MeshSign,
    /// `None`: through the tree.
    pub variant: Option<MeshDistanceVariant>,
}

const WORKGROUP: u32 = 64;

static WINDING: Shader = shader!(
    "radial/mesh_distance",
    "winding",
    [index, arctangent],
    [
        read("positions"),
        read("corners").vec4(),
        read("dipoles").vec4(),
        write("winding_out"),
        write("angle_state")
    ]
);
static TO_MESH: Shader = shader!(
    "radial/mesh_distance",
    "to_mesh",
    [index, arctangent],
    [
        read("positions"),
        read("corners").vec4(),
        read("boxes").vec4(),
        write("distances"),
        write("gradients"),
        write("nearest"),
        write("state")
    ]
);
static TO_MESH_SIGNED: Shader = shader!(
    "radial/mesh_distance",
    "to_mesh_signed",
    [index, arctangent],
    [
        read("positions"),
        read("corners").vec4(),
        read("boxes").vec4(),
        read("winding_in"),
        write("distance_signed"),
        write("gradient_signed"),
        write("nearest_signed"),
        write("state_signed")
    ]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    points: u32,
    triangles: u32,
    leaves: u32,
    leaf_triangles: u32,
    long_leaves: u32,
    beta: f32,
    rounds: u32,
    resumed: u32,
    more: u32,
}

kernel! {
    /// Distances to a mesh.
    MeshDistance, MeshDistanceConfig
}

/// Buffers of [`MeshDistance`].
#[derive(Debug, Clone, Copy)]
pub struct MeshDistanceArgs<'a> {
    /// Points, `[points, 3]`.
    pub positions: BufferView<'a>,
    /// [`MeshBuffers::corners`](super::MeshBuffers::corners).
    pub corners: BufferView<'a>,
    /// [`MeshBuffers::boxes`](super::MeshBuffers::boxes).
    pub boxes: BufferView<'a>,
    /// [`MeshBuffers::dipoles`](super::MeshBuffers::dipoles).
    pub dipoles: BufferView<'a>,
    /// Output, `[points]`: the winding number. Must be there if there is a sign.
    pub winding: Option<BufferView<'a>>,
    /// Output, `[points]`: the distance, negative inside.
    pub distance: BufferView<'a>,
    /// Output, `[points, 3]`: the gradient of the distance, a unit vector; 0 on the surface.
    pub gradient: BufferView<'a>,
    /// Output, u32 `[points]`: the index of a nearest triangle. Where several are equally near it is any of
    /// them, the same in every run. `u32::MAX` where the position is not finite.
    pub nearest: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

/// Words for each point: where a walk goes on.
const STATE: u64 = 3;

/// How walks are shared out over dispatches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shares {
    /// Nodes of a walk in a dispatch.
    nodes: u32,
    dispatches: u32,
}

impl Shares {
    /// A walk sees every node at most once. At a leaf each triangle is a round of a loop, and invocations that run as
    /// one are seldom at a leaf together.
    fn new(triangles: u32, leaves: u32, brute: bool, caps: &Capabilities) -> Result<Self> {
        if brute {
            return Ok(Self { nodes: u32::MAX, dispatches: 1 });
        }
        let node = 2 + u64::from(triangles.div_ceil(leaves));
        caps.check_rounds("triangles", triangles, node)?;
        let nodes = u32::try_from(caps.rounds() / node).unwrap_or(u32::MAX);
        Ok(Self { nodes, dispatches: (2 * leaves).div_ceil(nodes) })
    }
}

impl MeshDistance {
    /// One invocation a point: the winding numbers first, then the distances. On a CPU adapter, where an
    /// invocation must not loop for long, walks through a large tree are shared out over dispatches.
    pub fn plan(config: &MeshDistanceConfig, caps: &Capabilities) -> Result<Plan> {
        let MeshDistanceConfig { points, triangles, leaves, sign, variant } = *config;
        check_config(points > 0, "points", "at least 1", points)?;
        check_config(triangles > 0, "triangles", "at least 1", triangles)?;
        let fits = leaves.is_power_of_two() && leaves <= triangles && leaves < 1 << 30;
        check_config(fits, "leaves", "a power of two, at most the number of triangles", leaves)?;
        count("positions", &[points, 3])?;
        count("corners", &[triangles, 12])?;
        check_workgroup("mesh_distance", WORKGROUP, 0, caps)?;
        let brute = variant == Some(MeshDistanceVariant::BruteForce);
        let exact = brute || !matches!(sign, MeshSign::Approximate { .. });
        let shares = Shares::new(triangles, leaves, brute, caps)?;
        if brute || sign == MeshSign::Exact {
            caps.check_rounds("triangles", triangles, triangles.into())?;
        }
        let beta = match sign {
            MeshSign::Approximate { beta } => beta,
            _ => 1.0,
        };
        check_config(beta > 0.0 && beta < 1e9, "beta", "above 0 and below 1e9", beta)?;
        let constants =
            Constants::new().u32("WORKGROUP", WORKGROUP).bool("BRUTE_FORCE", brute).bool("EXACT", exact);
        let params = Params {
            points,
            triangles,
            leaves,
            leaf_triangles: triangles / leaves,
            long_leaves: triangles % leaves,
            beta,
            rounds: shares.nodes,
            resumed: 0,
            more: 0,
        };
        // The least: two boxes a level and one leaf; for the sign a dipole a level. 17 operations a box
        // and 120 a triangle, 20 a dipole and 80 a solid angle.
        let (levels, all) = (u64::from(leaves.ilog2()), u64::from(triangles));
        let leaf = all.div_ceil(leaves.into());
        let search = if brute { all * 120 } else { levels * 34 + leaf * 120 };
        let angles = if exact { all * 80 } else { levels * 20 + leaf * 80 };
        let tree = 48 * all + 64 * u64::from(leaves);
        let cost = |flops: u64, words: u64| {
            Cost::new(u64::from(points).saturating_mul(flops), u64::from(points) * words * 4 + tree)
        };
        let groups = u64::from(points.div_ceil(WORKGROUP));
        let mut launches = Vec::new();
        let mut share = |shader, dispatches: u32, cost: Cost| -> Result<()> {
            for i in 0..dispatches {
                let params = Params { resumed: u32::from(i > 0), more: dispatches - 1 - i, ..params };
                // Nearly all walks end in the first.
                let cost = if i == 0 { cost } else { Cost::default() };
                launches.push(Launch::new(shader, constants.clone(), &params, groups, caps, cost)?);
            }
            Ok(())
        };
        if sign == MeshSign::None {
            share(&TO_MESH, shares.dispatches, cost(search, 8))?;
        } else {
            share(&WINDING, if exact { 1 } else { shares.dispatches }, cost(angles, 4))?;
            share(&TO_MESH_SIGNED, shares.dispatches, cost(search, 9))?;
        }
        let variant = if brute { "brute force" } else { "bvh" };
        let state = if shares.dispatches > 1 { u64::from(points) } else { 1 };
        Ok(Plan { variant, launches, scratch: vec![state * STATE * 4] })
    }
}

impl Kernel for MeshDistance {
    type Args<'a> = MeshDistanceArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let MeshDistanceConfig { points, triangles, leaves, sign, .. } = self.config;
        let points = u64::from(points);
        let positions = Arg::words("positions", args.positions, points * 3);
        let corners = Arg::words("corners", args.corners, u64::from(triangles) * 12);
        let nodes = u64::from(leaves) * 16;
        let boxes = Arg::words("boxes", args.boxes, nodes);
        let dipoles = Arg::words("dipoles", args.dipoles, nodes);
        let outputs = [
            Arg::words("distance", args.distance, points),
            Arg::words("gradient", args.gradient, points * 3),
            Arg::words("nearest", args.nearest, points),
        ];
        let [distance, gradient, nearest] = outputs;
        let state = Arg::words("scratch", args.scratch.view(0)?, self.plan.scratch[0] / 4);
        let signed = sign != MeshSign::None;
        check_config(!signed || args.winding.is_some(), "winding", "a buffer if there is a sign", "None")?;
        let winding = Arg::words("winding", args.winding.unwrap_or(args.distance), points);
        if signed {
            let read = [positions, corners, boxes, dipoles];
            check_apart(&[winding, distance, gradient, nearest], &read.map(Some))?;
        }
        let mut recording = Recording::new();
        for launch in &self.plan.launches {
            let dispatch = if std::ptr::eq(launch.shader(), &WINDING) {
                self.context.bind(launch, &[positions, corners, dipoles, winding, state])?
            } else if signed {
                let all = [positions, corners, boxes, winding, distance, gradient, nearest, state];
                self.context.bind(launch, &all)?
            } else {
                self.context.bind(launch, &[positions, corners, boxes, distance, gradient, nearest, state])?
            };
            recording.push(dispatch);
        }
        Ok(recording)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_64_bits_do_not_count_is_planned() {
        let config = MeshDistanceConfig {
            points: u32::MAX / 3,
            triangles: u32::MAX / 12,
            leaves: 1,
            sign: MeshSign::None,
            variant: Some(MeshDistanceVariant::BruteForce),
        };
        let plan = MeshDistance::plan(&config, &Capabilities::baseline()).unwrap();
        assert_eq!(plan.cost().flops, u64::MAX);
    }

    #[test]
    fn loops_that_a_cpu_adapter_would_cut_off_are_refused() {
        let cpu = Capabilities { cpu: true, ..Capabilities::baseline() };
        let config = |triangles, sign, variant| MeshDistanceConfig {
            points: 1,
            triangles,
            leaves: 16_384,
            sign,
            variant: Some(variant),
        };
        use MeshDistanceVariant::{BruteForce, Bvh};
        let beta = MeshSign::Approximate { beta: 2.0 };
        let plan = |config| MeshDistance::plan(&config, &cpu);
        assert!(plan(config(1_000_000, beta, Bvh)).is_ok());
        assert!(plan(config(60_000, MeshSign::Exact, Bvh)).is_ok());
        // Two rounds a node and one a triangle of a leaf.
        let dispatches =
            |config, caps: &Capabilities| MeshDistance::plan(&config, caps).unwrap().launches.len();
        let long = |triangles, leaves, sign| MeshDistanceConfig { leaves, ..config(triangles, sign, Bvh) };
        assert_eq!(dispatches(long(10_000, 4096, beta), &cpu), 2);
        assert_eq!(dispatches(long(1 << 20, 1 << 18, MeshSign::None), &cpu), 53);
        assert_eq!(dispatches(long(1 << 20, 1 << 18, beta), &cpu), 106);
        assert_eq!(dispatches(long(1 << 20, 1 << 18, beta), &Capabilities::baseline()), 2);
        assert!(plan(long(200_000, 1, beta)).is_err());
        for config in [config(60_001, MeshSign::Exact, Bvh), config(60_001, MeshSign::None, BruteForce)] {
            assert!(plan(config).unwrap_err().to_string().contains("60000"));
            assert!(MeshDistance::plan(&config, &Capabilities::baseline()).is_ok());
        }
    }
}
