// The tensors of flash attention where head dimensions and strides are multiples of 4: one load instead
// of four. A block is four columns of a row; blocks that do not exist are 0, and are not written.
alias Storage4 = vec4<Storage>;
@group(0) @binding(1) var<storage, read> q: array<Storage4>;
@group(0) @binding(2) var<storage, read> k: array<Storage4>;
@group(0) @binding(3) var<storage, read> v: array<Storage4>;
@group(0) @binding(6) var<storage, read> x: array<vec4<f32>>;        // of the queries: the output's gradient
@group(0) @binding(6) var<storage, read_write> o: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> dv: array<vec4<f32>>;

fn exists(value: vec4<f32>, block: u32, blocks: u32) -> vec4<f32> {
    return select(vec4<f32>(), value, block < blocks);
}

fn get_q(at: u32, block: u32) -> vec4<f32> {
    return exists(vec4<f32>(q[at / 4u + min(block, D4 - 1u)]), block, D4);
}

fn get_k(at: u32, block: u32) -> vec4<f32> {
    return exists(vec4<f32>(k[at / 4u + min(block, D4 - 1u)]), block, D4);
}

fn get_v(at: u32, block: u32) -> vec4<f32> {
    return exists(vec4<f32>(v[at / 4u + min(block, DV4 - 1u)]), block, DV4);
}

fn get_x(at: u32, block: u32) -> vec4<f32> {
    return exists(x[at / 4u + min(block, DV4 - 1u)], block, DV4);
}

fn put_o(at: u32, block: u32, value: vec4<f32>) {
    if block < DV4 { o[at / 4u + block] = value; }
}

fn put_dq(at: u32, block: u32, value: vec4<f32>) {
    if block < D4 { dq[at / 4u + block] = value; }
}

fn put_dk(at: u32, block: u32, value: vec4<f32>) {
    if block < D4 { dk[at / 4u + block] = value; }
}

fn put_dv(at: u32, block: u32, value: vec4<f32>) {
    if block < DV4 { dv[at / 4u + block] = value; }
}
