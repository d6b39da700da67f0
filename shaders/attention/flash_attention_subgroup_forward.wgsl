// Flash attention forward for CPU adapters with subgroups of 8 (formulas: attention/flash_attention.wgsl).
//
// A workgroup is one subgroup and has 64 queries; an invocation has eight of them, in registers or next to
// them: a vec4 is one column of four, the upper or the lower ones. Two keys pass by at a time. An invocation
// loads one vec4 in eight of these, and the others reach it by shuffles with constant lanes: 8 loads for
// 2,048 multiply-adds at 64 columns. The softmax needs no other lane.
// The sums are scaled only when a score exceeds the maximum that they have by HEADROOM: that is a loop around
// the loop over the keys, since such adapters jump backwards alone.
// Nothing may depend on a variable index, for then an array is memory that is read lane by lane. So the blocks
// of a row are written out by doubling (`_2`, `_4`, ...), and what lies beyond D is dropped as constant.
// Head dimensions up to 128. Workgroup memory: 0 bytes.
//
// 4 heads, 1024 tokens, 64 columns on lavapipe, percent of the ceiling: 23 with 32 queries, four keys at a time
// and sums scaled each time (16 loads for 2,048 multiply-adds); 26 so. Loads are about 180 cycles each, and a
// third of the time; without them it would be 48. Loads of 64-bit integers, two numbers each, would make it 28.

@group(0) @binding(7) var<storage, read_write> lse: array<f32>;      // [slices, batch, heads, queries]

const ROWS: u32 = 64u;
// In base 2: weights are at most 2^HEADROOM, sums of a slice of 2^16 keys at most 2^24.
const HEADROOM: vec4<f32> = vec4<f32>(8.0);
const PARTS: u32 = 4u * ((D4 + 15u) / 16u);
const ALL_PARTS: u32 = PARTS + 4u * ((DV4 + 15u) / 16u);

// Columns of the queries and of the results: the upper four rows, then the lower four.
var<private> mine: array<vec4<f32>, 8u * D4>;
var<private> sums: array<vec4<f32>, 8u * DV4>;
// This lane's part of the two keys and of their values: two of sixteen blocks, of each key.
var<private> part: array<vec4<f32>, ALL_PARTS>;

// In matrices of pairs, columns are: the upper queries with either key, then the lower ones.

fn add_product(key: vec4<f32>, at: u32, sum: vec4<f32>) -> vec4<f32> {
    return fma(key.wwww, mine[at + 6u], fma(key.zzzz, mine[at + 4u],
           fma(key.yyyy, mine[at + 2u], fma(key.xxxx, mine[at], sum))));
}

fn products_block(t: mat4x4<f32>, c: u32) -> mat4x4<f32> {
    if c >= D4 { return t; }
    let at = c / 16u * 4u + c % 2u;
    let first = subgroupShuffle(part[at], c % 16u / 2u);
    let second = subgroupShuffle(part[at + 2u], c % 16u / 2u);
    return mat4x4<f32>(add_product(first, 8u * c, t[0]), add_product(second, 8u * c, t[1]),
                       add_product(first, 8u * c + 1u, t[2]), add_product(second, 8u * c + 1u, t[3]));
}

fn products_2(t: mat4x4<f32>, c: u32) -> mat4x4<f32> { return products_block(products_block(t, c), c + 1u); }
fn products_4(t: mat4x4<f32>, c: u32) -> mat4x4<f32> { return products_2(products_2(t, c), c + 2u); }
fn products_8(t: mat4x4<f32>, c: u32) -> mat4x4<f32> { return products_4(products_4(t, c), c + 4u); }
fn products_16(t: mat4x4<f32>, c: u32) -> mat4x4<f32> { return products_8(products_8(t, c), c + 8u); }
fn products() -> mat4x4<f32> { return products_16(products_16(mat4x4<f32>(), 0u), 16u); }

fn add_pair(sum: vec4<f32>, first: f32, second: f32, w: mat2x4<f32>, s: mat2x4<f32>) -> vec4<f32> {
    if CAREFUL {
        let hidden = vec4<f32>(HIDDEN);
        let t = select(fma(vec4<f32>(first), w[0], sum), sum, s[0] == hidden);
        return select(fma(vec4<f32>(second), w[1], t), t, s[1] == hidden);
    }
    return fma(vec4<f32>(second), w[1], fma(vec4<f32>(first), w[0], sum));
}

