// Radial bases of compact support around the nodes of a lattice, with derivatives in space, forward
// and backward. One launch a level.
//
//   p = x resolution, cell = floor(p); the RING^D nodes around the cell are all that a point sees
//   q = |p - c|^2 / radius^2, phi(q) = 0 for q >= 1 with its first and second derivative:
//     Wendland C4 (Wendland 1995):      phi = (1 - r)^6 (35 r^2 + 18 r + 3) / 3,  r = sqrt(q),
//                                       phi' = -28/3 (1 + 5 r)(1 - r)^5,  phi'' = 140 (1 - r)^4
//     windowed Gaussian:                phi = exp(-s q) (1 - q)^3
//     windowed inverse quadratic:       phi = 1 / (1 + s q) (1 - q)^3
//   (functions of q and not of r: no singularity at the centre), a_k = phi_k, or
//   phi_k / (EPSILON + sum phi) where they are normalised
//   value:  y[n, f] = sum_k w[k, f] g_f(a_k),  g_f(a) = a, or sin(m_f a)
//   jet:    y[t, n, f] = dy[n, f] / dx_t = sum_k w[k, f] g_f'(a_k) da_k/dx_t   beside the value
//   along:  y[n, f] = sum_t v[n, t] dy[n, f] / dx_t
//
// A node leaves the neighbour set of a point at a distance of RING / 2 along an axis, and its radius
// (with its shift, where nodes are shifted) stays below that: y has continuous second derivatives,
// wherever the cells' borders are. That also makes it harmless where two kernels round a p at a
// border to different cells. With adaptive nodes (u, v trained, [DIMS + 1] a node)
//   c = node + shift tanh(u),  radius = (RING / 2 - shift) 2^(-octaves sigmoid(v)).
//
// forward: one invocation a point and four features; a workgroup has the same four.
// lists:   cells (keys of a stable argsort, dense/sort), list (where each cell's points begin).
// records: one invocation a point, in the order of cells: what the passes below need of it.
// to_positions: the same, for dx and for the sums over a point's nodes that to_shapes needs.
// to_weights: one invocation, or a workgroup (GPUs), a node and four features. It owns the gradient of
//          its weights and walks the points in the RING^D cells that see the node, RING^(D-1) runs
//          of the sorted list: nothing is added atomically, the sums have a fixed order.
// to_shapes: the same for the adaptive nodes, one invocation or workgroup a node.
// Both are launched once for each share of the points and add to what the launches before have left:
// Mesa's llvmpipe ends all loops of an invocation after 65,535 rounds, without a word.
// Workgroup memory: to_weights_together, to_shapes_together: 1,024 bytes; others 0.
//
// Backward with G the gradient of y (of a jet G_0 and G_t, along a direction G_t = v_t G):
//   A_k = sum_f w_kf (G_0f g' + sum_t G_tf g'' d_t a_k),  B_kt = sum_f w_kf G_tf g'
//   dw_kf = G_0f g + sum_t G_tf g' d_t a_k
//   with D = EPSILON + S, S = sum phi (or D = 1, S' = 0 where not normalised):
//   a'_k = A_k - sum_t B_kt d_t S / D,  dS_t = -sum_k B_kt a_k / D,
//   dD = -sum_k (a'_k a_k + sum_t B_kt d_t a_k) / D
//   adjoint of phi_k: alpha_k = a'_k / D + dD,  of d_t phi_k: beta_kt = B_kt / D + dS_t
//   dx_e = sum_k alpha_k d_e phi_k + sum_kt beta_kt d_et phi_k;  of a centre the same, negative.

struct Params {
    first_group: u32,
    groups: u32,
    points: u32,
    resolution: u32,   // cells along an axis
    nodes: u32,        // along an axis: resolution + RING - 1
    first_node: u32,   // of this level
    quads: u32,        // features of a level / 4
    column: u32,       // first quad of this level in a row of y
    row: u32,          // quads of a row of y
    plane: u32,        // quads of a plane of y
    first_list: u32,   // of this level: cells + 1 starts, then the order
    accumulate: u32,   // dx is added to what is there
    radius: f32,       // of fixed nodes, the largest of adaptive ones; in cells
    sharpness: f32,    // s
    shift: f32,        // of adaptive nodes, at most; in cells
    octaves: f32,      // by which an adaptive radius may shrink
    share: u32,        // of a node's points, one of
    shares: u32,       // launches that take every shares-th of them
}

