// The K nearest centres of each point through a grid of cells (centre_grid.wgsl), exactly, in the
// order of (squared distance, index); see nearest.wgsl. The same bits as nearest_brute_force.wgsl.
//
//   points: [points, D]   indices, distances: [points, K], D of 1 to 3
//
// An invocation takes a point: the centres of its cell and of the cells around it, then of the next
// ring of cells, and so on, until none in the rings not seen yet can be nearer than the K-th.
//
// Why that is exact. A centre's cell is floor((c - low) / side) in f32, computed once and stored; a
// cell's lower face is low + j side. Rounding of the difference, of the quotient and of the face
// part the two by less than 8 units (2^-24) of |x - low| + cells side. `unseen_beyond` takes 16 off
// every gap between the point and a face that has cells behind it, and 2^-19 off the square, more
// than the eight roundings of a squared distance: whatever lies behind the face has a computed
// distance above the bound. The search ends when the K-th distance is below the bound, so
// that no tie lies behind it either.
// A point that is not finite, or so far out that its margin swallows the gaps, sees every ring. A
// centre that is not finite lies in some cell and is at a distance of infinity or NaN: before
// K finite ones are found, no bound ends the search.
//
// A point that has looked at more than most_visits rows and centres is left to
// nearest_brute_force.wgsl, which takes as many passes as it needs.
//
// Workgroup memory: none.

@group(0) @binding(1) var<storage, read> points: array<f32>;             // [points, D]
@group(0) @binding(2) var<storage, read> grid: array<vec4<u32>>;         // [4], see centre_grid.wgsl
@group(0) @binding(3) var<storage, read> starts: array<u32>;             // [cells + 1]
@group(0) @binding(4) var<storage, read> packed: array<vec4<u32>>;       // [centres]
@group(0) @binding(5) var<storage, read_write> indices: array<u32>;      // [points, K]
@group(0) @binding(6) var<storage, read_write> distances: array<u32>;    // [points, K], bits of f32

fn point_at(i: u32) -> vec4<f32> {
    var p = vec4<f32>(points[i * D], 0.0, 0.0, 0.0);
    if D > 1u { p.y = points[i * D + 1u]; }
    if D > 2u { p.z = points[i * D + 2u]; }
    return p;
}

// The gap of one axis, from a point at `x` (from the grid's low end) to the nearest of the faces of
// the cells `first` to `last` that have cells behind them, less the margin.
fn gap(x: f32, side: f32, first: u32, last: u32, cells: u32) -> f32 {
    let margin = 16.0 * 5.9604644775390625e-8 * (abs(x) + f32(cells) * side);
    var gap = 1e30;
    if first > 0u { gap = x - f32(first) * side; }
    if last + 1u < cells { gap = min(gap, f32(last + 1u) * side - x); }
    return gap - margin;
}

// The bits of a squared distance that all centres outside the cells `first` to `last` are beyond: 0
// where nothing can be said, LARGEST where there are none.
fn unseen_beyond(x: vec3<f32>, side: vec3<f32>, first: vec3<u32>, last: vec3<u32>, cells: vec3<u32>) -> i32 {
    if all(first == vec3<u32>(0u)) && all(last + vec3<u32>(1u) == cells) {
        return LARGEST;
    }
    var least = gap(x.x, side.x, first.x, last.x, cells.x);
    if D > 1u { least = min(least, gap(x.y, side.y, first.y, last.y, cells.y)); }
    if D > 2u { least = min(least, gap(x.z, side.z, first.z, last.z, cells.z)); }
    let square = least * least * (1.0 - 1.9073486328125e-6);
    let bits = bitcast<i32>(square);
    // Below 1e-30 denormals could be flushed.
    return select(0, bits, least > 0.0 && square > 1e-30 && bits < 0x7f800000);
}

// Rows (each counts four: a round of each loop at the most) and centres looked at.
var<private> visits: u32;

