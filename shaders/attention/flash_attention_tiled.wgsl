// Flash attention for GPUs, in f32 (formulas: attention/flash_attention.wgsl).
//
// A workgroup of 64 has a tile of 8 ROWS own rows, and walks along the other side by 32 rows at a time.
// Products: STEP columns of both sides at a time pass through workgroup memory, stored by column; an invocation
// has ROWS x 4 scores in registers, in blocks of four that interleave with its neighbours'. The weights go
// through workgroup memory, stored by other row, and weight the other rows, SPAN of them at a time, into the
// sums: ROWS rows x every eighth block of columns. Backwards the weights wait there for the products of the
// values, which take the scores' registers.
// ROWS is 8 where workgroup memory and a budget of registers allow it and a GPU has rows enough for it, else 4.
// Workgroup memory: 512 (ROWS + 4) + 1,024 ROWS + 4 bytes: 14 KiB with 8 rows, 8 KiB with 4.
//
// v2: scores and sums have names instead of array indices, and what is stored crosswise is shifted by columns,
// against conflicts of banks: 1.9 to 2.0 times as fast forward on an H100 from 1,024 tokens on, 1.0 to 1.2 times
// backward. Eight columns an invocation were half as fast there.
//
// A weight of 0 times NaN is NaN. Rows that are not there are zeros; where a window or a matrix hides single
// pairs, a tile that has such pairs leaves them out of the sums one by one.

@group(0) @binding(7) var<storage, read_write> lse: array<f32>;      // [slices, batch, heads, queries]
@group(0) @binding(8) var<storage, read_write> extra: array<f32>;

const TILE: u32 = TILE_ROWS4 * TILE_COLUMNS;
// Blocks of a sum that an invocation has, every eighth.
const BLOCKS: u32 = (D4 + 7u) / 8u;
const VALUE_BLOCKS: u32 = (DV4 + 7u) / 8u;
const SPAN: u32 = min(TILE_COLUMNS, STAGE / (8u * BLOCKS));
const VALUE_SPAN: u32 = min(TILE_COLUMNS, STAGE / (8u * VALUE_BLOCKS));
// From four own rows in the tile to the lower four; the same where there are none.
const LOWER: u32 = select(0u, 8u, TALL);

var<workgroup> tile: array<vec4<f32>, TILE>;      // weights: [other rows, own rows]
var<workgroup> hidden_tile: atomic<u32>;          // one more than the last tile with hidden pairs

// Eight rows of a block of four columns: four and four.
struct Eight { upper: mat4x4<f32>, lower: mat4x4<f32> }

// The blocks of a sum that an invocation has; those from BLOCKS on are not used.
struct Sums { a: Eight, b: Eight, c: Eight, d: Eight, e: Eight, f: Eight, g: Eight, h: Eight }

var<private> sums: Sums;
var<private> value_sums: Sums;

fn own_values_block(at: u32, row: u32, block: u32) -> vec4<f32> {
    let v = get_own_values(at + min(row, params.row_end - 1u) * params.own_values_row, block);
    return select(vec4<f32>(), v, row < params.row_end);
}

fn other_values_block(at: u32, batch: u32, row: u32, end: u32, block: u32) -> vec4<f32> {
    let own = min(row, end - 1u);
    return select(vec4<f32>(), get_other_values(at + own * params.other_values_row, block), (row < end) & is_there(batch, own));
}

fn stage_own_values(at: u32, row: u32, block: u32, local: u32) {
    for (var i = local; i < TILE_ROWS; i += 64u) {
        let r = row + i / 4u * 4u;
        let c = block + i % 4u;
        put_stage(own_slot(i % 4u * 4u, i / 4u), TILE_ROWS4,
                  mat4x4<f32>(own_values_block(at, r, c), own_values_block(at, r + 1u, c),
                              own_values_block(at, r + 2u, c), own_values_block(at, r + 3u, c)));
    }
}

fn stage_other_values(at: u32, batch: u32, row: u32, end: u32, block: u32, local: u32) {
    for (var i = local; i < TILE_COLUMNS; i += 64u) {
        let r = row + i / 4u * 4u;
        let c = block + i % 4u;
        put_stage(other_slot(i % 4u * 4u, i / 4u), TILE_COLUMNS4,
                  mat4x4<f32>(other_values_block(at, batch, r, end, c), other_values_block(at, batch, r + 1u, end, c),
                              other_values_block(at, batch, r + 2u, end, c),
                              other_values_block(at, batch, r + 3u, end, c)));
    }
}

