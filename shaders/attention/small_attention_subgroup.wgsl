// Attention within small instances for CPU adapters with subgroups of 8 (formulas: small_attention.wgsl).
// A workgroup is one subgroup and has 32 rows of an instance and head, an invocation four of them, whose
// elements (up to 64) stay in registers: rows of queries in `forward` and `backward_queries`, rows of keys in
// `backward_keys`. Of the other tokens, four at a time, an invocation reads one vec4 in eight; the rest
// reach it by shuffles with constant lanes. Scores are softmaxed as they come (online), four keys a time.
// Workgroup memory: 0 bytes.
//
// A load in a loop costs about a hundred cycles on lavapipe, whatever its index; a shuffle about one. With 32
// elements a head, four loads serve 512 multiply-adds of 8 lanes. Named fields: an array is memory.

// One vec4 of each of an invocation's four tokens.
struct Quad { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

// All elements of an invocation's four tokens.
struct Rows {
    c0: Quad, c1: Quad, c2: Quad, c3: Quad, c4: Quad, c5: Quad, c6: Quad, c7: Quad,
    c8: Quad, c9: Quad, c10: Quad, c11: Quad, c12: Quad, c13: Quad, c14: Quad, c15: Quad,
}

// This lane's vec4 of the first and of the second 32 elements of the four tokens of a block.
struct Part { low: mat4x4<f32>, high: mat4x4<f32> }

// An invocation's tokens: their numbers, rows and regions.
struct Own { i: vec4<u32>, row: vec4<u32>, region: vec4<u32> }

const Q: u32 = 0u;
const K: u32 = 1u;
const V: u32 = 2u;
const DOUT: u32 = 3u;

fn fetch(what: u32, row: u32, head: u32, c: u32) -> vec4<f32> {
    switch what {
        case Q: { return get_q(row, head, c); }
        case K: { return get_k(row, head, c); }
        case V: { return get_v(row, head, c); }
        default: { return get_dout(row, head, c); }
    }
}

fn load_quad(what: u32, own: Own, head: u32, c: u32) -> Quad {
    return Quad(fetch(what, own.row.x, head, c), fetch(what, own.row.y, head, c),
                fetch(what, own.row.z, head, c), fetch(what, own.row.w, head, c));
}

fn load_rows(what: u32, own: Own, head: u32) -> Rows {
    var x: Rows;
    if D4 > 0u { x.c0 = load_quad(what, own, head, 0u); }
    if D4 > 1u { x.c1 = load_quad(what, own, head, 1u); }
    if D4 > 2u { x.c2 = load_quad(what, own, head, 2u); }
    if D4 > 3u { x.c3 = load_quad(what, own, head, 3u); }
    if D4 > 4u { x.c4 = load_quad(what, own, head, 4u); }
    if D4 > 5u { x.c5 = load_quad(what, own, head, 5u); }
    if D4 > 6u { x.c6 = load_quad(what, own, head, 6u); }
    if D4 > 7u { x.c7 = load_quad(what, own, head, 7u); }
    if D4 > 8u { x.c8 = load_quad(what, own, head, 8u); }
    if D4 > 9u { x.c9 = load_quad(what, own, head, 9u); }
    if D4 > 10u { x.c10 = load_quad(what, own, head, 10u); }
    if D4 > 11u { x.c11 = load_quad(what, own, head, 11u); }
    if D4 > 12u { x.c12 = load_quad(what, own, head, 12u); }
    if D4 > 13u { x.c13 = load_quad(what, own, head, 13u); }
    if D4 > 14u { x.c14 = load_quad(what, own, head, 14u); }
    if D4 > 15u { x.c15 = load_quad(what, own, head, 15u); }
    return x;
}

fn load_part(what: u32, t: Four, head: u32, lane: u32) -> Part {
    var p: Part;
    let c = min(lane, D4 - 1u);
    p.low = mat4x4<f32>(fetch(what, t.x.row, head, c), fetch(what, t.y.row, head, c),
                        fetch(what, t.z.row, head, c), fetch(what, t.w.row, head, c));
    if D4 > 8u {
        let d = min(8u + lane, D4 - 1u);
        p.high = mat4x4<f32>(fetch(what, t.x.row, head, d), fetch(what, t.y.row, head, d),
                             fetch(what, t.z.row, head, d), fetch(what, t.w.row, head, d));
    }
    return p;
}

// Four elements of each of the four tokens: lane `c`'s part.
fn low(p: Part, c: u32) -> mat4x4<f32> {
    return mat4x4<f32>(subgroupShuffle(p.low[0], c), subgroupShuffle(p.low[1], c),
                       subgroupShuffle(p.low[2], c), subgroupShuffle(p.low[3], c));
}

fn high(p: Part, c: u32) -> mat4x4<f32> {
    return mat4x4<f32>(subgroupShuffle(p.high[0], c), subgroupShuffle(p.high[1], c),
                       subgroupShuffle(p.high[2], c), subgroupShuffle(p.high[3], c));
}

fn add_product(m: mat4x4<f32>, v: vec4<f32>, s: vec4<f32>) -> vec4<f32> {
    return fma(m[3], v.wwww, fma(m[2], v.zzzz, fma(m[1], v.yyyy, fma(m[0], v.xxxx, s))));
}

fn add(s: Quad, m: mat4x4<f32>, x: Quad) -> Quad {
    return Quad(add_product(m, x.a, s.a), add_product(m, x.b, s.b), add_product(m, x.c, s.c), add_product(m, x.d, s.d));
}

// Dot products of an invocation's tokens with the four of a block: one vec4 a token.
fn products(x: Rows, p: Part) -> Quad {
    var s: Quad;
    if D4 > 0u { s = add(s, transpose(low(p, 0u)), x.c0); }
    if D4 > 1u { s = add(s, transpose(low(p, 1u)), x.c1); }
    if D4 > 2u { s = add(s, transpose(low(p, 2u)), x.c2); }
    if D4 > 3u { s = add(s, transpose(low(p, 3u)), x.c3); }
    if D4 > 4u { s = add(s, transpose(low(p, 4u)), x.c4); }
    if D4 > 5u { s = add(s, transpose(low(p, 5u)), x.c5); }
    if D4 > 6u { s = add(s, transpose(low(p, 6u)), x.c6); }
    if D4 > 7u { s = add(s, transpose(low(p, 7u)), x.c7); }
    if D4 > 8u { s = add(s, transpose(high(p, 0u)), x.c8); }
    if D4 > 9u { s = add(s, transpose(high(p, 1u)), x.c9); }
    if D4 > 10u { s = add(s, transpose(high(p, 2u)), x.c10); }
    if D4 > 11u { s = add(s, transpose(high(p, 3u)), x.c11); }
    if D4 > 12u { s = add(s, transpose(high(p, 4u)), x.c12); }
    if D4 > 13u { s = add(s, transpose(high(p, 5u)), x.c13); }
    if D4 > 14u { s = add(s, transpose(high(p, 6u)), x.c14); }
    if D4 > 15u { s = add(s, transpose(high(p, 7u)), x.c15); }
    return s;
}

// Adds the four tokens of a block, weighted.
fn mix(sums: Rows, p: Part, w: Quad) -> Rows {
    var s = sums;
    if D4 > 0u { s.c0 = add(s.c0, low(p, 0u), w); }
    if D4 > 1u { s.c1 = add(s.c1, low(p, 1u), w); }
    if D4 > 2u { s.c2 = add(s.c2, low(p, 2u), w); }
    if D4 > 3u { s.c3 = add(s.c3, low(p, 3u), w); }
    if D4 > 4u { s.c4 = add(s.c4, low(p, 4u), w); }
    if D4 > 5u { s.c5 = add(s.c5, low(p, 5u), w); }
    if D4 > 6u { s.c6 = add(s.c6, low(p, 6u), w); }
    if D4 > 7u { s.c7 = add(s.c7, low(p, 7u), w); }
    if D4 > 8u { s.c8 = add(s.c8, high(p, 0u), w); }
    if D4 > 9u { s.c9 = add(s.c9, high(p, 1u), w); }
    if D4 > 10u { s.c10 = add(s.c10, high(p, 2u), w); }
    if D4 > 11u { s.c11 = add(s.c11, high(p, 3u), w); }
    if D4 > 12u { s.c12 = add(s.c12, high(p, 4u), w); }
    if D4 > 13u { s.c13 = add(s.c13, high(p, 5u), w); }
    if D4 > 14u { s.c14 = add(s.c14, high(p, 6u), w); }
    if D4 > 15u { s.c15 = add(s.c15, high(p, 7u), w); }
    return s;
}

fn scaled(x: Quad, f: vec4<f32>) -> Quad {
    return Quad(f.x * x.a, f.y * x.b, f.z * x.c, f.w * x.d);
}

fn scale_rows(rows: Rows, f: vec4<f32>) -> Rows {
    var x = rows;
    if D4 > 0u { x.c0 = scaled(x.c0, f); }
    if D4 > 1u { x.c1 = scaled(x.c1, f); }
    if D4 > 2u { x.c2 = scaled(x.c2, f); }
    if D4 > 3u { x.c3 = scaled(x.c3, f); }
    if D4 > 4u { x.c4 = scaled(x.c4, f); }
    if D4 > 5u { x.c5 = scaled(x.c5, f); }
    if D4 > 6u { x.c6 = scaled(x.c6, f); }
    if D4 > 7u { x.c7 = scaled(x.c7, f); }
    if D4 > 8u { x.c8 = scaled(x.c8, f); }
    if D4 > 9u { x.c9 = scaled(x.c9, f); }
    if D4 > 10u { x.c10 = scaled(x.c10, f); }
    if D4 > 11u { x.c11 = scaled(x.c11, f); }
    if D4 > 12u { x.c12 = scaled(x.c12, f); }
    if D4 > 13u { x.c13 = scaled(x.c13, f); }
    if D4 > 14u { x.c14 = scaled(x.c14, f); }
    if D4 > 15u { x.c15 = scaled(x.c15, f); }
    return x;
}

fn own_tokens(instance: u32, first: u32, keys_own: bool) -> Own {
    let i = vec4<u32>(first, first + 8u, first + 16u, first + 24u);
    var t: Four;
    if keys_own {
        t = Four(key(instance, i.x), key(instance, i.y), key(instance, i.z), key(instance, i.w));
    } else {
        t = Four(query(instance, i.x), query(instance, i.y), query(instance, i.z), query(instance, i.w));
    }
    return Own(i, vec4<u32>(t.x.row, t.y.row, t.z.row, t.w.row), regions(t));
}

// The four tokens of a block, of which lanes 0 to 3 have one each.
fn shared_tokens(t: Token) -> Four {
    return Four(Token(subgroupShuffle(t.row, 0u), subgroupShuffle(t.region, 0u)),
                Token(subgroupShuffle(t.row, 1u), subgroupShuffle(t.region, 1u)),
                Token(subgroupShuffle(t.row, 2u), subgroupShuffle(t.region, 2u)),
                Token(subgroupShuffle(t.row, 3u), subgroupShuffle(t.region, 3u)));
}

fn all_scores(s: Quad, own: Own, t: Four, head: u32, b: u32, transposed: bool) -> Quad {
    let r = regions(t);
    return Quad(scores(s.a, head, b, own.i.x, own.region.x, r, transposed),
                scores(s.b, head, b, own.i.y, own.region.y, r, transposed),
                scores(s.c, head, b, own.i.z, own.region.z, r, transposed),
                scores(s.d, head, b, own.i.w, own.region.w, r, transposed));
}

fn maxima(s: Quad, attended: vec4<bool>) -> vec4<f32> {
    let lowest = vec4<f32>(LOWEST);
    return vec4<f32>(largest(select(lowest, s.a, attended)), largest(select(lowest, s.b, attended)),
                     largest(select(lowest, s.c, attended)), largest(select(lowest, s.d, attended)));
}

fn attended_weights(s: Quad, m: vec4<f32>, attended: vec4<bool>) -> Quad {
    let none = vec4<f32>();
    return Quad(select(none, exponentials(s.a - m.x), attended), select(none, exponentials(s.b - m.y), attended),
                select(none, exponentials(s.c - m.z), attended), select(none, exponentials(s.d - m.w), attended));
}

fn totals(p: Quad) -> vec4<f32> {
    return vec4<f32>(total(p.a), total(p.b), total(p.c), total(p.d));
}

@compute @workgroup_size(8)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let head = group / params.parts % params.heads;
    let instance = group / (params.parts * params.heads);
    let own = own_tokens(instance, group % params.parts * 32u + lane, false);
    let q = load_rows(Q, own, head);
    var m = vec4<f32>(LOWEST);
    var sum: vec4<f32>;
    var o: Rows;
    for (var b = 0u; b < params.blocks; b++) {
        let t = shared_tokens(key(instance, b + lane % 4u * params.blocks));
        let s = all_scores(products(q, load_part(K, t, head, lane)), own, t, head, b, false);
        let attended = exist(t);
        let new_m = max(m, maxima(s, attended));
        let f = exp2(m - new_m);
        m = new_m;
        let p = attended_weights(s, m, attended);
        sum = fma(f, sum, totals(p));
        o = mix(scale_rows(o, f), load_part(V, t, head, lane), p);
    }
    put_outputs(scale_rows(o, vec4<f32>(normaliser(sum.x), normaliser(sum.y), normaliser(sum.z), normaliser(sum.w))), own, head);
    put_lse(own.row.x, head, sum.x, m.x);
    put_lse(own.row.y, head, sum.y, m.y);
    put_lse(own.row.z, head, sum.z, m.z);
    put_lse(own.row.w, head, sum.w, m.w);
}

