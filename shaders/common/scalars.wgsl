// Items of one element each; see vectors.wgsl.
alias Floats = f32;
alias Words = u32;
alias Flags = bool;
const WIDTH: u32 = 1u;
const LANE: Words = 0u;

fn lanes_sum(v: Floats) -> f32 {
    return v;
}

fn lanes_largest(v: Floats) -> f32 {
    return v;
}

fn lanes_max(v: Words) -> u32 {
    return v;
}

// There are no pairs in an item.
fn swap_pairs(v: Words) -> Words {
    return v;
}

// The bits without the sign.
fn magnitude(v: Floats) -> Words {
    return bitcast<Words>(v) & Words(0x7fffffffu);
}

// `b` where `flag`, else `a`.
fn choose(a: Words, b: Words, flag: Flags) -> Words {
    return select(a, b, flag);
}
