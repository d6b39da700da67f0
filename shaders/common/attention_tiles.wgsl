// Tiles of scores in registers, for GPUs; attention/flash_attention_tiled.wgsl says how.
//
// A workgroup of 64 has 8 ROWS own rows and 32 other rows at a time, an invocation ROWS x 4 of their pairs: those
// of its upper four rows in `pairs0`, and of its lower four, where it has eight, in `pairs1`. Workgroup memory:
// 512 (ROWS + 4) bytes.

const TALL: bool = ROWS > 4u;       // an invocation has eight rows, else four
const STEP: u32 = 16u;
const COLUMNS: u32 = 4u;
const TILE_ROWS: u32 = 8u * ROWS;
const TILE_COLUMNS: u32 = 8u * COLUMNS;
const TILE_ROWS4: u32 = TILE_ROWS / 4u;
const TILE_COLUMNS4: u32 = TILE_COLUMNS / 4u;
const STAGE_OWN: u32 = STEP * TILE_ROWS4;
const STAGE: u32 = STAGE_OWN + STEP * TILE_COLUMNS4;

var<workgroup> stage: array<vec4<f32>, STAGE>;        // [STEP, own rows], [STEP, other rows]
var<private> pairs0: mat4x4<f32>;
var<private> pairs1: mat4x4<f32>;

// The upper (0) or lower (1) four rows of this invocation, and its four columns, within the tile.
fn first_row(local: u32, quad: u32) -> u32 {
    return 4u * (8u * quad + local / 8u);
}

fn first_column(local: u32) -> u32 {
    return 4u * (local % 8u);
}

// Where column k of four staged rows lies: invocations that store neighbouring columns use banks of their own.
fn own_slot(k: u32, quad: u32) -> u32 {
    return k * TILE_ROWS4 + (quad ^ (k / 4u * 2u));
}

fn other_slot(k: u32, quad: u32) -> u32 {
    return STAGE_OWN + k * TILE_COLUMNS4 + (quad ^ (k / 4u * 2u));
}

// Rows that are not there are zeros. No branches: SwiftShader takes minutes for many early returns in a loop.
fn own_block(at: u32, row: u32, block: u32) -> vec4<f32> {
    let v = get_own(at + min(row, params.row_end - 1u) * params.own_row, block);
    return select(vec4<f32>(), v, row < params.row_end);
}

// Keys may be masked.
fn is_there(batch: u32, row: u32) -> bool {
    return TRANSPOSED || !is_masked(batch, row);
}

fn other_block(at: u32, batch: u32, row: u32, end: u32, block: u32) -> vec4<f32> {
    let own = min(row, end - 1u);
    return select(vec4<f32>(), get_other(at + own * params.other_row, block), (row < end) & is_there(batch, own));
}

// Four columns of four rows, from a row each.
fn put_stage(first: u32, width: u32, rows: mat4x4<f32>) {
    let t = transpose(rows);
    stage[first] = t[0];
    stage[first + width] = t[1];
    stage[first + 2u * width] = t[2];
    stage[first + 3u * width] = t[3];
}

fn stage_own(at: u32, row: u32, block: u32, local: u32) {
    for (var i = local; i < TILE_ROWS; i += 64u) {
        let r = row + i / 4u * 4u;
        let c = block + i % 4u;
        put_stage(own_slot(i % 4u * 4u, i / 4u), TILE_ROWS4,
                  mat4x4<f32>(own_block(at, r, c), own_block(at, r + 1u, c),
                              own_block(at, r + 2u, c), own_block(at, r + 3u, c)));
    }
}

fn stage_other(at: u32, batch: u32, row: u32, end: u32, block: u32, local: u32) {
    for (var i = local; i < TILE_COLUMNS; i += 64u) {
        let r = row + i / 4u * 4u;
        let c = block + i % 4u;
        put_stage(other_slot(i % 4u * 4u, i / 4u), TILE_COLUMNS4,
                  mat4x4<f32>(other_block(at, batch, r, end, c), other_block(at, batch, r + 1u, end, c),
                              other_block(at, batch, r + 2u, end, c), other_block(at, batch, r + 3u, end, c)));
    }
}

fn clear_pairs() {
    pairs0 = mat4x4<f32>();
    pairs1 = mat4x4<f32>();
}

// Adds the products of what is staged.
fn add_products(local: u32) {
    for (var k = 0u; k < STEP; k += 4u) {
        let own_at = own_slot(k, local / 8u);
        let other_at = other_slot(k, local % 8u);
        for (var i = 0u; i < 4u; i++) {
            let a0 = stage[own_at + i * TILE_ROWS4];
            let b0 = stage[other_at + i * TILE_COLUMNS4];
            pairs0 = add_outer(pairs0, a0, b0);
            if TALL { pairs1 = add_outer(pairs1, stage[own_at + i * TILE_ROWS4 + 8u], b0); }
        }
    }
}

// Where the tensors of a head begin.
struct Base { own: u32, other: u32, own_values: u32, other_values: u32, batch: u32, head: u32, scale: f32 }