fn put_lse(row: u32, head: u32, sum: f32, m: f32) {
    if row != NONE { lse[row * params.heads + head] = log_sum(m, sum); }
}

fn put_output(x: Quad, own: Own, head: u32, c: u32) {
    put_o(own.row.x, head, c, x.a);
    put_o(own.row.y, head, c, x.b);
    put_o(own.row.z, head, c, x.c);
    put_o(own.row.w, head, c, x.d);
}

fn put_outputs(x: Rows, own: Own, head: u32) {
    if D4 > 0u { put_output(x.c0, own, head, 0u); }
    if D4 > 1u { put_output(x.c1, own, head, 1u); }
    if D4 > 2u { put_output(x.c2, own, head, 2u); }
    if D4 > 3u { put_output(x.c3, own, head, 3u); }
    if D4 > 4u { put_output(x.c4, own, head, 4u); }
    if D4 > 5u { put_output(x.c5, own, head, 5u); }
    if D4 > 6u { put_output(x.c6, own, head, 6u); }
    if D4 > 7u { put_output(x.c7, own, head, 7u); }
    if D4 > 8u { put_output(x.c8, own, head, 8u); }
    if D4 > 9u { put_output(x.c9, own, head, 9u); }
    if D4 > 10u { put_output(x.c10, own, head, 10u); }
    if D4 > 11u { put_output(x.c11, own, head, 11u); }
    if D4 > 12u { put_output(x.c12, own, head, 12u); }
    if D4 > 13u { put_output(x.c13, own, head, 13u); }
    if D4 > 14u { put_output(x.c14, own, head, 14u); }
    if D4 > 15u { put_output(x.c15, own, head, 15u); }
}

