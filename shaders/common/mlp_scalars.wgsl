// x and dx of radial/fused_mlp for any number of inputs.
@group(0) @binding(2) var<storage, read> x: array<f32>;                     // [N, INPUTS]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;              // [N, INPUTS]

fn load_x_at(point: u32, column: u32) -> f32 {
    return select(0.0, x[min(point * INPUTS + column, params.points * INPUTS - 1u)], column < INPUTS);
}

// Column block `i` of a point's input.
fn load_x(point: u32, i: u32) -> vec4<f32> {
    let c = 4u * i;
    return vec4<f32>(load_x_at(point, c), load_x_at(point, c + 1u), load_x_at(point, c + 2u), load_x_at(point, c + 3u));
}

// Adds to, or sets, column block `i` of a point's gradient of the input.
fn put_dx(point: u32, i: u32, is_begun: bool, e: vec4<f32>) {
    for (var k = 0u; k < 4u; k++) {
        let at = point * INPUTS + 4u * i + k;
        if 4u * i + k < INPUTS {
            var sum = e[k];
            if is_begun { sum += dx[at]; }
            dx[at] = sum;
        }
    }
}
