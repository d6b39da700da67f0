// The forward pass of radial/fused_mlp for CPU adapters with subgroups of 8 where no layer has more than
// 64 inputs (formulas and buffers: common/mlp.wgsl and radial/fused_mlp.wgsl).
//
// A workgroup is one subgroup, an invocation has four points. All inputs of a layer stay in registers,
// and so do its outputs: they enter a queue of named vec4s at its end, four outputs of a point at a time,
// and after the last the queue is the next layer's input. Workgroup memory: 0 bytes.
//
// 64 inputs, 64 x 2, 64 outputs on lavapipe, percent of the ceiling: 20.0 as in fused_mlp_subgroup, where
// layers pass through workgroup memory; the queue 27; outputs stored as vec4 30 to 31. A load is a loop
// over the lanes there, about 300 instructions for a vec4: 9 for each 1,024 multiply-adds remain and take
// 40 % of the time, the products 30 %. Six or eight points an invocation need fewer loads (24 and 22):
// their code no longer fits the instruction cache. A branch in a product's way costs more than it saves:
// 26 to 28 where only the four lanes that have a bias load one, beside 31 to 33 in the same loop of timings.

// Moves a queue of WIDTH4 vec4s up by one.
fn push(b: Block, v: vec4<f32>) -> Block {
    var next = Block(b.v1, b.v2, b.v3, b.v4, b.v5, b.v6, b.v7, b.v8, b.v9, b.v10, b.v11, b.v12, b.v13, b.v14, b.v15, v);
    if WIDTH4 == 4u { next.v3 = v; }
    if WIDTH4 == 8u { next.v7 = v; }
    return next;
}

fn load_input(point: u32) -> Block {
    var b: Block;
    if INPUTS4 > 0u { b.v0 = load_x(point, 0u); }
    if INPUTS4 > 1u { b.v1 = load_x(point, 1u); }
    if INPUTS4 > 2u { b.v2 = load_x(point, 2u); }
    if INPUTS4 > 3u { b.v3 = load_x(point, 3u); }
    if INPUTS4 > 4u { b.v4 = load_x(point, 4u); }
    if INPUTS4 > 5u { b.v5 = load_x(point, 5u); }
    if INPUTS4 > 6u { b.v6 = load_x(point, 6u); }
    if INPUTS4 > 7u { b.v7 = load_x(point, 7u); }
    if INPUTS4 > 8u { b.v8 = load_x(point, 8u); }
    if INPUTS4 > 9u { b.v9 = load_x(point, 9u); }
    if INPUTS4 > 10u { b.v10 = load_x(point, 10u); }
    if INPUTS4 > 11u { b.v11 = load_x(point, 11u); }
    if INPUTS4 > 12u { b.v12 = load_x(point, 12u); }
    if INPUTS4 > 13u { b.v13 = load_x(point, 13u); }
    if INPUTS4 > 14u { b.v14 = load_x(point, 14u); }
    if INPUTS4 > 15u { b.v15 = load_x(point, 15u); }
    return b;
}

// Column block `o` of a layer's outputs.
fn layer_output(v: Blocks, count: u32, first: u32, o: u32, lane: u32) -> Four {
    let row = count + 1u;
    let at = first + 4u * o * row;
    // Lane k has the bias of row k.
    let own = four(weights[at + lane % 4u * row + count]).x;
    let bias = vec4<f32>(subgroupShuffle(own, 0u), subgroupShuffle(own, 1u),
                         subgroupShuffle(own, 2u), subgroupShuffle(own, 3u));
    return multiply(Four(bias, bias, bias, bias), v, count, false, at, row, lane);
}

fn keep(l: u32, point: u32, o: u32, outputs: u32, z: vec4<f32>) {
    if KEEP && point < params.points {
        kept[l * params.points * WIDTH4 + point * outputs + o] = quad_of(z);
    }
}

fn keep_all(l: u32, point: u32, o: u32, outputs: u32, z: Four) {
    keep(l, point, o, outputs, z.a);
    keep(l, point + WORKGROUP, o, outputs, z.b);
    keep(l, point + 2u * WORKGROUP, o, outputs, z.c);
    keep(l, point + 3u * WORKGROUP, o, outputs, z.d);
}

fn hidden_layer(v: Blocks, count: u32, first: u32, l: u32, point: u32, lane: u32) -> Blocks {
    var next: Blocks;
    for (var o = 0u; o < WIDTH4; o++) {
        let z = layer_output(v, count, first, o, lane);
        keep_all(l, point, o, WIDTH4, z);
        next = Blocks(push(next.a, activate4(z.a)), push(next.b, activate4(z.b)),
                      push(next.c, activate4(z.c)), push(next.d, activate4(z.d)));
    }
    return next;
}

fn put_output(point: u32, o: u32, z: vec4<f32>) {
    if point < params.points { put_y(point, o, z); }
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let point = group * POINTS + local;
    let x = Blocks(load_input(point), load_input(point + WORKGROUP),
                   load_input(point + 2u * WORKGROUP), load_input(point + 3u * WORKGROUP));
    var v = hidden_layer(x, INPUTS4, 0u, 0u, point, lane);
    var first = 4u * WIDTH4 * (INPUTS4 + 1u);
    for (var l = 1u; l < params.layers; l++) {
        v = hidden_layer(v, WIDTH4, first, l, point, lane);
        first += 4u * WIDTH4 * (WIDTH4 + 1u);
    }
    for (var o = 0u; o < OUTPUTS4; o++) {
        let z = layer_output(v, WIDTH4, first, o, lane);
        keep_all(params.layers, point, o, OUTPUTS4, z);
        put_output(point, o, z.a);
        put_output(point + WORKGROUP, o, z.b);
        put_output(point + 2u * WORKGROUP, o, z.c);
        put_output(point + 3u * WORKGROUP, o, z.d);
    }
}
