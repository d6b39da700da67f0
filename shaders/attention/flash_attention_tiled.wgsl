// Flash attention for GPUs, in f32 (formulas: attention/flash_attention.wgsl).
//
// A workgroup of 64 has a tile of 8 ROWS own rows, and walks along the other side by 8 COLUMNS rows at a time.
// Products: STEP columns of both sides at a time pass through workgroup memory, stored by column; an invocation
// has ROWS x COLUMNS scores in registers, in blocks of four that interleave with its neighbours' (64
// multiply-adds for 4 loads at 8 x 8). The weights go through workgroup memory, stored by other row, and
// weight the other rows, SPAN of them at a time, into the sums: ROWS rows x every eighth block of columns.
// ROWS and COLUMNS are what the device's workgroup memory and a budget of registers allow.
// Workgroup memory: 512 (ROWS + COLUMNS) + 256 ROWS COLUMNS + 4 bytes: 24 KiB at 8 x 8, 14 KiB at 8 x 4.
//
// A weight of 0 times NaN is NaN. Rows that are not there are zeros; where a window or a matrix hides single
// pairs, a tile that has such pairs leaves them out of the sums one by one.

@group(0) @binding(7) var<storage, read_write> lse: array<f32>;      // [slices, batch, heads, queries]
@group(0) @binding(8) var<storage, read_write> extra: array<f32>;

const TILE: u32 = TILE_ROWS4 * TILE_COLUMNS;
// Blocks of a sum that an invocation has, every eighth.
const BLOCKS: u32 = (D4 + 7u) / 8u;
const VALUE_BLOCKS: u32 = (DV4 + 7u) / 8u;
const SUM: u32 = ROWS * BLOCKS;
const VALUE_SUM: u32 = ROWS * VALUE_BLOCKS;
const SPAN: u32 = min(TILE_COLUMNS, STAGE / (8u * BLOCKS));
const VALUE_SPAN: u32 = min(TILE_COLUMNS, STAGE / (8u * VALUE_BLOCKS));
// Below every score, and far above HIDDEN: exp2(HIDDEN - m) is 0.
const FLOOR: f32 = -2.0e38;
const CAREFUL: bool = WINDOW || BIAS == 1u;

var<workgroup> tile: array<vec4<f32>, TILE>;      // weights: [other rows, own rows]
var<workgroup> hidden_tile: atomic<u32>;          // one more than the last tile with hidden pairs

var<private> value_products: array<vec4<f32>, PRODUCTS>;
var<private> sums: array<vec4<f32>, SUM>;                 // [ROWS, BLOCKS]
var<private> value_sums: array<vec4<f32>, VALUE_SUM>;

fn own_values_block(at: u32, row: u32, block: u32) -> vec4<f32> {
    if row >= params.row_end { return vec4<f32>(); }
    return get_own_values(at + row * params.own_values_row, block);
}

fn other_values_block(at: u32, batch: u32, row: u32, end: u32, block: u32) -> vec4<f32> {
    if !is_there(batch, row, end) { return vec4<f32>(); }
    return get_other_values(at + row * params.other_values_row, block);
}

fn stage_own_values(at: u32, row: u32, block: u32, local: u32) {
    for (var i = local; i < TILE_ROWS; i += 64u) {
        let r = row + i / 4u * 4u;
        let c = block + i % 4u;
        put_stage(i % 4u * 4u * TILE_ROWS4 + i / 4u, TILE_ROWS4,
                  transpose(mat4x4<f32>(own_values_block(at, r, c), own_values_block(at, r + 1u, c),
                                        own_values_block(at, r + 2u, c), own_values_block(at, r + 3u, c))));
    }
}

fn stage_other_values(at: u32, batch: u32, row: u32, end: u32, block: u32, local: u32) {
    for (var i = local; i < TILE_COLUMNS; i += 64u) {
        let r = row + i / 4u * 4u;
        let c = block + i % 4u;
        put_stage(STAGE_OWN + i % 4u * 4u * TILE_COLUMNS4 + i / 4u, TILE_COLUMNS4,
                  transpose(mat4x4<f32>(other_values_block(at, batch, r, end, c),
                                        other_values_block(at, batch, r + 1u, end, c),
                                        other_values_block(at, batch, r + 2u, end, c),
                                        other_values_block(at, batch, r + 3u, end, c))));
    }
}