fn compute_value_products(b: Base, row: u32, column: u32, end: u32, local: u32) {
    clear_pairs();
    for (var block = 0u; block < DV4; block += STEP / 4u) {
        workgroupBarrier();
        stage_own_values(b.own_values, row, block, local);
        stage_other_values(b.other_values, b.batch, column, end, block, local);
        workgroupBarrier();
        add_products(local);
    }
}

// All of this invocation's products become scores. `number` is that of the tile.
fn compute_scores(b: Base, row: u32, column: u32, end: u32, number: u32, local: u32) {
    let is_hidden = to_scores(b, row, column, end, local);
    if CAREFUL && is_hidden { atomicMax(&hidden_tile, number + 1u); }
}

// Where four weights of another row lie; shifted for the same reason as what is staged.
fn tile_slot(column: u32, quad: u32) -> u32 {
    return column * TILE_ROWS4 + (quad ^ (column / 4u % 8u));
}

// Four rows of this invocation's weights, to where all can read them, and back.
fn put_tile(local: u32, r4: u32, rows: mat4x4<f32>) {
    let at = tile_slot(first_column(local), 8u * r4 + local / 8u);
    let w = transpose(rows);
    tile[at] = w[0];
    tile[at + TILE_ROWS4] = w[1];
    tile[at + 2u * TILE_ROWS4] = w[2];
    tile[at + 3u * TILE_ROWS4] = w[3];
}

fn get_tile(local: u32, r4: u32) -> mat4x4<f32> {
    let at = tile_slot(first_column(local), 8u * r4 + local / 8u);
    return transpose(mat4x4<f32>(tile[at], tile[at + TILE_ROWS4], tile[at + 2u * TILE_ROWS4], tile[at + 3u * TILE_ROWS4]));
}

// A hidden weight is marked where it matters.
fn mark(w: vec4<f32>, s: vec4<f32>) -> vec4<f32> {
    return select(w, vec4<f32>(HIDDEN), vec4<bool>(CAREFUL) & (s == vec4<f32>(HIDDEN)));
}

fn mark_block(w: mat4x4<f32>, s: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(mark(w[0], s[0]), mark(w[1], s[1]), mark(w[2], s[2]), mark(w[3], s[3]));
}

fn add_seen(sum: vec4<f32>, w: f32, v: vec4<f32>) -> vec4<f32> {
    return select(fma(vec4<f32>(w), v, sum), sum, w == HIDDEN);
}

fn add_weighted(sum: mat4x4<f32>, w: vec4<f32>, v: vec4<f32>, careful: bool) -> mat4x4<f32> {
    var s = sum;
    if CAREFUL && careful {
        s = mat4x4<f32>(add_seen(s[0], w.x, v), add_seen(s[1], w.y, v), add_seen(s[2], w.z, v), add_seen(s[3], w.w, v));
    } else {
        s = add_outer(s, w, v);
    }
    return s;
}

fn add_eight(sum: Eight, w0: vec4<f32>, w1: vec4<f32>, v: vec4<f32>, careful: bool) -> Eight {
    var s = sum;
    s.upper = add_weighted(s.upper, w0, v, careful);
    if TALL { s.lower = add_weighted(s.lower, w1, v, careful); }
    return s;
}

// Adds one other row, whose blocks are staged from `at`, with eight rows' weights.
fn add_row(w0: vec4<f32>, w1: vec4<f32>, at: u32, careful: bool) {
    sums.a = add_eight(sums.a, w0, w1, stage[at], careful);
    if BLOCKS > 1u { sums.b = add_eight(sums.b, w0, w1, stage[at + 8u], careful); }
    if BLOCKS > 2u { sums.c = add_eight(sums.c, w0, w1, stage[at + 16u], careful); }
    if BLOCKS > 3u { sums.d = add_eight(sums.d, w0, w1, stage[at + 24u], careful); }
    if BLOCKS > 4u { sums.e = add_eight(sums.e, w0, w1, stage[at + 32u], careful); }
    if BLOCKS > 5u { sums.f = add_eight(sums.f, w0, w1, stage[at + 40u], careful); }
    if BLOCKS > 6u { sums.g = add_eight(sums.g, w0, w1, stage[at + 48u], careful); }
    if BLOCKS > 7u { sums.h = add_eight(sums.h, w0, w1, stage[at + 56u], careful); }
}

