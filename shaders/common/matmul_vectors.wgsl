// The buffers of dense/matmul where rows are multiples of 4 long: one load instead of four. Operands are those of
// operands.wgsl or operands_stored.wgsl.
@group(0) @binding(1) var<storage, read> a: array<Operand>;
@group(0) @binding(2) var<storage, read> b: array<Operand>;
@group(0) @binding(3) var<storage, read> bias: array<Quad>;
@group(0) @binding(4) var<storage, read_write> c: array<Quad>;

// Four elements, of which `count` exist: all or none.
fn get_a(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if count > 0u { v = operand(a[at / 4u]); }
    return v;
}

fn get_b(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if count > 0u { v = operand(b[at / 4u]); }
    return v;
}

fn get_c(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if count > 0u { v = four(c[at / 4u]); }
    return v;
}

fn get_bias(at: u32, count: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if count > 0u { v = four(bias[at / 4u]); }
    return v;
}

fn put_c(at: u32, count: u32, v: vec4<f32>) {
    if count > 0u { c[at / 4u] = quad_of(v); }
}
