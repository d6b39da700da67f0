// Attention within many small instances of at most 512 tokens, forward and backward, one invocation a
// token of a head: the oracle of the other variants, and what runs anywhere. Also what they all need:
// the sums of the rows.
//
//   S = scale Q K^T (+ bias + mask)    L_i = log sum_j exp S_ij    P_ij = exp(S_ij - L_i)    O = P V
//   D_i = sum_c O_ic dO_ic             dP = dO V^T                 dS = P (dP - D)
//   dQ = scale dS K                    dK = scale dS^T Q           dV = P^T dO       dbias = sum of dS
//
// A row without keys gives 0, and gradients of 0. P is recomputed from L. `row_sums` leaves (L, D) for
// the two backward passes: `backward_queries` has the rows of dQ, `backward_keys` those of dK and dV.
// Nothing is added by two invocations: results repeat bit by bit.
// Workgroup memory: 0 bytes.

@group(0) @binding(3) var<storage, read> lse_in: array<f32>;                    // [rows, heads]
@group(0) @binding(4) var<storage, read_write> row_sums_out: array<vec4<f32>>;  // [rows, heads]

// Four numbers of one kind, from the four tokens of a block.
fn products_q_k(own: u32, head: u32, t: Four) -> vec4<f32> {
    var s: vec4<f32>;
    for (var c = 0u; c < D4; c++) {
        let x = get_q(own, head, c);
        s += vec4<f32>(dot(x, get_k(t.x.row, head, c)), dot(x, get_k(t.y.row, head, c)),
                       dot(x, get_k(t.z.row, head, c)), dot(x, get_k(t.w.row, head, c)));
    }
    return s;
}

fn products_k_q(own: u32, head: u32, t: Four) -> vec4<f32> {
    var s: vec4<f32>;
    for (var c = 0u; c < D4; c++) {
        let x = get_k(own, head, c);
        s += vec4<f32>(dot(x, get_q(t.x.row, head, c)), dot(x, get_q(t.y.row, head, c)),
                       dot(x, get_q(t.z.row, head, c)), dot(x, get_q(t.w.row, head, c)));
    }
    return s;
}

fn products_dout_v(own: u32, head: u32, t: Four) -> vec4<f32> {
    var s: vec4<f32>;
    for (var c = 0u; c < D4; c++) {
        let x = get_dout(own, head, c);
        s += vec4<f32>(dot(x, get_v(t.x.row, head, c)), dot(x, get_v(t.y.row, head, c)),
                       dot(x, get_v(t.z.row, head, c)), dot(x, get_v(t.w.row, head, c)));
    }
    return s;
}

fn products_v_dout(own: u32, head: u32, t: Four) -> vec4<f32> {
    var s: vec4<f32>;
    for (var c = 0u; c < D4; c++) {
        let x = get_v(own, head, c);
        s += vec4<f32>(dot(x, get_dout(t.x.row, head, c)), dot(x, get_dout(t.y.row, head, c)),
                       dot(x, get_dout(t.z.row, head, c)), dot(x, get_dout(t.w.row, head, c)));
    }
    return s;
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let index = group * 64u + local;
    let head = index / params.tokens % params.heads;
    let instance = index / (params.tokens * params.heads);
    if group >= params.groups || instance >= params.instances { return; }
    let i = index % params.tokens;
    let own = query(instance, i);
    if own.row == NONE { return; }
    var maximum = LOWEST;
    for (var b = 0u; b < params.blocks; b++) {
        let t = four_keys(instance, b);
        let s = scores(products_q_k(own.row, head, t), head, b, i, own.region, regions(t), false);
        maximum = max(maximum, largest(select(vec4<f32>(LOWEST), s, exist(t))));
    }
    var sum = 0.0;
    var out: array<vec4<f32>, D4>;
    for (var b = 0u; b < params.blocks; b++) {
        let t = four_keys(instance, b);
        let s = scores(products_q_k(own.row, head, t), head, b, i, own.region, regions(t), false);
        let p = select(vec4<f32>(), exponentials(s - maximum), exist(t));
        sum += total(p);
        for (var c = 0u; c < D4; c++) {
            out[c] += p.x * get_v(t.x.row, head, c) + p.y * get_v(t.y.row, head, c)
                    + p.z * get_v(t.z.row, head, c) + p.w * get_v(t.w.row, head, c);
        }
    }
    for (var c = 0u; c < D4; c++) { put_o(own.row, head, c, normaliser(sum) * out[c]); }
    lse[own.row * params.heads + head] = log_sum(maximum, sum);
}