fn add_value_row(w0: vec4<f32>, w1: vec4<f32>, at: u32, careful: bool) {
    value_sums.a = add_eight(value_sums.a, w0, w1, stage[at], careful);
    if VALUE_BLOCKS > 1u { value_sums.b = add_eight(value_sums.b, w0, w1, stage[at + 8u], careful); }
    if VALUE_BLOCKS > 2u { value_sums.c = add_eight(value_sums.c, w0, w1, stage[at + 16u], careful); }
    if VALUE_BLOCKS > 3u { value_sums.d = add_eight(value_sums.d, w0, w1, stage[at + 24u], careful); }
    if VALUE_BLOCKS > 4u { value_sums.e = add_eight(value_sums.e, w0, w1, stage[at + 32u], careful); }
    if VALUE_BLOCKS > 5u { value_sums.f = add_eight(value_sums.f, w0, w1, stage[at + 40u], careful); }
    if VALUE_BLOCKS > 6u { value_sums.g = add_eight(value_sums.g, w0, w1, stage[at + 48u], careful); }
    if VALUE_BLOCKS > 7u { value_sums.h = add_eight(value_sums.h, w0, w1, stage[at + 56u], careful); }
}

fn scale_rows(s: mat4x4<f32>, factor: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(factor.x * s[0], factor.y * s[1], factor.z * s[2], factor.w * s[3]);
}

fn scale_eight(sum: Eight, f0: vec4<f32>, f1: vec4<f32>) -> Eight {
    var s = sum;
    s.upper = scale_rows(s.upper, f0);
    if TALL { s.lower = scale_rows(s.lower, f1); }
    return s;
}

fn scale_values(f0: vec4<f32>, f1: vec4<f32>) {
    value_sums.a = scale_eight(value_sums.a, f0, f1);
    if VALUE_BLOCKS > 1u { value_sums.b = scale_eight(value_sums.b, f0, f1); }
    if VALUE_BLOCKS > 2u { value_sums.c = scale_eight(value_sums.c, f0, f1); }
    if VALUE_BLOCKS > 3u { value_sums.d = scale_eight(value_sums.d, f0, f1); }
    if VALUE_BLOCKS > 4u { value_sums.e = scale_eight(value_sums.e, f0, f1); }
    if VALUE_BLOCKS > 5u { value_sums.f = scale_eight(value_sums.f, f0, f1); }
    if VALUE_BLOCKS > 6u { value_sums.g = scale_eight(value_sums.g, f0, f1); }
    if VALUE_BLOCKS > 7u { value_sums.h = scale_eight(value_sums.h, f0, f1); }
}

// This invocation's block `index` of a sum.
fn sum_block(index: u32) -> Eight {
    switch index {
        case 0u: { return sums.a; }
        case 1u: { return sums.b; }
        case 2u: { return sums.c; }
        case 3u: { return sums.d; }
        case 4u: { return sums.e; }
        case 5u: { return sums.f; }
        case 6u: { return sums.g; }
        default: { return sums.h; }
    }
}

fn value_block(index: u32) -> Eight {
    switch index {
        case 0u: { return value_sums.a; }
        case 1u: { return value_sums.b; }
        case 2u: { return value_sums.c; }
        case 3u: { return value_sums.d; }
        case 4u: { return value_sums.e; }
        case 5u: { return value_sums.f; }
        case 6u: { return value_sums.g; }
        default: { return value_sums.h; }
    }
}

// Its upper (0) or lower (1) four rows.
fn four_of(sum: Eight, r4: u32) -> mat4x4<f32> {
    if TALL && r4 == 1u { return sum.lower; }
    return sum.upper;
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
            let w = tile_slot(first + k, local / 8u);
            add_row(tile[w], tile[w + LOWER], k * 8u * BLOCKS + local % 8u, careful);
        }
    }
}

fn weighted_values(b: Base, row: u32, end: u32, block: u32) -> vec4<f32> {
    var v = other_values_block(b.other_values, b.batch, row, end, block);
    // The factors of the other rows, where these are queries.
    if TRANSPOSED && (HEADS || WEIGHTS) { v *= row_weight(b.batch, b.head, min(row, end - 1u)); }
    return v;
}