const EPSILON: f32 = 1e-4;
const NEIGHBOURS: u32 = select(RING * RING * RING, RING * RING, DIMS == 2u);
const ROWS: u32 = select(RING * RING, RING, DIMS == 2u);
const VALUE: u32 = 0u;
const JET: u32 = 1u;
const ALONG: u32 = 2u;
// A record: p before it is clamped and S; the gradient of S (normalised); the direction (along one).
const DIRECTION: u32 = select(1u, 2u, NORMALIZE);
const RECORD: u32 = DIRECTION + select(0u, 1u, DIFFERENTIAL == ALONG);

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> positions: array<f32>;                // [N, DIMS]
@group(0) @binding(2) var<storage, read> weights: array<vec4<f32>>;            // [nodes, quads]
@group(0) @binding(3) var<storage, read> frequencies: array<vec4<f32>>;        // [quads]
@group(0) @binding(4) var<storage, read> shapes: array<f32>;                   // [nodes, DIMS + 1]
@group(0) @binding(5) var<storage, read> direction: array<f32>;                // [N, DIMS]
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;            // [planes, N, row]

@group(0) @binding(2) var<storage, read_write> keys: array<u32>;               // [N]
@group(0) @binding(1) var<storage, read> sorted_keys: array<u32>;              // [N]
@group(0) @binding(2) var<storage, read> sorted_points: array<u32>;            // [N]
@group(0) @binding(3) var<storage, read_write> lists_out: array<u32>;          // a level: [cells + 1], [N]

@group(0) @binding(2) var<storage, read> record_lists: array<u32>;
@group(0) @binding(3) var<storage, read> record_direction: array<f32>;         // [N, DIMS]
@group(0) @binding(5) var<storage, read_write> records_out: array<vec4<f32>>;  // [N, RECORD], by cell

@group(0) @binding(1) var<storage, read> records: array<vec4<f32>>;            // [N, RECORD], by cell
@group(0) @binding(5) var<storage, read> lists: array<u32>;
@group(0) @binding(6) var<storage, read> dy: array<vec4<f32>>;                 // [planes, N, row]
@group(0) @binding(7) var<storage, read_write> adjoints_out: array<vec4<f32>>; // [N] dS and dD, by cell
@group(0) @binding(8) var<storage, read_write> dx: array<f32>;                 // [N, DIMS]
@group(0) @binding(2) var<storage, read_write> dweights: array<vec4<f32>>;     // [nodes, quads]
@group(0) @binding(7) var<storage, read> adjoints: array<vec4<f32>>;           // [N], by cell
@group(0) @binding(8) var<storage, read_write> dshapes: array<f32>;            // [nodes, DIMS + 1]

var<workgroup> sums: array<vec4<f32>, WORKGROUP>;

// A point on the lattice, in cells.
struct Place {
    p: vec3<f32>,
    inside: vec3<f32>,  // 0 along the axes on which it was clamped: y does not change there
    cell: vec3<u32>,
}

fn place_of(raw: vec3<f32>) -> Place {
    let high = f32(params.resolution);
    let p = clamp(raw, vec3<f32>(0.0), vec3<f32>(high));
    let inside = select(vec3<f32>(0.0), vec3<f32>(1.0), (raw >= vec3<f32>(0.0)) & (raw <= vec3<f32>(high)));
    return Place(p, inside, min(vec3<u32>(p), vec3<u32>(params.resolution - 1u)));
}

fn raw_position(point: u32) -> vec3<f32> {
    let z = select(0.0, positions[point * DIMS + DIMS - 1u], DIMS == 3u);
    return vec3<f32>(positions[point * DIMS], positions[point * DIMS + 1u], z) * f32(params.resolution);
}

fn cell_index(cell: vec3<u32>) -> u32 {
    return (cell.z * params.resolution + cell.y) * params.resolution + cell.x;
}

fn cells() -> u32 {
    let plane = params.resolution * params.resolution;
    return select(plane * params.resolution, plane, DIMS == 2u);
}

// The k-th node that sees a cell.
fn neighbour(cell: vec3<u32>, k: u32) -> vec3<u32> {
    return cell + vec3<u32>(k % RING, k / RING % RING, k / (RING * RING));
}

// Its index among the nodes of all levels.
fn node_index(node: vec3<u32>) -> u32 {
    return params.first_node + (node.z * params.nodes + node.y) * params.nodes + node.x;
}

struct Centre {
    at: vec3<f32>,
    inverse: f32,  // of the radius
}

