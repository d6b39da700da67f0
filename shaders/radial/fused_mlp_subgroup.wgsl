// The fused network for CPU adapters with subgroups of 8 (formulas and buffers: common/mlp.wgsl and
// radial/fused_mlp.wgsl). Workgroups are one subgroup. The forward pass of networks of up to 64 inputs
// and neurons is in radial/fused_mlp_narrow.wgsl.
//
// forward, backward: an invocation has four points (common/mlp_blocks.wgsl): one load for 32 weights,
// each used for 32 points.
// weight_gradient: an invocation has 32 rows x 4 columns of dW over a block of points.
// Workgroup memory (forward without KEEP only): 4 points x 2 layers x LONGEST x 8 x 4 bytes.
//
// A load in a loop costs about a hundred cycles on lavapipe, whatever its index, and a shuffle with a
// constant lane about one. 32 inputs, 64 x 2, 3 outputs, forward / backward in percent of the ceiling:
// plain (weights at uniform indices) 2.3 / 2.4; shuffles, two points an invocation 21.5 / 17.0; four
// points 26.3 / 18.7; inputs read as vec4 27.6 / 20.7. Blocks of inputs in a loop, instead of twice in
// the text: 7.6, for the count of a block is then not a constant and every product a branch.

var<workgroup> tile: array<vec4<f32>, TILE>;

// Pre-activations between the layers: in `kept`, or in this invocation's part of `tile`.
fn put_z(l: u32, point: u32, slot: u32, o: u32, outputs: u32, z: vec4<f32>) {
    if !KEEP {
        tile[(l % 2u * LONGEST4 + o) * POINTS + slot] = z;
    } else if point < params.points {
        kept[l * params.points * WIDTH4 + point * outputs + o] = quad_of(z);
    }
}

fn get_z(l: u32, point: u32, slot: u32, o: u32, outputs: u32) -> vec4<f32> {
    var z: vec4<f32>;
    if !KEEP {
        z = tile[(l % 2u * LONGEST4 + o) * POINTS + slot];
    } else if point < params.points {
        z = four(kept[l * params.points * WIDTH4 + point * outputs + o]);
    }
    return z;
}

fn input(is_first: bool, l: u32, point: u32, slot: u32, i: u32) -> vec4<f32> {
    if is_first { return load_x(point, i); }
    return activate4(get_z(l - 1u, point, slot, i, WIDTH4));
}

fn input_block(is_first: bool, l: u32, count: u32, point: u32, slot: u32, i: u32) -> Block {
    var b: Block;
    if count > 0u { b.v0 = input(is_first, l, point, slot, i + 0u); }
    if count > 1u { b.v1 = input(is_first, l, point, slot, i + 1u); }
    if count > 2u { b.v2 = input(is_first, l, point, slot, i + 2u); }
    if count > 3u { b.v3 = input(is_first, l, point, slot, i + 3u); }
    if count > 4u { b.v4 = input(is_first, l, point, slot, i + 4u); }
    if count > 5u { b.v5 = input(is_first, l, point, slot, i + 5u); }
    if count > 6u { b.v6 = input(is_first, l, point, slot, i + 6u); }
    if count > 7u { b.v7 = input(is_first, l, point, slot, i + 7u); }
    if count > 8u { b.v8 = input(is_first, l, point, slot, i + 8u); }
    if count > 9u { b.v9 = input(is_first, l, point, slot, i + 9u); }
    if count > 10u { b.v10 = input(is_first, l, point, slot, i + 10u); }
    if count > 11u { b.v11 = input(is_first, l, point, slot, i + 11u); }
    if count > 12u { b.v12 = input(is_first, l, point, slot, i + 12u); }
    if count > 13u { b.v13 = input(is_first, l, point, slot, i + 13u); }
    if count > 14u { b.v14 = input(is_first, l, point, slot, i + 14u); }
    if count > 15u { b.v15 = input(is_first, l, point, slot, i + 15u); }
    return b;
}

