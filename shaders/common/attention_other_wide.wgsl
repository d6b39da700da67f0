// The side of flash attention that passes by, where head dimensions and strides are multiples of 8: two blocks are
// one load (common/wide.wgsl).
@group(0) @binding(2) var<storage, read> other: array<vec4<u64>>;
@group(0) @binding(3) var<storage, read> other_values: array<vec4<u64>>;

fn get_other_pair(at: u32, block: u32) -> mat2x4<f32> {
    if block >= D4 { return mat2x4<f32>(); }
    return floats_of(other[at / 8u + min(block, D4 - 2u) / 2u]);
}

fn get_other_values_pair(at: u32, block: u32) -> mat2x4<f32> {
    if block >= DV4 { return mat2x4<f32>(); }
    return floats_of(other_values[at / 8u + min(block, DV4 - 2u) / 2u]);
}