fn add_other_values(b: Base, column: u32, end: u32, careful: bool, local: u32) {
    for (var first = 0u; first < TILE_COLUMNS; first += VALUE_SPAN) {
        let span = min(VALUE_SPAN, TILE_COLUMNS - first);
        workgroupBarrier();
        for (var i = local; i < span * 8u * VALUE_BLOCKS; i += 64u) {
            stage[i] = weighted_values(b, column + first + i / (8u * VALUE_BLOCKS), end, i % (8u * VALUE_BLOCKS));
        }
        workgroupBarrier();
        for (var k = 0u; k < span; k++) {
            let w = tile_slot(first + k, local / 8u);
            add_value_row(tile[w], tile[w + LOWER], k * 8u * VALUE_BLOCKS + local % 8u, careful);
        }
    }
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

// Of each row, the largest of a value and of its scores.
fn highest_score(value: vec4<f32>, s: mat4x4<f32>) -> vec4<f32> {
    let t = transpose(s);
    return max(value, max(max(t[0], t[1]), max(t[2], t[3])));
}

// Of four rows: the largest score so far, the sum of the weights of this invocation's columns, and the factor
// that older sums take.
struct Running { m: vec4<f32>, l: vec4<f32>, shrink: vec4<f32> }

fn raise(r: Running, local: u32, r4: u32) -> Running {
    var highest = r.m;
    for (var i = 0u; i < 8u; i++) { highest = max(highest, part(local, r4, i)); }
    let shrink = exp2(r.m - highest);
    return Running(highest, shrink * r.l, shrink);
}

// exp2 of four rows' scores less their maxima, or less their log-sum-exps where these are known.
fn weights_of(s: mat4x4<f32>, m: vec4<f32>) -> mat4x4<f32> {
    var w = s;
    var rest = m;
    for (var r = 0u; r < 4u; r++) {
        let d = w[0] - rest.x;
        var e = vec4<f32>();
        if KNOWN { e = probabilities(d); } else { e = exponentials(d); }
        w = mat4x4<f32>(w[1], w[2], w[3], e);
        rest = rest.yzwx;
    }
    return w;
}

// Puts the weights of a block into the tile; the sum of its rows.
fn weigh(local: u32, r4: u32, s: mat4x4<f32>, m: vec4<f32>) -> vec4<f32> {
    let w = weights_of(s, m);
    if VALUES { put_tile(local, r4, mark_block(w, s)); }
    return row_sums(w);
}

fn put_o_rows(at: u32, row: u32, block: u32, s: mat4x4<f32>) {
    if row < params.row_end { put_o(at + row * params.y_row, block, s[0]); }
    if row + 1u < params.row_end { put_o(at + (row + 1u) * params.y_row, block, s[1]); }
    if row + 2u < params.row_end { put_o(at + (row + 2u) * params.y_row, block, s[2]); }
    if row + 3u < params.row_end { put_o(at + (row + 3u) * params.y_row, block, s[3]); }
}

// Output and log-sum-exp of four rows.
fn finish(p: Place, local: u32, r4: u32, m: vec4<f32>) {
    var total = vec4<f32>();
    for (var i = 0u; i < 8u; i++) { total += part(local, r4, i); }
    let row = p.row + first_row(local, r4);
    let last = params.row_end - 1u;
    if VALUES {
        var factor = row_weights(p.batch, p.head, min(vec4<u32>(row) + FOUR, vec4<u32>(last)));
        if !KNOWN { factor = select(factor / total, vec4<f32>(), total == vec4<f32>()); }
        let at = params.y_first + p.slice * params.y_slice + p.batch * params.y_batch + p.head * params.y_head;
        for (var u = 0u; u < VALUE_BLOCKS; u++) {
            put_o_rows(at, row, 8u * u + local % 8u, scale_rows(four_of(value_block(u), r4), factor));
        }
    }
    if !KNOWN && local % 8u == 0u {
        let at = ((p.slice * params.batch + p.batch) * params.heads + p.head) * params.queries + row;
        if row <= last { lse[at] = log_sum(m.x, total.x); }
        if row + 1u <= last { lse[at + 1u] = log_sum(m.y, total.y); }
        if row + 2u <= last { lse[at + 2u] = log_sum(m.z, total.z); }
        if row + 3u <= last { lse[at + 3u] = log_sum(m.w, total.w); }
    }
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, TILE_ROWS);
    let b = base_of(p.batch, p.head, p.head / params.sharing, p.head);
    if local == 0u { atomicStore(&hidden_tile, 0u); }
    var above = Running(vec4<f32>(FLOOR), vec4<f32>(), vec4<f32>());
    var below = above;
    if KNOWN {
        above.m = four_terms(p.batch, p.head, p.row + first_row(local, 0u), params.row_end - 1u).l;
        below.m = four_terms(p.batch, p.head, p.row + first_row(local, 1u), params.row_end - 1u).l;
    }
    let range = key_range(p.slice, p.row, TILE_ROWS);
    for (var j = range.x; j < range.y; j += TILE_COLUMNS) {
        let number = (j - range.x) / TILE_COLUMNS;
        compute_products(b, p.row, j, range.y, local);
        compute_scores(b, p.row, j, range.y, number, local);
        workgroupBarrier();
        if !KNOWN {
            put_part(local, 0u, highest_score(above.m, pairs0));
            if TALL { put_part(local, 1u, highest_score(below.m, pairs1)); }
        }
        workgroupBarrier();
        if !KNOWN {
            above = raise(above, local, 0u);
            if TALL { below = raise(below, local, 1u); }
            scale_values(above.shrink, below.shrink);
        }
        above.l += weigh(local, 0u, pairs0, above.m);
        if TALL { below.l += weigh(local, 1u, pairs1, below.m); }
        if VALUES { add_other_values(b, j, range.y, has_hidden(number), local); }
    }
    // The sum of the weights of all columns, in order.
    workgroupBarrier();
    put_part(local, 0u, above.l);
    if TALL { put_part(local, 1u, below.l); }
    workgroupBarrier();
    finish(p, local, 0u, above.m);
    if TALL { finish(p, local, 1u, below.m); }
}