// The products of the values, kept aside.
fn compute_value_products(b: Base, row: u32, column: u32, end: u32, local: u32) {
    for (var i = 0u; i < PRODUCTS; i++) { products[i] = vec4<f32>(); }
    for (var block = 0u; block < DV4; block += STEP / 4u) {
        workgroupBarrier();
        stage_own_values(b.own_values, row, block, local);
        stage_other_values(b.other_values, b.batch, column, end, block, local);
        workgroupBarrier();
        add_products(local);
    }
    for (var i = 0u; i < PRODUCTS; i++) { value_products[i] = products[i]; }
}

// All of this invocation's products become scores. `number` is that of the tile.
fn compute_scores(b: Base, row: u32, column: u32, end: u32, number: u32, local: u32) {
    let is_hidden = to_scores(b, row, column, end, local);
    if CAREFUL && is_hidden { atomicMax(&hidden_tile, number + 1u); }
}

// Four rows of weights of four columns, to where all can read them.
fn put_tile(local: u32, r4: u32, c4: u32, t: mat4x4<f32>) {
    let at = first_column(local, c4) * TILE_ROWS4 + first_row(local, r4) / 4u;
    let w = transpose(t);
    tile[at] = w[0];
    tile[at + TILE_ROWS4] = w[1];
    tile[at + 2u * TILE_ROWS4] = w[2];
    tile[at + 3u * TILE_ROWS4] = w[3];
}

// A hidden weight is marked where it matters.
fn mark(w: vec4<f32>, s: vec4<f32>) -> vec4<f32> {
    if !CAREFUL { return w; }
    return select(w, vec4<f32>(HIDDEN), s == vec4<f32>(HIDDEN));
}

fn add_weighted(sum: vec4<f32>, w: f32, v: vec4<f32>, careful: bool) -> vec4<f32> {
    if CAREFUL && careful && w == HIDDEN { return sum; }
    return fma(vec4<f32>(w), v, sum);
}

// Adds what the tile weights: other rows from `column`.
fn add_other(b: Base, column: u32, end: u32, careful: bool, local: u32) {
    for (var first = 0u; first < TILE_COLUMNS; first += SPAN) {
        let span = min(SPAN, TILE_COLUMNS - first);
        workgroupBarrier();
        for (var i = local; i < span * 8u * BLOCKS; i += 64u) {
            stage[i] = other_block(b.other, b.batch, column + first + i / (8u * BLOCKS), end, i % (8u * BLOCKS));
        }
        workgroupBarrier();
        for (var k = 0u; k < span; k++) {
            for (var r4 = 0u; r4 < ROWS4; r4++) {
                let w = tile[(first + k) * TILE_ROWS4 + 8u * r4 + local / 8u];
                for (var u = 0u; u < BLOCKS; u++) {
                    let v = stage[k * 8u * BLOCKS + 8u * u + local % 8u];
                    let s = r4 * 4u * BLOCKS + u;
                    sums[s] = add_weighted(sums[s], w.x, v, careful);
                    sums[s + BLOCKS] = add_weighted(sums[s + BLOCKS], w.y, v, careful);
                    sums[s + 2u * BLOCKS] = add_weighted(sums[s + 2u * BLOCKS], w.z, v, careful);
                    sums[s + 3u * BLOCKS] = add_weighted(sums[s + 3u * BLOCKS], w.w, v, careful);
                }
            }
        }
    }
}

