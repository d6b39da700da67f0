// Keeps what goes into the activation.
@group(0) @binding(5) var<storage, read_write> kept: array<f32>;    // as C

fn keep(at: u32, count: u32, z: vec4<f32>) {
    for (var i = 0u; i < min(count, 4u); i++) { kept[at + i] = z[i]; }
}