// dS of four pairs; a hidden pair has none, whatever its terms are: it is marked, or 0 where all are added.
fn score_gradients(w: vec4<f32>, dp: vec4<f32>, factor: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    let none = select(0.0, HIDDEN, CAREFUL);
    return select(w * (factor * dp - d), vec4<f32>(none), w == vec4<f32>(HIDDEN));
}

// Four query rows: their terms, and the gate's sums of this invocation's columns.
struct OwnRows { l: vec4<f32>, d: vec4<f32>, factor: vec4<f32>, gate: vec4<f32> }

fn own_rows(p: Place, local: u32, r4: u32) -> OwnRows {
    let row = p.row + first_row(local, r4);
    let terms = four_terms(p.batch, p.head, row, params.row_end - 1u);
    return OwnRows(terms.l, terms.d, row_weights(p.batch, p.head, min(vec4<u32>(row) + FOUR, vec4<u32>(params.row_end - 1u))), vec4<f32>());
}

// No one else reads these: hidden ones are marked in any case.
fn put_probabilities(local: u32, r4: u32, s: mat4x4<f32>, l: vec4<f32>) {
    let w = row_probabilities(s, l);
    let hidden = vec4<f32>(HIDDEN);
    put_tile(local, r4, mat4x4<f32>(select(w[0], hidden, s[0] == hidden), select(w[1], hidden, s[1] == hidden),
                                    select(w[2], hidden, s[2] == hidden), select(w[3], hidden, s[3] == hidden)));
}

fn write_ds(p: Place, row: u32, key: u32, end: u32, ds: vec4<f32>) {
    if row >= params.row_end { return; }
    let matrix = p.batch * params.heads + p.head;
    let at = params.extra_ds + (matrix * (params.row_end - params.row_first) + row - params.row_first) * params.keys + key;
    // What is marked has none.
    let v = select(ds, vec4<f32>(), ds == vec4<f32>(HIDDEN));
    if key < end { extra[at] = v.x; }
    if key + 1u < end { extra[at + 1u] = v.y; }
    if key + 2u < end { extra[at + 2u] = v.z; }
    if key + 3u < end { extra[at + 3u] = v.w; }
}