fn add_other_values(b: Base, column: u32, end: u32, careful: bool, local: u32) {
    for (var first = 0u; first < TILE_COLUMNS; first += VALUE_SPAN) {
        let span = min(VALUE_SPAN, TILE_COLUMNS - first);
        workgroupBarrier();
        for (var i = local; i < span * 8u * VALUE_BLOCKS; i += 64u) {
            stage[i] = other_values_block(b.other_values, b.batch, column + first + i / (8u * VALUE_BLOCKS), end,
                                          i % (8u * VALUE_BLOCKS));
        }
        workgroupBarrier();
        for (var k = 0u; k < span; k++) {
            for (var r4 = 0u; r4 < ROWS4; r4++) {
                let w = tile[(first + k) * TILE_ROWS4 + 8u * r4 + local / 8u];
                for (var u = 0u; u < VALUE_BLOCKS; u++) {
                    let v = stage[k * 8u * VALUE_BLOCKS + 8u * u + local % 8u];
                    let s = r4 * 4u * VALUE_BLOCKS + u;
                    value_sums[s] = add_weighted(value_sums[s], w.x, v, careful);
                    value_sums[s + VALUE_BLOCKS] = add_weighted(value_sums[s + VALUE_BLOCKS], w.y, v, careful);
                    value_sums[s + 2u * VALUE_BLOCKS] = add_weighted(value_sums[s + 2u * VALUE_BLOCKS], w.z, v, careful);
                    value_sums[s + 3u * VALUE_BLOCKS] = add_weighted(value_sums[s + 3u * VALUE_BLOCKS], w.w, v, careful);
                }
            }
        }
    }
}

fn clear(local: u32) {
    if local == 0u { atomicStore(&hidden_tile, 0u); }
    for (var i = 0u; i < SUM; i++) { sums[i] = vec4<f32>(); }
    for (var i = 0u; i < VALUE_SUM; i++) { value_sums[i] = vec4<f32>(); }
}

// After a barrier: whether the tile has hidden pairs.
fn has_hidden(number: u32) -> bool {
    return CAREFUL && atomicLoad(&hidden_tile) == number + 1u;
}

// Four rows' values of this invocation, one of eight parts, to where all can read them.
fn put_part(local: u32, r4: u32, value: vec4<f32>) {
    stage[local % 8u * TILE_ROWS4 + first_row(local, r4) / 4u] = value;
}

