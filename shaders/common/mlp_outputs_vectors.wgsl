// y and dy of radial/fused_mlp where the number of outputs is a multiple of 4: one access instead of four.
@group(0) @binding(3) var<storage, read_write> y: array<Quad>;              // [N, OUTPUTS]
@group(0) @binding(2) var<storage, read> dy: array<Quad>;                   // [N, OUTPUTS]

// Column block `o` of a point's output.
fn put_y(point: u32, o: u32, z: vec4<f32>) {
    y[point * OUTPUTS4 + o] = quad_of(z);
}

// Column block `o` of a point's gradient of the output.
fn load_dy(point: u32, o: u32) -> vec4<f32> {
    return four(dy[min(point, params.points - 1u) * OUTPUTS4 + o]);
}