// From the tile's weights and the products of the values to dS, in the tile; the gate's terms.
fn put_gradients(p: Place, local: u32, r4: u32, dp: mat4x4<f32>, rows: OwnRows, first: u32, end: u32) -> vec4<f32> {
    let w = get_tile(local, r4);
    let ds = mat4x4<f32>(score_gradients(w[0], dp[0], vec4<f32>(rows.factor.x), vec4<f32>(rows.d.x)),
                         score_gradients(w[1], dp[1], vec4<f32>(rows.factor.y), vec4<f32>(rows.d.y)),
                         score_gradients(w[2], dp[2], vec4<f32>(rows.factor.z), vec4<f32>(rows.d.z)),
                         score_gradients(w[3], dp[3], vec4<f32>(rows.factor.w), vec4<f32>(rows.d.w)));
    put_tile(local, r4, ds);
    if WRITE_DS {
        let row = p.row + first_row(local, r4);
        let key = first + first_column(local);
        write_ds(p, row, key, end, ds[0]);
        write_ds(p, row + 1u, key, end, ds[1]);
        write_ds(p, row + 2u, key, end, ds[2]);
        write_ds(p, row + 3u, key, end, ds[3]);
    }
    if !SUMS { return vec4<f32>(); }
    let hidden = vec4<f32>(HIDDEN);
    return row_sums(mat4x4<f32>(select(w[0] * dp[0], vec4<f32>(), w[0] == hidden), select(w[1] * dp[1], vec4<f32>(), w[1] == hidden),
                                select(w[2] * dp[2], vec4<f32>(), w[2] == hidden), select(w[3] * dp[3], vec4<f32>(), w[3] == hidden)));
}

fn put_d_own_rows(at: u32, row: u32, block: u32, s: mat4x4<f32>) {
    if row < params.row_end { put_d_own(at + row * params.y_row, block, s[0]); }
    if row + 1u < params.row_end { put_d_own(at + (row + 1u) * params.y_row, block, s[1]); }
    if row + 2u < params.row_end { put_d_own(at + (row + 2u) * params.y_row, block, s[2]); }
    if row + 3u < params.row_end { put_d_own(at + (row + 3u) * params.y_row, block, s[3]); }
}

// The gradient of four query rows, and this invocation's parts of what their factors' gradients are made of.
fn finish_queries(p: Place, b: Base, local: u32, r4: u32, gate: vec4<f32>) {
    let at = params.y_first + p.slice * params.y_slice + p.batch * params.y_batch + p.head * params.y_head;
    let row = p.row + first_row(local, r4);
    // Parts of <q, sums>.
    var dots = mat4x4<f32>();
    for (var u = 0u; u < BLOCKS; u++) {
        let block = 8u * u + local % 8u;
        let s = four_of(sum_block(u), r4);
        if SUMS {
            dots = mat4x4<f32>(fma(own_block(b.own, row, block), s[0], dots[0]), fma(own_block(b.own, row + 1u, block), s[1], dots[1]),
                               fma(own_block(b.own, row + 2u, block), s[2], dots[2]), fma(own_block(b.own, row + 3u, block), s[3], dots[3]));
        }
        put_d_own_rows(at, row, block, (LN_2 * b.scale) * s);
    }
    if SUMS {
        let dot = row_sums(dots);
        let part_at = first_row(local, r4) * 8u + local % 8u;
        tile[part_at] = vec4<f32>(dot.x, gate.x, 0.0, 0.0);
        tile[part_at + 8u] = vec4<f32>(dot.y, gate.y, 0.0, 0.0);
        tile[part_at + 16u] = vec4<f32>(dot.z, gate.z, 0.0, 0.0);
        tile[part_at + 24u] = vec4<f32>(dot.w, gate.w, 0.0, 0.0);
    }
}

@compute @workgroup_size(64)
fn backward_queries(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, TILE_ROWS);
    let b = base_of(p.batch, p.head, p.head / params.sharing, p.head);
    if local == 0u { atomicStore(&hidden_tile, 0u); }
    let last = params.row_end - 1u;
    let matrix = p.batch * params.heads + p.head;
    var above = own_rows(p, local, 0u);
    var below = own_rows(p, local, 1u);
    let range = key_range(p.slice, p.row, TILE_ROWS);
    for (var j = range.x; j < range.y; j += TILE_COLUMNS) {
        let number = (j - range.x) / TILE_COLUMNS;
        compute_products(b, p.row, j, range.y, local);
        compute_scores(b, p.row, j, range.y, number, local);
        put_probabilities(local, 0u, pairs0, above.l);
        if TALL { put_probabilities(local, 1u, pairs1, below.l); }
        compute_value_products(b, p.row, j, range.y, local);
        above.gate += put_gradients(p, local, 0u, pairs0, above, j, range.y);
        if TALL { below.gate += put_gradients(p, local, 1u, pairs1, below, j, range.y); }
        add_other(b, j, range.y, has_hidden(number), local);
    }
    workgroupBarrier();
    finish_queries(p, b, local, 0u, above.gate);
    if TALL { finish_queries(p, b, local, 1u, below.gate); }
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

