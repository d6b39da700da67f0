// Items of four elements each: arrays whose length is a multiple of 4.
alias Floats = vec4<f32>;
alias Words = vec4<u32>;
alias Flags = vec4<bool>;
const WIDTH: u32 = 4u;
const LANE: Words = vec4<u32>(0u, 1u, 2u, 3u);

fn lanes_sum(v: Floats) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

fn lanes_largest(v: Floats) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn lanes_max(v: Words) -> u32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

// The two of each pair in the other order.
fn swap_pairs(v: Words) -> Words {
    return v.yxwz;
}

// The bits without the sign.
fn magnitude(v: Floats) -> Words {
    return bitcast<Words>(v) & Words(0x7fffffffu);
}

// `b` where `flag`, else `a`. By a mask: `select` on integer vectors is an extension of older GLSL.
fn choose(a: Words, b: Words, flag: Flags) -> Words {
    let mask = Words() - Words(flag);
    return (a & ~mask) | (b & mask);
}