fn part(local: u32, r4: u32, i: u32) -> vec4<f32> {
    return stage[i * TILE_ROWS4 + first_row(local, r4) / 4u];
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, TILE_ROWS);
    let b = base_of(p.batch, p.head, p.head / params.sharing, p.head);
    clear(local);
    var m: array<vec4<f32>, ROWS4>;      // four rows each
    var l: array<vec4<f32>, ROWS4>;      // of this invocation's columns
    for (var r4 = 0u; r4 < ROWS4; r4++) {
        m[r4] = vec4<f32>(FLOOR);
        l[r4] = vec4<f32>();
        if KNOWN {
            let last = params.row_end - 1u;
            let row = p.row + first_row(local, r4);
            m[r4] = vec4<f32>(row_terms(p.batch, p.head, min(row, last)).x, row_terms(p.batch, p.head, min(row + 1u, last)).x,
                              row_terms(p.batch, p.head, min(row + 2u, last)).x, row_terms(p.batch, p.head, min(row + 3u, last)).x);
        }
    }
    let range = key_range(p.slice, p.row, TILE_ROWS);
    for (var j = range.x; j < range.y; j += TILE_COLUMNS) {
        let number = (j - range.x) / TILE_COLUMNS;
        compute_products(b, p.row, j, range.y, local);
        compute_scores(b, p.row, j, range.y, number, local);
        workgroupBarrier();
        if !KNOWN {
            for (var r4 = 0u; r4 < ROWS4; r4++) {
                var highest = m[r4];
                for (var c4 = 0u; c4 < COLUMNS4; c4++) {
                    let s = r4 * 4u * COLUMNS4 + c4;
                    let t = transpose(mat4x4<f32>(products[s], products[s + COLUMNS4],
                                                  products[s + 2u * COLUMNS4], products[s + 3u * COLUMNS4]));
                    highest = max(highest, max(max(t[0], t[1]), max(t[2], t[3])));
                }
                put_part(local, r4, highest);
            }
        }
        workgroupBarrier();
        for (var r4 = 0u; r4 < ROWS4; r4++) {
            if !KNOWN {
                var highest = m[r4];
                for (var i = 0u; i < 8u; i++) { highest = max(highest, part(local, r4, i)); }
                let shrink = exp2(m[r4] - highest);
                m[r4] = highest;
                l[r4] *= shrink;
                for (var u = 0u; u < VALUE_BLOCKS; u++) {
                    let s = r4 * 4u * VALUE_BLOCKS + u;
                    value_sums[s] *= shrink.x;
                    value_sums[s + VALUE_BLOCKS] *= shrink.y;
                    value_sums[s + 2u * VALUE_BLOCKS] *= shrink.z;
                    value_sums[s + 3u * VALUE_BLOCKS] *= shrink.w;
                }
            }
            for (var c4 = 0u; c4 < COLUMNS4; c4++) {
                let at = r4 * 4u * COLUMNS4 + c4;
                let s = mat4x4<f32>(products[at], products[at + COLUMNS4], products[at + 2u * COLUMNS4], products[at + 3u * COLUMNS4]);
                var w = mat4x4<f32>();
                if KNOWN {
                    w = mat4x4<f32>(probabilities(s[0] - m[r4].xxxx), probabilities(s[1] - m[r4].yyyy),
                                    probabilities(s[2] - m[r4].zzzz), probabilities(s[3] - m[r4].wwww));
                } else {
                    w = mat4x4<f32>(exponentials(s[0] - m[r4].x), exponentials(s[1] - m[r4].y), exponentials(s[2] - m[r4].z), exponentials(s[3] - m[r4].w));
                    let t = transpose(w);
                    l[r4] += (t[0] + t[1]) + (t[2] + t[3]);
                }
                if VALUES {
                    put_tile(local, r4, c4, mat4x4<f32>(mark(w[0], s[0]), mark(w[1], s[1]), mark(w[2], s[2]), mark(w[3], s[3])));
                }
            }
        }
        if VALUES { add_other_values(b, j, range.y, has_hidden(number), local); }
    }
    // The sum of the weights of all columns, in order.
    workgroupBarrier();
    for (var r4 = 0u; r4 < ROWS4; r4++) { put_part(local, r4, l[r4]); }
    workgroupBarrier();
    let y_at = params.y_first + p.slice * params.y_slice + p.batch * params.y_batch + p.head * params.y_head;
    let lse_at = ((p.slice * params.batch + p.batch) * params.heads + p.head) * params.queries;
    for (var r4 = 0u; r4 < ROWS4; r4++) {
        var total = vec4<f32>();
        for (var i = 0u; i < 8u; i++) { total += part(local, r4, i); }
        for (var x = 0u; x < 4u; x++) {
            let row = p.row + first_row(local, r4) + x;
            if row >= params.row_end { continue; }
            let sum = select(select(total.x, total.y, x == 1u), select(total.z, total.w, x == 3u), x > 1u);
            let high = select(select(m[r4].x, m[r4].y, x == 1u), select(m[r4].z, m[r4].w, x == 3u), x > 1u);
            if VALUES {
                var factor = row_weight(p.batch, p.head, row);
                if !KNOWN { factor = select(factor / sum, 0.0, sum == 0.0); }
                for (var u = 0u; u < VALUE_BLOCKS; u++) {
                    put_o(y_at + row * params.y_row, 8u * u + local % 8u, factor * value_sums[(4u * r4 + x) * VALUE_BLOCKS + u]);
                }
            }
            if !KNOWN && local % 8u == 0u { lse[lse_at + row] = log_sum(high, sum); }
        }
    }
}

// dS of four pairs; a hidden pair has none, whatever its terms are.
fn score_gradients(s: vec4<f32>, w: vec4<f32>, dp: vec4<f32>, factor: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    return select(w * (factor * dp - d), vec4<f32>(), s == vec4<f32>(HIDDEN));
}

