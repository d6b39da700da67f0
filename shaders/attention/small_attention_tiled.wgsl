// Attention within small instances for GPUs (formulas: small_attention.wgsl). A workgroup has 4 ROWS4 rows of
// an instance and head against all of its tokens: rows of queries in `forward` and `backward_queries`, rows of
// keys, with everything transposed, in `backward_keys`. The row of scores is whole: no online softmax.
//
// Scores: an invocation has 4 rows x 4 columns, {bi + r ROWS4} x {bj + r BLOCKS}, from CHUNK4 vec4s of each
// row staged at a time: 64 multiply-adds for 8 reads of vec4. Results: it has 4 rows x 4 elements, from the
// tile of scores and KEYS4 blocks of tokens staged at a time, again 64 for 8.
// Rows and columns lie that far apart so that neighbours read neighbouring vec4s, without bank conflicts.
// Workgroup memory: the plan's; at most 8 KiB of scores, 2 KiB of partial sums, 8 KiB staged, 5 KiB of tokens.

const OWN: u32 = 4u * ROWS4;
const OTHERS: u32 = 4u * BLOCKS;
const STAGED: u32 = OWN + OTHERS;
const TILE: u32 = OWN * BLOCKS;
const PARTS: u32 = ROWS4 * BLOCKS;

var<workgroup> tile: array<vec4<f32>, TILE>;          // [OWN, BLOCKS]
var<workgroup> stage: array<vec4<f32>, STAGE>;        // [CHUNK4, STAGED] or [KEYS4, 4, COLUMNS4]
var<workgroup> part: array<vec4<f32>, PARTS>;         // [ROWS4, BLOCKS], four rows in a vec4
var<workgroup> row_max: array<vec4<f32>, ROWS4>;
var<workgroup> own: array<Token, OWN>;
var<workgroup> others: array<Token, OTHERS>;

// What is read.
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

// Fills `own` from token `first` on, and `others`. The next barrier makes them visible.
fn load_tokens(instance: u32, first: u32, keys_own: bool, local: u32) {
    workgroupBarrier();
    for (var t = local; t < STAGED; t += WORKGROUP) {
        let i = select(t - OWN, first + t, t < OWN);
        var token = Token();
        if (t < OWN) == keys_own { token = key(instance, i); } else { token = query(instance, i); }
        if t < OWN { own[t] = token; } else { others[t - OWN] = token; }
    }
}

// Dot products of an invocation's rows of `a` with its columns' rows of `b`; one vec4 a row.
fn products(a: u32, b: u32, head: u32, local: u32) -> mat4x4<f32> {
    let bi = min(local / BLOCKS, ROWS4 - 1u);
    let bj = local % BLOCKS;
    var t: mat4x4<f32>;
    for (var c0 = 0u; c0 < D4; c0 += CHUNK4) {
        workgroupBarrier();
        for (var s = local; s < CHUNK4 * STAGED; s += WORKGROUP) {
            let c = s % CHUNK4;
            let i = s / CHUNK4;
            var x = vec4<f32>();
            if c0 + c < D4 {
                if i < OWN { x = fetch(a, own[i].row, head, c0 + c); }
                else { x = fetch(b, others[i - OWN].row, head, c0 + c); }
            }
            stage[c * STAGED + i] = x;
        }
        workgroupBarrier();
        for (var c = 0u; c < CHUNK4; c++) {
            let x = c * STAGED + bi;
            let y = c * STAGED + OWN + bj;
            let m = mat4x4<f32>(stage[y], stage[y + BLOCKS], stage[y + 2u * BLOCKS], stage[y + 3u * BLOCKS]);
            t += mat4x4<f32>(stage[x] * m, stage[x + ROWS4] * m, stage[x + 2u * ROWS4] * m, stage[x + 3u * ROWS4] * m);
        }
    }
    return t;
}

// The tile times the rows of `b`: an invocation's four rows and one vec4 of columns from `column` on.
fn mix(b: u32, head: u32, column: u32, local: u32) -> mat4x4<f32> {
    let bi = min(local / COLUMNS4, ROWS4 - 1u) * BLOCKS;
    var t: mat4x4<f32>;
    for (var first = 0u; first < BLOCKS; first += KEYS4) {
        workgroupBarrier();
        for (var s = local; s < KEYS4 * 4u * COLUMNS4; s += WORKGROUP) {
            let c = column + s % COLUMNS4;
            let j = first + s / (4u * COLUMNS4);
            var x = vec4<f32>();
            if c < D4 && j < BLOCKS { x = fetch(b, others[j + s / COLUMNS4 % 4u * BLOCKS].row, head, c); }
            stage[s] = x;
        }
        workgroupBarrier();
        for (var j = 0u; j < min(KEYS4, BLOCKS - first); j++) {
            let y = 4u * j * COLUMNS4 + local % COLUMNS4;
            let m = mat4x4<f32>(stage[y], stage[y + COLUMNS4], stage[y + 2u * COLUMNS4], stage[y + 3u * COLUMNS4]);
            let x = bi + first + j;
            t += mat4x4<f32>(m * tile[x], m * tile[x + PARTS], m * tile[x + 2u * PARTS], m * tile[x + 3u * PARTS]);
        }
    }
    return t;
}

