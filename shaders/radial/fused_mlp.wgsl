// A small fully connected network in one dispatch (tiny-cuda-nn's "fully fused" network), forward
// and backward. LAYERS hidden layers of WIDTH, then a linear layer to OUTPUTS.
//
//   forward:   z_0 = W_0 [x, 1],  z_l = W_l [a(z_{l-1}), 1],  y = b(z_LAYERS)
//   backward:  d_LAYERS = dy b'(z_LAYERS),  d_{l-1} = (W_l^T d_l) a'(z_{l-1}),  dx = W_0^T d_0
//   weights:   dW_l = sum over the points of d_l [a(z_{l-1}), 1]^T
//
// weights: layer after layer, rows of outputs. A row has the inputs, rounded up to 4, then the bias
// and three zeros, so that a bias is one more input that is always 1. The output layer's rows are
// rounded up to 4 as well.
//
// This file is the plain variant, and the oracle of the others. forward, backward: one invocation a
// point; activations in private memory, weights at indices that are uniform over the workgroup.
// weight_gradient: an invocation has 4 rows x 4 columns of dW over a block of points; `sum_blocks`, of
// all variants, adds the blocks in order. Workgroup memory: 0 bytes.

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let point = group * WORKGROUP + local;
    if group >= params.groups || point >= params.points { return; }
    var a: array<vec4<f32>, LONGEST4>;
    var b: array<vec4<f32>, LONGEST4>;
    for (var i = 0u; i < INPUTS4; i++) {
        a[i] = load_x(point, i);
    }
    var first = 0u;
    var inputs = INPUTS4;
    for (var l = 0u; l <= params.layers; l++) {
        let outputs = select(WIDTH4, OUTPUTS4, l == params.layers);
        let row = inputs + 1u;
        for (var o = 0u; o < outputs; o++) {
            let at = first + 4u * o * row;
            var s0 = vec4<f32>(four(weights[at + inputs]).x, 0.0, 0.0, 0.0);
            var s1 = vec4<f32>(four(weights[at + row + inputs]).x, 0.0, 0.0, 0.0);
            var s2 = vec4<f32>(four(weights[at + 2u * row + inputs]).x, 0.0, 0.0, 0.0);
            var s3 = vec4<f32>(four(weights[at + 3u * row + inputs]).x, 0.0, 0.0, 0.0);
            for (var i = 0u; i < inputs; i++) {
                let v = a[i];
                s0 = fma(four(weights[at + i]), v, s0);
                s1 = fma(four(weights[at + row + i]), v, s1);
                s2 = fma(four(weights[at + 2u * row + i]), v, s2);
                s3 = fma(four(weights[at + 3u * row + i]), v, s3);
            }
            b[o] = vec4<f32>(s0.x + s0.y + s0.z + s0.w, s1.x + s1.y + s1.z + s1.w,
                             s2.x + s2.y + s2.z + s2.w, s3.x + s3.y + s3.z + s3.w);
        }
        if KEEP {
            for (var o = 0u; o < outputs; o++) {
                kept[(l * params.points * WIDTH4) + point * outputs + o] = quad_of(b[o]);
            }
        }
        if l < params.layers {
            for (var o = 0u; o < outputs; o++) { a[o] = activate4(b[o]); }
        }
        first += 4u * outputs * row;
        inputs = outputs;
    }
    for (var o = 0u; o < OUTPUTS4; o++) { put_y(point, o, b[o]); }
}

// d of every layer, and dx. The derivative of the output activation is 1: it is a kernel of its own.
@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let point = group * WORKGROUP + local;
    if group >= params.groups || point >= params.points { return; }
    var d: array<vec4<f32>, LONGEST4>;
    var e: array<vec4<f32>, LONGEST4>;
    for (var o = 0u; o < OUTPUTS4; o++) {
        d[o] = load_dy(point, o);
        deltas[params.layers * params.points * WIDTH4 + point * OUTPUTS4 + o] = quad_of(d[o]);
    }
    var end = TOTAL4;
    for (var step = 0u; step <= params.layers; step++) {
        let l = params.layers - step;
        let outputs = select(WIDTH4, OUTPUTS4, l == params.layers);
        let inputs = select(WIDTH4, INPUTS4, l == 0u);
        let row = inputs + 1u;
        let first = end - 4u * outputs * row;
        if l > 0u || WANT_DX {
            for (var i = 0u; i < inputs; i++) {
                var s0 = vec4<f32>(0.0);
                var s1 = vec4<f32>(0.0);
                var s2 = vec4<f32>(0.0);
                var s3 = vec4<f32>(0.0);
                for (var o = 0u; o < outputs; o++) {
                    let v = d[o];
                    let at = first + 4u * o * row + i;
                    s0 = fma(four(weights[at]), vec4<f32>(v.x), s0);
                    s1 = fma(four(weights[at + row]), vec4<f32>(v.y), s1);
                    s2 = fma(four(weights[at + 2u * row]), vec4<f32>(v.z), s2);
                    s3 = fma(four(weights[at + 3u * row]), vec4<f32>(v.w), s3);
                }
                e[i] = (s0 + s1) + (s2 + s3);
            }
        }
        if l > 0u {
            let at = ((l - 1u) * params.points + point) * WIDTH4;
            for (var i = 0u; i < WIDTH4; i++) {
                d[i] = e[i] * derivative4(four(kept_in[at + i]));
                deltas[at + i] = quad_of(d[i]);
            }
        }
        end = first;
    }
    if WANT_DX {
        for (var i = 0u; i < INPUTS4; i++) { put_dx(point, i, false, e[i]); }
    }
}

@compute @workgroup_size(WORKGROUP)
fn weight_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    // A workgroup has a block of points and 4 rows; its invocations have the columns.
    let column_blocks = (params.columns + WORKGROUP) / WORKGROUP;
    let block = group / (params.rows * column_blocks);
    let row = group / column_blocks % params.rows;
    let c = group % column_blocks * WORKGROUP + local;
    if group >= params.groups || c > params.columns { return; }
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    let end = min(params.points, (block + 1u) * BLOCK);
    for (var point = block * BLOCK; point < end; point++) {
        var v = vec4<f32>(1.0, 0.0, 0.0, 0.0);
        if c < params.columns { v = layer_input(point, c); }
        let d = four(deltas_in[params.first_delta + point * params.rows + row]);
        s0 = fma(vec4<f32>(d.x), v, s0);
        s1 = fma(vec4<f32>(d.y), v, s1);
        s2 = fma(vec4<f32>(d.z), v, s2);
        s3 = fma(vec4<f32>(d.w), v, s3);
    }
    let length = params.columns + 1u;
    let out = block * params.total + params.first_weight + 4u * row * length + c;
    sums_of_blocks[out] = quad_of(s0);
    sums_of_blocks[out + length] = quad_of(s1);
    sums_of_blocks[out + 2u * length] = quad_of(s2);
    sums_of_blocks[out + 3u * length] = quad_of(s3);
}

@group(0) @binding(1) var<storage, read> blocks_in: array<Quad>;                  // [blocks, weights]
@group(0) @binding(2) var<storage, read_write> dweights: array<Quad>;

@compute @workgroup_size(WORKGROUP)
fn sum_blocks(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.total { return; }
    var sum = vec4<f32>(0.0);
    for (var block = 0u; block < params.blocks; block++) { sum += four(blocks_in[block * params.total + i]); }
    dweights[i] = quad_of(sum);
}
