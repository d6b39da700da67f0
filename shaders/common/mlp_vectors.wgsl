// x and dx of radial/fused_mlp where the number of inputs is a multiple of 4: one load instead of four.
@group(0) @binding(2) var<storage, read> x: array<Quad>;                    // [N, INPUTS]
@group(0) @binding(5) var<storage, read_write> dx: array<Quad>;             // [N, INPUTS]

// Column block `i` of a point's input.
fn load_x(point: u32, i: u32) -> vec4<f32> {
    return four(x[min(point, params.points - 1u) * INPUTS4 + i]);
}

// Adds to, or sets, column block `i` of a point's gradient of the input.
fn put_dx(point: u32, i: u32, is_begun: bool, e: vec4<f32>) {
    let at = point * INPUTS4 + i;
    var sum = e;
    if is_begun { sum += four(dx[at]); }
    dx[at] = quad_of(sum);
}