fn add_column(column: u32, first: f32, second: f32, w: mat4x4<f32>, s: mat4x4<f32>) {
    sums[column] = add_pair(sums[column], first, second, mat2x4<f32>(w[0], w[1]), mat2x4<f32>(s[0], s[1]));
    sums[column + 1u] = add_pair(sums[column + 1u], first, second, mat2x4<f32>(w[2], w[3]), mat2x4<f32>(s[2], s[3]));
}

// Adds the values of the two keys with the weights `w`; `s` tells who is hidden from whom.
fn add_values_block(c: u32, w: mat4x4<f32>, s: mat4x4<f32>) {
    if c >= DV4 { return; }
    let at = PARTS + c / 16u * 4u + c % 2u;
    let first = subgroupShuffle(part[at], c % 16u / 2u);
    let second = subgroupShuffle(part[at + 2u], c % 16u / 2u);
    add_column(8u * c, first.x, second.x, w, s);
    add_column(8u * c + 2u, first.y, second.y, w, s);
    add_column(8u * c + 4u, first.z, second.z, w, s);
    add_column(8u * c + 6u, first.w, second.w, w, s);
}

fn add_values_2(c: u32, w: mat4x4<f32>, s: mat4x4<f32>) { add_values_block(c, w, s); add_values_block(c + 1u, w, s); }
fn add_values_4(c: u32, w: mat4x4<f32>, s: mat4x4<f32>) { add_values_2(c, w, s); add_values_2(c + 2u, w, s); }
fn add_values_8(c: u32, w: mat4x4<f32>, s: mat4x4<f32>) { add_values_4(c, w, s); add_values_4(c + 4u, w, s); }
fn add_values_16(c: u32, w: mat4x4<f32>, s: mat4x4<f32>) { add_values_8(c, w, s); add_values_8(c + 8u, w, s); }
fn add_values(w: mat4x4<f32>, s: mat4x4<f32>) { add_values_16(0u, w, s); add_values_16(16u, w, s); }

fn scale_block(c: u32, factor: mat2x4<f32>) {
    if c >= DV4 { return; }
    sums[8u * c] *= factor[0];
    sums[8u * c + 1u] *= factor[1];
    sums[8u * c + 2u] *= factor[0];
    sums[8u * c + 3u] *= factor[1];
    sums[8u * c + 4u] *= factor[0];
    sums[8u * c + 5u] *= factor[1];
    sums[8u * c + 6u] *= factor[0];
    sums[8u * c + 7u] *= factor[1];
}

fn scale_2(c: u32, factor: mat2x4<f32>) { scale_block(c, factor); scale_block(c + 1u, factor); }
fn scale_4(c: u32, factor: mat2x4<f32>) { scale_2(c, factor); scale_2(c + 2u, factor); }
fn scale_8(c: u32, factor: mat2x4<f32>) { scale_4(c, factor); scale_4(c + 4u, factor); }
fn scale_16(c: u32, factor: mat2x4<f32>) { scale_8(c, factor); scale_8(c + 8u, factor); }
fn scale(factor: mat2x4<f32>) { scale_16(0u, factor); scale_16(16u, factor); }

fn set_part(at: u32, blocks: mat2x4<f32>, is_there: bool) {
    part[at] = select(vec4<f32>(), blocks[0], is_there);
    part[at + 1u] = select(vec4<f32>(), blocks[1], is_there);
}

// The keys that begin at `at.x` and `at.y`: zeros for those that are not there. Blocks c to c + 15 of each.
fn load_keys_block(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) {
    if c >= D4 || c % 16u != 0u { return; }
    set_part(c / 4u, get_other_pair(at.x, c + 2u * lane), is_there.x);
    set_part(c / 4u + 2u, get_other_pair(at.y, c + 2u * lane), is_there.y);
}

fn load_keys_2(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_keys_block(c, at, is_there, lane); load_keys_block(c + 1u, at, is_there, lane); }
fn load_keys_4(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_keys_2(c, at, is_there, lane); load_keys_2(c + 2u, at, is_there, lane); }
fn load_keys_8(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_keys_4(c, at, is_there, lane); load_keys_4(c + 4u, at, is_there, lane); }
fn load_keys_16(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_keys_8(c, at, is_there, lane); load_keys_8(c + 8u, at, is_there, lane); }
fn load_keys(at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_keys_16(0u, at, is_there, lane); load_keys_16(16u, at, is_there, lane); }

fn load_values_block(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) {
    if c >= DV4 || c % 16u != 0u { return; }
    set_part(PARTS + c / 4u, get_other_values_pair(at.x, c + 2u * lane), is_there.x);
    set_part(PARTS + c / 4u + 2u, get_other_values_pair(at.y, c + 2u * lane), is_there.y);
}

