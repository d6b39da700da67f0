// Centres sorted into the cells of a grid, for nearest_neighbours.wgsl.
//
//   grid: [4] vec4s: the low end of the box, 1 / side, side (all f32), and the cells of each axis
//   packed: [centres] in the order of (cell, index): three coordinates (f32; 0 beyond D) and the index
//   starts: [most_cells + 1], where each cell begins in `packed`; a row of cells along x is one run
//
//   clear_bounds, find_bounds   the box of the centres that are finite; floats as ordered integers
//   shape_grid                  at most most_cells cells, almost cubic; an axis that is short takes one
//   cell_keys                   the cell of each centre; 0 on an axis where it is not finite
//   (dense/sort)                sorted_keys, order: stable, so by (cell, index)
//   cell_starts                 a cell an invocation, by bisection
//   pack                        a centre an invocation
// Centres on a regular lattice need neither box nor sort: each is alone in a cell around it.
//   shape_lattice, pack_lattice
// Workgroup memory: find_bounds 32 bytes, the others none.

struct Params {
    first_group: u32,
    groups: u32,
    centres: u32,
    most_cells: u32,
    lattice_x: u32,     // centres of each axis
    lattice_y: u32,
    lattice_z: u32,
    origin_x: f32,      // the first centre
    origin_y: f32,
    origin_z: f32,
    spacing_x: f32,
    spacing_y: f32,
    spacing_z: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> bounds: array<atomic<u32>>;      // [2, 4]: lowest, highest
@group(0) @binding(1) var<storage, read> found_bounds: array<u32>;              // [2, 4]
@group(0) @binding(1) var<storage, read_write> lattice_grid: array<vec4<u32>>;  // [4]
@group(0) @binding(1) var<storage, read> centres: array<f32>;                   // [centres, D]
@group(0) @binding(1) var<storage, read> sorted_keys: array<u32>;               // [centres]
@group(0) @binding(2) var<storage, read> bounded: array<f32>;                   // [centres, D]
@group(0) @binding(2) var<storage, read_write> shaped: array<vec4<u32>>;        // [4]
@group(0) @binding(2) var<storage, read> grid: array<vec4<u32>>;                // [4]
@group(0) @binding(2) var<storage, read_write> starts: array<u32>;              // [most_cells + 1]
@group(0) @binding(2) var<storage, read> order: array<u32>;                     // [centres]
@group(0) @binding(3) var<storage, read_write> keys: array<u32>;                // [centres]
@group(0) @binding(3) var<storage, read_write> packed: array<vec4<u32>>;        // [centres]

var<workgroup> group_bounds: array<atomic<u32>, 8>;

fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

// Integers in the order of the floats, and back.
fn ordered(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    return select(bits | 0x80000000u, ~bits, bits > 0x7fffffffu);
}

fn from_ordered(bits: u32) -> f32 {
    return bitcast<f32>(select(~bits, bits & 0x7fffffffu, bits > 0x7fffffffu));
}

@compute @workgroup_size(8)
fn clear_bounds(@builtin(local_invocation_index) local: u32) {
    if local < 8u * params.groups {
        atomicStore(&bounds[local], select(0u, 0xffffffffu, local < 4u));
    }
}

@compute @workgroup_size(WORKGROUP)
fn find_bounds(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    if local < 8u {
        atomicStore(&group_bounds[local], select(0u, 0xffffffffu, local < 4u));
    }
    workgroupBarrier();
    for (var k = 0u; k < ITEMS; k++) {
        let i = (group * ITEMS + k) * WORKGROUP + local;
        if i < params.centres {
            var finite = true;
            for (var d = 0u; d < D; d++) {
                finite = finite && is_finite(bounded[i * D + d]);
            }
            if finite {
                for (var d = 0u; d < D; d++) {
                    let bits = ordered(bounded[i * D + d]);
                    atomicMin(&group_bounds[d], bits);
                    atomicMax(&group_bounds[4u + d], bits);
                }
            }
        }
    }
    workgroupBarrier();
    if local < 4u {
        atomicMin(&bounds[local], atomicLoad(&group_bounds[local]));
    } else if local < 8u {
        atomicMax(&bounds[local], atomicLoad(&group_bounds[local]));
    }
}

@compute @workgroup_size(1)
fn shape_grid() {
    var low = array<f32, 3>(0.0, 0.0, 0.0);
    var extent = array<f32, 3>(0.0, 0.0, 0.0);
    var cells = array<u32, 3>(1u, 1u, 1u);
    for (var d = 0u; d < D; d++) {
        let lowest = found_bounds[d];
        let highest = found_bounds[4u + d];
        if lowest <= highest {
            low[d] = from_ordered(lowest);
            let size = from_ordered(highest) - low[d];
            extent[d] = select(0.0, size, is_finite(size));
        }
    }
    // The side of cubic cells that fill the box of the axes that are longer than a side.
    var side = 0.0;
    for (var round = 0u; round < D; round++) {
        var axes = 0.0;
        var logarithm = -log2(f32(params.most_cells));
        for (var d = 0u; d < D; d++) {
            if extent[d] > max(side, 1e-30) {
                axes += 1.0;
                logarithm += log2(extent[d]);
            }
        }
        if axes > 0.0 {
            side = exp2(logarithm / axes);
        }
    }
    if side > 0.0 {
        var most = params.most_cells;
        for (var d = 0u; d < D; d++) {
            // No more than the cells not taken yet, whatever was rounded before.
            let wanted = cell_coordinate(extent[d] / side, max(most, 1u) + 1u);
            cells[d] = clamp(wanted, 1u, most);
            most = most / cells[d];
        }
    }
    var sides = vec4<f32>();
    var inverse = vec4<f32>();
    if cells[0] > 1u { sides.x = extent[0] / f32(cells[0]); inverse.x = 1.0 / sides.x; }
    if cells[1] > 1u { sides.y = extent[1] / f32(cells[1]); inverse.y = 1.0 / sides.y; }
    if cells[2] > 1u { sides.z = extent[2] / f32(cells[2]); inverse.z = 1.0 / sides.z; }
    shaped[0] = bitcast<vec4<u32>>(vec4<f32>(low[0], low[1], low[2], 0.0));
    shaped[1] = bitcast<vec4<u32>>(inverse);
    shaped[2] = bitcast<vec4<u32>>(sides);
    shaped[3] = vec4<u32>(cells[0], cells[1], cells[2], 1u);
}

@compute @workgroup_size(1)
fn shape_lattice() {
    let origin = vec4<f32>(params.origin_x, params.origin_y, params.origin_z, 0.0);
    let side = vec4<f32>(params.spacing_x, params.spacing_y, params.spacing_z, 1.0);
    lattice_grid[0] = bitcast<vec4<u32>>(origin - 0.5 * side);
    lattice_grid[1] = bitcast<vec4<u32>>(1.0 / side);
    lattice_grid[2] = bitcast<vec4<u32>>(side);
    lattice_grid[3] = vec4<u32>(params.lattice_x, params.lattice_y, params.lattice_z, 1u);
}

fn centre_at(i: u32) -> vec3<f32> {
    var c = vec3<f32>(centres[i * D], 0.0, 0.0);
    if D > 1u { c.y = centres[i * D + 1u]; }
    if D > 2u { c.z = centres[i * D + 2u]; }
    return c;
}

@compute @workgroup_size(WORKGROUP)
fn cell_keys(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.centres {
        return;
    }
    let t = (centre_at(i) - bitcast<vec4<f32>>(grid[0]).xyz) * bitcast<vec4<f32>>(grid[1]).xyz;
    let cells = grid[3];
    let y = cell_coordinate(t.y, cells.y);
    let z = cell_coordinate(t.z, cells.z);
    keys[i] = cell_coordinate(t.x, cells.x) + cells.x * (y + cells.y * z);
}

@compute @workgroup_size(WORKGROUP)
fn cell_starts(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let cell = group * WORKGROUP + local;
    if group >= params.groups || cell > params.most_cells {
        return;
    }
    // The first centre whose cell is not before this one.
    var first = 0u;
    var end = params.centres;
    while first < end {
        let middle = first + (end - first) / 2u;
        if sorted_keys[middle] < cell {
            first = middle + 1u;
        } else {
            end = middle;
        }
    }
    starts[cell] = first;
}

fn packed_centre(i: u32) -> vec4<u32> {
    return vec4<u32>(bitcast<vec3<u32>>(centre_at(i)), i);
}

@compute @workgroup_size(WORKGROUP)
fn pack(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.centres {
        return;
    }
    packed[i] = packed_centre(order[i]);
}

@compute @workgroup_size(WORKGROUP)
fn pack_lattice(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i > params.centres {
        return;
    }
    starts[i] = i;
    if i < params.centres {
        packed[i] = packed_centre(i);
    }
}
