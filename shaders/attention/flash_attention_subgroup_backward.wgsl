// Flash attention backward for CPU adapters with subgroups of 8 (formulas: attention/flash_attention.wgsl).
//
// A workgroup is one subgroup and has 32 rows; an invocation has four of them, in registers: a vec4 is one
// column of four rows. Four rows of the other side pass by at a time. An invocation loads two blocks in
// sixteen of these, and the others reach it by shuffles with constant lanes: 16 loads, or 8 of 64-bit integers
// (common/attention_other_wide.wgsl), for 3,072 multiply-adds (dQ) or 4,096 (dK and dV) at 64 columns.
// Nothing may depend on a variable index, for then an array is memory instead of registers. So the blocks of a
// row are written out by doubling (`_2`, `_4`, ...), and what lies beyond D is dropped as constant.
// Head dimensions up to 128. Workgroup memory: 0 bytes.

@group(0) @binding(8) var<storage, read_write> extra: array<f32>;

const ROWS: u32 = 32u;
const COLUMNS: u32 = 4u * (D4 + DV4);
const PARTS: u32 = 8u * ((D4 + 15u) / 16u);
const ALL_PARTS: u32 = PARTS + 8u * ((DV4 + 15u) / 16u);

// Columns of four own rows and of four results, first those of width D, then those of the values.
var<private> mine: array<vec4<f32>, COLUMNS>;
var<private> sums: array<vec4<f32>, COLUMNS>;
// This lane's part of the four rows that pass by: two of sixteen blocks, of each row.
var<private> part: array<vec4<f32>, ALL_PARTS>;

// In matrices of products, a column is one row that passes by, and a row is one of the own.

fn add_product(block: vec4<f32>, at: u32, sum: vec4<f32>) -> vec4<f32> {
    return fma(block.wwww, mine[at + 3u], fma(block.zzzz, mine[at + 2u],
           fma(block.yyyy, mine[at + 1u], fma(block.xxxx, mine[at], sum))));
}

fn products_block(t: mat4x4<f32>, values: bool, c: u32) -> mat4x4<f32> {
    if c >= select(D4, DV4, values) { return t; }
    let at = select(0u, PARTS, values) + c / 16u * 8u + c % 2u;
    let column = 4u * (select(0u, D4, values) + c);
    return mat4x4<f32>(add_product(subgroupShuffle(part[at], c % 16u / 2u), column, t[0]),
                       add_product(subgroupShuffle(part[at + 2u], c % 16u / 2u), column, t[1]),
                       add_product(subgroupShuffle(part[at + 4u], c % 16u / 2u), column, t[2]),
                       add_product(subgroupShuffle(part[at + 6u], c % 16u / 2u), column, t[3]));
}

fn products_2(t: mat4x4<f32>, values: bool, c: u32) -> mat4x4<f32> { return products_block(products_block(t, values, c), values, c + 1u); }
fn products_4(t: mat4x4<f32>, values: bool, c: u32) -> mat4x4<f32> { return products_2(products_2(t, values, c), values, c + 2u); }
fn products_8(t: mat4x4<f32>, values: bool, c: u32) -> mat4x4<f32> { return products_4(products_4(t, values, c), values, c + 4u); }
fn products_16(t: mat4x4<f32>, values: bool, c: u32) -> mat4x4<f32> { return products_8(products_8(t, values, c), values, c + 8u); }
fn products(values: bool) -> mat4x4<f32> { return products_16(products_16(mat4x4<f32>(), values, 0u), values, 16u); }

// A column of the sums, and the same column of the four passing rows.
fn add_weighted(sum: vec4<f32>, column: vec4<f32>, w: mat4x4<f32>, s: mat4x4<f32>) -> vec4<f32> {
    if CAREFUL {
        let hidden = vec4<f32>(HIDDEN);
        var t = select(fma(column.xxxx, w[0], sum), sum, s[0] == hidden);
        t = select(fma(column.yyyy, w[1], t), t, s[1] == hidden);
        t = select(fma(column.zzzz, w[2], t), t, s[2] == hidden);
        return select(fma(column.wwww, w[3], t), t, s[3] == hidden);
    }
    return fma(column.wwww, w[3], fma(column.zzzz, w[2], fma(column.yyyy, w[1], fma(column.xxxx, w[0], sum))));
}

