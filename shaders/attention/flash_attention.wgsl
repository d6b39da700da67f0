// Attention without the matrix of weights, for any head dimension (Dao et al. 2022, 2023).
//
//   S_ij = scale_h <q_i, k_j> + bias_ij      over the keys j that query i sees
//   L_i = log sum_j exp S_ij     P_ij = exp(S_ij - L_i)     O_i = g_h sum_j P_ij v_j
//
// and backwards, from x_i = dO_i and D_i = <dO_i, O_i> (minus the gradient of L_i),
//
//   dS_ij = P_ij (g_h <x_i, v_j> - D_i)
//   dq_i = scale_h sum_j dS_ij k_j     dk_j = scale_h sum_i dS_ij q_i     dv_j = g_h sum_i P_ij x_i
//
// This is the plain variant, the oracle of the others: an invocation has one row, and nothing is shared.
// forward: a query row; the sum is kept relative to the largest score so far, and scaled down when a
//   larger one comes. With KNOWN the log-sum-exp is given, without VALUES it is all that is wanted.
// backward_queries: a query row. SUMS: also sum_j dS_ij <q_i, k_j> and sum_j P_ij <x_i, v_j>, of which
//   the gradients of temperature, head scales and gates are made; WRITE_DS: also dS itself.
// backward_keys: a key row and all queries of all heads that share it; dk (KEYS), dv (VALUES).
// A row that sees nothing: O = 0, L = -1e30, gradients 0. Workgroup memory: 0 bytes.

@group(0) @binding(7) var<storage, read_write> lse: array<f32>;      // [slices, batch, heads, queries]
@group(0) @binding(8) var<storage, read_write> extra: array<f32>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let p = place(group, 64u);
    let i = p.row + local;
    if group >= params.groups || i >= params.row_end { return; }
    let kv_head = p.head / params.sharing;
    let q_at = params.own_first + p.batch * params.own_batch + p.head * params.own_head + i * params.own_row;
    let k_at = params.other_first + p.batch * params.other_batch + kv_head * params.other_head;
    let v_at = params.other_values_first + p.batch * params.other_values_batch + kv_head * params.other_values_head;
    let scale = score_scale(p.head);
    var query: array<vec4<f32>, D4>;
    var sums: array<vec4<f32>, DV4>;
    for (var c = 0u; c < D4; c++) { query[c] = scale * get_own(q_at, c); }
    for (var c = 0u; c < DV4; c++) { sums[c] = vec4<f32>(); }
    var m = HIDDEN;
    var l = 0.0;
    if KNOWN { m = row_terms(p.batch, p.head, i).x; }
    let query_place = grid_place(i);
    let range = key_range(p.slice, i, 1u);
    for (var j = range.x; j < range.y; j++) {
        if is_masked(p.batch, j) { continue; }
        var product = vec4<f32>();
        for (var c = 0u; c < D4; c++) { product = fma(query[c], get_other(k_at + j * params.other_row, c), product); }
        let s = add_bias(product.x + product.y + product.z + product.w, p.batch, p.head, i, j, query_place, grid_place(j));
        if s == HIDDEN { continue; }
        if !KNOWN && s > m {
            let shrink = exponential(m - s);
            l *= shrink;
            for (var c = 0u; c < DV4; c++) { sums[c] *= shrink; }
            m = s;
        }
        var e = f32();
        if KNOWN { e = probability(s - m); } else { e = exponential(s - m); }
        l += e;
        if VALUES {
            for (var c = 0u; c < DV4; c++) { sums[c] = fma(vec4<f32>(e), get_other_values(v_at + j * params.other_values_row, c), sums[c]); }
        }
    }
    if VALUES {
        let y_at = params.y_first + p.slice * params.y_slice + p.batch * params.y_batch + p.head * params.y_head
                 + i * params.y_row;
        var factor = row_weight(p.batch, p.head, i);
        if !KNOWN { factor = select(factor / l, 0.0, l == 0.0); }
        for (var c = 0u; c < DV4; c++) { put_o(y_at, c, factor * sums[c]); }
    }
    if !KNOWN {
        let at = ((p.slice * params.batch + p.batch) * params.heads + p.head) * params.queries + i;
        lse[at] = log_sum(m, l);
    }
}

