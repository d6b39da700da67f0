// Tiles of scores in registers, for GPUs; attention/flash_attention_tiled.wgsl says how.
//
// A workgroup of 64 has 8 ROWS own rows and 8 COLUMNS other rows at a time, an invocation ROWS x COLUMNS of
// their pairs. Workgroup memory: 512 (ROWS + COLUMNS) bytes.

const STEP: u32 = 16u;
const ROWS4: u32 = ROWS / 4u;
const COLUMNS4: u32 = COLUMNS / 4u;
const TILE_ROWS: u32 = 8u * ROWS;
const TILE_COLUMNS: u32 = 8u * COLUMNS;
const TILE_ROWS4: u32 = TILE_ROWS / 4u;
const TILE_COLUMNS4: u32 = TILE_COLUMNS / 4u;
const STAGE_OWN: u32 = STEP * TILE_ROWS4;
const STAGE: u32 = STAGE_OWN + STEP * TILE_COLUMNS4;
const PRODUCTS: u32 = ROWS * COLUMNS4;

var<workgroup> stage: array<vec4<f32>, STAGE>;        // [STEP, own rows], [STEP, other rows]
var<private> products: array<vec4<f32>, PRODUCTS>;    // [ROWS, COLUMNS]

// Rows four `quad` of this invocation, and columns four `quad`, within the tile.
fn first_row(local: u32, quad: u32) -> u32 {
    return 4u * (8u * quad + local / 8u);
}

fn first_column(local: u32, quad: u32) -> u32 {
    return 4u * (8u * quad + local % 8u);
}

fn own_block(at: u32, row: u32, block: u32) -> vec4<f32> {
    if row >= params.row_end { return vec4<f32>(); }
    return get_own(at + row * params.own_row, block);
}

// Whether another row, before `end`, is there; keys may be masked.
fn is_there(batch: u32, row: u32, end: u32) -> bool {
    return row < end && (TRANSPOSED || !is_masked(batch, row));
}

fn other_block(at: u32, batch: u32, row: u32, end: u32, block: u32) -> vec4<f32> {
    if !is_there(batch, row, end) { return vec4<f32>(); }
    return get_other(at + row * params.other_row, block);
}

// Four columns of four rows.
fn put_stage(first: u32, width: u32, t: mat4x4<f32>) {
    stage[first] = t[0];
    stage[first + width] = t[1];
    stage[first + 2u * width] = t[2];
    stage[first + 3u * width] = t[3];
}

fn stage_own(at: u32, row: u32, block: u32, local: u32) {
    for (var i = local; i < TILE_ROWS; i += 64u) {
        let r = row + i / 4u * 4u;
        let c = block + i % 4u;
        put_stage(i % 4u * 4u * TILE_ROWS4 + i / 4u, TILE_ROWS4,
                  transpose(mat4x4<f32>(own_block(at, r, c), own_block(at, r + 1u, c),
                                        own_block(at, r + 2u, c), own_block(at, r + 3u, c))));
    }
}

fn stage_other(at: u32, batch: u32, row: u32, end: u32, block: u32, local: u32) {
    for (var i = local; i < TILE_COLUMNS; i += 64u) {
        let r = row + i / 4u * 4u;
        let c = block + i % 4u;
        put_stage(STAGE_OWN + i % 4u * 4u * TILE_COLUMNS4 + i / 4u, TILE_COLUMNS4,
                  transpose(mat4x4<f32>(other_block(at, batch, r, end, c), other_block(at, batch, r + 1u, end, c),
                                        other_block(at, batch, r + 2u, end, c), other_block(at, batch, r + 3u, end, c))));
    }
}

// Adds the products of what is staged.
fn add_products(local: u32) {
    for (var k = 0u; k < STEP; k++) {
        for (var r4 = 0u; r4 < ROWS4; r4++) {
            let a = stage[k * TILE_ROWS4 + 8u * r4 + local / 8u];
            for (var c4 = 0u; c4 < COLUMNS4; c4++) {
                let b = stage[STAGE_OWN + k * TILE_COLUMNS4 + 8u * c4 + local % 8u];
                let s = r4 * 4u * COLUMNS4 + c4;
                products[s] = fma(a.xxxx, b, products[s]);
                products[s + COLUMNS4] = fma(a.yyyy, b, products[s + COLUMNS4]);
                products[s + 2u * COLUMNS4] = fma(a.zzzz, b, products[s + 2u * COLUMNS4]);
                products[s + 3u * COLUMNS4] = fma(a.wwww, b, products[s + 3u * COLUMNS4]);
            }
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
    for (var i = 0u; i < PRODUCTS; i++) { products[i] = vec4<f32>(); }
    for (var block = 0u; block < D4; block += STEP / 4u) {
        workgroupBarrier();
        stage_own(b.own, row, block, local);
        stage_other(b.other, b.batch, column, end, block, local);
        workgroupBarrier();
        add_products(local);
    }
}

// From product to score, of one pair.
fn score(b: Base, product: f32, row: u32, row_place: vec2<u32>, column: u32, column_place: vec2<u32>, end: u32) -> f32 {
    if row >= params.row_end || !is_there(b.batch, column, end) { return HIDDEN; }
    if TRANSPOSED {
        if !sees(column, row) { return HIDDEN; }
        return add_bias(b.scale * product, b.batch, b.head, column, row, column_place, row_place);
    }
    if !sees(row, column) { return HIDDEN; }
    return add_bias(b.scale * product, b.batch, b.head, row, column, row_place, column_place);
}

// All of this invocation's products become scores; whether some pair is hidden.
fn to_scores(b: Base, row: u32, column: u32, end: u32, local: u32) -> bool {
    var is_hidden = false;
    for (var c4 = 0u; c4 < COLUMNS4; c4++) {
        let c = column + first_column(local, c4);
        let place0 = grid_place(c);
        let place1 = grid_place(c + 1u);
        let place2 = grid_place(c + 2u);
        let place3 = grid_place(c + 3u);
        for (var r = 0u; r < ROWS; r++) {
            let i = row + first_row(local, r / 4u) + r % 4u;
            let place = grid_place(i);
            let p = products[r * COLUMNS4 + c4];
            let s = vec4<f32>(score(b, p.x, i, place, c, place0, end), score(b, p.y, i, place, c + 1u, place1, end),
                              score(b, p.z, i, place, c + 2u, place2, end), score(b, p.w, i, place, c + 3u, place3, end));
            products[r * COLUMNS4 + c4] = s;
            is_hidden = is_hidden || any(s == vec4<f32>(HIDDEN));
        }
    }
    return is_hidden;
}