// Adds the passing rows with the weights `w`; `s` tells who is hidden from whom.
fn add_rows_block(c: u32, values: bool, w: mat4x4<f32>, s: mat4x4<f32>) {
    if c >= select(D4, DV4, values) { return; }
    let at = select(0u, PARTS, values) + c / 16u * 8u + c % 2u;
    let column = 4u * (select(0u, D4, values) + c);
    let t = transpose(mat4x4<f32>(subgroupShuffle(part[at], c % 16u / 2u), subgroupShuffle(part[at + 2u], c % 16u / 2u),
                                  subgroupShuffle(part[at + 4u], c % 16u / 2u), subgroupShuffle(part[at + 6u], c % 16u / 2u)));
    sums[column] = add_weighted(sums[column], t[0], w, s);
    sums[column + 1u] = add_weighted(sums[column + 1u], t[1], w, s);
    sums[column + 2u] = add_weighted(sums[column + 2u], t[2], w, s);
    sums[column + 3u] = add_weighted(sums[column + 3u], t[3], w, s);
}

fn add_rows_2(c: u32, values: bool, w: mat4x4<f32>, s: mat4x4<f32>) { add_rows_block(c, values, w, s); add_rows_block(c + 1u, values, w, s); }
fn add_rows_4(c: u32, values: bool, w: mat4x4<f32>, s: mat4x4<f32>) { add_rows_2(c, values, w, s); add_rows_2(c + 2u, values, w, s); }
fn add_rows_8(c: u32, values: bool, w: mat4x4<f32>, s: mat4x4<f32>) { add_rows_4(c, values, w, s); add_rows_4(c + 4u, values, w, s); }
fn add_rows_16(c: u32, values: bool, w: mat4x4<f32>, s: mat4x4<f32>) { add_rows_8(c, values, w, s); add_rows_8(c + 8u, values, w, s); }
fn add_rows(values: bool, w: mat4x4<f32>, s: mat4x4<f32>) { add_rows_16(0u, values, w, s); add_rows_16(16u, values, w, s); }

fn set_part(at: u32, blocks: mat2x4<f32>, is_there: bool) {
    part[at] = select(vec4<f32>(), blocks[0], is_there);
    part[at + 1u] = select(vec4<f32>(), blocks[1], is_there);
}

// The passing rows that begin at `at.x`, ...: zeros for those that are not there. Blocks c to c + 15 of each.
fn load_other_block(c: u32, at: vec4<u32>, is_there: vec4<bool>, lane: u32) {
    if c >= D4 || c % 16u != 0u { return; }
    let block = c + 2u * lane;
    set_part(c / 2u, get_other_pair(at.x, block), is_there.x);
    set_part(c / 2u + 2u, get_other_pair(at.y, block), is_there.y);
    set_part(c / 2u + 4u, get_other_pair(at.z, block), is_there.z);
    set_part(c / 2u + 6u, get_other_pair(at.w, block), is_there.w);
}

fn load_other_2(c: u32, at: vec4<u32>, is_there: vec4<bool>, lane: u32) { load_other_block(c, at, is_there, lane); load_other_block(c + 1u, at, is_there, lane); }
fn load_other_4(c: u32, at: vec4<u32>, is_there: vec4<bool>, lane: u32) { load_other_2(c, at, is_there, lane); load_other_2(c + 2u, at, is_there, lane); }
fn load_other_8(c: u32, at: vec4<u32>, is_there: vec4<bool>, lane: u32) { load_other_4(c, at, is_there, lane); load_other_4(c + 4u, at, is_there, lane); }
fn load_other_16(c: u32, at: vec4<u32>, is_there: vec4<bool>, lane: u32) { load_other_8(c, at, is_there, lane); load_other_8(c + 8u, at, is_there, lane); }
fn load_other(at: vec4<u32>, is_there: vec4<bool>, lane: u32) { load_other_16(0u, at, is_there, lane); load_other_16(16u, at, is_there, lane); }

fn load_other_values_block(c: u32, at: vec4<u32>, is_there: vec4<bool>, lane: u32) {
    if c >= DV4 || c % 16u != 0u { return; }
    let block = c + 2u * lane;
    set_part(PARTS + c / 2u, get_other_values_pair(at.x, block), is_there.x);
    set_part(PARTS + c / 2u + 2u, get_other_values_pair(at.y, block), is_there.y);
    set_part(PARTS + c / 2u + 4u, get_other_values_pair(at.z, block), is_there.z);
    set_part(PARTS + c / 2u + 6u, get_other_values_pair(at.w, block), is_there.w);
}