fn load_values_2(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_values_block(c, at, is_there, lane); load_values_block(c + 1u, at, is_there, lane); }
fn load_values_4(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_values_2(c, at, is_there, lane); load_values_2(c + 2u, at, is_there, lane); }
fn load_values_8(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_values_4(c, at, is_there, lane); load_values_4(c + 4u, at, is_there, lane); }
fn load_values_16(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_values_8(c, at, is_there, lane); load_values_8(c + 8u, at, is_there, lane); }
fn load_values(at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_values_16(0u, at, is_there, lane); load_values_16(16u, at, is_there, lane); }

fn set_columns(first: u32, t: mat4x4<f32>) {
    mine[first] = t[0];
    mine[first + 2u] = t[1];
    mine[first + 4u] = t[2];
    mine[first + 6u] = t[3];
}

fn load_own_block(c: u32, upper: vec4<u32>, lower: vec4<u32>) {
    if c >= D4 { return; }
    set_columns(8u * c, transpose(mat4x4<f32>(get_own(upper.x, c), get_own(upper.y, c), get_own(upper.z, c), get_own(upper.w, c))));
    set_columns(8u * c + 1u, transpose(mat4x4<f32>(get_own(lower.x, c), get_own(lower.y, c), get_own(lower.z, c), get_own(lower.w, c))));
}

fn load_own_2(c: u32, upper: vec4<u32>, lower: vec4<u32>) { load_own_block(c, upper, lower); load_own_block(c + 1u, upper, lower); }
fn load_own_4(c: u32, upper: vec4<u32>, lower: vec4<u32>) { load_own_2(c, upper, lower); load_own_2(c + 2u, upper, lower); }
fn load_own_8(c: u32, upper: vec4<u32>, lower: vec4<u32>) { load_own_4(c, upper, lower); load_own_4(c + 4u, upper, lower); }
fn load_own_16(c: u32, upper: vec4<u32>, lower: vec4<u32>) { load_own_8(c, upper, lower); load_own_8(c + 8u, upper, lower); }
fn load_own(upper: vec4<u32>, lower: vec4<u32>) { load_own_16(0u, upper, lower); load_own_16(16u, upper, lower); }

// Four rows of a block of the sums from `first` on; 0 for a row that sees nothing.
fn result_block(first: u32, factor: vec4<f32>) -> mat4x4<f32> {
    let zero = vec4<f32>();
    let no = factor == zero;
    return transpose(mat4x4<f32>(select(factor * sums[first], zero, no), select(factor * sums[first + 2u], zero, no),
                                 select(factor * sums[first + 4u], zero, no), select(factor * sums[first + 6u], zero, no)));
}

fn put_output_block(c: u32, first: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) {
    if c >= DV4 { return; }
    let t = result_block(8u * c + first, factor);
    if is_own.x { put_o(at.x, c, t[0]); }
    if is_own.y { put_o(at.y, c, t[1]); }
    if is_own.z { put_o(at.z, c, t[2]); }
    if is_own.w { put_o(at.w, c, t[3]); }
}

fn put_output_2(c: u32, first: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_output_block(c, first, at, is_own, factor); put_output_block(c + 1u, first, at, is_own, factor); }
fn put_output_4(c: u32, first: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_output_2(c, first, at, is_own, factor); put_output_2(c + 2u, first, at, is_own, factor); }
fn put_output_8(c: u32, first: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_output_4(c, first, at, is_own, factor); put_output_4(c + 4u, first, at, is_own, factor); }
fn put_output_16(c: u32, first: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_output_8(c, first, at, is_own, factor); put_output_8(c + 8u, first, at, is_own, factor); }
fn put_output(first: u32, at: vec4<u32>, is_own: vec4<bool>, factor: vec4<f32>) { put_output_16(0u, first, at, is_own, factor); put_output_16(16u, first, at, is_own, factor); }

fn known_terms(batch: u32, head: u32, query: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(row_terms(batch, head, query.x).x, row_terms(batch, head, query.y).x,
                     row_terms(batch, head, query.z).x, row_terms(batch, head, query.w).x);
}

fn put_lse(at: u32, row: vec4<u32>, is_own: vec4<bool>, m: vec4<f32>, l: vec4<f32>) {
    if is_own.x { lse[at + row.x] = log_sum(m.x, l.x); }
    if is_own.y { lse[at + row.y] = log_sum(m.y, l.y); }
    if is_own.z { lse[at + row.z] = log_sum(m.z, l.z); }
    if is_own.w { lse[at + row.w] = log_sum(m.w, l.w); }
}

