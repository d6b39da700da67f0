// Eight own rows of an invocation against pairs of rows that pass by, for CPU adapters with subgroups of 8.
//
// A workgroup is one subgroup and has ROWS = 64 own rows; an invocation has eight of them: a vec4 is one column of
// four, the upper (local + 0, 8, 16, 24) or the lower ones (32 further). Of each pair of rows that pass by an
// invocation loads two blocks in sixteen, and the others reach it by shuffles with constant lanes.
// Nothing may depend on a variable index, for then an array is memory that is read lane by lane. So the blocks
// of a row are written out by doubling (`_2`, `_4`, ...), and what lies beyond D is dropped as constant.

const ROWS: u32 = 64u;
const PARTS: u32 = 4u * ((D4 + 15u) / 16u);

// Columns of the own rows: the upper four, then the lower four.
var<private> mine: array<vec4<f32>, 8u * D4>;
// This lane's part of the two rows that pass by: two of sixteen blocks, of each row.
var<private> part: array<vec4<f32>, PARTS>;

// In matrices of pairs, columns are: the upper rows with either one that passes by, then the lower rows.

fn add_product(block: vec4<f32>, at: u32, sum: vec4<f32>) -> vec4<f32> {
    return fma(block.wwww, mine[at + 6u], fma(block.zzzz, mine[at + 4u],
           fma(block.yyyy, mine[at + 2u], fma(block.xxxx, mine[at], sum))));
}

fn products_block(t: mat4x4<f32>, c: u32) -> mat4x4<f32> {
    if c >= D4 { return t; }
    let at = c / 16u * 4u + c % 2u;
    let first = subgroupShuffle(part[at], c % 16u / 2u);
    let second = subgroupShuffle(part[at + 2u], c % 16u / 2u);
    return mat4x4<f32>(add_product(first, 8u * c, t[0]), add_product(second, 8u * c, t[1]),
                       add_product(first, 8u * c + 1u, t[2]), add_product(second, 8u * c + 1u, t[3]));
}

fn products_2(t: mat4x4<f32>, c: u32) -> mat4x4<f32> { return products_block(products_block(t, c), c + 1u); }
fn products_4(t: mat4x4<f32>, c: u32) -> mat4x4<f32> { return products_2(products_2(t, c), c + 2u); }
fn products_8(t: mat4x4<f32>, c: u32) -> mat4x4<f32> { return products_4(products_4(t, c), c + 4u); }
fn products_16(t: mat4x4<f32>, c: u32) -> mat4x4<f32> { return products_8(products_8(t, c), c + 8u); }
fn products() -> mat4x4<f32> { return products_16(products_16(mat4x4<f32>(), 0u), 16u); }

// The rows that begin at `at.x` and `at.y`: zeros for those that are not there. Blocks c to c + 15 of each.
fn load_pair_block(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) {
    if c >= D4 || c % 16u != 0u { return; }
    let first = get_other_pair(at.x, c + 2u * lane);
    let second = get_other_pair(at.y, c + 2u * lane);
    let zero = vec4<f32>();
    part[c / 4u] = select(zero, first[0], is_there.x);
    part[c / 4u + 1u] = select(zero, first[1], is_there.x);
    part[c / 4u + 2u] = select(zero, second[0], is_there.y);
    part[c / 4u + 3u] = select(zero, second[1], is_there.y);
}

fn load_pair_2(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_pair_block(c, at, is_there, lane); load_pair_block(c + 1u, at, is_there, lane); }
fn load_pair_4(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_pair_2(c, at, is_there, lane); load_pair_2(c + 2u, at, is_there, lane); }
fn load_pair_8(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_pair_4(c, at, is_there, lane); load_pair_4(c + 4u, at, is_there, lane); }
fn load_pair_16(c: u32, at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_pair_8(c, at, is_there, lane); load_pair_8(c + 8u, at, is_there, lane); }
fn load_pair(at: vec2<u32>, is_there: vec2<bool>, lane: u32) { load_pair_16(0u, at, is_there, lane); load_pair_16(16u, at, is_there, lane); }

fn set_columns(first: u32, t: mat4x4<f32>) {
    mine[first] = t[0];
    mine[first + 2u] = t[1];
    mine[first + 4u] = t[2];
    mine[first + 6u] = t[3];
}

fn load_mine_block(c: u32, upper: vec4<u32>, lower: vec4<u32>) {
    if c >= D4 { return; }
    set_columns(8u * c, transpose(mat4x4<f32>(get_own(upper.x, c), get_own(upper.y, c), get_own(upper.z, c), get_own(upper.w, c))));
    set_columns(8u * c + 1u, transpose(mat4x4<f32>(get_own(lower.x, c), get_own(lower.y, c), get_own(lower.z, c), get_own(lower.w, c))));
}

fn load_mine_2(c: u32, upper: vec4<u32>, lower: vec4<u32>) { load_mine_block(c, upper, lower); load_mine_block(c + 1u, upper, lower); }
fn load_mine_4(c: u32, upper: vec4<u32>, lower: vec4<u32>) { load_mine_2(c, upper, lower); load_mine_2(c + 2u, upper, lower); }
fn load_mine_8(c: u32, upper: vec4<u32>, lower: vec4<u32>) { load_mine_4(c, upper, lower); load_mine_4(c + 4u, upper, lower); }
fn load_mine_16(c: u32, upper: vec4<u32>, lower: vec4<u32>) { load_mine_8(c, upper, lower); load_mine_8(c + 8u, upper, lower); }
fn load_mine(upper: vec4<u32>, lower: vec4<u32>) { load_mine_16(0u, upper, lower); load_mine_16(16u, upper, lower); }

fn known_terms(batch: u32, head: u32, query: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(row_terms(batch, head, query.x).x, row_terms(batch, head, query.y).x,
                     row_terms(batch, head, query.z).x, row_terms(batch, head, query.w).x);
}
