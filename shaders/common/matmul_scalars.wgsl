// The buffers of dense/matmul for any sizes.
@group(0) @binding(1) var<storage, read> a: array<Storage>;
@group(0) @binding(2) var<storage, read> b: array<Storage>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

// Four elements, of which `count` exist; the others are 0. Components have names: where a variable picks
// them, GPU compilers keep the vector in memory.
fn get_a(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if count > 0u { v.x = f32(a[at]); }
    if count > 1u { v.y = f32(a[at + 1u]); }
    if count > 2u { v.z = f32(a[at + 2u]); }
    if count > 3u { v.w = f32(a[at + 3u]); }
    return v;
}

fn get_b(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if count > 0u { v.x = f32(b[at]); }
    if count > 1u { v.y = f32(b[at + 1u]); }
    if count > 2u { v.z = f32(b[at + 2u]); }
    if count > 3u { v.w = f32(b[at + 3u]); }
    return v;
}

fn get_c(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if count > 0u { v.x = c[at]; }
    if count > 1u { v.y = c[at + 1u]; }
    if count > 2u { v.z = c[at + 2u]; }
    if count > 3u { v.w = c[at + 3u]; }
    return v;
}

fn get_bias(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if count > 0u { v.x = bias[at]; }
    if count > 1u { v.y = bias[at + 1u]; }
    if count > 2u { v.z = bias[at + 2u]; }
    if count > 3u { v.w = bias[at + 3u]; }
    return v;
}

fn put_c(at: u32, count: u32, v: vec4<f32>) {
    if count > 0u { c[at] = v.x; }
    if count > 1u { c[at + 1u] = v.y; }
    if count > 2u { c[at + 2u] = v.z; }
    if count > 3u { c[at + 3u] = v.w; }
}