fn is_end(a: u32, home: u32, ring: u32) -> bool {
    return a + ring == home || home + ring == a;
}

fn nearest_of(point: vec4<f32>) -> Nearest {
    let low = bitcast<vec4<f32>>(grid[0]).xyz;
    let inverse = bitcast<vec4<f32>>(grid[1]).xyz;
    let side = bitcast<vec4<f32>>(grid[2]).xyz;
    let cells = grid[3].xyz;
    let x = point.xyz - low;
    let home = vec3<u32>(cell_coordinate(x.x * inverse.x, cells.x), cell_coordinate(x.y * inverse.y, cells.y),
                         cell_coordinate(x.z * inverse.z, cells.z));
    var list = none_yet();
    visits = 0u;
    let rings = max(cells.x, max(cells.y, cells.z));
    for (var ring = 1u; ring <= rings && visits <= params.most_visits; ring++) {
        let first = home - min(home, vec3<u32>(ring));
        let last = min(home + vec3<u32>(ring), cells - vec3<u32>(1u));
        // Planes and rows that the shell does not cross are stepped over: a long grid has many.
        let crosses_x = home.x >= ring || home.x + ring < cells.x;
        let crosses_y = home.y >= ring || home.y + ring < cells.y;
        for (var z = first.z; z <= last.z && visits <= params.most_visits; z = select(max(z + 1u, last.z), z + 1u, ring == 1u || crosses_x || crosses_y)) {
            let every_row = ring == 1u || crosses_x || is_end(z, home.z, ring);
            for (var y = first.y; y <= last.y && visits <= params.most_visits; y = select(max(y + 1u, last.y), y + 1u, every_row)) {
                let row = cells.x * (y + cells.y * z);
                // A row of the ring's shell, or the two cells where the shell crosses the row.
                let whole = ring == 1u || is_end(y, home.y, ring) || is_end(z, home.z, ring);
                for (var part = 0u; part < select(2u, 1u, whole); part++) {
                    var from_cell = first.x;
                    var to_cell = last.x + 1u;
                    if !whole && part == 0u {
                        to_cell = select(from_cell, from_cell + 1u, home.x >= ring);
                    }
                    if !whole && part == 1u {
                        from_cell = select(to_cell, last.x, home.x + ring < cells.x);
                    }
                    let begin = starts[row + from_cell];
                    let end = starts[row + to_cell];
                    visits += 4u + end - begin;
                    if visits > params.most_visits {
                        break;
                    }
                    for (var i = begin; i < end; i++) {
                        let centre = packed[i];
                        let place = vec4<f32>(bitcast<vec3<f32>>(centre.xyz), 0.0);
                        let candidate = Candidate(squared_distance(point, place), i32(centre.w));
                        let last_of_list = farthest(&list);
                        if is_before(candidate, last_of_list.distance, last_of_list.index) {
                            insert(&list, candidate);
                        }
                    }
                }
            }
        }
        if farthest(&list).distance < unseen_beyond(x, side, first, last, cells) {
            break;
        }
    }
    return list;
}

fn left(i: u32) -> u32 {
    return select(0u, LEFT, i == 0u && visits > params.most_visits);
}

@compute @workgroup_size(WORKGROUP)
fn search(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let point = group * WORKGROUP + local;
    if group >= params.groups || point >= params.points {
        return;
    }
    var list = nearest_of(point_at(point));
    for (var i = 0u; i < K; i++) {
        indices[point * K + i] = u32(ranked(&list, i).index) | left(i);
    }
}

@compute @workgroup_size(WORKGROUP)
fn search_distances(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let point = group * WORKGROUP + local;
    if group >= params.groups || point >= params.points {
        return;
    }
    var list = nearest_of(point_at(point));
    for (var i = 0u; i < K; i++) {
        let next = ranked(&list, i);
        indices[point * K + i] = u32(next.index) | left(i);
        distances[point * K + i] = u32(next.distance);
    }
}
