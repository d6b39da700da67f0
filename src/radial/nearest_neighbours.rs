//! The k nearest centres of points, exactly (`shaders/radial/nearest_neighbours.wgsl`).
//!
//! Neighbours come in the order of (squared distance in f32, index of the centre), and every variant
//! gives the same bits. Distances are `((x0 - c0)^2 + (x1 - c1)^2) + ...` with each operation
//! rounded; they are never fused, whatever the compiler.
//!
//! A point or a centre that is NaN or infinite does no harm: its distances are NaN or infinite and
//! come last, NaN after infinity, by index. It shows in the distances alone.

use super::centre_grid::CentreGrid;
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Scratch, Shader,
    check_config, check_shape, check_workgroup, count, kernel, read, shader, write,
};

/// The most neighbours of a point.
pub const MOST_NEIGHBOURS: u32 = 32;

/// Centres on a regular lattice, numbered along x first: centre `x + nx (y + ny z)` stands within a
/// hundredth of the spacing of `origin + (x, y, z) * spacing`. Axes beyond `dims` hold 1 cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lattice {
    /// Centres along each axis.
    pub cells: [u32; 3],
    /// Where the first centre stands.
    pub origin: [f32; 3],
    /// The step along each axis; above 0.
    pub spacing: [f32; 3],
}

impl Default for Lattice {
    /// One centre at the origin.
    fn default() -> Self {
        Self { cells: [1; 3], origin: [0.0; 3], spacing: [1.0; 3] }
    }
}

/// How the neighbours are found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NearestVariant {
    /// All centres are looked at; 1-D to 4-D.
    BruteForce,
    /// Through a grid of cells that is built over the centres; 1-D to 3-D.
    Grid,
    /// The centres stand on a lattice: a grid without building one; 1-D to 3-D. Where they do not
    /// stand as [`Lattice`] says, the neighbours are wrong.
    Lattice(Lattice),
}

/// The `k` nearest of `centres` centres for each of `points` points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NearestConfig {
    /// Coordinates of a point, 1 to 4.
    pub dims: u32,
    /// Points, at least 1.
    pub points: u32,
    /// Centres, at least `k`.
    pub centres: u32,
    /// Neighbours, 1 to 32.
    pub k: u32,
    /// Whether the squared distances are written too.
    pub distances: bool,
    /// `None`: the grid, or brute force for few centres and in 4-D.
    pub variant: Option<NearestVariant>,
}

/// Up to so many centres a pass over all is faster than building a grid and walking through it.
const FEW: u32 = 128;

const WORKGROUP: u32 = 64;

/// Centres that a pass over all looks at.
const PASS: u32 = 49_152;

/// What a point may visit in the grid before it is left to the passes over all centres. Mesa's
/// llvmpipe ends all loops of an invocation after 65,535 rounds, and 16 invocations can take
/// their rounds one after the other.
fn most_visits(caps: &Capabilities) -> u32 {
    if caps.cpu { 4000 } else { 1 << 20 }
}

static SEARCH: [Shader; 2] = [
    shader!(
        "radial/nearest_neighbours",
        "search",
        [index, cell, nearest],
        [read("points"), read("grid").vec4(), read("starts"), read("packed").vec4(), write("indices")]
    ),
    shader!(
        "radial/nearest_neighbours",
        "search_distances",
        [index, cell, nearest],
        [
            read("points"),
            read("grid").vec4(),
            read("starts"),
            read("packed").vec4(),
            write("indices"),
            write("distances")
        ]
    ),
];
static BRUTE_FORCE: [Shader; 2] = [
    shader!(
        "radial/nearest_brute_force",
        "search",
        [index, nearest],
        [read("points"), read("centres"), write("indices")]
    ),
    shader!(
        "radial/nearest_brute_force",
        "search_distances",
        [index, nearest],
        [read("points"), read("centres"), write("indices"), write("distances")]
    ),
];

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    points: u32,
    centres: u32,
    always_0: u32,
    most_visits: u32,
    only_left: u32,
    first: u32,
    end: u32,
}

kernel! {
    /// The nearest centres of points. No gradient: the set of neighbours is piecewise constant.
    NearestNeighbours, NearestConfig
}

