// The other elements of two interleaved pairs, of items of four elements; see attention/rotary.wgsl.
fn swap(i: u32, e: u32, v: Floats) -> Floats {
    return v.yxwz;
}
