// The buffers of dense/matmul for any sizes.
@group(0) @binding(1) var<storage, read> a: array<Storage>;
@group(0) @binding(2) var<storage, read> b: array<Storage>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

// Four elements, of which `count` exist; the others are 0.
fn get_a(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    for (var i = 0u; i < min(count, 4u); i++) { v[i] = f32(a[at + i]); }
    return v;
}

fn get_b(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    for (var i = 0u; i < min(count, 4u); i++) { v[i] = f32(b[at + i]); }
    return v;
}

fn get_c(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    for (var i = 0u; i < min(count, 4u); i++) { v[i] = c[at + i]; }
    return v;
}

fn get_bias(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    for (var i = 0u; i < min(count, 4u); i++) { v[i] = bias[at + i]; }
    return v;
}

fn put_c(at: u32, count: u32, v: vec4<f32>) {
    for (var i = 0u; i < min(count, 4u); i++) { c[at + i] = v[i]; }
}
