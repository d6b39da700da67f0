// Instances of attention/small_attention: row after row, with a mask over the keys.
@group(0) @binding(4) var<storage, read> key_mask: array<u32>;  // [instances, tokens]; 0: not attended

const REGIONS: bool = false;
const BIAS: bool = false;

fn query(instance: u32, i: u32) -> Token {
    return Token(select(NONE, instance * params.tokens + i, i < params.tokens), 0u);
}

fn key(instance: u32, j: u32) -> Token {
    var t = query(instance, j);
    if MASKED && t.row != NONE {
        if key_mask[t.row] == 0u { t.row = NONE; }
    }
    return t;
}

// There is none.
fn bias(head: u32, b: u32, i: u32, transposed: bool) -> vec4<f32> {
    return vec4<f32>();
}
