// What stands before and after the kernels of flash attention (attention/flash_attention.wgsl).
//
// prepare: the side buffer's factors of the heads, mask of the keys and weights of the query rows.
// prepare_rows: a query row's log2(e) L and, with TERMS, D = <x, O> - dL. O comes as "other values".
// merge: the outputs of slices of the keys, weighted by their log-sum-exps: L = log sum_s exp L_s,
//   O = sum_s exp(L_s - L) O_s. The slices' outputs come as "other values", dense.
// sum_slices: the plain sum of slices, for gradients.
// head_sums: of each head, the sums over all rows of what backward_queries left; one workgroup a head.
// weight_gradients: of the query rows' weights, from the same.
// head_gradients: of temperature (WHAT 0), head scales (1) and gates (2) from these.
// bias_gradient: dS of a stretch of query rows, summed over what shares a bias.
// table_gradient: an entry of the table adds dS of all pairs of tokens that lie so far apart, row by row.
// Workgroup memory: head_sums 2,048 bytes.

@group(0) @binding(1) var<storage, read> temperature: array<f32>;       // [1]
@group(0) @binding(2) var<storage, read> head_scale: array<f32>;        // [heads]
@group(0) @binding(3) var<storage, read> gate: array<f32>;              // [heads]
@group(0) @binding(4) var<storage, read> key_mask: array<u32>;          // [batch, keys]
@group(0) @binding(5) var<storage, read_write> side_out: array<f32>;
@group(0) @binding(6) var<storage, read> weights: array<f32>;           // [batch, heads, queries]

@compute @workgroup_size(256)
fn prepare(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let i = group * 256u + local;
    if i < params.heads {
        var scale = params.scale;
        if HEAD_SCALE { scale *= head_scale[i]; }
        if TEMPERATURE { scale /= temperature[0]; }
        side_out[2u * i] = scale;
        var factor = 1.0;
        if GATE { factor = gate[i]; }
        side_out[2u * i + 1u] = factor;
    }
    if MASK && i < params.batch * params.keys {
        side_out[2u * params.heads + i] = select(0.0, 1.0, key_mask[i] != 0u);
    }
    if WEIGHTS && i < params.batch * params.heads * params.queries { side_out[params.weights_at + i] = weights[i]; }
}

@group(0) @binding(1) var<storage, read> lse_in: array<f32>;            // [batch, heads, queries]
@group(0) @binding(2) var<storage, read> lse_gradient: array<f32>;      // the same

@compute @workgroup_size(64)
fn prepare_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let row = group * 64u + local;
    let matrix = row / params.queries;
    if group >= params.groups || matrix >= params.batch * params.heads { return; }
    let batch = matrix / params.heads;
    let head = matrix % params.heads;
    let i = row % params.queries;
    var d = 0.0;
    if TERMS {
        let x_at = params.own_values_first + batch * params.own_values_batch + head * params.own_values_head + i * params.own_values_row;
        let o_at = params.other_values_first + batch * params.other_values_batch + head * params.other_values_head + i * params.other_values_row;
        var sum = vec4<f32>();
        for (var c = 0u; c < DV4; c++) { sum = fma(get_own_values(x_at, c), get_other_values(o_at, c), sum); }
        d = (sum.x + sum.y) + (sum.z + sum.w);
    }
    if LSE_GRADIENT { d -= lse_gradient[row]; }
    side_out[params.rows_at + 2u * row] = LOG2_E * lse_in[row];
    side_out[params.rows_at + 2u * row + 1u] = d;
}

@group(0) @binding(2) var<storage, read_write> lse: array<f32>;         // [batch, heads, queries]

// The row of a slice's dense result, and that of the result.
struct SliceRow { batch: u32, head: u32, i: u32, block: u32 }

fn slice_row(index: u32) -> SliceRow {
    let row = index / DV4;
    let rows = params.row_end;
    let matrix = row / rows;
    return SliceRow(matrix / params.row_heads, matrix % params.row_heads, row % rows, index % DV4);
}

@compute @workgroup_size(64)
fn merge(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let rows = params.batch * params.row_heads * params.row_end;
    let r = slice_row(group * 64u + local);
    if group >= params.groups || r.batch >= params.batch { return; }
    let row = (r.batch * params.row_heads + r.head) * params.row_end + r.i;
    var m = SENTINEL;
    for (var slice = 0u; slice < params.slices; slice++) {
        let l = lse_in[slice * rows + row];
        m = select(m, l, l > m || is_nan(l));
    }
    var total = 0.0;
    var sum = vec4<f32>();
    for (var slice = 0u; slice < params.slices; slice++) {
        let l = lse_in[slice * rows + row];
        // A slice in which the row sees nothing adds nothing.
        let e = select(exponential(LOG2_E * l - LOG2_E * m), 0.0, l == SENTINEL);
        total += e;
        if VALUES { sum = fma(vec4<f32>(e), get_other_values((slice * rows + row) * DV, r.block), sum); }
    }
    if VALUES {
        let y_at = params.y_first + r.batch * params.y_batch + r.head * params.y_head + r.i * params.y_row;
        put_o(y_at, r.block, select(sum / total, vec4<f32>(), total == 0.0));
    }
    if r.block == 0u { lse[row] = select(m + log_sum(0.0, total), SENTINEL, total == 0.0); }
}

