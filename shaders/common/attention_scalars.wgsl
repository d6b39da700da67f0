// The tensors of flash attention, for any head dimension and any strides.
// "Own" is the side whose rows a kernel has, with a result for each:
// q and the output's gradient x, or k and v; "other" is the side that passes by. A block is four columns of
// a row; columns that do not exist are 0, and are not written.
@group(0) @binding(1) var<storage, read> own: array<Storage>;
@group(0) @binding(2) var<storage, read> other: array<Storage>;
@group(0) @binding(3) var<storage, read> other_values: array<OtherStorage>;
@group(0) @binding(6) var<storage, read> own_values: array<OwnStorage>;
@group(0) @binding(6) var<storage, read_write> o: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_own: array<f32>;
@group(0) @binding(8) var<storage, read_write> d_own_values: array<f32>;

fn exists(value: f32, column: u32, width: u32) -> f32 {
    return select(0.0, value, column < width);
}

fn get_own(at: u32, block: u32) -> vec4<f32> {
    let c = 4u * block;
    return vec4<f32>(exists(f32(own[at + min(c, D - 1u)]), c, D),
                     exists(f32(own[at + min(c + 1u, D - 1u)]), c + 1u, D),
                     exists(f32(own[at + min(c + 2u, D - 1u)]), c + 2u, D),
                     exists(f32(own[at + min(c + 3u, D - 1u)]), c + 3u, D));
}

fn get_other(at: u32, block: u32) -> vec4<f32> {
    let c = 4u * block;
    return vec4<f32>(exists(f32(other[at + min(c, D - 1u)]), c, D),
                     exists(f32(other[at + min(c + 1u, D - 1u)]), c + 1u, D),
                     exists(f32(other[at + min(c + 2u, D - 1u)]), c + 2u, D),
                     exists(f32(other[at + min(c + 3u, D - 1u)]), c + 3u, D));
}

fn get_other_values(at: u32, block: u32) -> vec4<f32> {
    let c = 4u * block;
    return vec4<f32>(exists(f32(other_values[at + min(c, DV - 1u)]), c, DV),
                     exists(f32(other_values[at + min(c + 1u, DV - 1u)]), c + 1u, DV),
                     exists(f32(other_values[at + min(c + 2u, DV - 1u)]), c + 2u, DV),
                     exists(f32(other_values[at + min(c + 3u, DV - 1u)]), c + 3u, DV));
}

fn get_own_values(at: u32, block: u32) -> vec4<f32> {
    let c = 4u * block;
    return vec4<f32>(exists(f32(own_values[at + min(c, DV - 1u)]), c, DV),
                     exists(f32(own_values[at + min(c + 1u, DV - 1u)]), c + 1u, DV),
                     exists(f32(own_values[at + min(c + 2u, DV - 1u)]), c + 2u, DV),
                     exists(f32(own_values[at + min(c + 3u, DV - 1u)]), c + 3u, DV));
}

fn put_o(at: u32, block: u32, value: vec4<f32>) {
    let c = 4u * block;
    if c < DV { o[at + c] = value.x; }
    if c + 1u < DV { o[at + c + 1u] = value.y; }
    if c + 2u < DV { o[at + c + 2u] = value.z; }
    if c + 3u < DV { o[at + c + 3u] = value.w; }
}

fn put_d_own(at: u32, block: u32, value: vec4<f32>) {
    let c = 4u * block;
    if c < D { d_own[at + c] = value.x; }
    if c + 1u < D { d_own[at + c + 1u] = value.y; }
    if c + 2u < D { d_own[at + c + 2u] = value.z; }
    if c + 3u < D { d_own[at + c + 3u] = value.w; }
}

fn put_d_own_values(at: u32, block: u32, value: vec4<f32>) {
    let c = 4u * block;
    if c < DV { d_own_values[at + c] = value.x; }
    if c + 1u < DV { d_own_values[at + c + 1u] = value.y; }
    if c + 2u < DV { d_own_values[at + c + 2u] = value.z; }
    if c + 3u < DV { d_own_values[at + c + 3u] = value.w; }
}