fn centre_of(node: vec3<u32>) -> Centre {
    var centre = Centre(vec3<f32>(node) - 0.5 * f32(RING - 2u), 1.0 / params.radius);
    if ADAPTIVE {
        let at = node_index(node) * (DIMS + 1u);
        centre.at.x += params.shift * tanh_bounded(shapes[at]);
        centre.at.y += params.shift * tanh_bounded(shapes[at + 1u]);
        if DIMS == 3u { centre.at.z += params.shift * tanh_bounded(shapes[at + 2u]); }
        centre.inverse *= exp2(params.octaves * sigmoid(shapes[at + DIMS]));
    }
    if DIMS == 2u { centre.at.z = 0.0; }
    return centre;
}

// phi and its derivatives by q, with what turns those into derivatives in space.
struct Bump {
    phi: f32,
    first: f32,
    second: f32,
    q: f32,
    offset: vec3<f32>,    // p - c
    gradient: vec3<f32>,  // of phi by p
}

fn bump_of(p: vec3<f32>, centre: Centre) -> Bump {
    let offset = p - centre.at;
    let scaled = offset * centre.inverse;
    let q = dot(scaled, scaled);
    var phi: f32;
    var first: f32;
    var second: f32;
    if KERNEL == 0u {
        let r = sqrt(q);
        let u = max(1.0 - r, 0.0);
        let u2 = u * u;
        let u4 = u2 * u2;
        phi = u4 * u2 * (11.666667 * q + 6.0 * r + 1.0);
        first = -9.333333 * u4 * u * (1.0 + 5.0 * r);
        second = 140.0 * u4;
    } else {
        let s = params.sharpness;
        let inverse = 1.0 / (1.0 + s * q);
        let k = select(inverse, exp(-s * q), KERNEL == 1u);
        let k1 = -s * k * select(inverse, 1.0, KERNEL == 1u);
        let k2 = -s * k1 * select(2.0 * inverse, 1.0, KERNEL == 1u);
        let u = max(1.0 - q, 0.0);
        phi = k * u * u * u;
        first = u * u * (k1 * u - 3.0 * k);
        second = u * (k2 * u * u - 6.0 * k1 * u + 6.0 * k);
    }
    let gradient = 2.0 * first * centre.inverse * scaled;
    return Bump(phi, first, second, q, offset, gradient);
}

// The second derivatives of phi by p, times a vector.
fn bend(bump: Bump, centre: Centre, v: vec3<f32>) -> vec3<f32> {
    let i = centre.inverse * centre.inverse;
    return 2.0 * i * (2.0 * bump.second * i * dot(bump.offset, v) * bump.offset + bump.first * v);
}

// The sum over a point's nodes: its gradient, and S.
fn total_of(place: Place) -> vec4<f32> {
    var total = vec4<f32>(0.0);
    for (var k = 0u; k < NEIGHBOURS; k++) {
        let bump = bump_of(place.p, centre_of(neighbour(place.cell, k)));
        total += vec4<f32>(bump.gradient, bump.phi);
    }
    return total;
}

// a_k and its gradient.
fn activation_of(bump: Bump, total: vec4<f32>) -> vec4<f32> {
    if !NORMALIZE { return vec4<f32>(bump.gradient, bump.phi); }
    let divisor = 1.0 / (total.w + EPSILON);
    let a = bump.phi * divisor;
    return vec4<f32>((bump.gradient - a * total.xyz) * divisor, a);
}

// g of four features at a, with its derivatives.
struct Wave {
    value: vec4<f32>,
    first: vec4<f32>,
    second: vec4<f32>,
}

