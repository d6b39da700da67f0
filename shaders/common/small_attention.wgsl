// What the variants of attention/small_attention and attention/window_attention share: parameters,
// tokens, and a score's way from q k to the exponent. Buffers are in small_scalars.wgsl or
// small_vectors.wgsl; which tokens an instance has is in small_tokens.wgsl or window_tokens.wgsl.
//
// An instance has `tokens` tokens, taken four at a time: block b is {b, b + blocks, b + 2 blocks,
// b + 3 blocks}. So neighbouring invocations with neighbouring blocks read neighbouring rows.

struct Params {
    first_group: u32,
    groups: u32,
    rows: u32,         // of q, k and v; row `rows` of k and v is that of all padding
    heads: u32,
    instances: u32,
    tokens: u32,       // of an instance, padding included
    blocks: u32,       // of four tokens
    per_slice: u32,    // instances that are worked through one after the other, backward
    parts: u32,        // workgroups along the tokens of an instance
    scale: f32,
    score_scale: f32,  // scale log2(e): scores are binary logarithms
    mask: f32,         // added between two regions, in the same units
    bias_sums: u32,    // where sums of dS begin in `sums`, in vec4s
    pad_sums: u32,     // where sums of padding's dk and dv begin
    slices: u32,
    size_x: u32,       // windows: the grid
    size_y: u32,
    size_z: u32,
    windows_x: u32,    // windows along each axis
    windows_y: u32,
    windows_z: u32,
    shift_x: u32,
    shift_y: u32,
    shift_z: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;         // forward: [rows, heads]
// Backward: [rows, heads] (L log2(e), D, 0, 0), then sums of dS, then sums of padding's dk and dv.
@group(0) @binding(6) var<storage, read_write> sums: array<vec4<f32>>;

const NONE: u32 = 0xffffffffu;
const LOWEST: f32 = -3.0e38;

struct Token {
    row: u32,     // NONE: no such token, or not to be attended
    region: u32,  // windows that were shifted: tokens of different regions are masked
}

// The four tokens of a block.
struct Four { x: Token, y: Token, z: Token, w: Token }

fn four_keys(instance: u32, b: u32) -> Four {
    return Four(key(instance, b), key(instance, b + params.blocks),
                key(instance, b + 2u * params.blocks), key(instance, b + 3u * params.blocks));
}

fn four_queries(instance: u32, b: u32) -> Four {
    return Four(query(instance, b), query(instance, b + params.blocks),
                query(instance, b + 2u * params.blocks), query(instance, b + 3u * params.blocks));
}

fn regions(t: Four) -> vec4<u32> {
    return vec4<u32>(t.x.region, t.y.region, t.z.region, t.w.region);
}

fn exist(t: Four) -> vec4<bool> {
    return vec4<bool>(t.x.row != NONE, t.y.row != NONE, t.z.row != NONE, t.w.row != NONE);
}

// Scores of token i with the four of block b, whose dot products are known; transposed: i is the key.
fn scores(products: vec4<f32>, head: u32, b: u32, i: u32, region: u32, others: vec4<u32>,
          transposed: bool) -> vec4<f32> {
    var s = products * params.score_scale;
    if BIAS { s += bias(head, b, i, transposed); }
    if REGIONS { s += select(vec4<f32>(), vec4<f32>(params.mask), others != vec4<u32>(region)); }
    return s;
}

fn largest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// What a sum of p v is multiplied by.
fn normaliser(sum: f32) -> f32 {
    return 1.0 / select(sum, 1.0, sum == 0.0);
}

// Where sums of dS are: [slices, heads, blocks, tokens], the four keys of a block in a vec4.
fn bias_sum(slice: u32, head: u32, b: u32, i: u32) -> u32 {
    return params.bias_sums + ((slice * params.heads + head) * params.blocks + b) * params.tokens + i;
}

// Where sums of padding's dk (0) and dv (1) are: [slices, heads, tokens, 2, D4].
fn pad_sum(slice: u32, head: u32, j: u32, which: u32, c: u32) -> u32 {
    return params.pad_sums + (((slice * params.heads + head) * params.tokens + j) * 2u + which) * D4 + c;
}

// (L, D) of a query; a query that does not exist has no probability at all.
fn row_sum(row: u32, head: u32) -> vec2<f32> {
    if row == NONE { return vec2<f32>(1e30, 0.0); }
    return sums[row * params.heads + head].xy;
}

// dk (`which` 0) or dv (1) of token j; those of padding are summed over the slice.
fn put_key(which: u32, slice: u32, instance: u32, head: u32, j: u32, c: u32, row: u32, x: vec4<f32>) {
    let is_pad = PADDED && row == params.rows;
    // A masked key has no row, and yet a gradient: 0.
    let stored = select(query(instance, j).row, NONE, is_pad);
    if which == 0u { put_dk(stored, head, c, x); } else { put_dv(stored, head, c, x); }
    if PADDED && j < params.tokens {
        let at = pad_sum(slice, head, j, which, c);
        if instance == slice * params.per_slice {
            sums[at] = select(vec4<f32>(), x, is_pad);
        } else if is_pad {
            sums[at] += x;
        }
    }
}