/// Buffers of [`NearestNeighbours`].
#[derive(Debug, Clone, Copy)]
pub struct NearestArgs<'a> {
    /// The points, `[points, dims]`.
    pub points: BufferView<'a>,
    /// The centres, `[centres, dims]`.
    pub centres: BufferView<'a>,
    /// The neighbours, u32 `[points, k]`, nearest first; overwritten.
    pub indices: BufferView<'a>,
    /// The squared distances, `[points, k]`; overwritten. Given exactly if configured.
    pub distances: Option<BufferView<'a>>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl NearestConfig {
    fn check(&self) -> Result<()> {
        let Self { dims, points, centres, k, variant, .. } = *self;
        check_config((1..=4).contains(&dims), "dims", "1 to 4", dims)?;
        check_config(points > 0, "points", "at least 1", points)?;
        check_config((1..=MOST_NEIGHBOURS).contains(&k), "k", "1 to 32", k)?;
        check_config(centres >= k, "centres", &format!("at least k = {k}"), centres)?;
        check_config(centres < 1 << 31, "centres", "below 2^31", centres)?;
        count("points", &[points, dims])?;
        count("centres", &[centres, dims])?;
        count("indices", &[points, k])?;
        if !matches!(variant, None | Some(NearestVariant::BruteForce)) {
            check_config(dims <= 3, "dims", "1 to 3 for a grid", dims)?;
        }
        if let Some(NearestVariant::Lattice(Lattice { cells, origin, spacing })) = variant {
            let product = count("lattice", &cells)?;
            check_config(product == centres, "lattice", &format!("of {centres} centres"), cells)?;
            let most = 1 << 24;
            check_config(cells.iter().all(|&n| n <= most), "lattice", "at most 2^24 on an axis", cells)?;
            let flat = cells[dims as usize..].iter().all(|&n| n == 1);
            check_config(flat, "lattice", "1 cell on the axes beyond dims", cells)?;
            check_config(origin.iter().all(|x| x.is_finite()), "lattice", "at a finite origin", origin)?;
            let steps = spacing.iter().all(|&s| s.is_finite() && s > 1e-30 && s < 1e30);
            check_config(steps, "lattice", "spaced by 1e-30 to 1e30", spacing)?;
        }
        Ok(())
    }

    /// The grid that is searched, if not by brute force.
    fn grid(&self) -> Option<CentreGrid> {
        let lattice = match self.variant {
            Some(NearestVariant::BruteForce) => return None,
            None if self.dims == 4 || self.centres <= FEW => return None,
            Some(NearestVariant::Lattice(lattice)) => Some(lattice),
            _ => None,
        };
        // So many centres a cell that a ball as wide as two cells holds about twice k: then the
        // first ring is enough for most points.
        let ball = match self.dims {
            1 => 2.0,
            2 => 3.1,
            _ => 4.2,
        };
        let a_cell = ((2 * self.k) as f32 / ball).round().max(1.0) as u32;
        let most_cells = (self.centres / a_cell).clamp(1, 1 << 24);
        Some(CentreGrid { dims: self.dims, centres: self.centres, most_cells, lattice })
    }
}

