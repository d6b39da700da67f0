// Squared distances that are the same bits in every kernel, and the list of the K nearest.
//
// WGSL lets a compiler fuse a product with the sum that follows, in one kernel and not in another.
// An exclusive or of the product's bits with a uniform that is always 0 keeps it from doing so: no
// compiler can know. Distances are compared as integers, which order like the floats: none is
// negative, and NaN comes last.

struct Params {
    first_group: u32,
    groups: u32,
    points: u32,
    centres: u32,
    always_0: u32,
    most_visits: u32,   // of the search through the grid: then a point is left to the search of all
    only_left: u32,     // of the search of all: 1 for the points that were left to it, 0 for every point
    first: u32,         // and the centres of this pass
    end: u32,
}

// Of the first index of a point that is not done.
const LEFT: u32 = 0x80000000u;

@group(0) @binding(0) var<uniform> params: Params;

const NOT_A_NUMBER: u32 = 0x7fc00000u;
const LARGEST: i32 = 0x7fffffff;
const BLOCKS: u32 = (K + 3u) / 4u;
// Places of block 0 that K leaves over, at its front: before everything.
const LEFT_OVER: u32 = 4u * BLOCKS - K;

// The same value, but not known to be the result of a product.
fn rounded(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ params.always_0);
}

// Bits of the squared distance; of all NaNs, the same.
fn squared_distance(a: vec4<f32>, b: vec4<f32>) -> i32 {
    let d = a - b;
    var sum = rounded(d.x * d.x);
    if D > 1u { sum = rounded(sum + rounded(d.y * d.y)); }
    if D > 2u { sum = rounded(sum + rounded(d.z * d.z)); }
    if D > 3u { sum = rounded(sum + rounded(d.w * d.w)); }
    return bitcast<i32>(min(bitcast<u32>(sum), NOT_A_NUMBER));
}

// A squared distance with the centre it belongs to.
struct Candidate {
    distance: i32,
    index: i32,
}

// The nearest so far, in order, the farthest in the last component of block BLOCKS - 1. Places that
// K leaves over stand at the front.
struct Nearest {
    distance0: vec4<i32>, index0: vec4<i32>,
    distance1: vec4<i32>, index1: vec4<i32>,
    distance2: vec4<i32>, index2: vec4<i32>,
    distance3: vec4<i32>, index3: vec4<i32>,
    distance4: vec4<i32>, index4: vec4<i32>,
    distance5: vec4<i32>, index5: vec4<i32>,
    distance6: vec4<i32>, index6: vec4<i32>,
    distance7: vec4<i32>, index7: vec4<i32>,
}

fn is_before(a: Candidate, distance: i32, index: i32) -> bool {
    return a.distance < distance || (a.distance == distance && a.index < index);
}

fn none_yet() -> Nearest {
    var list: Nearest;
    let far = vec4<i32>(LARGEST);
    let first = vec4<i32>(select(LARGEST, 0, LEFT_OVER > 0u), select(LARGEST, 0, LEFT_OVER > 1u),
                          select(LARGEST, 0, LEFT_OVER > 2u), LARGEST);
    list.distance0 = first; list.index0 = first;
    list.distance1 = far; list.index1 = far;
    list.distance2 = far; list.index2 = far;
    list.distance3 = far; list.index3 = far;
    list.distance4 = far; list.index4 = far;
    list.distance5 = far; list.index5 = far;
    list.distance6 = far; list.index6 = far;
    list.distance7 = far; list.index7 = far;
    return list;
}

fn farthest(list: ptr<function, Nearest>) -> Candidate {
    switch BLOCKS {
        case 1u: { return Candidate((*list).distance0.w, (*list).index0.w); }
        case 2u: { return Candidate((*list).distance1.w, (*list).index1.w); }
        case 3u: { return Candidate((*list).distance2.w, (*list).index2.w); }
        case 4u: { return Candidate((*list).distance3.w, (*list).index3.w); }
        case 5u: { return Candidate((*list).distance4.w, (*list).index4.w); }
        case 6u: { return Candidate((*list).distance5.w, (*list).index5.w); }
        case 7u: { return Candidate((*list).distance6.w, (*list).index6.w); }
        default: { return Candidate((*list).distance7.w, (*list).index7.w); }
    }
}

