// What the variants of dense/matmul share: parameters, where matrices begin, and the epilogue.
// The buffers are in matmul_scalars.wgsl or matmul_vectors.wgsl, the kept pre-activations in
// matmul_keep.wgsl or matmul_keep_none.wgsl.

struct Params {
    first_group: u32,
    groups: u32,
    m: u32,
    n: u32,
    k: u32,
    batch: u32,
    a_stride: u32,      // elements from one matrix of the batch to the next; 0: they share one
    b_stride: u32,
    slices: u32,        // parts of the sum over k, each with a C of its own
    slice_k: u32,       // length of a part, a multiple of 16
    scale: f32,
    parameter: f32,     // of the activation
}

@group(0) @binding(0) var<uniform> params: Params;

// Element (row, k) of op(A), and (k, column) of op(B), within their matrix.
fn a_index(row: u32, k: u32) -> u32 {
    return select(row * params.k + k, k * params.m + row, TRANSPOSE_A);
}

fn b_index(k: u32, column: u32) -> u32 {
    return select(k * params.n + column, column * params.k + k, TRANSPOSE_B);
}

// y = activation(scale * sum + C + bias), four columns of which `count` exist. `matrix` is the number
// of the result: of the batch, or of the slice and the batch.
fn put_result(matrix: u32, row: u32, column: u32, count: u32, sum: vec4<f32>) {
    let at = (matrix * params.m + row) * params.n + column;
    var z = sum;
    if !SLICED {
        z *= params.scale;
        if ACCUMULATE { z += get_c(at, count); }
        if BIAS { z += get_bias(column, count); }
        keep(at, count, z);
        let p = params.parameter;
        z = vec4<f32>(activate(z.x, p), activate(z.y, p), activate(z.z, p), activate(z.w, p));
    }
    put_c(at, count, z);
}