fn wave_of(a: f32, quad: u32) -> Wave {
    if !SINUSOID { return Wave(vec4<f32>(a), vec4<f32>(1.0), vec4<f32>(0.0)); }
    let m = frequencies[quad];
    let x = sin_cos(m.x * a);
    let y = sin_cos(m.y * a);
    let z = sin_cos(m.z * a);
    let w = sin_cos(m.w * a);
    let sine = vec4<f32>(x.x, y.x, z.x, w.x);
    return Wave(sine, m * vec4<f32>(x.y, y.y, z.y, w.y), -m * m * sine);
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let quad = group % params.quads;
    let point = group / params.quads * WORKGROUP + local;
    if group >= params.groups || point >= params.points { return; }
    let place = place_of(raw_position(point));
    var total = vec4<f32>(0.0);
    if NORMALIZE { total = total_of(place); }
    var along = vec3<f32>(0.0);
    if DIFFERENTIAL == ALONG {
        along = vec3<f32>(direction[point * DIMS], direction[point * DIMS + 1u],
                          select(0.0, direction[point * DIMS + DIMS - 1u], DIMS == 3u));
        along *= place.inside * f32(params.resolution);
    }
    var value = vec4<f32>(0.0);
    var x = vec4<f32>(0.0);
    var y_axis = vec4<f32>(0.0);
    var z = vec4<f32>(0.0);
    for (var k = 0u; k < NEIGHBOURS; k++) {
        let node = neighbour(place.cell, k);
        let a = activation_of(bump_of(place.p, centre_of(node)), total);
        let wave = wave_of(a.w, quad);
        let w = weights[node_index(node) * params.quads + quad];
        if DIFFERENTIAL != ALONG { value += w * wave.value; }
        if DIFFERENTIAL != VALUE {
            let slope = w * wave.first;
            if DIFFERENTIAL == ALONG { value += slope * dot(a.xyz, along); }
            if DIFFERENTIAL == JET {
                x += slope * a.x;
                y_axis += slope * a.y;
                if DIMS == 3u { z += slope * a.z; }
            }
        }
    }
    let at = point * params.row + params.column + quad;
    y[at] = value;
    if DIFFERENTIAL == JET {
        let rate = place.inside * f32(params.resolution);
        y[at + params.plane] = rate.x * x;
        y[at + 2u * params.plane] = rate.y * y_axis;
        if DIMS == 3u { y[at + 3u * params.plane] = rate.z * z; }
    }
}

@compute @workgroup_size(WORKGROUP)
fn cells_of_points(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let point = group * WORKGROUP + local;
    if group >= params.groups || point >= params.points { return; }
    keys[point] = cell_index(place_of(raw_position(point)).cell);
}

@compute @workgroup_size(WORKGROUP)
fn list(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups { return; }
    if i < params.points { lists_out[params.first_list + cells() + 1u + i] = sorted_points[i]; }
    if i > cells() { return; }
    // The first point that is not in a cell before i.
    var low = 0u;
    var high = params.points;
    while low < high {
        let middle = (low + high) / 2u;
        if sorted_keys[middle] < i { low = middle + 1u; } else { high = middle; }
    }
    lists_out[params.first_list + i] = low;
}

@compute @workgroup_size(WORKGROUP)
fn make_records(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points { return; }
    let point = record_lists[params.first_list + cells() + 1u + i];
    let raw = raw_position(point);
    var total = vec4<f32>(0.0);
    if NORMALIZE {
        total = total_of(place_of(raw));
        records_out[i * RECORD + 1u] = total;
    }
    records_out[i * RECORD] = vec4<f32>(raw, 0.0);
    if DIFFERENTIAL == ALONG {
        let z = select(0.0, record_direction[point * DIMS + DIMS - 1u], DIMS == 3u);
        records_out[i * RECORD + DIRECTION] =
            vec4<f32>(record_direction[point * DIMS], record_direction[point * DIMS + 1u], z, 0.0);
    }
}

// What the gradient passes know of a point: where it is, S, and the rates at which the tangents of
// y follow those of a (1 cell = 1).
struct Seen {
    place: Place,
    total: vec4<f32>,
    rate: vec3<f32>,
    at: u32,          // of its first quad in dy
    point: u32,
}

fn seen_of(i: u32) -> Seen {
    let point = lists[params.first_list + cells() + 1u + i];
    let place = place_of(records[i * RECORD].xyz);
    var total = vec4<f32>(0.0);
    if NORMALIZE { total = records[i * RECORD + 1u]; }
    var rate = place.inside * f32(params.resolution);
    if DIFFERENTIAL == ALONG { rate *= records[i * RECORD + DIRECTION].xyz; }
    return Seen(place, total, rate, point * params.row + params.column, point);
}

// sum_t G_t u_t of four features, for a vector u.
fn tangents(seen: Seen, quad: u32, u: vec3<f32>) -> vec4<f32> {
    let v = seen.rate * u;
    let at = seen.at + quad;
    if DIFFERENTIAL == ALONG { return dy[at] * (v.x + v.y + v.z); }
    var sum = dy[at + params.plane] * v.x + dy[at + 2u * params.plane] * v.y;
    if DIMS == 3u { sum += dy[at + 3u * params.plane] * v.z; }
    return sum;
}

// A_k and B_k.
struct Upstream {
    a: f32,
    b: vec3<f32>,
}