impl NearestNeighbours {
    /// Chooses the variant: building the grid, then the search; or the search alone.
    pub fn plan(config: &NearestConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let NearestConfig { dims, points, centres, k, distances, .. } = *config;
        check_workgroup("radial/nearest_neighbours", WORKGROUP, 0, caps)?;
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP).u32("D", dims).u32("K", k);
        let most_visits = most_visits(caps);
        let params =
            Params { points, centres, always_0: 0, most_visits, only_left: 0, first: 0, end: centres };
        let (n, d) = (u64::from(points), u64::from(dims));
        let kept = u64::from(k) * if distances { 2 } else { 1 };
        let bytes = 4 * (n * (d + kept) + u64::from(centres) * d);
        let groups = points.div_ceil(WORKGROUP).into();
        let written = usize::from(distances);
        let launch = |shader: &'static [Shader; 2], params: &Params, cost| {
            Launch::new(&shader[written], constants.clone(), params, groups, caps, cost)
        };
        let Some(grid) = config.grid() else {
            let mut plan = Plan { variant: "brute force", ..Plan::default() };
            for (first, end) in passes(centres) {
                let cost = Cost::new(n * u64::from(end - first) * (3 * d), bytes);
                plan.launches.push(launch(&BRUTE_FORCE, &Params { first, end, ..params }, cost)?);
            }
            return Ok(plan);
        };
        let mut plan = grid.plan(caps)?;
        plan.variant = if grid.lattice.is_some() { "lattice" } else { "grid" };
        // No fewer than the k that are found must be compared.
        let cost = Cost::new(n * u64::from(k) * (3 * d), bytes);
        plan.launches.push(launch(&SEARCH, &params, cost)?);
        if leaves_points(centres, caps) {
            for (first, end) in passes(centres) {
                let params = Params { only_left: 1, first, end, ..params };
                plan.launches.push(launch(&BRUTE_FORCE, &params, Cost::new(0, 4 * n))?);
            }
        }
        Ok(plan)
    }

    /// The search alone, for centres that stay: an earlier recording of [`prepare`](Kernel::prepare)
    /// has filled the same scratch for the same centres, and nothing else has used it since.
    pub fn prepare_search(&self, args: &NearestArgs<'_>) -> Result<Recording> {
        self.bind_search(self.parts().1, args)
    }

    /// The launches that build the grid, and those that search.
    fn parts(&self) -> (&[Launch], &[Launch]) {
        let centres = self.config.centres;
        let passes = passes(centres).count();
        let searching = match self.config.grid() {
            None => passes,
            Some(_) if leaves_points(centres, self.context.capabilities()) => 1 + passes,
            Some(_) => 1,
        };
        self.plan.launches.split_at(self.plan.launches.len().saturating_sub(searching))
    }

    fn bind_search(&self, launches: &[Launch], args: &NearestArgs<'_>) -> Result<Recording> {
        let NearestConfig { dims, points, centres, k, distances, .. } = self.config;
        let (n, d) = (u64::from(points), u64::from(dims));
        let need = if distances { "a buffer" } else { "none, as configured" };
        let given = args.distances.map(|view| view.size);
        check_shape(distances == given.is_some(), "distances", need, given)?;
        let points = Arg::words("points", args.points, n * d);
        let mut found = vec![Arg::words("indices", args.indices, n * u64::from(k))];
        found.extend(args.distances.map(|view| Arg::words("distances", view, n * u64::from(k))));
        let mut recording = Recording::new();
        let mut passes = launches;
        if let (Some(grid), [search, rest @ ..]) = (self.config.grid(), launches) {
            let built = grid.built(&self.views(args.scratch)?)?;
            let bound = [&[points, built.grid, built.starts, built.packed], &found[..]].concat();
            recording.push(self.context.bind(search, &bound)?);
            passes = rest;
        }
        let centres = Arg::words("centres", args.centres, u64::from(centres) * d);
        let bound = [&[points, centres], &found[..]].concat();
        for pass in passes {
            recording.push(self.context.bind(pass, &bound)?);
        }
        Ok(recording)
    }

    fn views<'a>(&self, scratch: &'a Scratch) -> Result<Vec<BufferView<'a>>> {
        (0..self.plan.scratch.len()).map(|i| scratch.view(i)).collect()
    }
}

/// Whether a point can visit more than it may: each centre, and rows of cells, of which there are no
/// more than sixteen a centre, four rounds each.
fn leaves_points(centres: u32, caps: &Capabilities) -> bool {
    u64::from(centres) * 65 > u64::from(most_visits(caps))
}

/// The centres of each pass over all: the first, and the one after the last.
fn passes(centres: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..centres).step_by(PASS as usize).map(move |first| (first, centres.min(first.saturating_add(PASS))))
}

impl Kernel for NearestNeighbours {
    type Args<'a> = NearestArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (building, searching) = self.parts();
        let search = self.bind_search(searching, args)?;
        let Some(grid) = self.config.grid() else { return Ok(search) };
        let mut recording = grid.bind(&self.context, building, args.centres, &self.views(args.scratch)?)?;
        recording.append(search);
        Ok(recording)
    }
}
