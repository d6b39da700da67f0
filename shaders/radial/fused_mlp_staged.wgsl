// The fused network for GPUs (formulas and buffers: common/mlp.wgsl and radial/fused_mlp.wgsl).
//
// forward, backward: a workgroup has POINTS = 2048 / WIDTH points. Their activations stay in
// workgroup memory from layer to layer; the weights pass through it, CHUNK4 vec4s of every row at a
// time. Each of the 128 invocations has 4 points x 4 outputs: 64 multiply-adds for 8 loads of vec4.
// weight_gradient: a workgroup has 32 rows x 64 columns of dW over a block of points, 4 x 4 an
// invocation, 16 points staged at a time.
// Workgroup memory: 8 KiB of activations and up to 4 KiB of weights; 6 KiB in weight_gradient.

const WIDTH_POINTS: u32 = POINTS * WIDTH4;
var<workgroup> tile: array<vec4<f32>, WIDTH_POINTS>;      // [POINTS, WIDTH4]
const CHUNK: u32 = CHUNK4 * 4u * WIDTH4;
var<workgroup> chunk: array<vec4<f32>, CHUNK>;            // [CHUNK4, 4, WIDTH4]

// One vec4 of each of an invocation's four points.
struct Four { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

// Adds a layer's products over the `inputs` vec4s that are in `tile`: the columns from `k0` of rows
// `m0`.. or, transposed, the rows from 4 k0 of columns `m0`.. (in vec4s; there are `outputs` of them).
fn multiply(sums: Four, transposed: bool, first: u32, row: u32, k0: u32, inputs: u32,
            m0: u32, outputs: u32, local: u32) -> Four {
    var s = sums;
    let mine = local % WIDTH4;
    let at = local / WIDTH4 * 4u * WIDTH4;
    for (var k = 0u; k < inputs; k += CHUNK4) {
        let count = min(CHUNK4, inputs - k);
        workgroupBarrier();
        for (var i = local; i < CHUNK; i += WORKGROUP) {
            let m = m0 + i % WIDTH4;
            let q = i / WIDTH4 % 4u;
            let j = i / (4u * WIDTH4);
            var w = vec4<f32>();
            if j < count && m < outputs {
                let c = k0 + k + j;
                w = four(weights[first + (4u * select(m, c, transposed) + q) * row + select(c, m, transposed)]);
            }
            chunk[i] = w;
        }
        workgroupBarrier();
        for (var j = 0u; j < count; j++) {
            let w = 4u * j * WIDTH4 + mine;
            var m = mat4x4<f32>(chunk[w], chunk[w + WIDTH4], chunk[w + 2u * WIDTH4], chunk[w + 3u * WIDTH4]);
            if !transposed { m = transpose(m); }
            s.a += m * tile[at + k + j];
            s.b += m * tile[at + WIDTH4 + k + j];
            s.c += m * tile[at + 2u * WIDTH4 + k + j];
            s.d += m * tile[at + 3u * WIDTH4 + k + j];
        }
    }
    return s;
}

// Sums that begin with the biases of four rows.
fn biases(first: u32, row: u32, m: u32, outputs: u32) -> Four {
    var b: vec4<f32>;
    if m < outputs {
        let at = first + 4u * m * row + row - 1u;
        b = vec4<f32>(four(weights[at]).x, four(weights[at + row]).x,
                      four(weights[at + 2u * row]).x, four(weights[at + 3u * row]).x);
    }
    return Four(b, b, b, b);
}

fn put_z(l: u32, point: u32, o: u32, outputs: u32, z: vec4<f32>) {
    if KEEP && point < params.points {
        kept[l * params.points * WIDTH4 + point * outputs + o] = quad_of(z);
    }
}

fn put_output(point: u32, o: u32, z: vec4<f32>) {
    if o >= OUTPUTS4 || point >= params.points { return; }
    put_z(params.layers, point, o, OUTPUTS4, z);
    put_y(point, o, z);
}

// Keeps a hidden layer's z and leaves its activations in `tile`.
fn put_hidden(l: u32, point: u32, local: u32, z: Four) {
    let o = local % WIDTH4;
    put_z(l, point, o, WIDTH4, z.a);
    put_z(l, point + 1u, o, WIDTH4, z.b);
    put_z(l, point + 2u, o, WIDTH4, z.c);
    put_z(l, point + 3u, o, WIDTH4, z.d);
    put_tile(local, Four(activate4(z.a), activate4(z.b), activate4(z.c), activate4(z.d)));
}

fn put_tile(local: u32, v: Four) {
    let at = local / WIDTH4 * 4u * WIDTH4 + local % WIDTH4;
    workgroupBarrier();
    tile[at] = v.a;
    tile[at + WIDTH4] = v.b;
    tile[at + 2u * WIDTH4] = v.c;
    tile[at + 3u * WIDTH4] = v.d;
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let first_point = group * POINTS;
    let point = first_point + local / WIDTH4 * 4u;
    let o = local % WIDTH4;
    var row = INPUTS4 + 1u;
    var z = biases(0u, row, o, WIDTH4);
    for (var k = 0u; k < INPUTS4; k += WIDTH4) {
        workgroupBarrier();
        for (var i = local; i < WIDTH_POINTS; i += WORKGROUP) {
            var v = vec4<f32>();
            if k + i % WIDTH4 < INPUTS4 { v = load_x(first_point + i / WIDTH4, k + i % WIDTH4); }
            tile[i] = v;
        }
        z = multiply(z, false, 0u, row, k, min(WIDTH4, INPUTS4 - k), 0u, WIDTH4, local);
    }
    put_hidden(0u, point, local, z);
    var first = 4u * WIDTH4 * row;
    row = WIDTH4 + 1u;
    for (var l = 1u; l < params.layers; l++) {
        z = multiply(biases(first, row, o, WIDTH4), false, first, row, 0u, WIDTH4, 0u, WIDTH4, local);
        put_hidden(l, point, local, z);
        first += 4u * WIDTH4 * row;
    }
    for (var m = 0u; m < OUTPUTS4; m += WIDTH4) {
        z = multiply(biases(first, row, m + o, OUTPUTS4), false, first, row, 0u, WIDTH4, m, OUTPUTS4, local);
        put_output(point, m + o, z.a);
        put_output(point + 1u, m + o, z.b);
        put_output(point + 2u, m + o, z.c);
        put_output(point + 3u, m + o, z.d);
    }
}

fn put_delta(l: u32, point: u32, i: u32, e: vec4<f32>) -> vec4<f32> {
    var d: vec4<f32>;
    if point < params.points {
        let at = (l * params.points + point) * WIDTH4 + i;
        d = e * derivative4(four(kept_in[at]));
        deltas[at] = quad_of(d);
    }
    return d;
}

// d of layer l, left in `tile` too, from e = W^T d of the layer above.
fn put_deltas(l: u32, point: u32, local: u32, e: Four) {
    let i = local % WIDTH4;
    put_tile(local, Four(put_delta(l, point, i, e.a), put_delta(l, point + 1u, i, e.b),
                         put_delta(l, point + 2u, i, e.c), put_delta(l, point + 3u, i, e.d)));
}

fn put_inputs(point: u32, i: u32, e: vec4<f32>) {
    if i < INPUTS4 && point < params.points { put_dx(point, i, false, e); }
}

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let first_point = group * POINTS;
    let point = first_point + local / WIDTH4 * 4u;
    let i = local % WIDTH4;
    let row = WIDTH4 + 1u;
    var first = TOTAL4 - 4u * OUTPUTS4 * row;
    var e: Four;
    for (var k = 0u; k < OUTPUTS4; k += WIDTH4) {
        workgroupBarrier();
        for (var t = local; t < WIDTH_POINTS; t += WORKGROUP) {
            let o = k + t % WIDTH4;
            let p = first_point + t / WIDTH4;
            var d = vec4<f32>();
            if o < OUTPUTS4 && p < params.points {
                d = load_dy(p, o);
                deltas[params.layers * params.points * WIDTH4 + p * OUTPUTS4 + o] = quad_of(d);
            }
            tile[t] = d;
        }
        e = multiply(e, true, first, row, k, min(WIDTH4, OUTPUTS4 - k), 0u, WIDTH4, local);
    }
    put_deltas(params.layers - 1u, point, local, e);
    for (var l = params.layers - 1u; l > 0u; l--) {
        first -= 4u * WIDTH4 * row;
        e = multiply(Four(), true, first, row, 0u, WIDTH4, 0u, WIDTH4, local);
        put_deltas(l - 1u, point, local, e);
    }
    if WANT_DX {
        for (var m = 0u; m < INPUTS4; m += WIDTH4) {
            e = multiply(Four(), true, 0u, INPUTS4 + 1u, 0u, WIDTH4, m, INPUTS4, local);
            put_inputs(point, m + i, e.a);
            put_inputs(point + 1u, m + i, e.b);
            put_inputs(point + 2u, m + i, e.c);
            put_inputs(point + 3u, m + i, e.d);
        }
    }
}

