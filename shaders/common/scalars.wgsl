// Items of one element each; see vectors.wgsl.
alias Floats = f32;
alias Words = u32;

fn lanes_sum(v: Floats) -> f32 {
    return v;
}

fn lanes_max(v: Words) -> u32 {
    return v;
}