fn load_other_values_2(c: u32, at: vec4<u32>, is_there: vec4<bool>, lane: u32) { load_other_values_block(c, at, is_there, lane); load_other_values_block(c + 1u, at, is_there, lane); }
fn load_other_values_4(c: u32, at: vec4<u32>, is_there: vec4<bool>, lane: u32) { load_other_values_2(c, at, is_there, lane); load_other_values_2(c + 2u, at, is_there, lane); }
fn load_other_values_8(c: u32, at: vec4<u32>, is_there: vec4<bool>, lane: u32) { load_other_values_4(c, at, is_there, lane); load_other_values_4(c + 4u, at, is_there, lane); }
fn load_other_values_16(c: u32, at: vec4<u32>, is_there: vec4<bool>, lane: u32) { load_other_values_8(c, at, is_there, lane); load_other_values_8(c + 8u, at, is_there, lane); }
fn load_other_values(at: vec4<u32>, is_there: vec4<bool>, lane: u32) { load_other_values_16(0u, at, is_there, lane); load_other_values_16(16u, at, is_there, lane); }

fn set_columns(first: u32, t: mat4x4<f32>) {
    mine[first] = t[0];
    mine[first + 1u] = t[1];
    mine[first + 2u] = t[2];
    mine[first + 3u] = t[3];
}

fn load_own_block(c: u32, at: vec4<u32>) {
    if c >= D4 { return; }
    set_columns(4u * c, transpose(mat4x4<f32>(get_own(at.x, c), get_own(at.y, c), get_own(at.z, c), get_own(at.w, c))));
}

fn load_own_2(c: u32, at: vec4<u32>) { load_own_block(c, at); load_own_block(c + 1u, at); }
fn load_own_4(c: u32, at: vec4<u32>) { load_own_2(c, at); load_own_2(c + 2u, at); }
fn load_own_8(c: u32, at: vec4<u32>) { load_own_4(c, at); load_own_4(c + 4u, at); }
fn load_own_16(c: u32, at: vec4<u32>) { load_own_8(c, at); load_own_8(c + 8u, at); }
fn load_own(at: vec4<u32>) { load_own_16(0u, at); load_own_16(16u, at); }

fn load_own_values_block(c: u32, at: vec4<u32>) {
    if c >= DV4 { return; }
    set_columns(4u * (D4 + c), transpose(mat4x4<f32>(get_own_values(at.x, c), get_own_values(at.y, c),
                                                     get_own_values(at.z, c), get_own_values(at.w, c))));
}

fn load_own_values_2(c: u32, at: vec4<u32>) { load_own_values_block(c, at); load_own_values_block(c + 1u, at); }
fn load_own_values_4(c: u32, at: vec4<u32>) { load_own_values_2(c, at); load_own_values_2(c + 2u, at); }
fn load_own_values_8(c: u32, at: vec4<u32>) { load_own_values_4(c, at); load_own_values_4(c + 4u, at); }
fn load_own_values_16(c: u32, at: vec4<u32>) { load_own_values_8(c, at); load_own_values_8(c + 8u, at); }
fn load_own_values(at: vec4<u32>) { load_own_values_16(0u, at); load_own_values_16(16u, at); }

// Four rows of a block of the sums; 0 for a row that sees nothing.
fn result_block(values: bool, c: u32, factor: vec4<f32>) -> mat4x4<f32> {
    let at = 4u * (select(0u, D4, values) + c);
    let zero = vec4<f32>();
    let no = factor == zero;
    return transpose(mat4x4<f32>(select(factor * sums[at], zero, no), select(factor * sums[at + 1u], zero, no),
                                 select(factor * sums[at + 2u], zero, no), select(factor * sums[at + 3u], zero, no)));
}

fn put_gradient_block(c: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) {
    if c >= D4 { return; }
    let t = result_block(false, c, factor);
    if is_own.x { put_d_own(at.x, c, t[0]); }
    if is_own.y { put_d_own(at.y, c, t[1]); }
    if is_own.z { put_d_own(at.z, c, t[2]); }
    if is_own.w { put_d_own(at.w, c, t[3]); }
}

