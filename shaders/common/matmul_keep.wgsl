// Keeps what goes into the activation.
@group(0) @binding(5) var<storage, read_write> kept: array<f32>;    // as C

fn keep(at: u32, count: u32, z: vec4<f32>) {
    if count > 0u { kept[at] = z.x; }
    if count > 1u { kept[at + 1u] = z.y; }
    if count > 2u { kept[at + 2u] = z.z; }
    if count > 3u { kept[at + 3u] = z.w; }
}