fn exceeds(highest: mat2x4<f32>, m: mat2x4<f32>) -> bool {
    return any(highest[0] > m[0] + HEADROOM) || any(highest[1] > m[1] + HEADROOM);
}

@compute @workgroup_size(8)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, ROWS);
    let upper = vec4<u32>(p.row + local) + 8u * FOUR;
    let lower = upper + 32u;
    let last = vec4<u32>(params.row_end - 1u);
    let kv_head = p.head / params.sharing;
    let other_at = params.other_first + p.batch * params.other_batch + kv_head * params.other_head;
    let values_at = params.other_values_first + p.batch * params.other_values_batch + kv_head * params.other_values_head;
    let score_factor = score_scale(p.head);
    let own_at = params.own_first + p.batch * params.own_batch + p.head * params.own_head;
    load_own(own_at + min(upper, last) * params.own_row, own_at + min(lower, last) * params.own_row);
    var m = mat2x4<f32>(vec4<f32>(FLOOR), vec4<f32>(FLOOR));
    if KNOWN {
        m = mat2x4<f32>(known_terms(p.batch, p.head, min(upper, last)), known_terms(p.batch, p.head, min(lower, last)));
    }
    var raised = m;
    var l = mat2x4<f32>();
    let above = rows_of(min(upper, last));
    let below = rows_of(min(lower, last));
    let range = key_range(p.slice, p.row, ROWS);
    var j = range.x;
    loop {
        if !KNOWN {
            let shrink = mat2x4<f32>(exp2(m[0] - raised[0]), exp2(m[1] - raised[1]));
            m = raised;
            l = mat2x4<f32>(l[0] * shrink[0], l[1] * shrink[1]);
            if VALUES { scale(shrink); }
        }
        loop {
            if j >= range.y { break; }
            let key = min(vec2<u32>(j, j + 1u), vec2<u32>(params.keys - 1u));
            let is_there = vec2<bool>(has_key(p.batch, j, range.y), has_key(p.batch, j + 1u, range.y));
            load_keys(other_at + key * params.other_row, is_there, lane);
            let t = products();
            let s = mat4x4<f32>(scores(score_factor * t[0], p.batch, p.head, above, row_of(j), is_there.xxxx),
                                scores(score_factor * t[1], p.batch, p.head, above, row_of(j + 1u), is_there.yyyy),
                                scores(score_factor * t[2], p.batch, p.head, below, row_of(j), is_there.xxxx),
                                scores(score_factor * t[3], p.batch, p.head, below, row_of(j + 1u), is_there.yyyy));
            var w: mat4x4<f32>;
            if KNOWN {
                w = mat4x4<f32>(probabilities(s[0] - m[0]), probabilities(s[1] - m[0]),
                                probabilities(s[2] - m[1]), probabilities(s[3] - m[1]));
            } else {
                raised = mat2x4<f32>(max(m[0], max(s[0], s[1])), max(m[1], max(s[2], s[3])));
                if subgroupAny(exceeds(raised, m)) { break; }
                w = mat4x4<f32>(exponentials(s[0] - m[0]), exponentials(s[1] - m[0]),
                                exponentials(s[2] - m[1]), exponentials(s[3] - m[1]));
            }
            l = mat2x4<f32>(l[0] + (w[0] + w[1]), l[1] + (w[2] + w[3]));
            if VALUES {
                load_values(values_at + key * params.other_values_row, is_there, lane);
                add_values(w, s);
            }
            j += 2u;
        }
        if j >= range.y { break; }
    }
    if VALUES {
        var factor = mat2x4<f32>(row_weights(p.batch, p.head, min(upper, last)), row_weights(p.batch, p.head, min(lower, last)));
        if !KNOWN {
            let zero = vec4<f32>();
            factor = mat2x4<f32>(select(factor[0] / l[0], zero, l[0] == zero), select(factor[1] / l[1], zero, l[1] == zero));
        }
        let at = params.y_first + p.slice * params.y_slice + p.batch * params.y_batch + p.head * params.y_head;
        put_output(0u, at + upper * params.y_row, upper <= last, factor[0]);
        put_output(1u, at + lower * params.y_row, lower <= last, factor[1]);
    }
    if !KNOWN {
        let at = (p.slice * params.batch * params.heads + p.batch * params.heads + p.head) * params.queries;
        put_lse(at, upper, upper <= last, m[0], l[0]);
        put_lse(at, lower, lower <= last, m[1], l[1]);
    }
}