// An invocation's part of the tile.
fn put_tile(t: mat4x4<f32>, local: u32) {
    if local < PARTS {
        tile[local] = t[0];
        tile[local + PARTS] = t[1];
        tile[local + 2u * PARTS] = t[2];
        tile[local + 3u * PARTS] = t[3];
    }
}

// The four tokens of an invocation's columns.
fn columns(local: u32) -> Four {
    let bj = local % BLOCKS;
    return Four(others[bj], others[bj + BLOCKS], others[bj + 2u * BLOCKS], others[bj + 3u * BLOCKS]);
}

// The scores of an invocation's rows, of which `first` is the first row's number.
fn all_scores(t: mat4x4<f32>, head: u32, first: u32, transposed: bool, local: u32) -> mat4x4<f32> {
    let bi = min(local / BLOCKS, ROWS4 - 1u);
    let bj = local % BLOCKS;
    let r = regions(columns(local));
    return mat4x4<f32>(
        scores(t[0], head, bj, first + bi, own[bi].region, r, transposed),
        scores(t[1], head, bj, first + bi + ROWS4, own[bi + ROWS4].region, r, transposed),
        scores(t[2], head, bj, first + bi + 2u * ROWS4, own[bi + 2u * ROWS4].region, r, transposed),
        scores(t[3], head, bj, first + bi + 3u * ROWS4, own[bi + 3u * ROWS4].region, r, transposed));
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let first = group % params.parts * OWN;
    let head = group / params.parts % params.heads;
    let instance = group / (params.parts * params.heads);
    load_tokens(instance, first, false, local);
    let s = all_scores(products(Q, K, head, local), head, first, false, local);
    let attended = exist(columns(local));
    let lowest = vec4<f32>(LOWEST);
    if local < PARTS {
        part[local] = vec4<f32>(largest(select(lowest, s[0], attended)), largest(select(lowest, s[1], attended)),
                                largest(select(lowest, s[2], attended)), largest(select(lowest, s[3], attended)));
    }
    workgroupBarrier();
    let bi = min(local / BLOCKS, ROWS4 - 1u);
    var m = lowest;
    for (var b = 0u; b < BLOCKS; b++) { m = max(m, part[bi * BLOCKS + b]); }
    workgroupBarrier();
    let none = vec4<f32>();
    let p = mat4x4<f32>(select(none, exponentials(s[0] - m.x), attended), select(none, exponentials(s[1] - m.y), attended),
                        select(none, exponentials(s[2] - m.z), attended), select(none, exponentials(s[3] - m.w), attended));
    put_tile(p, local);
    if local < PARTS {
        part[local] = vec4<f32>(total(p[0]), total(p[1]), total(p[2]), total(p[3]));
        if local % BLOCKS == 0u { row_max[bi] = m; }
    }
    let oi = local / COLUMNS4;
    for (var column = 0u; column < D4; column += COLUMNS4) {
        let t = mix(V, head, column, local);
        let c = column + local % COLUMNS4;
        if oi < ROWS4 && c < D4 {
            var sum = vec4<f32>();
            for (var b = 0u; b < BLOCKS; b++) { sum += part[oi * BLOCKS + b]; }
            put_row(own[oi].row, head, c, t[0], sum.x, row_max[oi].x);
            put_row(own[oi + ROWS4].row, head, c, t[1], sum.y, row_max[oi].y);
            put_row(own[oi + 2u * ROWS4].row, head, c, t[2], sum.z, row_max[oi].z);
            put_row(own[oi + 3u * ROWS4].row, head, c, t[3], sum.w, row_max[oi].w);
        }
    }
}

fn put_row(row: u32, head: u32, c: u32, x: vec4<f32>, sum: f32, maximum: f32) {
    put_o(row, head, c, normaliser(sum) * x);
    if c == 0u && row != NONE { lse[row * params.heads + head] = log_sum(maximum, sum); }
}