fn upstream(seen: Seen, node: u32, a: vec4<f32>) -> Upstream {
    var up = Upstream(0.0, vec3<f32>(0.0));
    for (var quad = 0u; quad < params.quads; quad++) {
        let wave = wave_of(a.w, quad);
        let w = weights[node * params.quads + quad];
        let slope = w * wave.first;
        if DIFFERENTIAL != ALONG { up.a += dot(slope, dy[seen.at + quad]); }
        if DIFFERENTIAL != VALUE {
            if SINUSOID { up.a += dot(w * wave.second, tangents(seen, quad, a.xyz)); }
            if DIFFERENTIAL == ALONG {
                up.b += seen.rate * dot(slope, dy[seen.at + quad]);
            } else {
                let at = seen.at + quad;
                up.b.x += seen.rate.x * dot(slope, dy[at + params.plane]);
                up.b.y += seen.rate.y * dot(slope, dy[at + 2u * params.plane]);
                if DIMS == 3u { up.b.z += seen.rate.z * dot(slope, dy[at + 3u * params.plane]); }
            }
        }
    }
    return up;
}

@compute @workgroup_size(WORKGROUP)
fn to_positions(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points { return; }
    let seen = seen_of(i);
    var divisor = 1.0;
    if NORMALIZE { divisor = 1.0 / (seen.total.w + EPSILON); }
    var gradient = vec3<f32>(0.0);
    var adjoint = vec4<f32>(0.0);
    for (var k = 0u; k < NEIGHBOURS; k++) {
        let node = neighbour(seen.place.cell, k);
        let centre = centre_of(node);
        let bump = bump_of(seen.place.p, centre);
        let a = activation_of(bump, seen.total);
        let up = upstream(seen, node_index(node), a);
        let through = up.a - dot(up.b, seen.total.xyz) * divisor;
        gradient += divisor * (through * bump.gradient + bend(bump, centre, up.b));
        if NORMALIZE {
            adjoint -= divisor * vec4<f32>(up.b * a.w, through * a.w + dot(up.b, a.xyz));
        }
    }
    if NORMALIZE {
        // The derivatives of S itself.
        gradient += adjoint.w * seen.total.xyz;
        for (var k = 0u; k < NEIGHBOURS; k++) {
            let centre = centre_of(neighbour(seen.place.cell, k));
            gradient += bend(bump_of(seen.place.p, centre), centre, adjoint.xyz);
        }
        adjoints_out[i] = adjoint;
    }
    gradient *= seen.place.inside * f32(params.resolution);
    let at = seen.point * DIMS;
    if params.accumulate != 0u {
        gradient += vec3<f32>(dx[at], dx[at + 1u], select(0.0, dx[at + DIMS - 1u], DIMS == 3u));
    }
    dx[at] = gradient.x;
    dx[at + 1u] = gradient.y;
    if DIMS == 3u { dx[at + 2u] = gradient.z; }
}

fn node_at(index: u32) -> vec3<u32> {
    return vec3<u32>(index % params.nodes, index / params.nodes % params.nodes,
                     index / (params.nodes * params.nodes));
}

fn nodes() -> u32 {
    let plane = params.nodes * params.nodes;
    return select(plane * params.nodes, plane, DIMS == 2u);
}

// Where the points begin and end that see a node in the row-th of its rows of cells; [0, 0) if the
// row lies outside of the lattice.
fn run_of(node: vec3<u32>, row: u32) -> vec2<u32> {
    let low = max(node, vec3<u32>(RING - 1u)) - (RING - 1u);
    let high = min(node, vec3<u32>(params.resolution - 1u));
    let cell = vec3<u32>(low.x, low.y + row % RING, select(0u, low.z + row / RING, DIMS == 3u));
    if cell.y > high.y || (DIMS == 3u && cell.z > high.z) { return vec2<u32>(0u); }
    let at = params.first_list + cell_index(cell);
    return vec2<u32>(lists[at], lists[at + high.x - low.x + 1u]);
}

// The part of a weight's gradient that every stride-th point from the lane-th on makes.
fn weight_sum(index: u32, quad: u32, lane: u32, stride: u32) -> vec4<f32> {
    let node = node_at(index);
    let centre = centre_of(node);
    var sum = vec4<f32>(0.0);
    for (var row = 0u; row < ROWS; row++) {
        let run = run_of(node, row);
        for (var i = run.x + lane; i < run.y; i += stride) {
            let seen = seen_of(i);
            let a = activation_of(bump_of(seen.place.p, centre), seen.total);
            let wave = wave_of(a.w, quad);
            if DIFFERENTIAL != ALONG { sum += dy[seen.at + quad] * wave.value; }
            if DIFFERENTIAL != VALUE { sum += tangents(seen, quad, a.xyz) * wave.first; }
        }
    }
    return sum;
}