fn put_gradient_2(c: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_gradient_block(c, at, is_own, factor); put_gradient_block(c + 1u, at, is_own, factor); }
fn put_gradient_4(c: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_gradient_2(c, at, is_own, factor); put_gradient_2(c + 2u, at, is_own, factor); }
fn put_gradient_8(c: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_gradient_4(c, at, is_own, factor); put_gradient_4(c + 4u, at, is_own, factor); }
fn put_gradient_16(c: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_gradient_8(c, at, is_own, factor); put_gradient_8(c + 8u, at, is_own, factor); }
fn put_gradient(at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_gradient_16(0u, at, is_own, factor); put_gradient_16(16u, at, is_own, factor); }

fn put_value_gradient_block(c: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) {
    if c >= DV4 { return; }
    let t = result_block(true, c, factor);
    if is_own.x { put_d_own_values(at.x, c, t[0]); }
    if is_own.y { put_d_own_values(at.y, c, t[1]); }
    if is_own.z { put_d_own_values(at.z, c, t[2]); }
    if is_own.w { put_d_own_values(at.w, c, t[3]); }
}

fn put_value_gradient_2(c: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_value_gradient_block(c, at, is_own, factor); put_value_gradient_block(c + 1u, at, is_own, factor); }
fn put_value_gradient_4(c: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_value_gradient_2(c, at, is_own, factor); put_value_gradient_2(c + 2u, at, is_own, factor); }
fn put_value_gradient_8(c: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_value_gradient_4(c, at, is_own, factor); put_value_gradient_4(c + 4u, at, is_own, factor); }
fn put_value_gradient_16(c: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_value_gradient_8(c, at, is_own, factor); put_value_gradient_8(c + 8u, at, is_own, factor); }
fn put_value_gradient(at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_value_gradient_16(0u, at, is_own, factor); put_value_gradient_16(16u, at, is_own, factor); }

// <own, sums> of each own row.
fn add_dot_block(c: u32, unused: u32) {
    if c >= D4 { return; }
    dots = fma(mine[4u * c], sums[4u * c], fma(mine[4u * c + 1u], sums[4u * c + 1u],
           fma(mine[4u * c + 2u], sums[4u * c + 2u], fma(mine[4u * c + 3u], sums[4u * c + 3u], dots))));
}

var<private> dots: vec4<f32>;

fn add_dot_2(c: u32, unused: u32) { add_dot_block(c, unused); add_dot_block(c + 1u, unused); }
fn add_dot_4(c: u32, unused: u32) { add_dot_2(c, unused); add_dot_2(c + 2u, unused); }
fn add_dot_8(c: u32, unused: u32) { add_dot_4(c, unused); add_dot_4(c + 4u, unused); }
fn add_dot_16(c: u32, unused: u32) { add_dot_8(c, unused); add_dot_8(c + 8u, unused); }
fn add_dot(unused: u32) { add_dot_16(0u, unused); add_dot_16(16u, unused); }

// dS for one passing row; a hidden pair has none, whatever its terms are.
fn score_gradients(s: vec4<f32>, w: vec4<f32>, dp: vec4<f32>, factor: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    return select(w * (factor * dp - d), vec4<f32>(), s == vec4<f32>(HIDDEN));
}

fn keep_ds(at: vec4<u32>, is_own: vec4<bool>, is_there: bool, ds: vec4<f32>) {
    if is_own.x && is_there { extra[at.x] = ds.x; }
    if is_own.y && is_there { extra[at.y] = ds.y; }
    if is_own.z && is_there { extra[at.z] = ds.z; }
    if is_own.w && is_there { extra[at.w] = ds.w; }
}

fn keep_sums(at: u32, is_own: bool, dot: f32, gate_sum: f32) {
    if is_own {
        extra[at] = dot;
        extra[at + 1u] = gate_sum;
    }
}

