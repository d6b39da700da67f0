// Statistics of attention's weights without their matrix, from the log-sum-exp L that is known
// (scores: attention/flash_attention.wgsl): P_ij = exp(S_ij - L_i), and
//
//   rows:     sum_j -P_ij log2 P_ij, the entropy; the largest S_ij and the first j that has it;
//             sum_j P_ij |place_i - place_j|, the distance in patches (Dosovitskiy et al. 2021, appendix D.7)
//   columns:  sum_i w_i P_ij, the mass that key j receives: w = 1, or a row vector times P
//   hops:     sum of P_ij over the pairs with max(|dy|, |dx|) = k: a ring of patches around each query
//   tile:     P_ij itself, of some rows and columns
//
// This is the plain variant, the oracle of the others: an invocation has a query (rows), a key (columns), a query
// and a ring that it walks around (hops), or an element (tile). Sums are partial: of a slice of the other side,
// or of 64 queries; attention/attention_statistics_merge.wgsl adds them. Tokens before the grid have no place:
// their pairs have no distance and no ring. Workgroup memory: hops 256 bytes.

@group(0) @binding(3) var<storage, read> weights: array<f32>;                 // [batch, queries]
@group(0) @binding(6) var<storage, read_write> row_parts: array<vec4<u32>>;   // [slices, batch, heads, queries]
@group(0) @binding(6) var<storage, read_write> column_parts: array<f32>;      // [slices, batch, heads, keys]
@group(0) @binding(6) var<storage, read_write> hop_parts: array<f32>;         // [batch, heads, tiles, hops]
@group(0) @binding(6) var<storage, read_write> block: array<f32>;             // [batch, heads, rows, columns]

var<private> own_scaled: array<vec4<f32>, D4>;

fn load_own(p: Place, own_head: u32, row: u32, scale: f32) {
    let at = params.own_first + p.batch * params.own_batch + own_head * params.own_head + row * params.own_row;
    for (var c = 0u; c < D4; c++) { own_scaled[c] = scale * get_own(at, c); }
}

fn product_with(at: u32) -> f32 {
    var product = vec4<f32>();
    for (var c = 0u; c < D4; c++) { product = fma(own_scaled[c], get_other(at, c), product); }
    return product.x + product.y + product.z + product.w;
}

fn other_at(p: Place, other_head: u32) -> u32 {
    return params.other_first + p.batch * params.other_batch + other_head * params.other_head;
}

// The score of a query, which is loaded, and a key.
fn score_of_key(p: Place, at: u32, i: u32, j: u32) -> f32 {
    if is_masked(p.batch, j) || !sees(i, j) { return HIDDEN; }
    return add_bias(product_with(at + j * params.other_row), p.batch, p.head, i, j, grid_place(i), grid_place(j));
}

@compute @workgroup_size(64)
fn rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let p = place(group, 64u);
    let i = p.row + local;
    if group >= params.groups || i >= params.row_end { return; }
    let at = other_at(p, p.head / params.sharing);
    load_own(p, p.head, i, score_scale(p.head));
    let l = row_terms(p.batch, p.head, i).x;
    let own_point = patch_point(i);
    var entropy = 0.0;
    var distance = 0.0;
    var best = HIDDEN;
    var best_at = NO_KEY;
    let range = key_range(p.slice, i, 1u);
    for (var j = range.x; j < range.y; j++) {
        let s = score_of_key(p, at, i, j);
        if s == HIDDEN { continue; }
        let w = probability(s - l);
        entropy += surprise(w, s - l);
        if GRID { distance = fma(w, patch_distance(own_point, patch_point(j)), distance); }
        if s > best {
            best = s;
            best_at = j;
        }
    }
    row_parts[((p.slice * params.batch + p.batch) * params.heads + p.head) * params.queries + i] =
        vec4<u32>(bitcast<u32>(entropy), bitcast<u32>(distance), bitcast<u32>(best), best_at);
}

@compute @workgroup_size(64)
fn columns(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let p = place(group, 64u);
    let j = p.row + local;
    if group >= params.groups || j >= params.row_end { return; }
    let at = other_at(p, p.head);
    load_own(p, p.head / params.sharing, j, score_scale(p.head));
    var mass = 0.0;
    var range = query_range(p.slice, j, 1u);
    if is_masked(p.batch, j) { range.y = range.x; }
    for (var i = range.x; i < range.y; i++) {
        let s = add_bias(product_with(at + i * params.other_row), p.batch, p.head, i, j, grid_place(i), grid_place(j));
        if s == HIDDEN { continue; }
        let w = probability(s - row_terms(p.batch, p.head, i).x);
        if WEIGHTED { mass = fma(w, weights[p.batch * params.queries + i], mass); } else { mass += w; }
    }
    column_parts[((p.slice * params.batch + p.batch) * params.heads + p.head) * params.keys + j] = mass;
}

var<workgroup> ring_sums: array<f32, 64>;

@compute @workgroup_size(64)
fn hops(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let rings = max(params.grid_height, params.grid_width);
    let k = i32(group % rings);
    let p = place(group / rings, 64u);
    let i = p.row + local;
    var sum = 0.0;
    if i < params.row_end && i >= params.prefix {
        let at = other_at(p, p.head / params.sharing);
        load_own(p, p.head, i, score_scale(p.head));
        let l = row_terms(p.batch, p.head, i).x;
        let own = vec2<i32>(patch_place(i));
        let size = vec2<i32>(i32(params.grid_height), i32(params.grid_width));
        // Above, below, and without the corners left and right; the own patch is above itself.
        for (var side = 0u; side < select(4u, 1u, k == 0); side++) {
            let is_column = side >= 2u;
            let away = select(-k, k, side % 2u == 1u);
            let y = own.x + away;
            let x = own.y + away;
            var first = max(own.y - k, 0);
            var end = min(own.y + k + 1, size.y);
            var is_inside = y >= 0 && y < size.x;
            if is_column {
                first = max(own.x - k + 1, 0);
                end = min(own.x + k, size.x);
                is_inside = x >= 0 && x < size.y;
            }
            if !is_inside { continue; }
            for (var u = first; u < end; u++) {
                let j = params.prefix + u32(select(y * size.y + u, u * size.y + x, is_column));
                let s = score_of_key(p, at, i, j);
                // (Of NaN, "not equal" need not be true.)
                sum += select(probability(s - l), 0.0, s == HIDDEN);
            }
        }
    }
    ring_sums[local] = sum;
    workgroupBarrier();
    if local == 0u {
        for (var other = 1u; other < 64u; other++) { sum += ring_sums[other]; }
        hop_parts[group] = sum;
    }
}

@compute @workgroup_size(64)
fn tile(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let index = group * 64u + local;
    let columns = params.column_end - params.column_first;
    let rows = params.row_end - params.row_first;
    let matrix = index / columns / rows;
    if group >= params.groups || matrix >= params.batch * params.heads { return; }
    let p = Place(0u, matrix / params.heads, matrix % params.heads, 0u);
    let i = params.row_first + index / columns % rows;
    let j = params.column_first + index % columns;
    load_own(p, p.head, i, score_scale(p.head));
    let s = score_of_key(p, other_at(p, p.head / params.sharing), i, j);
    block[index] = select(probability(s - row_terms(p.batch, p.head, i).x), 0.0, s == HIDDEN);
}