// Where the sums of dS of a slice begin, and whether they do.
struct Slice { slice: u32, is_first: bool }

fn add_sum(place: Slice, head: u32, b: u32, i: u32, ds: vec4<f32>) {
    if i < params.tokens {
        let at = bias_sum(place.slice, head, b, i);
        if place.is_first { sums[at] = ds; } else { sums[at] += ds; }
    }
}

// dQ over the four keys of a block.
fn queries_block(dq: Rows, q: Rows, dout: Rows, rows: mat4x2<f32>, own: Own, t: Four, place: Slice, head: u32, b: u32,
                 lane: u32) -> Rows {
    let k = load_part(K, t, head, lane);
    let s = all_scores(products(q, k), own, t, head, b, false);
    let dp = products(dout, load_part(V, t, head, lane));
    let p = attended_weights(s, vec4<f32>(rows[0].x, rows[1].x, rows[2].x, rows[3].x), exist(t));
    let ds = Quad(p.a * (dp.a - rows[0].y), p.b * (dp.b - rows[1].y), p.c * (dp.c - rows[2].y), p.d * (dp.d - rows[3].y));
    if BIAS {
        add_sum(place, head, b, own.i.x, ds.a);
        add_sum(place, head, b, own.i.y, ds.b);
        add_sum(place, head, b, own.i.z, ds.c);
        add_sum(place, head, b, own.i.w, ds.d);
    }
    return mix(dq, k, ds);
}