@compute @workgroup_size(WORKGROUP)
fn backward_queries(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let first = group % params.parts * OWN;
    let head = group / params.parts % params.heads;
    let slice = group / (params.parts * params.heads);
    let bi = min(local / BLOCKS, ROWS4 - 1u);
    let oi = local / COLUMNS4;
    let none = vec4<f32>();
    var sum: mat4x4<f32>;
    let begin = slice * params.per_slice;
    for (var instance = begin; instance < min(begin + params.per_slice, params.instances); instance++) {
        load_tokens(instance, first, false, local);
        let s = all_scores(products(Q, K, head, local), head, first, false, local);
        let dp = products(DOUT, V, head, local);
        let attended = exist(columns(local));
        let r0 = row_sum(own[bi].row, head);
        let r1 = row_sum(own[bi + ROWS4].row, head);
        let r2 = row_sum(own[bi + 2u * ROWS4].row, head);
        let r3 = row_sum(own[bi + 3u * ROWS4].row, head);
        let ds = mat4x4<f32>(select(none, exponentials(s[0] - r0.x), attended) * (dp[0] - r0.y),
                             select(none, exponentials(s[1] - r1.x), attended) * (dp[1] - r1.y),
                             select(none, exponentials(s[2] - r2.x), attended) * (dp[2] - r2.y),
                             select(none, exponentials(s[3] - r3.x), attended) * (dp[3] - r3.y));
        if BIAS { sum += ds; }
        put_tile(ds, local);
        for (var column = 0u; column < D4; column += COLUMNS4) {
            let t = params.scale * mix(K, head, column, local);
            let c = column + local % COLUMNS4;
            if oi < ROWS4 && c < D4 {
                put_dq(own[oi].row, head, c, t[0]);
                put_dq(own[oi + ROWS4].row, head, c, t[1]);
                put_dq(own[oi + 2u * ROWS4].row, head, c, t[2]);
                put_dq(own[oi + 3u * ROWS4].row, head, c, t[3]);
            }
        }
    }
    if BIAS && local < PARTS {
        put_sum(slice, head, local, first + bi, sum[0]);
        put_sum(slice, head, local, first + bi + ROWS4, sum[1]);
        put_sum(slice, head, local, first + bi + 2u * ROWS4, sum[2]);
        put_sum(slice, head, local, first + bi + 3u * ROWS4, sum[3]);
    }
}

fn put_sum(slice: u32, head: u32, local: u32, i: u32, x: vec4<f32>) {
    if i < params.tokens { sums[bias_sum(slice, head, local % BLOCKS, i)] = x; }
}

// Puts the tile times `b` to where dk (`which` 0) or dv (1) of its rows belong.
fn put_keys(which: u32, b: u32, scale: f32, slice: u32, instance: u32, head: u32, first: u32, local: u32) {
    let oi = local / COLUMNS4;
    for (var column = 0u; column < D4; column += COLUMNS4) {
        let t = scale * mix(b, head, column, local);
        let c = column + local % COLUMNS4;
        if oi < ROWS4 && c < D4 {
            put_key(which, slice, instance, head, first + oi, c, own[oi].row, t[0]);
            put_key(which, slice, instance, head, first + oi + ROWS4, c, own[oi + ROWS4].row, t[1]);
            put_key(which, slice, instance, head, first + oi + 2u * ROWS4, c, own[oi + 2u * ROWS4].row, t[2]);
            put_key(which, slice, instance, head, first + oi + 3u * ROWS4, c, own[oi + 3u * ROWS4].row, t[3]);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward_keys(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let first = group % params.parts * OWN;
    let head = group / params.parts % params.heads;
    let slice = group / (params.parts * params.heads);
    let bi = min(local / BLOCKS, ROWS4 - 1u);
    let none = vec4<f32>();
    let begin = slice * params.per_slice;
    for (var instance = begin; instance < min(begin + params.per_slice, params.instances); instance++) {
        load_tokens(instance, first, true, local);
        let s = all_scores(products(K, Q, head, local), head, first, true, local);
        let t = columns(local);
        // The columns are L and D of four queries.
        let rows = transpose(mat4x2<f32>(row_sum(t.x.row, head), row_sum(t.y.row, head),
                                         row_sum(t.z.row, head), row_sum(t.w.row, head)));
        let p = mat4x4<f32>(select(none, exponentials(s[0] - rows[0]), vec4<bool>(own[bi].row != NONE)),
                            select(none, exponentials(s[1] - rows[0]), vec4<bool>(own[bi + ROWS4].row != NONE)),
                            select(none, exponentials(s[2] - rows[0]), vec4<bool>(own[bi + 2u * ROWS4].row != NONE)),
                            select(none, exponentials(s[3] - rows[0]), vec4<bool>(own[bi + 3u * ROWS4].row != NONE)));
        put_tile(p, local);
        put_keys(1u, DOUT, 1.0, slice, instance, head, first, local);
        let dp = products(V, DOUT, head, local);
        put_tile(mat4x4<f32>(p[0] * (dp[0] - rows[1]), p[1] * (dp[1] - rows[1]),
                             p[2] * (dp[2] - rows[1]), p[3] * (dp[3] - rows[1])), local);
        put_keys(0u, Q, params.scale, slice, instance, head, first, local);
    }
}
