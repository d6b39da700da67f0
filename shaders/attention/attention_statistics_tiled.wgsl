// Attention statistics for GPUs (formulas: attention/attention_statistics.wgsl), on the tiles of scores of
// attention/flash_attention_tiled.wgsl.
//
// A workgroup of 64 has 8 ROWS own rows, queries (rows) or keys (columns), and walks along the other side. An
// invocation adds up what its own columns of the tile say about its ROWS rows; at the end, eight invocations
// put their sums of a row together. No weight is ever stored. Workgroup memory: 512 (ROWS + COLUMNS) + 1,024 ROWS
// bytes, 16 KiB at 8 x 8.

@group(0) @binding(3) var<storage, read> weights: array<f32>;                 // [batch, queries]
@group(0) @binding(6) var<storage, read_write> row_parts: array<vec4<u32>>;   // [slices, batch, heads, queries]
@group(0) @binding(6) var<storage, read_write> column_parts: array<f32>;      // [slices, batch, heads, keys]

var<workgroup> parts: array<vec4<u32>, 8u * TILE_ROWS>;                       // [8, own rows]

// Within the tile.
fn own_row(local: u32, r: u32) -> u32 {
    return first_row(local, r / 4u) + r % 4u;
}

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

@compute @workgroup_size(64)
fn rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, TILE_ROWS);
    let b = base_of(p.batch, p.head, p.head / params.sharing, p.head);
    let last = params.row_end - 1u;
    var l: array<f32, ROWS>;
    var entropy: array<f32, ROWS>;
    var distance: array<f32, ROWS>;
    var best: array<f32, ROWS>;
    var best_at: array<u32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        l[r] = row_terms(p.batch, p.head, min(p.row + own_row(local, r), last)).x;
        entropy[r] = 0.0;
        distance[r] = 0.0;
        best[r] = HIDDEN;
        best_at[r] = NO_KEY;
    }
    let range = key_range(p.slice, p.row, TILE_ROWS);
    for (var j = range.x; j < range.y; j += TILE_COLUMNS) {
        compute_products(b, p.row, j, range.y, local);
        to_scores(b, p.row, j, range.y, local);
        for (var c4 = 0u; c4 < COLUMNS4; c4++) {
            let key = j + first_column(local, c4);
            let point0 = patch_point(key);
            let point1 = patch_point(key + 1u);
            let point2 = patch_point(key + 2u);
            let point3 = patch_point(key + 3u);
            for (var r = 0u; r < ROWS; r++) {
                let s = products[r * COLUMNS4 + c4];
                let d = s - vec4<f32>(l[r]);
                let w = select(probabilities(d), vec4<f32>(), s == vec4<f32>(HIDDEN));
                entropy[r] += (surprise(w.x, d.x) + surprise(w.y, d.y)) + (surprise(w.z, d.z) + surprise(w.w, d.w));
                if GRID {
                    let own = patch_point(p.row + own_row(local, r));
                    distance[r] += total(w * vec4<f32>(patch_distance(own, point0), patch_distance(own, point1),
                                                       patch_distance(own, point2), patch_distance(own, point3)));
                }
                if s.x > best[r] { best[r] = s.x; best_at[r] = key; }
                if s.y > best[r] { best[r] = s.y; best_at[r] = key + 1u; }
                if s.z > best[r] { best[r] = s.z; best_at[r] = key + 2u; }
                if s.w > best[r] { best[r] = s.w; best_at[r] = key + 3u; }
            }
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        parts[local % 8u * TILE_ROWS + own_row(local, r)] =
            vec4<u32>(bitcast<u32>(entropy[r]), bitcast<u32>(distance[r]), bitcast<u32>(best[r]), best_at[r]);
    }
    workgroupBarrier();
    let at = ((p.slice * params.batch + p.batch) * params.heads + p.head) * params.queries;
    for (var row = local; row < TILE_ROWS; row += 64u) {
        if p.row + row > last { continue; }
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

@compute @workgroup_size(64)
fn columns(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, TILE_ROWS);
    let b = base_of(p.batch, p.head / params.sharing, p.head, p.head);
    let last_query = params.queries - 1u;
    var mass: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { mass[r] = 0.0; }
    let range = query_range(p.slice, p.row, TILE_ROWS);
    for (var i = range.x; i < range.y; i += TILE_COLUMNS) {
        compute_products(b, p.row, i, range.y, local);
        to_scores(b, p.row, i, range.y, local);
        for (var c4 = 0u; c4 < COLUMNS4; c4++) {
            let query = min(vec4<u32>(i + first_column(local, c4)) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last_query));
            let l = vec4<f32>(row_terms(p.batch, p.head, query.x).x, row_terms(p.batch, p.head, query.y).x,
                              row_terms(p.batch, p.head, query.z).x, row_terms(p.batch, p.head, query.w).x);
            var weight = vec4<f32>(1.0);
            if WEIGHTED {
                let at = p.batch * params.queries;
                weight = vec4<f32>(weights[at + query.x], weights[at + query.y], weights[at + query.z], weights[at + query.w]);
            }
            for (var r = 0u; r < ROWS; r++) {
                let s = products[r * COLUMNS4 + c4];
                mass[r] += total(select(probabilities(s - l) * weight, vec4<f32>(), s == vec4<f32>(HIDDEN)));
            }
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        parts[local % 8u * TILE_ROWS + own_row(local, r)] = vec4<u32>(bitcast<u32>(mass[r]), 0u, 0u, 0u);
    }
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