@compute @workgroup_size(8)
fn backward_queries(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                    @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let head = group / params.parts % params.heads;
    let slice = group / (params.parts * params.heads);
    let begin = slice * params.per_slice;
    for (var instance = begin; instance < min(begin + params.per_slice, params.instances); instance++) {
        let own = own_tokens(instance, group % params.parts * 32u + lane, false);
        let q = load_rows(Q, own, head);
        let dout = load_rows(DOUT, own, head);
        let rows = mat4x2<f32>(row_sum(own.row.x, head), row_sum(own.row.y, head),
                               row_sum(own.row.z, head), row_sum(own.row.w, head));
        let place = Slice(slice, instance == begin);
        var dq = Rows();
        for (var b = 0u; b < params.blocks; b++) {
            let t = shared_tokens(key(instance, b + lane % 4u * params.blocks));
            dq = queries_block(dq, q, dout, rows, own, t, place, head, b, lane);
        }
        put_query_gradients(scale_rows(dq, vec4<f32>(params.scale)), own, head);
    }
}

fn put_query_gradient(x: Quad, own: Own, head: u32, c: u32) {
    put_dq(own.row.x, head, c, x.a);
    put_dq(own.row.y, head, c, x.b);
    put_dq(own.row.z, head, c, x.c);
    put_dq(own.row.w, head, c, x.d);
}

