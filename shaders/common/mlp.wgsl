// What the variants of radial/fused_mlp share: parameters, buffers, and how a point's values are read.
// What a kernel may read and write four at a time is elsewhere: x and dx in mlp_scalars.wgsl or
// mlp_vectors.wgsl, y and dy in mlp_outputs_scalars.wgsl or mlp_outputs_vectors.wgsl.

struct Params {
    first_group: u32,
    groups: u32,
    points: u32,
    // weight_gradient: the layer's inputs and outputs, rounded up to 4, in vec4s; where its rows begin
    // (in vec4s), where its inputs and its d begin (in f32); blocks; vec4s of one copy of the weights.
    columns: u32,
    rows: u32,
    first_weight: u32,
    first_input: u32,
    first_delta: u32,
    blocks: u32,
    total: u32,
    layers: u32,
    parameter: f32,   // of the hidden activation
}

@group(0) @binding(0) var<uniform> params: Params;
// forward, backward
@group(0) @binding(1) var<storage, read> weights: array<Quad>;
// forward
@group(0) @binding(4) var<storage, read_write> kept: array<Quad>;           // z: [LAYERS, N, WIDTH], then [N, 4 OUTPUTS4]
// backward
@group(0) @binding(3) var<storage, read_write> deltas: array<Quad>;         // d, as `kept`
// backward, weight_gradient
@group(0) @binding(4) var<storage, read> kept_in: array<Quad>;
// weight_gradient
@group(0) @binding(1) var<storage, read_write> sums_of_blocks: array<Quad>;       // [blocks, weights]
@group(0) @binding(3) var<storage, read> deltas_in: array<Quad>;

fn activate4(v: vec4<f32>) -> vec4<f32> {
    let p = params.parameter;
    return vec4<f32>(activate(v.x, p), activate(v.y, p), activate(v.z, p), activate(v.w, p));
}

fn derivative4(v: vec4<f32>) -> vec4<f32> {
    let p = params.parameter;
    return vec4<f32>(activate_derivative(v.x, p), activate_derivative(v.y, p),
                     activate_derivative(v.z, p), activate_derivative(v.w, p));
}

// Column block `c` of a layer's input, for its weights: x, or a(z) of the layer before.
fn layer_input(point: u32, c: u32) -> vec4<f32> {
    if FIRST { return load_x(point, c); }
    return activate4(four(kept_in[params.first_input + point * WIDTH4 + c]));
}

// The biases of four rows, `length` apart: each a column of its own, then three zeros.
fn put_bias(at: u32, length: u32, bias: vec4<f32>) {
    sums_of_blocks[at] = quad_of(vec4<f32>(bias.x, 0.0, 0.0, 0.0));
    sums_of_blocks[at + length] = quad_of(vec4<f32>(bias.y, 0.0, 0.0, 0.0));
    sums_of_blocks[at + 2u * length] = quad_of(vec4<f32>(bias.z, 0.0, 0.0, 0.0));
    sums_of_blocks[at + 3u * length] = quad_of(vec4<f32>(bias.w, 0.0, 0.0, 0.0));
}