@compute @workgroup_size(8)
fn backward_queries(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                    @builtin(local_invocation_index) local: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, ROWS);
    let row = vec4<u32>(p.row + local) + 8u * FOUR;
    let is_own = row < vec4<u32>(params.row_end);
    let query = min(row, vec4<u32>(params.row_end - 1u));
    let kv_head = p.head / params.sharing;
    let other_at = params.other_first + p.batch * params.other_batch + kv_head * params.other_head;
    let values_at = params.other_values_first + p.batch * params.other_values_batch + kv_head * params.other_values_head;
    let scale = score_scale(p.head);
    load_own(params.own_first + p.batch * params.own_batch + p.head * params.own_head + query * params.own_row);
    load_own_values(params.own_values_first + p.batch * params.own_values_batch + p.head * params.own_values_head
                    + query * params.own_values_row);
    let terms = mat4x2<f32>(row_terms(p.batch, p.head, query.x), row_terms(p.batch, p.head, query.y),
                            row_terms(p.batch, p.head, query.z), row_terms(p.batch, p.head, query.w));
    let l = vec4<f32>(terms[0].x, terms[1].x, terms[2].x, terms[3].x);
    let d = vec4<f32>(terms[0].y, terms[1].y, terms[2].y, terms[3].y);
    let factor = row_weights(p.batch, p.head, query);
    let queries = rows_of(query);
    let ds_at = vec4<u32>(params.extra_ds) + ((p.batch * params.heads + p.head) * (params.row_end - params.row_first)
              + row - params.row_first) * params.keys;
    var gate_sums = vec4<f32>();
    let range = key_range(p.slice, p.row, ROWS);
    for (var j = range.x; j < range.y; j += 4u) {
        let key = min(vec4<u32>(j) + FOUR, vec4<u32>(params.keys - 1u));
        let is_there = vec4<bool>(has_key(p.batch, j, range.y), has_key(p.batch, j + 1u, range.y),
                                  has_key(p.batch, j + 2u, range.y), has_key(p.batch, j + 3u, range.y));
        load_other(other_at + key * params.other_row, is_there, lane);
        load_other_values(values_at + key * params.other_values_row, is_there, lane);
        let t = products(false);
        let s = mat4x4<f32>(scores(scale * t[0], p.batch, p.head, queries, row_of(j), is_there.xxxx),
                            scores(scale * t[1], p.batch, p.head, queries, row_of(j + 1u), is_there.yyyy),
                            scores(scale * t[2], p.batch, p.head, queries, row_of(j + 2u), is_there.zzzz),
                            scores(scale * t[3], p.batch, p.head, queries, row_of(j + 3u), is_there.wwww));
        let w = mat4x4<f32>(probabilities(s[0] - l), probabilities(s[1] - l), probabilities(s[2] - l), probabilities(s[3] - l));
        let dp = products(true);
        let ds = mat4x4<f32>(score_gradients(s[0], w[0], dp[0], factor, d), score_gradients(s[1], w[1], dp[1], factor, d),
                             score_gradients(s[2], w[2], dp[2], factor, d), score_gradients(s[3], w[3], dp[3], factor, d));
        add_rows(false, ds, s);
        if SUMS {
            let hidden = vec4<f32>(HIDDEN);
            gate_sums = select(fma(w[0], dp[0], gate_sums), gate_sums, s[0] == hidden);
            gate_sums = select(fma(w[1], dp[1], gate_sums), gate_sums, s[1] == hidden);
            gate_sums = select(fma(w[2], dp[2], gate_sums), gate_sums, s[2] == hidden);
            gate_sums = select(fma(w[3], dp[3], gate_sums), gate_sums, s[3] == hidden);
        }
        if WRITE_DS {
            keep_ds(ds_at + j, is_own, is_there.x, ds[0]);
            keep_ds(ds_at + j + 1u, is_own, is_there.y, ds[1]);
            keep_ds(ds_at + j + 2u, is_own, is_there.z, ds[2]);
            keep_ds(ds_at + j + 3u, is_own, is_there.w, ds[3]);
        }
    }
    let at = params.y_first + p.slice * params.y_slice + p.batch * params.y_batch + p.head * params.y_head;
    put_gradient(at + row * params.y_row, is_own, vec4<f32>(LN_2 * scale));
    if SUMS {
        add_dot(0u);
        let sums_at = vec4<u32>(params.extra_sums)
                    + 2u * (((p.slice * params.batch + p.batch) * params.heads + p.head) * params.queries + row);
        keep_sums(sums_at.x, is_own.x, dots.x, gate_sums.x);
        keep_sums(sums_at.y, is_own.y, dots.y, gate_sums.y);
        keep_sums(sums_at.z, is_own.z, dots.z, gate_sums.z);
        keep_sums(sums_at.w, is_own.w, dots.w, gate_sums.w);
    }
}