@compute @workgroup_size(64)
fn backward_queries(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, TILE_ROWS);
    let b = base_of(p.batch, p.head, p.head / params.sharing, p.head);
    clear(local);
    let last = params.row_end - 1u;
    let matrix = p.batch * params.heads + p.head;
    var gate_sums: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { gate_sums[r] = 0.0; }
    let range = key_range(p.slice, p.row, TILE_ROWS);
    for (var j = range.x; j < range.y; j += TILE_COLUMNS) {
        let number = (j - range.x) / TILE_COLUMNS;
        compute_value_products(b, p.row, j, range.y, local);
        compute_products(b, p.row, j, range.y, local);
        compute_scores(b, p.row, j, range.y, number, local);
        for (var r = 0u; r < ROWS; r++) {
            let row = p.row + first_row(local, r / 4u) + r % 4u;
            let terms = row_terms(p.batch, p.head, min(row, last));
            let factor = row_weight(p.batch, p.head, min(row, last));
            for (var c4 = 0u; c4 < COLUMNS4; c4++) {
                let s = products[r * COLUMNS4 + c4];
                let dp = value_products[r * COLUMNS4 + c4];
                let w = probabilities(s - terms.x);
                let ds = score_gradients(s, w, dp, vec4<f32>(factor), vec4<f32>(terms.y));
                let gate_terms = select(w * dp, vec4<f32>(), s == vec4<f32>(HIDDEN));
                gate_sums[r] += (gate_terms.x + gate_terms.y) + (gate_terms.z + gate_terms.w);
                products[r * COLUMNS4 + c4] = mark(ds, s);
                let key = j + first_column(local, c4);
                if WRITE_DS && row <= last {
                    let at = params.extra_ds + (matrix * (params.row_end - params.row_first) + row - params.row_first) * params.keys + key;
                    if key < range.y { extra[at] = ds.x; }
                    if key + 1u < range.y { extra[at + 1u] = ds.y; }
                    if key + 2u < range.y { extra[at + 2u] = ds.z; }
                    if key + 3u < range.y { extra[at + 3u] = ds.w; }
                }
            }
        }
        for (var r4 = 0u; r4 < ROWS4; r4++) {
            for (var c4 = 0u; c4 < COLUMNS4; c4++) {
                let s = r4 * 4u * COLUMNS4 + c4;
                put_tile(local, r4, c4, mat4x4<f32>(products[s], products[s + COLUMNS4],
                                                    products[s + 2u * COLUMNS4], products[s + 3u * COLUMNS4]));
            }
        }
        workgroupBarrier();
        add_other(b, j, range.y, has_hidden(number), local);
    }
    let at = params.y_first + p.slice * params.y_slice + p.batch * params.y_batch + p.head * params.y_head;
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) {
        let row = p.row + first_row(local, r / 4u) + r % 4u;
        // Part of <q, sums>, and of the gate's sum.
        var dot = vec4<f32>();
        if row <= last {
            for (var u = 0u; u < BLOCKS; u++) {
                let block = 8u * u + local % 8u;
                if SUMS { dot = fma(get_own(b.own + row * params.own_row, block), sums[r * BLOCKS + u], dot); }
                put_d_own(at + row * params.y_row, block, (LN_2 * b.scale) * sums[r * BLOCKS + u]);
            }
        }
        if SUMS {
            tile[(first_row(local, r / 4u) + r % 4u) * 8u + local % 8u] =
                vec4<f32>((dot.x + dot.y) + (dot.z + dot.w), gate_sums[r], 0.0, 0.0);
        }
    }
    workgroupBarrier();
    if SUMS {
        for (var i = local; i < TILE_ROWS; i += 64u) {
            let row = p.row + i;
            if row <= last {
                var sum = vec4<f32>();
                for (var k = 0u; k < 8u; k++) { sum += tile[i * 8u + k]; }
                let sums_at = params.extra_sums
                            + 2u * ((p.slice * params.batch * params.heads + matrix) * params.queries + row);
                extra[sums_at] = sum.x;
                extra[sums_at + 1u] = sum.y;
            }
        }
    }
}

