// Two neighbouring blocks of a row that passes by, from two loads (or more); common/attention_other_wide.wgsl needs one.
fn get_other_pair(at: u32, block: u32) -> mat2x4<f32> {
    return mat2x4<f32>(get_other(at, block), get_other(at, block + 1u));
}

fn get_other_values_pair(at: u32, block: u32) -> mat2x4<f32> {
    return mat2x4<f32>(get_other_values(at, block), get_other_values(at, block + 1u));
}
