//! Centres in the cells of a grid: what the search for neighbours walks through
//! (`shaders/radial/centre_grid.wgsl`).

use super::nearest_neighbours::Lattice;
use crate::dense::sort::{Sort, SortConfig, SortKey, SortPayload};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Context, Cost, Error, Launch, Plan, Recording, Result, Shader,
    check_workgroup, read, shader, write,
};

const WORKGROUP: u32 = 64;
/// Centres that an invocation of `find_bounds` looks at.
const ITEMS: u32 = 4;

static CLEAR_BOUNDS: Shader =
    shader!("radial/centre_grid", "clear_bounds", [index, cell], [write("bounds").stride(32)]);
static FIND_BOUNDS: Shader = shader!(
    "radial/centre_grid",
    "find_bounds",
    [index, cell],
    [write("bounds").stride(32), read("bounded")]
);
static SHAPE_GRID: Shader = shader!(
    "radial/centre_grid",
    "shape_grid",
    [index, cell],
    [read("found_bounds").stride(32), write("shaped").vec4()]
);
static SHAPE_LATTICE: Shader =
    shader!("radial/centre_grid", "shape_lattice", [index, cell], [write("lattice_grid").vec4()]);
static CELL_KEYS: Shader = shader!(
    "radial/centre_grid",
    "cell_keys",
    [index, cell],
    [read("centres"), read("grid").vec4(), write("keys")]
);
static CELL_STARTS: Shader =
    shader!("radial/centre_grid", "cell_starts", [index, cell], [read("sorted_keys"), write("starts")]);
static PACK: Shader = shader!(
    "radial/centre_grid",
    "pack",
    [index, cell],
    [read("centres"), read("order"), write("packed").vec4()]
);
static PACK_LATTICE: Shader = shader!(
    "radial/centre_grid",
    "pack_lattice",
    [index, cell],
    [read("centres"), write("starts"), write("packed").vec4()]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    centres: u32,
    most_cells: u32,
    lattice_x: u32,
    lattice_y: u32,
    lattice_z: u32,
    origin_x: f32,
    origin_y: f32,
    origin_z: f32,
    spacing_x: f32,
    spacing_y: f32,
    spacing_z: f32,
}

/// What is built, for `dims` of 1 to 3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CentreGrid {
    pub dims: u32,
    pub centres: u32,
    /// Cells that the centres are sorted into, unless they stand on a lattice.
    pub most_cells: u32,
    pub lattice: Option<Lattice>,
}

/// The grid as the search binds it.
pub(crate) struct Built<'a> {
    pub grid: Arg<'a>,
    pub starts: Arg<'a>,
    pub packed: Arg<'a>,
}

/// Scratch buffers that the search reads: grid, starts, packed.
const KEPT: usize = 3;
/// And those that building needs: bounds, keys, sorted keys, order. Then those of the sort.
const PASSING: usize = 4;

impl CentreGrid {
    fn sort(&self) -> SortConfig {
        SortConfig {
            key: SortKey::U32,
            count: self.centres,
            payload: SortPayload::Indices,
            descending: false,
            bits: (u32::BITS - (self.most_cells - 1).leading_zeros()).max(1),
            variant: None,
        }
    }