fn put_query_gradients(x: Rows, own: Own, head: u32) {
    if D4 > 0u { put_query_gradient(x.c0, own, head, 0u); }
    if D4 > 1u { put_query_gradient(x.c1, own, head, 1u); }
    if D4 > 2u { put_query_gradient(x.c2, own, head, 2u); }
    if D4 > 3u { put_query_gradient(x.c3, own, head, 3u); }
    if D4 > 4u { put_query_gradient(x.c4, own, head, 4u); }
    if D4 > 5u { put_query_gradient(x.c5, own, head, 5u); }
    if D4 > 6u { put_query_gradient(x.c6, own, head, 6u); }
    if D4 > 7u { put_query_gradient(x.c7, own, head, 7u); }
    if D4 > 8u { put_query_gradient(x.c8, own, head, 8u); }
    if D4 > 9u { put_query_gradient(x.c9, own, head, 9u); }
    if D4 > 10u { put_query_gradient(x.c10, own, head, 10u); }
    if D4 > 11u { put_query_gradient(x.c11, own, head, 11u); }
    if D4 > 12u { put_query_gradient(x.c12, own, head, 12u); }
    if D4 > 13u { put_query_gradient(x.c13, own, head, 13u); }
    if D4 > 14u { put_query_gradient(x.c14, own, head, 14u); }
    if D4 > 15u { put_query_gradient(x.c15, own, head, 15u); }
}

// dK and dV.
struct Pair { k: Rows, v: Rows }

// Both over the four queries of a block; `l` and `d` are theirs.
fn keys_block(sum: Pair, k: Rows, v: Rows, l: vec4<f32>, d: vec4<f32>, own: Own, t: Four, head: u32, b: u32,
              lane: u32) -> Pair {
    let q = load_part(Q, t, head, lane);
    let dout = load_part(DOUT, t, head, lane);
    let s = all_scores(products(k, q), own, t, head, b, true);
    let none = vec4<f32>();
    let p = Quad(select(none, exponentials(s.a - l), vec4<bool>(own.row.x != NONE)), select(none, exponentials(s.b - l), vec4<bool>(own.row.y != NONE)),
                 select(none, exponentials(s.c - l), vec4<bool>(own.row.z != NONE)), select(none, exponentials(s.d - l), vec4<bool>(own.row.w != NONE)));
    let dp = products(v, dout);
    let ds = Quad(p.a * (dp.a - d), p.b * (dp.b - d), p.c * (dp.c - d), p.d * (dp.d - d));
    return Pair(mix(sum.k, q, ds), mix(sum.v, dout, p));
}