@compute @workgroup_size(64)
fn backward_queries(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let p = place(group, 64u);
    let i = p.row + local;
    if group >= params.groups || i >= params.row_end { return; }
    let kv_head = p.head / params.sharing;
    let q_at = params.own_first + p.batch * params.own_batch + p.head * params.own_head + i * params.own_row;
    let k_at = params.other_first + p.batch * params.other_batch + kv_head * params.other_head;
    let v_at = params.other_values_first + p.batch * params.other_values_batch + kv_head * params.other_values_head;
    let x_at = params.own_values_first + p.batch * params.own_values_batch + p.head * params.own_values_head + i * params.own_values_row;
    let scale = score_scale(p.head);
    let terms = row_terms(p.batch, p.head, i);
    let factor = row_weight(p.batch, p.head, i);
    let ds_at = params.extra_ds + ((p.batch * params.heads + p.head) * (params.row_end - params.row_first)
              + i - params.row_first) * params.keys;
    var query: array<vec4<f32>, D4>;
    var values: array<vec4<f32>, DV4>;
    var sums: array<vec4<f32>, D4>;
    for (var c = 0u; c < D4; c++) {
        query[c] = get_own(q_at, c);
        sums[c] = vec4<f32>();
    }
    for (var c = 0u; c < DV4; c++) { values[c] = get_own_values(x_at, c); }
    var gate_sum = 0.0;
    let query_place = grid_place(i);
    let range = key_range(p.slice, i, 1u);
    for (var j = range.x; j < range.y; j++) {
        if is_masked(p.batch, j) { continue; }
        var product = vec4<f32>();
        for (var c = 0u; c < D4; c++) {
            product = fma(scale * query[c], get_other(k_at + j * params.other_row, c), product);
        }
        let s = add_bias(product.x + product.y + product.z + product.w, p.batch, p.head, i, j, query_place, grid_place(j));
        if s == HIDDEN {
            if WRITE_DS { extra[ds_at + j] = 0.0; }
            continue;
        }
        let e = probability(s - terms.x);
        product = vec4<f32>();
        for (var c = 0u; c < DV4; c++) { product = fma(values[c], get_other_values(v_at + j * params.other_values_row, c), product); }
        let dp = product.x + product.y + product.z + product.w;
        let ds = e * (factor * dp - terms.y);
        gate_sum = fma(e, dp, gate_sum);
        for (var c = 0u; c < D4; c++) { sums[c] = fma(vec4<f32>(ds), get_other(k_at + j * params.other_row, c), sums[c]); }
        if WRITE_DS { extra[ds_at + j] = ds; }
    }
    let y_at = params.y_first + p.slice * params.y_slice + p.batch * params.y_batch + p.head * params.y_head
             + i * params.y_row;
    var product = vec4<f32>();
    for (var c = 0u; c < D4; c++) {
        put_d_own(y_at, c, (LN_2 * scale) * sums[c]);
        product = fma(query[c], sums[c], product);
    }
    if SUMS {
        let at = params.extra_sums
               + 2u * (((p.slice * params.batch + p.batch) * params.heads + p.head) * params.queries + i);
        extra[at] = product.x + product.y + product.z + product.w;
        extra[at + 1u] = gate_sum;
    }
}

@compute @workgroup_size(64)
fn backward_keys(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let p = place(group, 64u);
    let j = p.row + local;
    if group >= params.groups || j >= params.row_end { return; }
    let k_at = params.own_first + p.batch * params.own_batch + p.head * params.own_head + j * params.own_row;
    let v_at = params.own_values_first + p.batch * params.own_values_batch + p.head * params.own_values_head + j * params.own_values_row;
    var key: array<vec4<f32>, D4>;
    var value: array<vec4<f32>, DV4>;
    var key_sums: array<vec4<f32>, D4>;
    var value_sums: array<vec4<f32>, DV4>;
    for (var c = 0u; c < D4; c++) {
        key[c] = get_own(k_at, c);
        key_sums[c] = vec4<f32>();
    }
    for (var c = 0u; c < DV4; c++) {
        if KEYS { value[c] = get_own_values(v_at, c); }
        value_sums[c] = vec4<f32>();
    }
    let key_place = grid_place(j);
    var range = query_range(p.slice, j, 1u);
    if is_masked(p.batch, j) { range.y = range.x; }
    for (var head = p.head * params.sharing; head < (p.head + 1u) * params.sharing; head++) {
        let q_at = params.other_first + p.batch * params.other_batch + head * params.other_head;
        let x_at = params.other_values_first + p.batch * params.other_values_batch + head * params.other_values_head;
        let scale = score_scale(head);
        for (var i = range.x; i < range.y; i++) {
            var product = vec4<f32>();
            for (var c = 0u; c < D4; c++) { product = fma(scale * get_other(q_at + i * params.other_row, c), key[c], product); }
            let s = add_bias(product.x + product.y + product.z + product.w, p.batch, head, i, j, grid_place(i), key_place);
            if s == HIDDEN { continue; }
            let terms = row_terms(p.batch, head, i);
            let factor = row_weight(p.batch, head, i);
            let e = probability(s - terms.x);
            product = vec4<f32>();
            for (var c = 0u; c < DV4; c++) {
                let values = get_other_values(x_at + i * params.other_values_row, c);
                product = fma(values, value[c], product);
                value_sums[c] = fma(vec4<f32>(factor * e), values, value_sums[c]);
            }
            if KEYS {
                let dp = product.x + product.y + product.z + product.w;
                let ds = LN_2 * scale * (e * (factor * dp - terms.y));
                for (var c = 0u; c < D4; c++) {
                    key_sums[c] = fma(vec4<f32>(ds), get_other(q_at + i * params.other_row, c), key_sums[c]);
                }
            }
        }
    }
    if KEYS {
        let at = params.y_first + p.slice * params.y_slice + p.batch * params.y_batch + p.head * params.y_head
               + j * params.y_row;
        for (var c = 0u; c < D4; c++) { put_d_own(at, c, key_sums[c]); }
    }
    if VALUES {
        let at = params.z_first + p.slice * params.z_slice + p.batch * params.z_batch + p.head * params.z_head
               + j * params.z_row;
        for (var c = 0u; c < DV4; c++) { put_d_own_values(at, c, value_sums[c]); }
    }
}