fn base_of(batch: u32, own_head: u32, other_head: u32, query_head: u32) -> Base {
    return Base(params.own_first + batch * params.own_batch + own_head * params.own_head,
                params.other_first + batch * params.other_batch + other_head * params.other_head,
                params.own_values_first + batch * params.own_values_batch + own_head * params.own_values_head,
                params.other_values_first + batch * params.other_values_batch + other_head * params.other_values_head,
                batch, query_head, score_scale(query_head));
}

// The products of own rows from `row` and other rows from `column`, before `end`.
fn compute_products(b: Base, row: u32, column: u32, end: u32, local: u32) {
    clear_pairs();
    for (var block = 0u; block < D4; block += STEP / 4u) {
        workgroupBarrier();
        stage_own(b.own, row, block, local);
        stage_other(b.other, b.batch, column, end, block, local);
        workgroupBarrier();
        add_products(local);
    }
}

// Which of four other rows are there.
fn are_there(batch: u32, column: vec4<u32>, end: u32) -> vec4<bool> {
    let c = min(column, vec4<u32>(end - 1u));
    return (column < vec4<u32>(end)) & vec4<bool>(is_there(batch, c.x), is_there(batch, c.y), is_there(batch, c.z), is_there(batch, c.w));
}

fn queries_of(own: Rows, others: Rows) -> Rows {
    var q = own;
    if TRANSPOSED { q = others; }
    return q;
}

fn keys_of(own: Rows, others: Rows) -> Rows {
    var k = others;
    if TRANSPOSED { k = own; }
    return k;
}

// From products to scores: an own row and four others.
fn row_scores(b: Base, p: vec4<f32>, row: u32, others: Rows, are_there: vec4<bool>) -> vec4<f32> {
    let own = row_of(min(row, params.row_end - 1u));
    let is_there = are_there & vec4<bool>(row < params.row_end);
    return scores(b.scale * p, b.batch, b.head, queries_of(own, others), keys_of(own, others), is_there);
}

// Of four rows from `row` and four columns from `column`.
fn block_scores(b: Base, p: mat4x4<f32>, row: u32, column: u32, end: u32) -> mat4x4<f32> {
    let four = vec4<u32>(column) + FOUR;
    let others = rows_of(min(four, vec4<u32>(end - 1u)));
    let there = are_there(b.batch, four, end);
    // Rows take turns at the first place: written out, so much code is minutes of SwiftShader's compilation.
    var s = p;
    for (var r = 0u; r < 4u; r++) { s = mat4x4<f32>(s[1], s[2], s[3], row_scores(b, s[0], row + r, others, there)); }
    return s;
}

fn has_hidden_pair(s: mat4x4<f32>) -> bool {
    let hidden = vec4<f32>(HIDDEN);
    return any((s[0] == hidden) | (s[1] == hidden) | (s[2] == hidden) | (s[3] == hidden));
}

// All of this invocation's products become scores; whether some pair is hidden.
fn to_scores(b: Base, row: u32, column: u32, end: u32, local: u32) -> bool {
    let first = column + first_column(local);
    var is_hidden = false;
    if BIAS == 0u && !WINDOW && !MASK && row + TILE_ROWS <= params.row_end && column + TILE_COLUMNS <= end {
        pairs0 = b.scale * pairs0;
        if TALL { pairs1 = b.scale * pairs1; }
    } else {
        pairs0 = block_scores(b, pairs0, row + first_row(local, 0u), first, end);
        is_hidden = has_hidden_pair(pairs0);
        if TALL {
            pairs1 = block_scores(b, pairs1, row + first_row(local, 1u), first, end);
            is_hidden = is_hidden | has_hidden_pair(pairs1);
        }
    }
    return is_hidden;
}

// Of each row of a block, the sum over its columns.
fn row_sums(s: mat4x4<f32>) -> vec4<f32> {
    let t = transpose(s);
    return (t[0] + t[1]) + (t[2] + t[3]);
}

// The weights of scores, with the log-sum-exps of the rows or of the columns.
fn row_probabilities(s: mat4x4<f32>, l: vec4<f32>) -> mat4x4<f32> {
    var w = s;
    var rest = l;
    for (var r = 0u; r < 4u; r++) {
        w = mat4x4<f32>(w[1], w[2], w[3], probabilities(w[0] - rest.x));
        rest = rest.yzwx;
    }
    return w;
}

fn column_probabilities(s: mat4x4<f32>, l: vec4<f32>) -> mat4x4<f32> {
    var w = s;
    for (var r = 0u; r < 4u; r++) { w = mat4x4<f32>(w[1], w[2], w[3], probabilities(w[0] - l)); }
    return w;
}

// The log-sum-exps and D of four query rows from `row`; rows after `last` have those of `last`.
struct FourTerms { l: vec4<f32>, d: vec4<f32> }

fn four_terms(batch: u32, head: u32, row: u32, last: u32) -> FourTerms {
    let x = row_terms(batch, head, min(row, last));
    let y = row_terms(batch, head, min(row + 1u, last));
    let z = row_terms(batch, head, min(row + 2u, last));
    let w = row_terms(batch, head, min(row + 3u, last));
    return FourTerms(vec4<f32>(x.x, y.x, z.x, w.x), vec4<f32>(x.y, y.y, z.y, w.y));
}