@compute @workgroup_size(64)
fn backward_keys(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, TILE_ROWS);
    clear(local);
    let range = query_range(p.slice, p.row, TILE_ROWS);
    var number = 0u;
    for (var head = p.head * params.sharing; head < (p.head + 1u) * params.sharing; head++) {
        let b = base_of(p.batch, p.head, head, head);
        for (var i = range.x; i < range.y; i += TILE_COLUMNS) {
            if KEYS { compute_value_products(b, p.row, i, range.y, local); }
            compute_products(b, p.row, i, range.y, local);
            compute_scores(b, p.row, i, range.y, number, local);
            for (var c4 = 0u; c4 < COLUMNS4; c4++) {
                let query = min(vec4<u32>(i + first_column(local, c4)) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.queries - 1u));
                let t = transpose(mat4x2<f32>(row_terms(p.batch, head, query.x), row_terms(p.batch, head, query.y),
                                              row_terms(p.batch, head, query.z), row_terms(p.batch, head, query.w)));
                let factor = vec4<f32>(row_weight(p.batch, head, query.x), row_weight(p.batch, head, query.y),
                                       row_weight(p.batch, head, query.z), row_weight(p.batch, head, query.w));
                for (var r4 = 0u; r4 < ROWS4; r4++) {
                    let at = r4 * 4u * COLUMNS4 + c4;
                    let s = mat4x4<f32>(products[at], products[at + COLUMNS4], products[at + 2u * COLUMNS4], products[at + 3u * COLUMNS4]);
                    let w = mat4x4<f32>(probabilities(s[0] - t[0]), probabilities(s[1] - t[0]),
                                        probabilities(s[2] - t[0]), probabilities(s[3] - t[0]));
                    if VALUES {
                        put_tile(local, r4, c4, mat4x4<f32>(mark(factor * w[0], s[0]), mark(factor * w[1], s[1]),
                                                            mark(factor * w[2], s[2]), mark(factor * w[3], s[3])));
                    }
                    if KEYS {
                        let scale = LN_2 * b.scale;
                        products[at] = mark(scale * score_gradients(s[0], w[0], value_products[at], factor, t[1]), s[0]);
                        products[at + COLUMNS4] =
                            mark(scale * score_gradients(s[1], w[1], value_products[at + COLUMNS4], factor, t[1]), s[1]);
                        products[at + 2u * COLUMNS4] =
                            mark(scale * score_gradients(s[2], w[2], value_products[at + 2u * COLUMNS4], factor, t[1]), s[2]);
                        products[at + 3u * COLUMNS4] =
                            mark(scale * score_gradients(s[3], w[3], value_products[at + 3u * COLUMNS4], factor, t[1]), s[3]);
                    }
                }
            }
            workgroupBarrier();
            let careful = has_hidden(number);
            if VALUES { add_other_values(b, i, range.y, careful, local); }
            if KEYS {
                workgroupBarrier();
                for (var r4 = 0u; r4 < ROWS4; r4++) {
                    for (var c4 = 0u; c4 < COLUMNS4; c4++) {
                        let s = r4 * 4u * COLUMNS4 + c4;
                        put_tile(local, r4, c4, mat4x4<f32>(products[s], products[s + COLUMNS4],
                                                            products[s + 2u * COLUMNS4], products[s + 3u * COLUMNS4]));
                    }
                }
                add_other(b, i, range.y, careful, local);
            }
            number += 1u;
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        let row = p.row + first_row(local, r / 4u) + r % 4u;
        if row >= params.row_end { continue; }
        let is_kept = !is_masked(p.batch, row);
        if KEYS {
            let at = params.y_first + p.slice * params.y_slice + p.batch * params.y_batch + p.head * params.y_head;
            for (var u = 0u; u < BLOCKS; u++) {
                put_d_own(at + row * params.y_row, 8u * u + local % 8u, select(vec4<f32>(), sums[r * BLOCKS + u], is_kept));
            }
        }
        if VALUES {
            let at = params.z_first + p.slice * params.z_slice + p.batch * params.z_batch + p.head * params.z_head;
            for (var u = 0u; u < VALUE_BLOCKS; u++) {
                put_d_own_values(at + row * params.z_row, 8u * u + local % 8u,
                                 select(vec4<f32>(), value_sums[r * VALUE_BLOCKS + u], is_kept));
            }
        }
    }
}
