// Attention statistics for CPU adapters with subgroups of 8 (formulas: attention/attention_statistics.wgsl), on the
// lanes of common/attention_lanes.wgsl.
//
// A workgroup has 64 own rows, queries (rows) or keys (columns), an invocation eight of them; two rows of the other
// side pass by at a time. What eight rows know of the others is the invocation's own: nothing is put together.
// Head dimensions up to 128. Workgroup memory: 0 bytes.

@group(0) @binding(3) var<storage, read> weights: array<f32>;                 // [batch, queries]
@group(0) @binding(6) var<storage, read_write> row_parts: array<vec4<u32>>;   // [slices, batch, heads, queries]
@group(0) @binding(6) var<storage, read_write> column_parts: array<f32>;      // [slices, batch, heads, keys]

fn put_row(at: u32, is_own: bool, entropy: f32, distance: f32, best: f32, best_at: u32) {
    if is_own {
        row_parts[at] = vec4<u32>(bitcast<u32>(entropy), bitcast<u32>(distance), bitcast<u32>(best), best_at);
    }
}

fn put_rows(at: vec4<u32>, is_own: vec4<bool>, p: RowParts) {
    put_row(at.x, is_own.x, p.entropy.x, p.distance.x, p.best.x, p.best_at.x);
    put_row(at.y, is_own.y, p.entropy.y, p.distance.y, p.best.y, p.best_at.y);
    put_row(at.z, is_own.z, p.entropy.z, p.distance.z, p.best.z, p.best_at.z);
    put_row(at.w, is_own.w, p.entropy.w, p.distance.w, p.best.w, p.best_at.w);
}

@compute @workgroup_size(8)
fn rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, ROWS);
    let row = vec4<u32>(p.row + local) + 8u * FOUR;
    let last = vec4<u32>(params.row_end - 1u);
    let upper = min(row, last);
    let lower = min(row + 32u, last);
    let other_at = params.other_first + p.batch * params.other_batch + p.head / params.sharing * params.other_head;
    let own_at = params.own_first + p.batch * params.own_batch + p.head * params.own_head;
    let scale = score_scale(p.head);
    load_mine(own_at + upper * params.own_row, own_at + lower * params.own_row);
    var above = no_keys(upper, known_terms(p.batch, p.head, upper));
    var below = no_keys(lower, known_terms(p.batch, p.head, lower));
    let upper_rows = rows_of(upper);
    let lower_rows = rows_of(lower);
    let range = key_range(p.slice, p.row, ROWS);
    for (var j = range.x; j < range.y; j += 2u) {
        let key = min(vec2<u32>(j, j + 1u), vec2<u32>(params.keys - 1u));
        let is_there = vec2<bool>(has_key(p.batch, j, range.y), has_key(p.batch, j + 1u, range.y));
        load_pair(other_at + key * params.other_row, is_there, lane);
        let t = products();
        above = add_key(above, scores(scale * t[0], p.batch, p.head, upper_rows, row_of(j), is_there.xxxx), j);
        below = add_key(below, scores(scale * t[2], p.batch, p.head, lower_rows, row_of(j), is_there.xxxx), j);
        above = add_key(above, scores(scale * t[1], p.batch, p.head, upper_rows, row_of(j + 1u), is_there.yyyy), j + 1u);
        below = add_key(below, scores(scale * t[3], p.batch, p.head, lower_rows, row_of(j + 1u), is_there.yyyy), j + 1u);
    }
    let at = ((p.slice * params.batch + p.batch) * params.heads + p.head) * params.queries;
    put_rows(at + row, row <= last, above);
    put_rows(at + row + 32u, row + 32u <= last, below);
}

// What four keys receive from a query, with its log-sum-exp and weight.
fn received(s: vec4<f32>, l: f32, weight: f32) -> vec4<f32> {
    return select(weight * probabilities(s - l), vec4<f32>(), s == vec4<f32>(HIDDEN));
}

fn put_masses(at: vec4<u32>, is_own: vec4<bool>, mass: vec4<f32>) {
    if is_own.x { column_parts[at.x] = mass.x; }
    if is_own.y { column_parts[at.y] = mass.y; }
    if is_own.z { column_parts[at.z] = mass.z; }
    if is_own.w { column_parts[at.w] = mass.w; }
}

fn masks(batch: u32, key: vec4<u32>) -> vec4<bool> {
    return vec4<bool>(is_masked(batch, key.x), is_masked(batch, key.y), is_masked(batch, key.z), is_masked(batch, key.w));
}

@compute @workgroup_size(8)
fn columns(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, ROWS);
    let row = vec4<u32>(p.row + local) + 8u * FOUR;
    let last = vec4<u32>(params.row_end - 1u);
    let upper = min(row, last);
    let lower = min(row + 32u, last);
    let other_at = params.other_first + p.batch * params.other_batch + p.head * params.other_head;
    let own_at = params.own_first + p.batch * params.own_batch + p.head / params.sharing * params.own_head;
    let scale = score_scale(p.head);
    load_mine(own_at + upper * params.own_row, own_at + lower * params.own_row);
    let upper_keys = rows_of(upper);
    let lower_keys = rows_of(lower);
    let first_row = (p.batch * params.heads + p.head) * params.queries;
    var above = vec4<f32>();
    var below = vec4<f32>();
    let range = query_range(p.slice, p.row, ROWS);
    for (var i = range.x; i < range.y; i += 2u) {
        let query = min(vec2<u32>(i, i + 1u), vec2<u32>(params.queries - 1u));
        let is_there = vec2<u32>(i, i + 1u) < range.yy;
        load_pair(other_at + query * params.other_row, is_there, lane);
        // What belongs to either query: even lanes have the first's.
        let own = min(i + lane % 2u, params.queries - 1u);
        let l = side[params.rows_at + 2u * (first_row + own)];
        var weight = 1.0;
        if WEIGHTED { weight = weights[p.batch * params.queries + own]; }
        let l0 = subgroupShuffle(l, 0u);
        let l1 = subgroupShuffle(l, 1u);
        let w0 = subgroupShuffle(weight, 0u);
        let w1 = subgroupShuffle(weight, 1u);
        let t = products();
        above += received(scores(scale * t[0], p.batch, p.head, row_of(i), upper_keys, is_there.xxxx), l0, w0);
        below += received(scores(scale * t[2], p.batch, p.head, row_of(i), lower_keys, is_there.xxxx), l0, w0);
        above += received(scores(scale * t[1], p.batch, p.head, row_of(i + 1u), upper_keys, is_there.yyyy), l1, w1);
        below += received(scores(scale * t[3], p.batch, p.head, row_of(i + 1u), lower_keys, is_there.yyyy), l1, w1);
    }
    let at = ((p.slice * params.batch + p.batch) * params.heads + p.head) * params.keys;
    put_masses(at + row, row <= last, select(above, vec4<f32>(), masks(p.batch, upper)));
    put_masses(at + row + 32u, row + 32u <= last, select(below, vec4<f32>(), masks(p.batch, lower)));
}