@compute @workgroup_size(8)
fn backward_keys(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(local_invocation_index) local: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, ROWS);
    let row = vec4<u32>(p.row + local) + 8u * FOUR;
    let is_own = row < vec4<u32>(params.row_end);
    let key = min(row, vec4<u32>(params.row_end - 1u));
    load_own(params.own_first + p.batch * params.own_batch + p.head * params.own_head + key * params.own_row);
    if KEYS {
        load_own_values(params.own_values_first + p.batch * params.own_values_batch + p.head * params.own_values_head
                        + key * params.own_values_row);
    }
    let keys = rows_of(key);
    let range = query_range(p.slice, p.row, ROWS);
    for (var head = p.head * params.sharing; head < (p.head + 1u) * params.sharing; head++) {
        let other_at = params.other_first + p.batch * params.other_batch + head * params.other_head;
        let values_at = params.other_values_first + p.batch * params.other_values_batch + head * params.other_values_head;
        let scale = score_scale(head);
        let first_row = (p.batch * params.heads + head) * params.queries;
        let last_term = params.rows_at + 2u * (first_row + params.queries) - 1u;
        let one_weight = row_weight(p.batch, head, 0u);
        for (var i = range.x; i < range.y; i += 4u) {
            let next = vec4<u32>(i) + FOUR;
            let query = min(next, vec4<u32>(params.queries - 1u));
            let is_there = next < vec4<u32>(range.y);
            load_other(other_at + query * params.other_row, is_there, lane);
            load_other_values(values_at + query * params.other_values_row, is_there, lane);
            // L and D of four rows are eight words, one a lane.
            let term = side[min(params.rows_at + 2u * (first_row + i) + lane, last_term)];
            var factor = vec4<f32>(one_weight);
            if WEIGHTS {
                let weight = row_weight(p.batch, head, min(i + lane % 4u, params.queries - 1u));
                factor = vec4<f32>(subgroupShuffle(weight, 0u), subgroupShuffle(weight, 1u),
                                   subgroupShuffle(weight, 2u), subgroupShuffle(weight, 3u));
            }
            let t = products(false);
            let s = mat4x4<f32>(scores(scale * t[0], p.batch, head, row_of(i), keys, is_there.xxxx),
                                scores(scale * t[1], p.batch, head, row_of(i + 1u), keys, is_there.yyyy),
                                scores(scale * t[2], p.batch, head, row_of(i + 2u), keys, is_there.zzzz),
                                scores(scale * t[3], p.batch, head, row_of(i + 3u), keys, is_there.wwww));
            let w = mat4x4<f32>(probabilities(s[0] - subgroupShuffle(term, 0u)),
                                probabilities(s[1] - subgroupShuffle(term, 2u)),
                                probabilities(s[2] - subgroupShuffle(term, 4u)),
                                probabilities(s[3] - subgroupShuffle(term, 6u)));
            if VALUES {
                add_rows(true, mat4x4<f32>(factor.x * w[0], factor.y * w[1], factor.z * w[2], factor.w * w[3]), s);
            }
            if KEYS {
                let dp = products(true);
                let ds = mat4x4<f32>(
                    score_gradients(s[0], w[0], dp[0], factor.xxxx, vec4<f32>(subgroupShuffle(term, 1u))),
                    score_gradients(s[1], w[1], dp[1], factor.yyyy, vec4<f32>(subgroupShuffle(term, 3u))),
                    score_gradients(s[2], w[2], dp[2], factor.zzzz, vec4<f32>(subgroupShuffle(term, 5u))),
                    score_gradients(s[3], w[3], dp[3], factor.wwww, vec4<f32>(subgroupShuffle(term, 7u))));
                add_rows(false, (LN_2 * scale) * ds, s);
            }
        }
    }
    let is_kept = vec4<bool>(!is_masked(p.batch, key.x), !is_masked(p.batch, key.y),
                             !is_masked(p.batch, key.z), !is_masked(p.batch, key.w));
    let factor = select(vec4<f32>(), vec4<f32>(1.0), is_kept);
    if KEYS {
        let at = params.y_first + p.slice * params.y_slice + p.batch * params.y_batch + p.head * params.y_head;
        put_gradient(at + row * params.y_row, is_own, factor);
    }
    if VALUES {
        let at = params.z_first + p.slice * params.z_slice + p.batch * params.z_batch + p.head * params.z_head;
        put_value_gradient(at + row * params.z_row, is_own, factor);
    }
}
