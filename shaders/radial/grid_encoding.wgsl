// Multiresolution grid encoding (Mueller et al. 2022, section 3), forward and backward.
//
//   p = scale_l x + offset (0.5, or 0 with aligned corners), cell = floor(p), f = p - cell
//   forward:         y[n, l, c]      = sum over the 2^D corners of w(corner) T[index_l(corner), c]
//   backward_table:  dT[index, c]   += w(corner) dy[n, l, c]       summed in 64-bit fixed point
//   backward_input:  dx[n, d]        = sum_l scale_l sum_corners dw/df_d sum_c T[index, c] dy[n, l, c]
//   with w the product over the axes of t or 1 - t, t = f (linear) or f^2 (3 - 2 f) (smoothstep).
//
//   jet_forward:     y[0] = y, y[t] = dy/dx_t (a jet), or y = sum_t v_t dy/dx_t (along a direction)
//   jet_backward_*:  from the gradient G of those to the table and to the positions, with the first
//                    and second derivatives of w in place of w:
//                    dT[index, c] += G_0 w + sum_t G_t dw/dx_t,
//                    dx_e = sum T (G_0 dw/dx_e + sum_t G_t d2w/dx_e dx_t)
//
// index_l: row-major where the level's resolution^D fits into its entries, else
// (x XOR y 2654435761 XOR z 805459861), both modulo the number of entries.
// forward and backward_table, of jets too: one invocation a point and level, a workgroup has one level.
// backward_input: one invocation a point. Workgroup memory: 0 bytes.
//
// The table's gradient without float atomics, two ways.
// In fixed point (backward_table): each term is rounded to a multiple of a power of two,
// chosen from the largest |dy| (`largest`) so that it fits into 31 bits; low words are added
// atomically, and the carry goes to the high word. Integer sums do not depend on the order: the
// result is the same in every run. The rounding is at most max|dy| 2^-30 a term.
// Sorted, some levels at once, without any atomics; contribution j = (l 2^D + k) N + n is what point n
// adds at corner k of the l-th of these levels, J = levels N 2^D of them, R rows (entries):
//   contribution_rows: which row each contribution goes to            keys: [J]
//   (a stable argsort of the keys, dense/sort, gives `sorted` and `order`, [J] each)
//   mark_runs:   where the run of each row begins and ends in it      runs: [R, 2], cleared before
//   sum_blocks:  the sum of each aligned block of SPAN sorted contributions to one row;
//   sum_spans:   of each aligned SPAN such blocks                     blocks, spans: [.., FEATURES]
//   sum_rows:    one invocation a row walks its run in the largest of those steps that fit.
// Weights are computed again rather than stored. Blocks that rows share are neither summed nor read.
// Measured on lavapipe, 65,536 points, 16 levels of 2 features: 2-D with 2^15 entries 135 ms in fixed
// point, 562 ms sorted level by level, 733 ms all at once; 3-D with 2^19 entries 474, 1,721 and 1,672 ms.
// Points that lie together gain either way alike (113 and 467; 481 and 1,456). The sort moves every
// contribution 4 times for each digit of its row, the atomics touch it once: fixed point is the default.

struct Params {
    first_group: u32,
    groups: u32,
    points: u32,
    values: u32,       // length of what a launch runs over, where that is not points and levels
    first_level: u32,  // of those sorted at once
    some_levels: u32,  // how many
    first_row: u32,    // entry of the first of them
}

