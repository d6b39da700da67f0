// The side of flash attention that passes by, where head dimensions and strides are multiples of 4.
@group(0) @binding(2) var<storage, read> other: array<vec4<Storage>>;
@group(0) @binding(3) var<storage, read> other_values: array<vec4<OtherStorage>>;

fn get_other(at: u32, block: u32) -> vec4<f32> {
    return exists(vec4<f32>(other[at / 4u + min(block, D4 - 1u)]), block, D4);
}

fn get_other_values(at: u32, block: u32) -> vec4<f32> {
    return exists(vec4<f32>(other_values[at / 4u + min(block, DV4 - 1u)]), block, DV4);
}
