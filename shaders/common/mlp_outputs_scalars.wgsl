// y and dy of radial/fused_mlp for any number of outputs.
@group(0) @binding(3) var<storage, read_write> y: array<f32>;               // [N, OUTPUTS]
@group(0) @binding(2) var<storage, read> dy: array<f32>;                    // [N, OUTPUTS]

// Column block `o` of a point's output.
fn put_y(point: u32, o: u32, z: vec4<f32>) {
    let at = point * OUTPUTS + 4u * o;
    y[at] = z.x;
    if 4u * o + 1u < OUTPUTS { y[at + 1u] = z.y; }
    if 4u * o + 2u < OUTPUTS { y[at + 2u] = z.z; }
    if 4u * o + 3u < OUTPUTS { y[at + 3u] = z.w; }
}

fn load_dy_at(point: u32, row: u32) -> f32 {
    return select(0.0, dy[min(point * OUTPUTS + row, params.points * OUTPUTS - 1u)], row < OUTPUTS);
}

// Column block `o` of a point's gradient of the output.
fn load_dy(point: u32, o: u32) -> vec4<f32> {
    let r = 4u * o;
    return vec4<f32>(load_dy_at(point, r), load_dy_at(point, r + 1u), load_dy_at(point, r + 2u), load_dy_at(point, r + 3u));
}