@compute @workgroup_size(WORKGROUP)
fn to_weights(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= nodes() * params.quads { return; }
    add_weight(i, weight_sum(i / params.quads, i % params.quads, params.share, params.shares));
}

// The i-th four weights of the level.
fn add_weight(i: u32, sum: vec4<f32>) {
    let at = params.first_node * params.quads + i;
    if params.share == 0u { dweights[at] = sum; } else { dweights[at] += sum; }
}

// The sum over the workgroup, valid in invocation 0.
fn sum_together(part: vec4<f32>, local: u32) -> vec4<f32> {
    sums[local] = part;
    for (var stride = WORKGROUP / 2u; stride > 0u; stride = stride / 2u) {
        workgroupBarrier();
        if local < stride { sums[local] += sums[local + stride]; }
    }
    return sums[0];
}

@compute @workgroup_size(WORKGROUP)
fn to_weights_together(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                       @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let lane = params.share * WORKGROUP + local;
    let part = weight_sum(group / params.quads, group % params.quads, lane, params.shares * WORKGROUP);
    let sum = sum_together(part, local);
    if local == 0u { add_weight(group, sum); }
}

// The same of the gradient of a node's centre and radius.
fn shape_sum(index: u32, lane: u32, stride: u32) -> vec4<f32> {
    let node = node_at(index);
    let centre = centre_of(node);
    var sum = vec4<f32>(0.0);
    for (var row = 0u; row < ROWS; row++) {
        let run = run_of(node, row);
        for (var i = run.x + lane; i < run.y; i += stride) {
            let seen = seen_of(i);
            let bump = bump_of(seen.place.p, centre);
            let a = activation_of(bump, seen.total);
            let up = upstream(seen, node_index(node), a);
            var alpha = up.a;
            var beta = up.b;
            if NORMALIZE {
                let divisor = 1.0 / (seen.total.w + EPSILON);
                let adjoint = adjoints[i];
                alpha = (up.a - dot(up.b, seen.total.xyz) * divisor) * divisor + adjoint.w;
                beta = up.b * divisor + adjoint.xyz;
            }
            let inverse = centre.inverse;
            let bent = 4.0 * inverse * inverse * (bump.second * bump.q + bump.first) * dot(bump.offset, beta);
            let by_radius = -inverse * (2.0 * alpha * bump.first * bump.q + bent);
            sum += vec4<f32>(-alpha * bump.gradient - bend(bump, centre, beta), by_radius);
        }
    }
    return sum;
}

fn add_shape(index: u32, sum: vec4<f32>) {
    let at = (params.first_node + index) * (DIMS + 1u);
    add_to_shape(at, sum.x * params.shift * shift_slope(shapes[at]));
    add_to_shape(at + 1u, sum.y * params.shift * shift_slope(shapes[at + 1u]));
    if DIMS == 3u { add_to_shape(at + 2u, sum.z * params.shift * shift_slope(shapes[at + 2u])); }
    let v = shapes[at + DIMS];
    // radius = .. 2^(-octaves sigmoid(v))
    let radius = 1.0 / centre_of(node_at(index)).inverse;
    add_to_shape(at + DIMS, sum.w * radius * -0.6931472 * params.octaves * sigmoid(v) * sigmoid(-v));
}

fn add_to_shape(at: u32, value: f32) {
    if params.share == 0u { dshapes[at] = value; } else { dshapes[at] += value; }
}

fn shift_slope(u: f32) -> f32 {
    let t = tanh_bounded(u);
    return (1.0 - t) * (1.0 + t);
}

@compute @workgroup_size(WORKGROUP)
fn to_shapes(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let index = group * WORKGROUP + local;
    if group >= params.groups || index >= nodes() { return; }
    add_shape(index, shape_sum(index, params.share, params.shares));
}

@compute @workgroup_size(WORKGROUP)
fn to_shapes_together(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                      @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let part = shape_sum(group, params.share * WORKGROUP + local, params.shares * WORKGROUP);
    let sum = sum_together(part, local);
    if local == 0u { add_shape(group, sum); }
}
