// The tensors of flash attention, for any head dimension and any strides. A block is four columns of a
// row; columns that do not exist are 0, and are not written.
@group(0) @binding(1) var<storage, read> q: array<Storage>;
@group(0) @binding(2) var<storage, read> k: array<Storage>;
@group(0) @binding(3) var<storage, read> v: array<Storage>;
@group(0) @binding(6) var<storage, read> x: array<f32>;              // of the queries: the output's gradient
@group(0) @binding(6) var<storage, read_write> o: array<f32>;
@group(0) @binding(7) var<storage, read_write> dq: array<f32>;
@group(0) @binding(7) var<storage, read_write> dk: array<f32>;
@group(0) @binding(8) var<storage, read_write> dv: array<f32>;

fn exists(value: f32, column: u32, width: u32) -> f32 {
    return select(0.0, value, column < width);
}

fn get_q(at: u32, block: u32) -> vec4<f32> {
    let c = 4u * block;
    return vec4<f32>(exists(f32(q[at + min(c, D - 1u)]), c, D),
                     exists(f32(q[at + min(c + 1u, D - 1u)]), c + 1u, D),
                     exists(f32(q[at + min(c + 2u, D - 1u)]), c + 2u, D),
                     exists(f32(q[at + min(c + 3u, D - 1u)]), c + 3u, D));
}

fn get_k(at: u32, block: u32) -> vec4<f32> {
    let c = 4u * block;
    return vec4<f32>(exists(f32(k[at + min(c, D - 1u)]), c, D),
                     exists(f32(k[at + min(c + 1u, D - 1u)]), c + 1u, D),
                     exists(f32(k[at + min(c + 2u, D - 1u)]), c + 2u, D),
                     exists(f32(k[at + min(c + 3u, D - 1u)]), c + 3u, D));
}

fn get_v(at: u32, block: u32) -> vec4<f32> {
    let c = 4u * block;
    return vec4<f32>(exists(f32(v[at + min(c, DV - 1u)]), c, DV),
                     exists(f32(v[at + min(c + 1u, DV - 1u)]), c + 1u, DV),
                     exists(f32(v[at + min(c + 2u, DV - 1u)]), c + 2u, DV),
                     exists(f32(v[at + min(c + 3u, DV - 1u)]), c + 3u, DV));
}

fn get_x(at: u32, block: u32) -> vec4<f32> {
    let c = 4u * block;
    return vec4<f32>(exists(x[at + min(c, DV - 1u)], c, DV),
                     exists(x[at + min(c + 1u, DV - 1u)], c + 1u, DV),
                     exists(x[at + min(c + 2u, DV - 1u)], c + 2u, DV),
                     exists(x[at + min(c + 3u, DV - 1u)], c + 3u, DV));
}

fn put_o(at: u32, block: u32, value: vec4<f32>) {
    let c = 4u * block;
    if c < DV { o[at + c] = value.x; }
    if c + 1u < DV { o[at + c + 1u] = value.y; }
    if c + 2u < DV { o[at + c + 2u] = value.z; }
    if c + 3u < DV { o[at + c + 3u] = value.w; }
}

fn put_dq(at: u32, block: u32, value: vec4<f32>) {
    let c = 4u * block;
    if c < D { dq[at + c] = value.x; }
    if c + 1u < D { dq[at + c + 1u] = value.y; }
    if c + 2u < D { dq[at + c + 2u] = value.z; }
    if c + 3u < D { dq[at + c + 3u] = value.w; }
}

fn put_dk(at: u32, block: u32, value: vec4<f32>) {
    let c = 4u * block;
    if c < D { dk[at + c] = value.x; }
    if c + 1u < D { dk[at + c + 1u] = value.y; }
    if c + 2u < D { dk[at + c + 2u] = value.z; }
    if c + 3u < D { dk[at + c + 3u] = value.w; }
}

fn put_dv(at: u32, block: u32, value: vec4<f32>) {
    let c = 4u * block;
    if c < DV { dv[at + c] = value.x; }
    if c + 1u < DV { dv[at + c + 1u] = value.y; }
    if c + 2u < DV { dv[at + c + 2u] = value.z; }
    if c + 3u < DV { dv[at + c + 3u] = value.w; }
}