// The layer's outputs over up to 64 of its inputs; the later block of inputs adds to the earlier one.
fn forward_block(is_first: bool, l: u32, i: u32, count: u32, row: u32, outputs: u32, first: u32,
                 point: u32, local: u32, lane: u32) {
    let b = Blocks(input_block(is_first, l, count, point, local, i),
                   input_block(is_first, l, count, point + WORKGROUP, local + WORKGROUP, i),
                   input_block(is_first, l, count, point + 2u * WORKGROUP, local + 2u * WORKGROUP, i),
                   input_block(is_first, l, count, point + 3u * WORKGROUP, local + 3u * WORKGROUP, i));
    for (var o = 0u; o < outputs; o++) {
        let at = first + 4u * o * row;
        var z = Four();
        if i == 0u {
            // Lane k has the bias of row k.
            let own = four(weights[at + lane % 4u * row + row - 1u]).x;
            let bias = vec4<f32>(subgroupShuffle(own, 0u), subgroupShuffle(own, 1u),
                                 subgroupShuffle(own, 2u), subgroupShuffle(own, 3u));
            z = Four(bias, bias, bias, bias);
        } else {
            z = Four(get_z(l, point, local, o, outputs),
                     get_z(l, point + WORKGROUP, local + WORKGROUP, o, outputs),
                     get_z(l, point + 2u * WORKGROUP, local + 2u * WORKGROUP, o, outputs),
                     get_z(l, point + 3u * WORKGROUP, local + 3u * WORKGROUP, o, outputs));
        }
        z = multiply(z, b, count, false, at + i, row, lane);
        put_z(l, point, local, o, outputs, z.a);
        put_z(l, point + WORKGROUP, local + WORKGROUP, o, outputs, z.b);
        put_z(l, point + 2u * WORKGROUP, local + 2u * WORKGROUP, o, outputs, z.c);
        put_z(l, point + 3u * WORKGROUP, local + 3u * WORKGROUP, o, outputs, z.d);
    }
}

fn forward_layer(is_first: bool, l: u32, inputs: u32, outputs: u32, first: u32, point: u32, local: u32, lane: u32) {
    let row = inputs + 1u;
    forward_block(is_first, l, 0u, min(inputs, 16u), row, outputs, first, point, local, lane);
    // A constant count keeps the inner loops free of branches.
    if inputs > 16u { forward_block(is_first, l, 16u, max(inputs, 17u) - 16u, row, outputs, first, point, local, lane); }
}

fn put_outputs(point: u32, slot: u32) {
    if point >= params.points { return; }
    for (var o = 0u; o < OUTPUTS4; o++) { put_y(point, o, get_z(params.layers, point, slot, o, OUTPUTS4)); }
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let point = group * POINTS + local;
    forward_layer(true, 0u, INPUTS4, WIDTH4, 0u, point, local, lane);
    var first = 4u * WIDTH4 * (INPUTS4 + 1u);
    for (var l = 1u; l <= params.layers; l++) {
        let outputs = select(WIDTH4, OUTPUTS4, l == params.layers);
        forward_layer(false, l, WIDTH4, outputs, first, point, local, lane);
        first += 4u * WIDTH4 * (WIDTH4 + 1u);
    }
    put_outputs(point, local);
    put_outputs(point + WORKGROUP, local + WORKGROUP);
    put_outputs(point + 2u * WORKGROUP, local + 2u * WORKGROUP);
    put_outputs(point + 3u * WORKGROUP, local + 3u * WORKGROUP);
}