    /// The launches, and the scratch that they need.
    pub fn plan(&self, caps: &Capabilities) -> Result<Plan> {
        check_workgroup("radial/centre_grid", WORKGROUP, 32, caps)?;
        let lattice = self.lattice.unwrap_or_default();
        let [lattice_x, lattice_y, lattice_z] = lattice.cells;
        let [origin_x, origin_y, origin_z] = lattice.origin;
        let [spacing_x, spacing_y, spacing_z] = lattice.spacing;
        let params = Params {
            centres: self.centres,
            most_cells: self.most_cells,
            lattice_x,
            lattice_y,
            lattice_z,
            origin_x,
            origin_y,
            origin_z,
            spacing_x,
            spacing_y,
            spacing_z,
        };
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP).u32("ITEMS", ITEMS).u32("D", self.dims);
        let (n, cells) = (u64::from(self.centres), u64::from(self.most_cells));
        let coordinates = n * u64::from(self.dims) * 4;
        let launch = |shader, groups: u64, bytes: u64| {
            Launch::new(shader, constants.clone(), &params, groups, caps, Cost::new(0, bytes))
        };
        let each = u64::from(WORKGROUP);
        let starts = (if self.lattice.is_some() { n } else { cells }) + 1;
        let mut plan = Plan { scratch: vec![64, starts * 4, n * 16], ..Plan::default() };
        if self.lattice.is_some() {
            plan.launches.push(launch(&SHAPE_LATTICE, 1, 64)?);
            plan.launches.push(launch(&PACK_LATTICE, starts.div_ceil(each), coordinates + n * 20)?);
            return Ok(plan);
        }
        let sort = Sort::plan(&self.sort(), caps)?;
        plan.scratch.extend([32, n * 4, n * 4, n * 4]);
        plan.scratch.extend(&sort.scratch);
        plan.launches.push(launch(&CLEAR_BOUNDS, 1, 32)?);
        plan.launches.push(launch(&FIND_BOUNDS, n.div_ceil(each * u64::from(ITEMS)), coordinates)?);
        plan.launches.push(launch(&SHAPE_GRID, 1, 96)?);
        plan.launches.push(launch(&CELL_KEYS, n.div_ceil(each), coordinates + n * 4)?);
        plan.launches.extend(sort.launches);
        plan.launches.push(launch(&CELL_STARTS, starts.div_ceil(each), n * 4 + starts * 4)?);
        plan.launches.push(launch(&PACK, n.div_ceil(each), coordinates + n * 20)?);
        Ok(plan)
    }

    /// The part of the scratch that the search reads.
    pub fn built<'a>(&self, scratch: &[BufferView<'a>]) -> Result<Built<'a>> {
        let &[grid, starts, packed, ..] = scratch else { return Err(too_few(KEPT, scratch.len())) };
        let n = u64::from(self.centres);
        let cells = if self.lattice.is_some() { n } else { self.most_cells.into() };
        Ok(Built {
            grid: Arg::words("grid", grid, 16),
            starts: Arg::words("starts", starts, cells + 1),
            packed: Arg::words("packed", packed, n * 4),
        })
    }

    /// Binds the launches of the plan; `scratch` as it asks for.
    pub fn bind(
        &self,
        context: &Context,
        launches: &[Launch],
        centres: BufferView<'_>,
        scratch: &[BufferView<'_>],
    ) -> Result<Recording> {
        let Built { grid, starts, packed } = self.built(scratch)?;
        let n = u64::from(self.centres);
        let centres = Arg::words("centres", centres, n * u64::from(self.dims));
        let mut recording = Recording::new();
        if self.lattice.is_some() {
            let [shape, pack] = launches else { return Err(too_few(2, launches.len())) };
            recording.push(context.bind(shape, &[grid])?);
            recording.push(context.bind(pack, &[centres, starts, packed])?);
            return Ok(recording);
        }
        let [_, _, _, bounds, keys, sorted, order, sort_scratch @ ..] = scratch else {
            return Err(too_few(KEPT + PASSING, scratch.len()));
        };
        let [clear, find, shape, cell_keys, sort @ .., cell_starts, pack] = launches else {
            return Err(too_few(6, launches.len()));
        };
        let bounds = Arg::words("bounds", *bounds, 8);
        recording.push(context.bind(clear, &[bounds])?);
        recording.push(context.bind(find, &[bounds, centres])?);
        recording.push(context.bind(shape, &[bounds, grid])?);
        recording.push(context.bind(cell_keys, &[centres, grid, Arg::words("keys", *keys, n)])?);
        let config = self.sort();
        let values = (None, Some(*order));
        recording.append(Sort::bind(context, sort, &config, (*keys, *sorted), values, sort_scratch)?);
        recording.push(context.bind(cell_starts, &[Arg::words("sorted_keys", *sorted, n), starts])?);
        recording.push(context.bind(pack, &[centres, Arg::words("order", *order, n), packed])?);
        Ok(recording)
    }
}

fn too_few(need: usize, have: usize) -> Error {
    Error::BufferTooSmall { what: "scratch", need: need as u64, have: have as u64 }
}