@compute @workgroup_size(64)
fn sum_slices(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let rows = params.batch * params.row_heads * params.row_end;
    let r = slice_row(group * 64u + local);
    if group >= params.groups || r.batch >= params.batch { return; }
    let row = (r.batch * params.row_heads + r.head) * params.row_end + r.i;
    var sum = vec4<f32>();
    for (var slice = 0u; slice < params.slices; slice++) { sum += get_other_values((slice * rows + row) * DV, r.block); }
    put_o(params.y_first + r.batch * params.y_batch + r.head * params.y_head + r.i * params.y_row, r.block, sum);
}

@group(0) @binding(1) var<storage, read> extra: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums_out: array<f32>;    // [heads, 2]
var<workgroup> tree: array<vec2<f32>, 256>;

@compute @workgroup_size(256)
fn head_sums(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let count = params.slices * params.batch * params.queries;
    var sum = vec2<f32>();
    for (var i = local; i < count; i += 256u) {
        let row = (i / params.queries * params.heads + group) * params.queries + i % params.queries;
        let at = params.extra_sums + 2u * row;
        sum += vec2<f32>(extra[at], extra[at + 1u]);
    }
    tree[local] = sum;
    for (var stride = 128u; stride > 0u; stride = stride >> 1u) {
        workgroupBarrier();
        if local < stride { tree[local] += tree[local + stride]; }
    }
    if local == 0u {
        sums_out[2u * group] = tree[0].x;
        sums_out[2u * group + 1u] = tree[0].y;
    }
}

@group(0) @binding(2) var<storage, read_write> dweights: array<f32>;    // [batch, heads, queries]

@compute @workgroup_size(64)
fn weight_gradients(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let row = group * 64u + local;
    let rows = params.batch * params.heads * params.queries;
    if group >= params.groups || row >= rows { return; }
    var sum = 0.0;
    for (var slice = 0u; slice < params.slices; slice++) {
        sum += extra[params.extra_sums + 2u * (slice * rows + row) + 1u];
    }
    dweights[row] = sum;
}

@group(0) @binding(3) var<storage, read> sums_in: array<f32>;           // [heads, 2]
@group(0) @binding(4) var<storage, read_write> gradient: array<f32>;    // [1] or [heads]

@compute @workgroup_size(64)
fn head_gradients(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let head = group * 64u + local;
    if group >= params.groups { return; }
    var t = 1.0;
    if TEMPERATURE { t = temperature[0]; }
    if WHAT == 0u {
        if head != 0u { return; }
        var sum = 0.0;
        for (var h = 0u; h < params.heads; h++) {
            var beta = 1.0;
            if HEAD_SCALE { beta = head_scale[h]; }
            sum = fma(beta, sums_in[2u * h], sum);
        }
        gradient[0] = -(LN_2 * params.scale) * sum / (t * t);
        return;
    }
    if head >= params.heads { return; }
    if WHAT == 1u {
        gradient[head] = LN_2 * params.scale / t * sums_in[2u * head];
    } else {
        gradient[head] = sums_in[2u * head + 1u];
    }
}

@group(0) @binding(2) var<storage, read_write> dbias: array<f32>;

fn pair_sum(batch: u32, head: u32, i: u32, j: u32) -> f32 {
    if !sees(i, j) || is_masked(batch, j) { return 0.0; }
    let rows = params.row_end - params.row_first;
    return extra[params.extra_ds + ((batch * params.heads + head) * rows + i - params.row_first) * params.keys + j];
}

@compute @workgroup_size(64)
fn bias_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let rows = params.row_end - params.row_first;
    let index = group * 64u + local;
    let j = index % params.keys;
    let i = params.row_first + index / params.keys % rows;
    let matrix = index / params.keys / rows;
    // Of the bias: what is shared has a stride of 0.
    let heads = select(params.heads, 1u, params.bias_head == 0u);
    let batches = select(params.batch, 1u, params.bias_batch == 0u);
    let head = matrix % heads;
    let batch = matrix / heads;
    if group >= params.groups || batch >= batches { return; }
    var sum = 0.0;
    for (var b = batch; b < params.batch; b += batches) {
        for (var h = head; h < params.heads; h += heads) { sum += pair_sum(b, h, i, j); }
    }
    dbias[batch * params.bias_batch + head * params.bias_head + i * params.keys + j] = sum;
}

@compute @workgroup_size(64)
fn table_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let index = group * 64u + local;
    let head = index % params.heads;
    let entry = index / params.heads;
    let height = params.grid_height;
    let width = params.grid_width;
    if group >= params.groups || entry >= (2u * height - 1u) * (2u * width - 1u) { return; }
    // The key lies `down` rows above and `right` columns left of the query, offset so as to be positive.
    let down = entry / (2u * width - 1u);
    let right = entry % (2u * width - 1u);
    var sum = 0.0;
    if params.row_first > 0u { sum = dbias[index]; }
    for (var i = max(params.row_first, params.prefix); i < params.row_end; i++) {
        let y = (i - params.prefix) / width + height - 1u - down;
        let x = (i - params.prefix) % width + width - 1u - right;
        // Below 0 is far above.
        if y < height && x < width {
            let j = params.prefix + y * width + x;
            for (var b = 0u; b < params.batch; b++) { sum += pair_sum(b, head, i, j); }
        }
    }
    dbias[index] = sum;
}
