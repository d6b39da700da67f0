// Adds the parts that attention/attention_statistics.wgsl left.
//
// rows: of a query, the slices' entropies, distances and best keys. A row that sees nothing gives zeros and
//   the key 0xffffffff; one that holds a NaN has no best key either.
// columns: of a key, the slices' masses of each head (HEADS), and their mean over the heads; ROLLOUT:
//   next_j = share mean_j + (1 - share) row_j, a row vector times (share P + (1 - share) I).
// hops: of a ring, the sums of all tiles of queries. Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,       // invocations that have something to do
    parts: u32,       // slices, or tiles of queries
    heads: u32,
    tokens: u32,      // keys of an image, or rings
    rows_at: u32,     // where log2(e) L begins in the side buffer
    share: f32,
}

const NO_KEY: u32 = 0xffffffffu;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> row_parts: array<vec4<u32>>;       // [slices, batch, heads, queries]
@group(0) @binding(2) var<storage, read> side: array<f32>;
@group(0) @binding(3) var<storage, read_write> entropy: array<f32>;         // [batch, heads, queries]
@group(0) @binding(4) var<storage, read_write> best: array<u32>;            // the same
@group(0) @binding(5) var<storage, read_write> best_weight: array<f32>;     // the same
@group(0) @binding(6) var<storage, read_write> distance: array<f32>;        // the same, if GRID

@compute @workgroup_size(64)
fn rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let row = group * 64u + local;
    if group >= params.groups || row >= params.count { return; }
    var entropy_sum = 0.0;
    var distance_sum = 0.0;
    var highest = SENTINEL;
    var key = NO_KEY;
    for (var slice = 0u; slice < params.parts; slice++) {
        let part = row_parts[slice * params.count + row];
        entropy_sum += bitcast<f32>(part.x);
        distance_sum += bitcast<f32>(part.y);
        if part.w != NO_KEY && (key == NO_KEY || bitcast<f32>(part.z) > highest) {
            highest = bitcast<f32>(part.z);
            key = part.w;
        }
    }
    let l = side[params.rows_at + 2u * row];
    entropy[row] = LN_2 * entropy_sum;
    best[row] = select(key, NO_KEY, is_nan(l));
    best_weight[row] = select(select(probability(highest - l), 0.0, key == NO_KEY), l, is_nan(l));
    if GRID { distance[row] = distance_sum; }
}

@group(0) @binding(1) var<storage, read> column_parts: array<f32>;          // [slices, batch, heads, keys]
@group(0) @binding(2) var<storage, read> row: array<f32>;                   // [batch, keys], if ROLLOUT
@group(0) @binding(3) var<storage, read_write> mass: array<f32>;            // [batch, heads, keys], if HEADS
@group(0) @binding(4) var<storage, read_write> mean: array<f32>;            // [batch, keys]

@compute @workgroup_size(64)
fn columns(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let index = group * 64u + local;
    if group >= params.groups || index >= params.count { return; }
    let batch = index / params.tokens;
    let j = index % params.tokens;
    var all = 0.0;
    for (var head = 0u; head < params.heads; head++) {
        let at = (batch * params.heads + head) * params.tokens + j;
        var sum = 0.0;
        for (var slice = 0u; slice < params.parts; slice++) {
            sum += column_parts[slice * params.count * params.heads + at];
        }
        if HEADS { mass[at] = sum; }
        all += sum;
    }
    all /= f32(params.heads);
    if ROLLOUT { all = fma(params.share, all, (1.0 - params.share) * row[index]); }
    mean[index] = all;
}

@group(0) @binding(1) var<storage, read> hop_parts: array<f32>;             // [batch, heads, tiles, hops]
@group(0) @binding(2) var<storage, read_write> mass_of_hops: array<f32>;    // [batch, heads, hops]

@compute @workgroup_size(64)
fn hops(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let index = group * 64u + local;
    if group >= params.groups || index >= params.count { return; }
    let matrix = index / params.tokens;
    let ring = index % params.tokens;
    var sum = 0.0;
    for (var tile = 0u; tile < params.parts; tile++) {
        sum += hop_parts[(matrix * params.parts + tile) * params.tokens + ring];
    }
    mass_of_hops[index] = sum;
}