var<workgroup> some_deltas: array<vec4<f32>, 128>;        // [16, 8]
var<workgroup> some_inputs: array<vec4<f32>, 256>;        // [16, 16]

@compute @workgroup_size(WORKGROUP)
fn weight_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let row_blocks = (params.rows + 7u) / 8u;
    let column_blocks = (params.columns + 15u) / 16u;
    let block = group / (row_blocks * column_blocks);
    let first_row = group / column_blocks % row_blocks * 8u;
    let first_column = group % column_blocks * 16u;
    let r = local / 16u;
    let c = local % 16u;
    var s0: vec4<f32>;
    var s1: vec4<f32>;
    var s2: vec4<f32>;
    var s3: vec4<f32>;
    var bias: vec4<f32>;
    let end = min(params.points, (block + 1u) * BLOCK);
    for (var first = block * BLOCK; first < end; first += 16u) {
        let count = min(16u, end - first);
        workgroupBarrier();
        for (var i = local; i < 128u; i += WORKGROUP) {
            let o = first_row + i % 8u;
            if i / 8u < count && o < params.rows {
                some_deltas[i] = four(deltas_in[params.first_delta + (first + i / 8u) * params.rows + o]);
            }
        }
        for (var i = local; i < 256u; i += WORKGROUP) {
            let column = first_column + i % 16u;
            if i / 16u < count && column < params.columns { some_inputs[i] = layer_input(first + i / 16u, column); }
        }
        workgroupBarrier();
        for (var p = 0u; p < count; p++) {
            let d = some_deltas[p * 8u + r];
            let v = some_inputs[p * 16u + c];
            s0 = fma(d.xxxx, v, s0);
            s1 = fma(d.yyyy, v, s1);
            s2 = fma(d.zzzz, v, s2);
            s3 = fma(d.wwww, v, s3);
            bias += d;
        }
    }
    let row = first_row + r;
    let column = first_column + c;
    if row >= params.rows || column >= params.columns { return; }
    let length = params.columns + 1u;
    let at = block * params.total + params.first_weight + 4u * row * length;
    sums_of_blocks[at + column] = quad_of(s0);
    sums_of_blocks[at + length + column] = quad_of(s1);
    sums_of_blocks[at + 2u * length + column] = quad_of(s2);
    sums_of_blocks[at + 3u * length + column] = quad_of(s3);
    if column == 0u { put_bias(at + params.columns, length, bias); }
}