// The weights of four queries from `query`, whose log-sum-exps are the columns', into the tile.
fn put_query_probabilities(b: Base, local: u32, r4: u32, s: mat4x4<f32>, first: u32) {
    let l = four_terms(b.batch, b.head, first + first_column(local), params.queries - 1u).l;
    put_tile(local, r4, mark_block(column_probabilities(s, l), s));
}

fn put_query_gradients(b: Base, local: u32, r4: u32, dp: mat4x4<f32>, first: u32) {
    let query = first + first_column(local);
    let scale = LN_2 * b.scale;
    let d = scale * four_terms(b.batch, b.head, query, params.queries - 1u).d;
    let factor = scale * row_weights(b.batch, b.head, min(vec4<u32>(query) + FOUR, vec4<u32>(params.queries - 1u)));
    let w = get_tile(local, r4);
    put_tile(local, r4, mat4x4<f32>(score_gradients(w[0], dp[0], factor, d), score_gradients(w[1], dp[1], factor, d),
                                    score_gradients(w[2], dp[2], factor, d), score_gradients(w[3], dp[3], factor, d)));
}

fn put_d_own_values_rows(at: u32, row: u32, block: u32, s: mat4x4<f32>) {
    if row < params.row_end { put_d_own_values(at + row * params.z_row, block, s[0]); }
    if row + 1u < params.row_end { put_d_own_values(at + (row + 1u) * params.z_row, block, s[1]); }
    if row + 2u < params.row_end { put_d_own_values(at + (row + 2u) * params.z_row, block, s[2]); }
    if row + 3u < params.row_end { put_d_own_values(at + (row + 3u) * params.z_row, block, s[3]); }
}

// Masked keys have no gradients, whatever their sums are.
fn keep_rows(batch: u32, row: u32, s: mat4x4<f32>) -> mat4x4<f32> {
    if !MASK { return s; }
    let last = params.keys - 1u;
    let zero = vec4<f32>();
    return mat4x4<f32>(select(s[0], zero, is_masked(batch, min(row, last))), select(s[1], zero, is_masked(batch, min(row + 1u, last))),
                       select(s[2], zero, is_masked(batch, min(row + 2u, last))), select(s[3], zero, is_masked(batch, min(row + 3u, last))));
}

fn finish_keys(p: Place, local: u32, r4: u32) {
    let row = p.row + first_row(local, r4);
    if KEYS {
        let at = params.y_first + p.slice * params.y_slice + p.batch * params.y_batch + p.head * params.y_head;
        for (var u = 0u; u < BLOCKS; u++) {
            put_d_own_rows(at, row, 8u * u + local % 8u, keep_rows(p.batch, row, four_of(sum_block(u), r4)));
        }
    }
    if VALUES {
        let at = params.z_first + p.slice * params.z_slice + p.batch * params.z_batch + p.head * params.z_head;
        for (var u = 0u; u < VALUE_BLOCKS; u++) {
            put_d_own_values_rows(at, row, 8u * u + local % 8u, keep_rows(p.batch, row, four_of(value_block(u), r4)));
        }
    }
}

@compute @workgroup_size(64)
fn backward_keys(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, TILE_ROWS);
    if local == 0u { atomicStore(&hidden_tile, 0u); }
    let range = query_range(p.slice, p.row, TILE_ROWS);
    var number = 0u;
    for (var head = p.head * params.sharing; head < (p.head + 1u) * params.sharing; head++) {
        let b = base_of(p.batch, p.head, head, head);
        for (var i = range.x; i < range.y; i += TILE_COLUMNS) {
            compute_products(b, p.row, i, range.y, local);
            compute_scores(b, p.row, i, range.y, number, local);
            put_query_probabilities(b, local, 0u, pairs0, i);
            if TALL { put_query_probabilities(b, local, 1u, pairs1, i); }
            workgroupBarrier();
            let careful = has_hidden(number);
            if VALUES { add_other_values(b, i, range.y, careful, local); }
            if KEYS {
                compute_value_products(b, p.row, i, range.y, local);
                put_query_gradients(b, local, 0u, pairs0, i);
                if TALL { put_query_gradients(b, local, 1u, pairs1, i); }
                add_other(b, i, range.y, careful, local);
            }
            number += 1u;
        }
    }
    finish_keys(p, local, 0u);
    if TALL { finish_keys(p, local, 1u); }
}
