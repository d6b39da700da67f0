// Flash attention forward for CPU adapters with subgroups of 8 (formulas: attention/flash_attention.wgsl), on the
// lanes of common/attention_lanes.wgsl: a workgroup has 64 queries, an invocation eight of them, two keys at a time.
//
// 8 loads of four floats, or 4 of eight as 64-bit integers (common/attention_other_wide.wgsl), for 2,048
// multiply-adds at 64 columns. The softmax needs no other lane.
// The sums are scaled only when a score exceeds the maximum that they have by HEADROOM: that is a loop around
// the loop over the keys, since such adapters jump backwards alone.
// Head dimensions up to 128. Workgroup memory: 0 bytes.
//
// 4 heads, 1024 tokens, 64 columns on lavapipe, percent of the ceiling. With AVX-512: 23 with 32 queries, four keys
// at a time and sums scaled each time (16 loads for 2,048 multiply-adds); 26 with 64. With AVX2, where each number
// of a load goes through memory: 19.5, and 25 with 64-bit integers.

@group(0) @binding(7) var<storage, read_write> lse: array<f32>;      // [slices, batch, heads, queries]

// In base 2: weights are at most 2^HEADROOM, sums of a slice of 2^16 keys at most 2^24.
const HEADROOM: vec4<f32> = vec4<f32>(8.0);

// Columns of the results: the upper four rows, then the lower four.
var<private> sums: array<vec4<f32>, 8u * DV4>;
// This lane's part of the two keys' values.
var<private> values_part: array<vec4<f32>, 4u * ((DV4 + 15u) / 16u)>;

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
    let at = c / 16u * 4u + c % 2u;
    let first = subgroupShuffle(values_part[at], c % 16u / 2u);
    let second = subgroupShuffle(values_part[at + 2u], c % 16u / 2u);
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

fn load_values_block(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) {
    if c >= DV4 || c % 16u != 0u { return; }
    let first = get_other_values_pair(at.x, c + 2u * lane);
    let second = get_other_values_pair(at.y, c + 2u * lane);
    let zero = vec4<f32>();
    values_part[c / 4u] = select(zero, first[0], is_there.x);
    values_part[c / 4u + 1u] = select(zero, first[1], is_there.x);
    values_part[c / 4u + 2u] = select(zero, second[0], is_there.y);
    values_part[c / 4u + 3u] = select(zero, second[1], is_there.y);
}

fn load_values_2(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_values_block(c, at, is_there, lane); load_values_block(c + 1u, at, is_there, lane); }
fn load_values_4(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_values_2(c, at, is_there, lane); load_values_2(c + 2u, at, is_there, lane); }
fn load_values_8(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_values_4(c, at, is_there, lane); load_values_4(c + 4u, at, is_there, lane); }
fn load_values_16(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_values_8(c, at, is_there, lane); load_values_8(c + 8u, at, is_there, lane); }
fn load_values(at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_values_16(0u, at, is_there, lane); load_values_16(16u, at, is_there, lane); }

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
    load_mine(own_at + min(upper, last) * params.own_row, own_at + min(lower, last) * params.own_row);
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
            load_pair(other_at + key * params.other_row, is_there, lane);
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