struct Level {
    scale: f32,
    resolution: u32,
    first: u32,    // entry
    entries: u32,
    hashed: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> levels: array<Level>;                // [LEVELS]
@group(0) @binding(2) var<storage, read> positions: array<f32>;               // [N, DIMS]
@group(0) @binding(3) var<storage, read> table: array<f32>;                   // [entries, FEATURES]
@group(0) @binding(4) var<storage, read_write> encoded: array<f32>;           // [N, LEVELS, FEATURES]
@group(0) @binding(4) var<storage, read> dy_input: array<f32>;                // [N, LEVELS, FEATURES]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;                // [N, DIMS]
@group(0) @binding(3) var<storage, read> dy_table: array<f32>;                // [N, LEVELS, FEATURES]
@group(0) @binding(4) var<storage, read> range: array<u32>;                   // [1] bits of max |dy|
@group(0) @binding(5) var<storage, read_write> sums: array<atomic<u32>>;      // [entries, FEATURES, 2] low, high
@group(0) @binding(1) var<storage, read> dy_range: array<f32>;                // [values]
@group(0) @binding(2) var<storage, read_write> largest_bits: array<atomic<u32>>; // [1]
@group(0) @binding(1) var<storage, read_write> cleared: array<u32>;           // [values]
@group(0) @binding(1) var<storage, read> sums_done: array<u32>;               // [values, 2]
@group(0) @binding(2) var<storage, read> range_done: array<u32>;              // [1]
@group(0) @binding(3) var<storage, read_write> dtable: array<f32>;            // [values]
@group(0) @binding(3) var<storage, read_write> keys: array<u32>;              // [J]
@group(0) @binding(1) var<storage, read> sorted: array<u32>;                  // [J]
@group(0) @binding(2) var<storage, read_write> runs_out: array<u32>;          // [R, 2] first, end
@group(0) @binding(4) var<storage, read> sorted_rows: array<u32>;             // [J]
@group(0) @binding(5) var<storage, read> order: array<u32>;                   // [J]
@group(0) @binding(6) var<storage, read_write> blocks_out: array<f32>;        // [J / SPAN, FEATURES]
@group(0) @binding(2) var<storage, read> blocks_in: array<f32>;               // [J / SPAN, FEATURES]
@group(0) @binding(3) var<storage, read_write> spans_out: array<f32>;         // [J / SPAN^2, FEATURES]
@group(0) @binding(4) var<storage, read> runs: array<u32>;                    // [R, 2]
@group(0) @binding(6) var<storage, read> blocks: array<f32>;                  // [J / SPAN, FEATURES]
@group(0) @binding(7) var<storage, read> spans: array<f32>;                   // [J / SPAN^2, FEATURES]
@group(0) @binding(8) var<storage, read_write> dtable_rows: array<f32>;       // [entries, FEATURES]

@group(0) @binding(3) var<storage, read_write> jet_largest_bits: array<atomic<u32>>; // [1]
@group(0) @binding(3) var<storage, read> jet_range: array<u32>;               // [1] bits of the largest term
@group(0) @binding(4) var<storage, read> direction: array<f32>;               // [N, DIMS]
@group(0) @binding(5) var<storage, read_write> jets_out: array<f32>;          // [planes, N, LEVELS, FEATURES]
@group(0) @binding(5) var<storage, read> dy_jets: array<f32>;                 // [planes, N, LEVELS, FEATURES]
@group(0) @binding(6) var<storage, read_write> jet_dx: array<f32>;            // [N, DIMS]
@group(0) @binding(6) var<storage, read_write> jet_sums: array<atomic<u32>>;  // [entries, FEATURES, 2] low, high

fn entry(level: Level, cell: vec3<u32>) -> u32 {
    var index: u32;
    if level.hashed != 0u {
        index = cell.x ^ (cell.y * 2654435761u);
        if DIMS == 3u { index ^= cell.z * 805459861u; }
    } else {
        index = cell.x + cell.y * level.resolution;
        if DIMS == 3u { index += cell.z * level.resolution * level.resolution; }
    }
    return level.first + index % level.entries;
}

struct Cell {
    base: vec3<u32>,
    fraction: vec3<f32>,
}

// In cells. Outside [0, 1] the field continues as it is at the border.
fn place_along(level: Level, point: u32, d: u32) -> f32 {
    return level.scale * clamp(positions[point * DIMS + d], 0.0, 1.0) + select(0.5, 0.0, ALIGN_CORNERS);
}

// Components are written by name here and below: FXC may refuse those that a loop counts.
fn cell_of(level: Level, point: u32) -> Cell {
    var p = vec3<f32>(place_along(level, point, 0u), place_along(level, point, 1u), 0.0);
    if DIMS == 3u { p.z = place_along(level, point, 2u); }
    let base = floor(p);
    return Cell(vec3<u32>(base), p - base);
}

fn ease(f: vec3<f32>) -> vec3<f32> {
    return select(f, f * f * (3.0 - 2.0 * f), SMOOTHSTEP);
}

fn ease_derivative(f: vec3<f32>) -> vec3<f32> {
    return select(vec3<f32>(1.0), 6.0 * f * (1.0 - f), SMOOTHSTEP);
}

fn corner_of(k: u32) -> vec3<u32> {
    return vec3<u32>(k & 1u, (k >> 1u) & 1u, (k >> 2u) & 1u);
}

fn corner_weight(t: vec3<f32>, corner: vec3<u32>) -> f32 {
    let side = select(1.0 - t, t, corner == vec3<u32>(1u));
    return side.x * side.y * select(1.0, side.z, DIMS == 3u);
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let l = group % LEVELS;
    let point = group / LEVELS * WORKGROUP + local;
    if group >= params.groups || point >= params.points { return; }
    let level = levels[l];
    let cell = cell_of(level, point);
    let t = ease(cell.fraction);
    var sum: array<f32, FEATURES>;
    for (var k = 0u; k < (1u << DIMS); k++) {
        let corner = corner_of(k);
        let w = corner_weight(t, corner);
        let at = entry(level, cell.base + corner) * FEATURES;
        for (var c = 0u; c < FEATURES; c++) { sum[c] += w * table[at + c]; }
    }
    for (var c = 0u; c < FEATURES; c++) {
        encoded[(point * LEVELS + l) * FEATURES + c] = sum[c];
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward_input(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let point = group * WORKGROUP + local;
    if group >= params.groups || point >= params.points { return; }
    var total = vec3<f32>(0.0);
    for (var l = 0u; l < LEVELS; l++) {
        let level = levels[l];
        let cell = cell_of(level, point);
        let t = ease(cell.fraction);
        var slope = vec3<f32>(0.0);
        for (var k = 0u; k < (1u << DIMS); k++) {
            let corner = corner_of(k);
            let at = entry(level, cell.base + corner) * FEATURES;
            var value = 0.0;
            for (var c = 0u; c < FEATURES; c++) {
                value += table[at + c] * dy_input[(point * LEVELS + l) * FEATURES + c];
            }
            let side = select(1.0 - t, t, corner == vec3<u32>(1u));
            let sign = select(vec3<f32>(-1.0), vec3<f32>(1.0), corner == vec3<u32>(1u));
            let z = select(1.0, side.z, DIMS == 3u);
            slope += value * sign * vec3<f32>(side.y * z, side.x * z, side.x * side.y);
        }
        total += level.scale * slope * ease_derivative(cell.fraction);
    }
    for (var d = 0u; d < DIMS; d++) {
        let x = positions[point * DIMS + d];
        dx[point * DIMS + d] = select(0.0, total[d], x >= 0.0 && x <= 1.0);
    }
}

@compute @workgroup_size(WORKGROUP)
fn clear(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.values { return; }
    cleared[i] = 0u;
}

// The bits of non-negative floats are ordered as the floats are, with NaN above all.
@compute @workgroup_size(WORKGROUP)
fn largest(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    var top = 0u;
    for (var k = 0u; k < 64u; k++) {
        let i = (group * 64u + k) * WORKGROUP + local;
        if i < params.values { top = max(top, bitcast<u32>(dy_range[i]) & 0x7fffffffu); }
    }
    atomicMax(&largest_bits[0], top);
}

// The exponent e with max |dy| < 2^(e + 1); tiny ranges are all treated as 2^-90.
fn exponent_of(bits: u32) -> i32 {
    return max(i32(bits >> 23u) - 127, -90);
}

fn power_of_two(e: i32) -> f32 {
    return bitcast<f32>(u32(e + 127) << 23u);
}

@compute @workgroup_size(WORKGROUP)
fn backward_table(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let l = group % LEVELS;
    let point = group / LEVELS * WORKGROUP + local;
    let bits = range[0];
    if group >= params.groups || point >= params.points || bits >= 0x7f800000u { return; }
    let scale = power_of_two(29 - exponent_of(bits));
    let level = levels[l];
    let cell = cell_of(level, point);
    let t = ease(cell.fraction);
    for (var k = 0u; k < (1u << DIMS); k++) {
        let corner = corner_of(k);
        let w = corner_weight(t, corner);
        let at = entry(level, cell.base + corner) * FEATURES;
        for (var c = 0u; c < FEATURES; c++) {
            let term = i32(round(w * dy_table[(point * LEVELS + l) * FEATURES + c] * scale));
            if term != 0 {
                let low = bitcast<u32>(term);
                let before = atomicAdd(&sums[2u * (at + c)], low);
                // The sign extension of a negative term and its carry cancel nearly always.
                let high = select(0u, 0xffffffffu, term < 0) + select(0u, 1u, before + low < before);
                if high != 0u { atomicAdd(&sums[2u * (at + c) + 1u], high); }
            }
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn convert(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.values { return; }
    let bits = range_done[0];
    var low = sums_done[2u * i];
    var high = sums_done[2u * i + 1u];
    let negative = (high >> 31u) == 1u;
    if negative {
        low = ~low + 1u;
        high = ~high + select(0u, 1u, low == 0u);
    }
    let size = (f32(high) * 4294967296.0 + f32(low)) * power_of_two(min(exponent_of(bits), 127) - 29);
    let value = bitcast<u32>(select(size, -size, negative));
    // The bits of a NaN: compilers may assume that arithmetic makes none.
    dtable[i] = bitcast<f32>(select(value, 0x7fc00000u | bits, bits >= 0x7f800000u));
}

@compute @workgroup_size(WORKGROUP)
fn contribution_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                     @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let l = group % params.some_levels;
    let point = group / params.some_levels * WORKGROUP + local;
    if group >= params.groups || point >= params.points { return; }
    let level = levels[params.first_level + l];
    let base = cell_of(level, point).base;
    for (var k = 0u; k < (1u << DIMS); k++) {
        keys[((l << DIMS) + k) * params.points + point] = entry(level, base + corner_of(k)) - params.first_row;
    }
}

@compute @workgroup_size(WORKGROUP)
fn mark_runs(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.values { return; }
    let row = sorted[i];
    if i == 0u || sorted[max(i, 1u) - 1u] != row { runs_out[2u * row] = i; }
    if i + 1u == params.values || sorted[min(i + 1u, params.values - 1u)] != row { runs_out[2u * row + 1u] = i + 1u; }
}

fn add_contribution(sum: ptr<function, array<f32, FEATURES>>, contribution: u32) {
    let point = contribution % params.points;
    let corner = contribution / params.points;
    let l = params.first_level + (corner >> DIMS);
    let t = ease(cell_of(levels[l], point).fraction);
    let w = corner_weight(t, corner_of(corner));
    for (var c = 0u; c < FEATURES; c++) {
        (*sum)[c] += w * dy_table[(point * LEVELS + l) * FEATURES + c];
    }
}

@compute @workgroup_size(WORKGROUP)
fn sum_blocks(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.values { return; }
    if sorted_rows[i * SPAN] != sorted_rows[i * SPAN + SPAN - 1u] { return; }
    var sum: array<f32, FEATURES>;
    for (var k = 0u; k < SPAN; k++) { add_contribution(&sum, order[i * SPAN + k]); }
    for (var c = 0u; c < FEATURES; c++) { blocks_out[i * FEATURES + c] = sum[c]; }
}

@compute @workgroup_size(WORKGROUP)
fn sum_spans(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.values { return; }
    if sorted[i * SPAN * SPAN] != sorted[(i + 1u) * SPAN * SPAN - 1u] { return; }
    for (var c = 0u; c < FEATURES; c++) {
        var sum = 0.0;
        for (var k = 0u; k < SPAN; k++) { sum += blocks_in[(i * SPAN + k) * FEATURES + c]; }
        spans_out[i * FEATURES + c] = sum;
    }
}

@compute @workgroup_size(WORKGROUP)
fn sum_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let row = group * WORKGROUP + local;
    if group >= params.groups || row >= params.values { return; }
    var k = runs[2u * row];
    let end = runs[2u * row + 1u];
    var sum: array<f32, FEATURES>;
    while k < end {
        let left = end - k;
        if k % (SPAN * SPAN) == 0u && left >= SPAN * SPAN {
            for (var c = 0u; c < FEATURES; c++) { sum[c] += spans[k / (SPAN * SPAN) * FEATURES + c]; }
            k += SPAN * SPAN;
        } else if k % SPAN == 0u && left >= SPAN {
            for (var c = 0u; c < FEATURES; c++) { sum[c] += blocks[k / SPAN * FEATURES + c]; }
            k += SPAN;
        } else {
            add_contribution(&sum, order[k]);
            k += 1u;
        }
    }
    for (var c = 0u; c < FEATURES; c++) {
        dtable_rows[(params.first_row + row) * FEATURES + c] = sum[c];
    }
}

const JET: u32 = 1u;
const ALONG: u32 = 2u;
// An array of a single vec4 cannot be cleared in HLSL as naga writes it.
const JET_SUMS: u32 = max(FEATURES, 2u);

fn rate_along(level: Level, point: u32, d: u32) -> f32 {
    let x = positions[point * DIMS + d];
    return select(0.0, level.scale, x >= 0.0 && x <= 1.0);
}

// The rates at which a level's derivatives by its cells follow those by the position; 0 outside.
fn rates_of(level: Level, point: u32) -> vec3<f32> {
    var rates = vec3<f32>(rate_along(level, point, 0u), rate_along(level, point, 1u), 0.0);
    if DIMS == 3u { rates.z = rate_along(level, point, 2u); }
    return rates;
}

// The same along the direction of a point.
fn rates_along(rates: vec3<f32>, point: u32) -> vec3<f32> {
    let z = select(0.0, direction[point * DIMS + DIMS - 1u], DIMS == 3u);
    return rates * vec3<f32>(direction[point * DIMS], direction[point * DIMS + 1u], z);
}

// The factors of a corner's weight along the axes: values, first and second derivatives.
struct Sides {
    value: vec3<f32>,
    first: vec3<f32>,
    second: vec3<f32>,
}

fn sides_of(f: vec3<f32>, corner: vec3<u32>) -> Sides {
    let t = ease(f);
    let is_far = corner == vec3<u32>(1u);
    let sign = select(vec3<f32>(-1.0), vec3<f32>(1.0), is_far);
    let bend = select(vec3<f32>(0.0), 6.0 - 12.0 * f, SMOOTHSTEP);
    var sides = Sides(select(1.0 - t, t, is_far), sign * ease_derivative(f), sign * bend);
    if DIMS == 2u {
        sides.value.z = 1.0;
        sides.first.z = 0.0;
        sides.second.z = 0.0;
    }
    return sides;
}

// The gradient of a corner's weight by the cell coordinates, and the weight.
fn weight_jet(s: Sides) -> vec4<f32> {
    let v = s.value;
    return vec4<f32>(s.first * vec3<f32>(v.y * v.z, v.x * v.z, v.x * v.y), v.x * v.y * v.z);
}

// Its second derivatives, times a vector.
fn weight_bend(s: Sides, u: vec3<f32>) -> vec3<f32> {
    let v = s.value;
    let d = s.first;
    return vec3<f32>(
        s.second.x * v.y * v.z * u.x + d.x * (d.y * v.z * u.y + v.y * d.z * u.z),
        s.second.y * v.x * v.z * u.y + d.y * (d.x * v.z * u.x + v.x * d.z * u.z),
        s.second.z * v.x * v.y * u.z + d.z * (d.x * v.y * u.x + v.x * d.y * u.y),
    );
}

// G of a feature: of the derivatives by the cell coordinates, and of the value.
fn upstream(at: u32, rates: vec3<f32>) -> vec4<f32> {
    if DIFFERENTIAL == ALONG { return vec4<f32>(rates * dy_jets[at], 0.0); }
    let plane = params.points * LEVELS * FEATURES;
    let z = select(0.0, dy_jets[at + DIMS * plane], DIMS == 3u);
    return vec4<f32>(rates * vec3<f32>(dy_jets[at + plane], dy_jets[at + 2u * plane], z), dy_jets[at]);
}

@compute @workgroup_size(WORKGROUP)
fn jet_forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let l = group % LEVELS;
    let point = group / LEVELS * WORKGROUP + local;
    if group >= params.groups || point >= params.points { return; }
    let level = levels[l];
    let cell = cell_of(level, point);
    let rates = rates_of(level, point);
    var sum: array<vec4<f32>, JET_SUMS>;
    for (var k = 0u; k < (1u << DIMS); k++) {
        let corner = corner_of(k);
        let w = weight_jet(sides_of(cell.fraction, corner));
        let at = entry(level, cell.base + corner) * FEATURES;
        for (var c = 0u; c < FEATURES; c++) { sum[c] += w * table[at + c]; }
    }
    let at = (point * LEVELS + l) * FEATURES;
    if DIFFERENTIAL == ALONG {
        let along = rates_along(rates, point);
        for (var c = 0u; c < FEATURES; c++) { jets_out[at + c] = dot(sum[c].xyz, along); }
        return;
    }
    let plane = params.points * LEVELS * FEATURES;
    for (var c = 0u; c < FEATURES; c++) {
        let slope = sum[c].xyz * rates;
        jets_out[at + c] = sum[c].w;
        jets_out[at + c + plane] = slope.x;
        jets_out[at + c + 2u * plane] = slope.y;
        if DIMS == 3u { jets_out[at + c + 3u * plane] = slope.z; }
    }
}

@compute @workgroup_size(WORKGROUP)
fn jet_backward_input(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                      @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let point = group * WORKGROUP + local;
    if group >= params.groups || point >= params.points { return; }
    var total = vec3<f32>(0.0);
    for (var l = 0u; l < LEVELS; l++) {
        let level = levels[l];
        let cell = cell_of(level, point);
        let rates = rates_of(level, point);
        var tangents = rates;
        if DIFFERENTIAL == ALONG { tangents = rates_along(rates, point); }
        for (var k = 0u; k < (1u << DIMS); k++) {
            let corner = corner_of(k);
            let at = entry(level, cell.base + corner) * FEATURES;
            var u = vec4<f32>(0.0);
            for (var c = 0u; c < FEATURES; c++) {
                u += table[at + c] * upstream((point * LEVELS + l) * FEATURES + c, tangents);
            }
            let sides = sides_of(cell.fraction, corner);
            total += rates * (u.w * weight_jet(sides).xyz + weight_bend(sides, u.xyz));
        }
    }
    jet_dx[point * DIMS] = total.x;
    jet_dx[point * DIMS + 1u] = total.y;
    if DIMS == 3u { jet_dx[point * DIMS + 2u] = total.z; }
}

// A weight is at most 1, its slope at most 1.5: no term is larger than |G_0| + 1.5 sum |G_t|.
@compute @workgroup_size(WORKGROUP)
fn jet_largest(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let l = group % LEVELS;
    let point = group / LEVELS * WORKGROUP + local;
    if group >= params.groups || point >= params.points { return; }
    var rates = rates_of(levels[l], point);
    if DIFFERENTIAL == ALONG { rates = rates_along(rates, point); }
    var top = 0u;
    for (var c = 0u; c < FEATURES; c++) {
        let g = abs(upstream((point * LEVELS + l) * FEATURES + c, rates));
        let bits = bitcast<vec4<u32>>(g) & vec4<u32>(0x7fffffffu);
        let bound = bitcast<u32>(g.w + 1.5 * (g.x + g.y + g.z)) & 0x7fffffffu;
        // A sum of NaN may be anything: compilers assume that there is none.
        top = max(max(top, bound), max(max(bits.x, bits.y), max(bits.z, bits.w)));
    }
    atomicMax(&jet_largest_bits[0], top);
}

@compute @workgroup_size(WORKGROUP)
fn jet_backward_table(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                      @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let l = group % LEVELS;
    let point = group / LEVELS * WORKGROUP + local;
    let bits = jet_range[0];
    if group >= params.groups || point >= params.points || bits >= 0x7f800000u { return; }
    let scale = power_of_two(29 - exponent_of(bits));
    let level = levels[l];
    let cell = cell_of(level, point);
    var rates = rates_of(level, point);
    if DIFFERENTIAL == ALONG { rates = rates_along(rates, point); }
    for (var k = 0u; k < (1u << DIMS); k++) {
        let corner = corner_of(k);
        let w = weight_jet(sides_of(cell.fraction, corner));
        let at = entry(level, cell.base + corner) * FEATURES;
        for (var c = 0u; c < FEATURES; c++) {
            let g = upstream((point * LEVELS + l) * FEATURES + c, rates);
            let term = i32(round(dot(w, g) * scale));
            if term != 0 {
                let low = bitcast<u32>(term);
                let before = atomicAdd(&jet_sums[2u * (at + c)], low);
                let high = select(0u, 0xffffffffu, term < 0) + select(0u, 1u, before + low < before);
                if high != 0u { atomicAdd(&jet_sums[2u * (at + c) + 1u], high); }
            }
        }
    }
}