@compute @workgroup_size(8)
fn backward_keys(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let head = group / params.parts % params.heads;
    let slice = group / (params.parts * params.heads);
    let begin = slice * params.per_slice;
    for (var instance = begin; instance < min(begin + params.per_slice, params.instances); instance++) {
        let own = own_tokens(instance, group % params.parts * 32u + lane, true);
        let k = load_rows(K, own, head);
        let v = load_rows(V, own, head);
        var sum = Pair();
        for (var b = 0u; b < params.blocks; b++) {
            let mine = query(instance, b + lane % 4u * params.blocks);
            let row = row_sum(mine.row, head);
            let l = vec4<f32>(subgroupShuffle(row.x, 0u), subgroupShuffle(row.x, 1u),
                              subgroupShuffle(row.x, 2u), subgroupShuffle(row.x, 3u));
            let d = vec4<f32>(subgroupShuffle(row.y, 0u), subgroupShuffle(row.y, 1u),
                              subgroupShuffle(row.y, 2u), subgroupShuffle(row.y, 3u));
            sum = keys_block(sum, k, v, l, d, own, shared_tokens(mine), head, b, lane);
        }
        put_key_gradients(0u, scale_rows(sum.k, vec4<f32>(params.scale)), slice, instance, own, head);
        put_key_gradients(1u, sum.v, slice, instance, own, head);
    }
}

fn put_key_gradient(which: u32, x: Quad, slice: u32, instance: u32, own: Own, head: u32, c: u32) {
    put_key(which, slice, instance, head, own.i.x, c, own.row.x, x.a);
    put_key(which, slice, instance, head, own.i.y, c, own.row.y, x.b);
    put_key(which, slice, instance, head, own.i.z, c, own.row.z, x.c);
    put_key(which, slice, instance, head, own.i.w, c, own.row.w, x.d);
}

fn put_key_gradients(which: u32, x: Rows, slice: u32, instance: u32, own: Own, head: u32) {
    if D4 > 0u { put_key_gradient(which, x.c0, slice, instance, own, head, 0u); }
    if D4 > 1u { put_key_gradient(which, x.c1, slice, instance, own, head, 1u); }
    if D4 > 2u { put_key_gradient(which, x.c2, slice, instance, own, head, 2u); }
    if D4 > 3u { put_key_gradient(which, x.c3, slice, instance, own, head, 3u); }
    if D4 > 4u { put_key_gradient(which, x.c4, slice, instance, own, head, 4u); }
    if D4 > 5u { put_key_gradient(which, x.c5, slice, instance, own, head, 5u); }
    if D4 > 6u { put_key_gradient(which, x.c6, slice, instance, own, head, 6u); }
    if D4 > 7u { put_key_gradient(which, x.c7, slice, instance, own, head, 7u); }
    if D4 > 8u { put_key_gradient(which, x.c8, slice, instance, own, head, 8u); }
    if D4 > 9u { put_key_gradient(which, x.c9, slice, instance, own, head, 9u); }
    if D4 > 10u { put_key_gradient(which, x.c10, slice, instance, own, head, 10u); }
    if D4 > 11u { put_key_gradient(which, x.c11, slice, instance, own, head, 11u); }
    if D4 > 12u { put_key_gradient(which, x.c12, slice, instance, own, head, 12u); }
    if D4 > 13u { put_key_gradient(which, x.c13, slice, instance, own, head, 13u); }
    if D4 > 14u { put_key_gradient(which, x.c14, slice, instance, own, head, 14u); }
    if D4 > 15u { put_key_gradient(which, x.c15, slice, instance, own, head, 15u); }
}