fn delta_block(count: u32, at: u32, point: u32) -> Block {
    var b: Block;
    if point >= params.points { return b; }
    if count > 0u { b.v0 = four(deltas[at + 0u]); }
    if count > 1u { b.v1 = four(deltas[at + 1u]); }
    if count > 2u { b.v2 = four(deltas[at + 2u]); }
    if count > 3u { b.v3 = four(deltas[at + 3u]); }
    if count > 4u { b.v4 = four(deltas[at + 4u]); }
    if count > 5u { b.v5 = four(deltas[at + 5u]); }
    if count > 6u { b.v6 = four(deltas[at + 6u]); }
    if count > 7u { b.v7 = four(deltas[at + 7u]); }
    if count > 8u { b.v8 = four(deltas[at + 8u]); }
    if count > 9u { b.v9 = four(deltas[at + 9u]); }
    if count > 10u { b.v10 = four(deltas[at + 10u]); }
    if count > 11u { b.v11 = four(deltas[at + 11u]); }
    if count > 12u { b.v12 = four(deltas[at + 12u]); }
    if count > 13u { b.v13 = four(deltas[at + 13u]); }
    if count > 14u { b.v14 = four(deltas[at + 14u]); }
    if count > 15u { b.v15 = four(deltas[at + 15u]); }
    return b;
}

// d of the layer below, e = W^T d times a'(z); below the first layer, dx.
fn put_delta(is_first: bool, is_begun: bool, is_last: bool, below: u32, point: u32, i: u32, sum: vec4<f32>) {
    if point >= params.points { return; }
    var e = sum;
    if is_first {
        put_dx(point, i, is_begun, e);
    } else {
        let at = below * params.points * WIDTH4 + point * WIDTH4 + i;
        if is_begun { e += four(deltas[at]); }
        if is_last { e *= derivative4(four(kept_in[at])); }
        deltas[at] = quad_of(e);
    }
}

// The layer's d over up to 64 of the outputs above it.
fn backward_block(is_first: bool, l: u32, o: u32, count: u32, inputs: u32, outputs: u32, first: u32,
                  point: u32, lane: u32) {
    let row = inputs + 1u;
    let at = l * params.points * WIDTH4 + o;
    let b = Blocks(delta_block(count, at + (point) * outputs, point),
                   delta_block(count, at + (point + WORKGROUP) * outputs, point + WORKGROUP),
                   delta_block(count, at + (point + 2u * WORKGROUP) * outputs, point + 2u * WORKGROUP),
                   delta_block(count, at + (point + 3u * WORKGROUP) * outputs, point + 3u * WORKGROUP));
    for (var i = 0u; i < inputs; i++) {
        let e = multiply(Four(), b, count, true, first + 4u * o * row + i, row, lane);
        put_delta(is_first, o > 0u, o + 16u >= outputs, l - 1u, point, i, e.a);
        put_delta(is_first, o > 0u, o + 16u >= outputs, l - 1u, point + WORKGROUP, i, e.b);
        put_delta(is_first, o > 0u, o + 16u >= outputs, l - 1u, point + 2u * WORKGROUP, i, e.c);
        put_delta(is_first, o > 0u, o + 16u >= outputs, l - 1u, point + 3u * WORKGROUP, i, e.d);
    }
}

fn backward_layer(is_first: bool, l: u32, inputs: u32, outputs: u32, first: u32, point: u32, lane: u32) {
    backward_block(is_first, l, 0u, min(outputs, 16u), inputs, outputs, first, point, lane);
    if outputs > 16u { backward_block(is_first, l, 16u, max(outputs, 17u) - 16u, inputs, outputs, first, point, lane); }
}