@compute @workgroup_size(64)
fn row_sums(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let index = group * 64u + local;
    if group >= params.groups || index >= params.rows * params.heads { return; }
    var sum = 0.0;
    for (var c = 0u; c < D4; c++) {
        sum += dot(get_o_in(index / params.heads, index % params.heads, c),
                   get_dout_in(index / params.heads, index % params.heads, c));
    }
    row_sums_out[index] = vec4<f32>(LOG2_E * lse_in[index], sum, 0.0, 0.0);
}

@compute @workgroup_size(64)
fn backward_queries(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let index = group * 64u + local;
    let head = index / params.tokens % params.heads;
    let slice = index / (params.tokens * params.heads);
    if group >= params.groups || slice >= params.slices { return; }
    let i = index % params.tokens;
    let first = slice * params.per_slice;
    var sum: array<vec4<f32>, D4>;
    for (var instance = first; instance < min(first + params.per_slice, params.instances); instance++) {
        let own = query(instance, i);
        let row = row_sum(own.row, head);
        for (var c = 0u; c < D4; c++) { sum[c] = vec4<f32>(); }
        for (var b = 0u; b < params.blocks; b++) {
            let t = four_keys(instance, b);
            let s = scores(products_q_k(own.row, head, t), head, b, i, own.region, regions(t), false);
            let p = select(vec4<f32>(), exponentials(s - row.x), exist(t));
            let ds = p * (products_dout_v(own.row, head, t) - row.y);
            if BIAS {
                let at = bias_sum(slice, head, b, i);
                if instance == first { sums[at] = ds; } else { sums[at] += ds; }
            }
            for (var c = 0u; c < D4; c++) {
                sum[c] += ds.x * get_k(t.x.row, head, c) + ds.y * get_k(t.y.row, head, c)
                        + ds.z * get_k(t.z.row, head, c) + ds.w * get_k(t.w.row, head, c);
            }
        }
        for (var c = 0u; c < D4; c++) { put_dq(own.row, head, c, params.scale * sum[c]); }
    }
}

@compute @workgroup_size(64)
fn backward_keys(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let index = group * 64u + local;
    let head = index / params.tokens % params.heads;
    let slice = index / (params.tokens * params.heads);
    if group >= params.groups || slice >= params.slices { return; }
    let j = index % params.tokens;
    let first = slice * params.per_slice;
    var sum_k: array<vec4<f32>, D4>;
    var sum_v: array<vec4<f32>, D4>;
    for (var instance = first; instance < min(first + params.per_slice, params.instances); instance++) {
        let own = key(instance, j);
        for (var c = 0u; c < D4; c++) {
            sum_k[c] = vec4<f32>();
            sum_v[c] = vec4<f32>();
        }
        for (var b = 0u; b < params.blocks; b++) {
            let t = four_queries(instance, b);
            let rows = mat4x2<f32>(row_sum(t.x.row, head), row_sum(t.y.row, head),
                                   row_sum(t.z.row, head), row_sum(t.w.row, head));
            let s = scores(products_k_q(own.row, head, t), head, b, j, own.region, regions(t), true);
            let p = select(vec4<f32>(), exponentials(s - transpose(rows)[0]), vec4<bool>(own.row != NONE));
            let ds = p * (products_v_dout(own.row, head, t) - transpose(rows)[1]);
            for (var c = 0u; c < D4; c++) {
                sum_k[c] += ds.x * get_q(t.x.row, head, c) + ds.y * get_q(t.y.row, head, c)
                          + ds.z * get_q(t.z.row, head, c) + ds.w * get_q(t.w.row, head, c);
                sum_v[c] += p.x * get_dout(t.x.row, head, c) + p.y * get_dout(t.y.row, head, c)
                          + p.z * get_dout(t.z.row, head, c) + p.w * get_dout(t.w.row, head, c);
            }
        }
        for (var c = 0u; c < D4; c++) {
            put_key(0u, slice, instance, head, j, c, own.row, params.scale * sum_k[c]);
            put_key(1u, slice, instance, head, j, c, own.row, sum_v[c]);
        }
    }
}
