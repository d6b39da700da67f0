// The tensors of flash attention, where head dimensions and strides are multiples of 4.
// "Own" is the side whose rows a kernel has, with a result for each:
// q and the output's gradient x, or k and v; "other" is the side that passes by. A block is four columns of
// a row; blocks that do not exist are 0, and are not written.
@group(0) @binding(1) var<storage, read> own: array<vec4<Storage>>;
@group(0) @binding(6) var<storage, read> own_values: array<vec4<OwnStorage>>;
@group(0) @binding(6) var<storage, read_write> o: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> d_own: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> d_own_values: array<vec4<f32>>;

fn exists(value: vec4<f32>, block: u32, blocks: u32) -> vec4<f32> {
    return select(vec4<f32>(), value, block < blocks);
}

fn get_own(at: u32, block: u32) -> vec4<f32> {
    return exists(vec4<f32>(own[at / 4u + min(block, D4 - 1u)]), block, D4);
}

fn get_own_values(at: u32, block: u32) -> vec4<f32> {
    return exists(vec4<f32>(own_values[at / 4u + min(block, DV4 - 1u)]), block, DV4);
}

fn put_o(at: u32, block: u32, value: vec4<f32>) {
    if block < DV4 { o[at / 4u + block] = value; }
}

fn put_d_own(at: u32, block: u32, value: vec4<f32>) {
    if block < D4 { d_own[at / 4u + block] = value; }
}

fn put_d_own_values(at: u32, block: u32, value: vec4<f32>) {
    if block < DV4 { d_own_values[at / 4u + block] = value; }
}
