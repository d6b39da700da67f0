// Attention statistics for GPUs (formulas: attention/attention_statistics.wgsl), on the tiles of scores of
// attention/flash_attention_tiled.wgsl.
//
// A workgroup of 64 has 8 ROWS own rows, queries (rows) or keys (columns), and walks along the other side. An
// invocation adds up what its own columns of the tile say about its ROWS rows; at the end, eight invocations
// put their sums of a row together. No weight is ever stored. Workgroup memory: 512 (ROWS + 4) + 1,024 ROWS
// bytes, 14 KiB with 8 rows.

@group(0) @binding(3) var<storage, read> weights: array<f32>;                 // [batch, queries]
@group(0) @binding(6) var<storage, read_write> row_parts: array<vec4<u32>>;   // [slices, batch, heads, queries]
@group(0) @binding(6) var<storage, read_write> column_parts: array<f32>;      // [slices, batch, heads, keys]

var<workgroup> parts: array<vec4<u32>, 8u * TILE_ROWS>;                       // [8, own rows]

// Keys take turns.
fn add_keys(parts: RowParts, s: mat4x4<f32>, key: u32) -> RowParts {
    var t = transpose(s);
    var p = parts;
    for (var c = 0u; c < 4u; c++) {
        p = add_key(p, t[0], key + c);
        t = mat4x4<f32>(t[1], t[2], t[3], t[0]);
    }
    return p;
}

fn no_keys_yet(p: Place, row: u32) -> RowParts {
    return no_keys(p.row + row + FOUR, four_terms(p.batch, p.head, p.row + row, params.row_end - 1u).l);
}

fn put_row_parts(local: u32, quad: u32, p: RowParts) {
    let at = local % 8u * TILE_ROWS + first_row(local, quad);
    let entropy = bitcast<vec4<u32>>(p.entropy);
    let distance = bitcast<vec4<u32>>(p.distance);
    let best = bitcast<vec4<u32>>(p.best);
    parts[at] = vec4<u32>(entropy.x, distance.x, best.x, p.best_at.x);
    parts[at + 1u] = vec4<u32>(entropy.y, distance.y, best.y, p.best_at.y);
    parts[at + 2u] = vec4<u32>(entropy.z, distance.z, best.z, p.best_at.z);
    parts[at + 3u] = vec4<u32>(entropy.w, distance.w, best.w, p.best_at.w);
}

@compute @workgroup_size(64)
fn rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, TILE_ROWS);
    let b = base_of(p.batch, p.head, p.head / params.sharing, p.head);
    let row0 = first_row(local, 0u);
    let row1 = first_row(local, 1u);
    var above = no_keys_yet(p, row0);
    var below = no_keys_yet(p, row1);
    let range = key_range(p.slice, p.row, TILE_ROWS);
    for (var j = range.x; j < range.y; j += TILE_COLUMNS) {
        compute_products(b, p.row, j, range.y, local);
        to_scores(b, p.row, j, range.y, local);
        let key = j + first_column(local);
        above = add_keys(above, pairs0, key);
        if TALL { below = add_keys(below, pairs1, key); }
    }
    put_row_parts(local, 0u, above);
    if TALL { put_row_parts(local, 1u, below); }
    workgroupBarrier();
    let at = ((p.slice * params.batch + p.batch) * params.heads + p.head) * params.queries;
    for (var row = local; row < TILE_ROWS; row += 64u) {
        if p.row + row >= params.row_end { continue; }
        var row_entropy = 0.0;
        var row_distance = 0.0;
        var highest = HIDDEN;
        var highest_at = NO_KEY;
        for (var i = 0u; i < 8u; i++) {
            let part = parts[i * TILE_ROWS + row];
            row_entropy += bitcast<f32>(part.x);
            row_distance += bitcast<f32>(part.y);
            let s = bitcast<f32>(part.z);
            if s > highest || (s == highest && part.w < highest_at) {
                highest = s;
                highest_at = part.w;
            }
        }
        row_parts[at + p.row + row] = vec4<u32>(bitcast<u32>(row_entropy), bitcast<u32>(row_distance),
                                                bitcast<u32>(highest), highest_at);
    }
}

// What four rows of keys receive from four columns of queries.
fn received(b: Base, s: mat4x4<f32>, first: u32) -> vec4<f32> {
    let last = params.queries - 1u;
    let l = four_terms(b.batch, b.head, first, last).l;
    var weight = vec4<f32>(1.0);
    if WEIGHTED {
        let at = b.batch * params.queries;
        weight = vec4<f32>(weights[at + min(first, last)], weights[at + min(first + 1u, last)],
                           weights[at + min(first + 2u, last)], weights[at + min(first + 3u, last)]);
    }
    let hidden = vec4<f32>(HIDDEN);
    let w = column_probabilities(s, l);
    return row_sums(mat4x4<f32>(select(w[0] * weight, vec4<f32>(), s[0] == hidden), select(w[1] * weight, vec4<f32>(), s[1] == hidden),
                                select(w[2] * weight, vec4<f32>(), s[2] == hidden), select(w[3] * weight, vec4<f32>(), s[3] == hidden)));
}

fn put_mass(local: u32, quad: u32, mass: vec4<f32>) {
    let at = local % 8u * TILE_ROWS + first_row(local, quad);
    let bits = bitcast<vec4<u32>>(mass);
    parts[at] = vec4<u32>(bits.x, 0u, 0u, 0u);
    parts[at + 1u] = vec4<u32>(bits.y, 0u, 0u, 0u);
    parts[at + 2u] = vec4<u32>(bits.z, 0u, 0u, 0u);
    parts[at + 3u] = vec4<u32>(bits.w, 0u, 0u, 0u);
}

@compute @workgroup_size(64)
fn columns(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, TILE_ROWS);
    let b = base_of(p.batch, p.head / params.sharing, p.head, p.head);
    var above = vec4<f32>();
    var below = vec4<f32>();
    let range = query_range(p.slice, p.row, TILE_ROWS);
    for (var i = range.x; i < range.y; i += TILE_COLUMNS) {
        compute_products(b, p.row, i, range.y, local);
        to_scores(b, p.row, i, range.y, local);
        above += received(b, pairs0, i + first_column(local));
        if TALL { below += received(b, pairs1, i + first_column(local)); }
    }
    put_mass(local, 0u, above);
    if TALL { put_mass(local, 1u, below); }
    workgroupBarrier();
    let at = ((p.slice * params.batch + p.batch) * params.heads + p.head) * params.keys;
    for (var row = local; row < TILE_ROWS; row += 64u) {
        let key = p.row + row;
        if key >= params.row_end { continue; }
        var sum = 0.0;
        for (var i = 0u; i < 8u; i++) { sum += bitcast<f32>(parts[i * TILE_ROWS + row].x); }
        column_parts[at + key] = select(sum, 0.0, is_masked(p.batch, key));
    }
}
