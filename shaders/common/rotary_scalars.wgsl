// The other element of an interleaved pair, of items of one element; see attention/rotary.wgsl.
fn swap(i: u32, e: u32, v: Floats) -> Floats {
    return x[select(i - 1u, i + 1u, e % 2u == 0u)];
}
