// The buffers of dense/matmul where rows are multiples of 4 long: one load instead of four.
alias Storage4 = vec4<Storage>;
@group(0) @binding(1) var<storage, read> a: array<Storage4>;
@group(0) @binding(2) var<storage, read> b: array<Storage4>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> c: array<vec4<f32>>;

// Four elements, of which `count` exist: all or none.
fn get_a(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if count > 0u { v = vec4<f32>(a[at / 4u]); }
    return v;
}

fn get_b(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if count > 0u { v = vec4<f32>(b[at / 4u]); }
    return v;
}

fn get_c(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if count > 0u { v = c[at / 4u]; }
    return v;
}

fn get_bias(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if count > 0u { v = bias[at / 4u]; }
    return v;
}

fn put_c(at: u32, count: u32, v: vec4<f32>) {
    if count > 0u { c[at / 4u] = v; }
}