fn put_last_delta(point: u32) {
    if point >= params.points { return; }
    for (var o = 0u; o < OUTPUTS4; o++) {
        deltas[params.layers * params.points * WIDTH4 + point * OUTPUTS4 + o] = quad_of(load_dy(point, o));
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let point = group * POINTS + local;
    put_last_delta(point);
    put_last_delta(point + WORKGROUP);
    put_last_delta(point + 2u * WORKGROUP);
    put_last_delta(point + 3u * WORKGROUP);
    var first = TOTAL4 - 4u * OUTPUTS4 * (WIDTH4 + 1u);
    backward_layer(false, params.layers, WIDTH4, OUTPUTS4, first, point, lane);
    for (var l = params.layers - 1u; l > 0u; l--) {
        first -= 4u * WIDTH4 * (WIDTH4 + 1u);
        backward_layer(false, l, WIDTH4, WIDTH4, first, point, lane);
    }
    if WANT_DX { backward_layer(true, 0u, INPUTS4, WIDTH4, 0u, point, lane); }
}

struct Rows { s0: vec4<f32>, s1: vec4<f32>, s2: vec4<f32>, s3: vec4<f32>, bias: vec4<f32> }

fn add_rows(r: Rows, d: vec4<f32>, v: vec4<f32>) -> Rows {
    return Rows(fma(d.xxxx, v, r.s0), fma(d.yyyy, v, r.s1), fma(d.zzzz, v, r.s2), fma(d.wwww, v, r.s3), r.bias + d);
}

fn put_rows(r: Rows, block: u32, row: u32, c: u32) {
    if row >= params.rows || c >= params.columns { return; }
    let length = params.columns + 1u;
    let at = block * params.total + params.first_weight + 4u * row * length;
    sums_of_blocks[at + c] = quad_of(r.s0);
    sums_of_blocks[at + length + c] = quad_of(r.s1);
    sums_of_blocks[at + 2u * length + c] = quad_of(r.s2);
    sums_of_blocks[at + 3u * length + c] = quad_of(r.s3);
    if c == 0u {
        put_bias(at + params.columns, length, r.bias);
    }
}

// A workgroup has a block of points and 4 ROWS4 rows; its invocations have the columns, four each.
@compute @workgroup_size(WORKGROUP)
fn weight_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                   @builtin(local_invocation_index) local: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let row_blocks = (params.rows + ROWS4 - 1u) / ROWS4;
    let column_blocks = (params.columns + WORKGROUP - 1u) / WORKGROUP;
    let block = group / (row_blocks * column_blocks);
    let row = group / column_blocks % row_blocks * ROWS4;
    let c = group % column_blocks * WORKGROUP + local;
    let own_row = min(row + lane, params.rows - 1u);
    let own_column = min(c, params.columns - 1u);
    var r0: Rows;
    var r1: Rows;
    var r2: Rows;
    var r3: Rows;
    var r4: Rows;
    var r5: Rows;
    var r6: Rows;
    var r7: Rows;
    let end = min(params.points, (block + 1u) * BLOCK);
    for (var point = block * BLOCK; point < end; point++) {
        let v = layer_input(point, own_column);
        let d = four(deltas_in[params.first_delta + point * params.rows + own_row]);
        if ROWS4 > 0u { r0 = add_rows(r0, subgroupShuffle(d, 0u), v); }
        if ROWS4 > 1u { r1 = add_rows(r1, subgroupShuffle(d, 1u), v); }
        if ROWS4 > 2u { r2 = add_rows(r2, subgroupShuffle(d, 2u), v); }
        if ROWS4 > 3u { r3 = add_rows(r3, subgroupShuffle(d, 3u), v); }
        if ROWS4 > 4u { r4 = add_rows(r4, subgroupShuffle(d, 4u), v); }
        if ROWS4 > 5u { r5 = add_rows(r5, subgroupShuffle(d, 5u), v); }
        if ROWS4 > 6u { r6 = add_rows(r6, subgroupShuffle(d, 6u), v); }
        if ROWS4 > 7u { r7 = add_rows(r7, subgroupShuffle(d, 7u), v); }
    }
    if ROWS4 > 0u { put_rows(r0, block, row + 0u, c); }
    if ROWS4 > 1u { put_rows(r1, block, row + 1u, c); }
    if ROWS4 > 2u { put_rows(r2, block, row + 2u, c); }
    if ROWS4 > 3u { put_rows(r3, block, row + 3u, c); }
    if ROWS4 > 4u { put_rows(r4, block, row + 4u, c); }
    if ROWS4 > 5u { put_rows(r5, block, row + 5u, c); }
    if ROWS4 > 6u { put_rows(r6, block, row + 6u, c); }
    if ROWS4 > 7u { put_rows(r7, block, row + 7u, c); }
}