// Four places of the list: `passing` takes the place of the first that it is before, and what
// stood there passes on.
struct Block {
    distance: vec4<i32>,
    index: vec4<i32>,
    passing: Candidate,
}

// Its first `left_over` places are not taken.
fn insert_into(distance: vec4<i32>, index: vec4<i32>, passing: Candidate, left_over: u32) -> Block {
    let x = left_over < 1u && is_before(passing, distance.x, index.x);
    let y = left_over < 2u && is_before(passing, distance.y, index.y);
    let z = left_over < 3u && is_before(passing, distance.z, index.z);
    let w = is_before(passing, distance.w, index.w);
    // Where the place before was taken, its old content moves here.
    return Block(
        vec4<i32>(select(distance.x, passing.distance, x),
                  select(select(distance.y, passing.distance, y), distance.x, x),
                  select(select(distance.z, passing.distance, z), distance.y, y),
                  select(select(distance.w, passing.distance, w), distance.z, z)),
        vec4<i32>(select(index.x, passing.index, x),
                  select(select(index.y, passing.index, y), index.x, x),
                  select(select(index.z, passing.index, z), index.y, y),
                  select(select(index.w, passing.index, w), index.z, z)),
        Candidate(select(passing.distance, distance.w, w), select(passing.index, index.w, w)));
}

fn insert(list: ptr<function, Nearest>, candidate: Candidate) {
    var b = insert_into((*list).distance0, (*list).index0, candidate, LEFT_OVER);
    (*list).distance0 = b.distance; (*list).index0 = b.index;
    if BLOCKS > 1u {
        b = insert_into((*list).distance1, (*list).index1, b.passing, 0u);
        (*list).distance1 = b.distance; (*list).index1 = b.index;
    }
    if BLOCKS > 2u {
        b = insert_into((*list).distance2, (*list).index2, b.passing, 0u);
        (*list).distance2 = b.distance; (*list).index2 = b.index;
    }
    if BLOCKS > 3u {
        b = insert_into((*list).distance3, (*list).index3, b.passing, 0u);
        (*list).distance3 = b.distance; (*list).index3 = b.index;
    }
    if BLOCKS > 4u {
        b = insert_into((*list).distance4, (*list).index4, b.passing, 0u);
        (*list).distance4 = b.distance; (*list).index4 = b.index;
    }
    if BLOCKS > 5u {
        b = insert_into((*list).distance5, (*list).index5, b.passing, 0u);
        (*list).distance5 = b.distance; (*list).index5 = b.index;
    }
    if BLOCKS > 6u {
        b = insert_into((*list).distance6, (*list).index6, b.passing, 0u);
        (*list).distance6 = b.distance; (*list).index6 = b.index;
    }
    if BLOCKS > 7u {
        b = insert_into((*list).distance7, (*list).index7, b.passing, 0u);
        (*list).distance7 = b.distance; (*list).index7 = b.index;
    }
}

fn distance_block(list: ptr<function, Nearest>, block: u32) -> vec4<i32> {
    switch block {
        case 0u: { return (*list).distance0; }
        case 1u: { return (*list).distance1; }
        case 2u: { return (*list).distance2; }
        case 3u: { return (*list).distance3; }
        case 4u: { return (*list).distance4; }
        case 5u: { return (*list).distance5; }
        case 6u: { return (*list).distance6; }
        default: { return (*list).distance7; }
    }
}

fn index_block(list: ptr<function, Nearest>, block: u32) -> vec4<i32> {
    switch block {
        case 0u: { return (*list).index0; }
        case 1u: { return (*list).index1; }
        case 2u: { return (*list).index2; }
        case 3u: { return (*list).index3; }
        case 4u: { return (*list).index4; }
        case 5u: { return (*list).index5; }
        case 6u: { return (*list).index6; }
        default: { return (*list).index7; }
    }
}

fn component(words: vec4<i32>, i: u32) -> i32 {
    return select(select(words.x, words.y, i == 1u), select(words.z, words.w, i == 3u), i > 1u);
}

// The distance and the index of rank `i` below K.
fn ranked(list: ptr<function, Nearest>, i: u32) -> Candidate {
    let at = i + LEFT_OVER;
    return Candidate(component(distance_block(list, at / 4u), at % 4u), component(index_block(list, at / 4u), at % 4u));
}
