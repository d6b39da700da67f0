// The side of flash attention that passes by, as 64-bit integers of two floats each, where head dimensions and
// strides are multiples of 8. Two blocks are one load: on a CPU adapter each number of a load whose index differs
// between lanes goes through memory on its own, and one of 64 bits takes as long as one of 32.
@group(0) @binding(2) var<storage, read> other: array<vec4<u64>>;
@group(0) @binding(3) var<storage, read> other_values: array<vec4<u64>>;

// What the numbers hold; blocks that do not exist are 0.
fn blocks_of(words: vec4<u64>, block: u32, blocks: u32) -> mat2x4<f32> {
    let even = bitcast<vec4<f32>>(vec4<u32>(words));
    let odd = bitcast<vec4<f32>>(vec4<u32>(words >> vec4<u32>(32u)));
    if block >= blocks { return mat2x4<f32>(); }
    return mat2x4<f32>(vec4<f32>(even.x, odd.x, even.y, odd.y), vec4<f32>(even.z, odd.z, even.w, odd.w));
}

fn get_other_pair(at: u32, block: u32) -> mat2x4<f32> {
    return blocks_of(other[at / 8u + min(block, D4 - 2u) / 2u], block, D4);
}

fn get_other_values_pair(at: u32, block: u32) -> mat2x4<f32> {
    return blocks_of(other_values[at / 8u + min(block, DV4 - 2u) / 2u], block, DV4);
}
