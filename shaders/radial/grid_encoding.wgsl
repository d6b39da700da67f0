// Multiresolution grid encoding (Mueller et al. 2022, section 3), forward and backward.
//
//   p = scale_l x + offset (0.5, or 0 with aligned corners), cell = floor(p), f = p - cell
//   forward:         y[n, l, c]      = sum over the 2^D corners of w(corner) T[index_l(corner), c]
//   backward_table:  dT[index, c]   += w(corner) dy[n, l, c]       summed in 64-bit fixed point
//   backward_input:  dx[n, d]        = sum_l scale_l sum_corners dw/df_d sum_c T[index, c] dy[n, l, c]
//   with w the product over the axes of t or 1 - t, t = f (linear) or f^2 (3 - 2 f) (smoothstep).
//
// index_l: row-major where the level's resolution^D fits into its entries, else
// (x XOR y 2654435761 XOR z 805459861), both modulo the number of entries.
// forward and backward_table: one invocation a point and level, a workgroup has one level.
// backward_input: one invocation a point. Workgroup memory: 0 bytes.
//
// The table's gradient without float atomics: each term is rounded to a multiple of a power of two,
// chosen from the largest |dy| (`largest`) so that it fits into 31 bits; low words are added
// atomically, and the carry goes to the high word. Integer sums do not depend on the order: the
// result is the same in every run. The rounding is at most max|dy| 2^-30 a term.

struct Params {
    first_group: u32,
    groups: u32,
    points: u32,
    values: u32,   // length of what `largest`, `clear` and `convert` run over
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

fn cell_of(level: Level, point: u32) -> Cell {
    var p = vec3<f32>(0.0);
    for (var d = 0u; d < DIMS; d++) {
        // Outside [0, 1] the field continues as it is at the border.
        p[d] = level.scale * clamp(positions[point * DIMS + d], 0.0, 1.0) + select(0.5, 0.0, ALIGN_CORNERS);
    }
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
