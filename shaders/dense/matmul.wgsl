// Matrix product, batched, with an epilogue:
//
//   Y[b] = activation(scale op(A[b]) op(B[b]) + C[b] + bias)
//
// op(A): [m, k], op(B): [k, n], Y: [m, n], all dense; op is nothing or the transpose.
//
// naive: one invocation has four columns of a row; the oracle of the others.
// tiled: for GPUs. A workgroup of SIDE^2 has a square tile of Y, an invocation BLOCKS x BLOCKS blocks of
// 4 x 4 of it, in registers; STEP terms of the sums at a time pass through workgroup memory, stored by k, so
// that an invocation reads vec4s: 64 multiply-adds for 4 loads where BLOCKS is 2. The next terms are on
// their way from storage while these are multiplied. SIDE and BLOCKS are 8 and 1 (tiles of 32), 8 and 2 (64)
// or 16 and 2 (128); workgroup memory: 4, 4, 16 KiB.
// Long sums for few results are cut into slices that run side by side; dense/matmul_slices.wgsl adds them.

struct Place { matrix: u32, batch: u32, slice: u32, row: u32, column: u32 }

// Tile `index` of tiles of `height` x `width`.
fn place(index: u32, height: u32, width: u32) -> Place {
    let columns = (params.n + width - 1u) / width;
    let rows = (params.m + height - 1u) / height;
    let matrix = index / (rows * columns);
    return Place(matrix, matrix % params.batch, matrix / params.batch,
                 index / columns % rows * height, index % columns * width);
}

@compute @workgroup_size(64)
fn naive(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let p = place(group * 64u + local, 1u, 4u);
    if group >= params.groups || p.slice >= params.slices { return; }
    let count = min(4u, params.n - p.column);
    var sum: vec4<f32>;
    for (var k = p.slice * params.slice_k; k < min(params.k, (p.slice + 1u) * params.slice_k); k++) {
        let v = f32(a[p.batch * params.a_stride + a_index(p.row, k)]);
        // By name: FXC may refuse components that a loop counts.
        let from_b = p.batch * params.b_stride;
        sum.x = fma(v, f32(b[from_b + b_index(k, p.column)]), sum.x);
        if count > 1u { sum.y = fma(v, f32(b[from_b + b_index(k, p.column + 1u)]), sum.y); }
        if count > 2u { sum.z = fma(v, f32(b[from_b + b_index(k, p.column + 2u)]), sum.z); }
        if count > 3u { sum.w = fma(v, f32(b[from_b + b_index(k, p.column + 3u)]), sum.w); }
    }
    put_result(p.matrix, p.row, p.column, count, sum);
}

// In vec4s, a tile is QUADS long on each side. Of STEP terms, an invocation stages two vec4s of A and two of B.
const QUADS: u32 = SIDE * BLOCKS;
const TILE: u32 = 4u * QUADS;
const STEP: u32 = 2u * SIDE / BLOCKS;
const VECTORS: u32 = STEP * QUADS;
const SIZE: u32 = SIDE * SIDE;
var<workgroup> tile_a: array<vec4<f32>, VECTORS>;     // [STEP, TILE], within a row as `slot` says
var<workgroup> tile_b: array<vec4<f32>, VECTORS>;

// Where a vec4 lies. Invocations store neighbours along the tile or along k, and read them along the tile:
// with k mixed into the place, eight of them have all 32 banks to themselves either way.
fn slot(k: u32, quad: u32) -> u32 {
    return k * QUADS + (quad ^ (k % 8u));
}

// (k, quad): neighbours read neighbours, along k where that is how the matrix lies.
fn part_of(i: u32, along_k: bool) -> vec2<u32> {
    return select(vec2<u32>(i / QUADS, i % QUADS), vec2<u32>(i % STEP, i / STEP), along_k);
}

// One element each: a vec4 filled in a loop, by a variable component, came out wrong in Chromium 148 on
// SwiftShader where A is transposed and B is not. And no branches: the loads leave together, and a driver that
// inlines them all has little to do.
fn element_a(base: u32, row: u32, k: u32, end: u32) -> f32 {
    let inside = (row < params.m) & (k < end);
    return select(0.0, f32(a[base + select(0u, a_index(row, k), inside)]), inside);
}

fn element_b(base: u32, k: u32, column: u32, end: u32) -> f32 {
    let inside = (column < params.n) & (k < end);
    return select(0.0, f32(b[base + select(0u, b_index(k, column), inside)]), inside);
}

// Vec4 i of the tile of A whose terms begin at k0.
fn load_a(p: Place, i: u32, k0: u32, end: u32) -> vec4<f32> {
    let base = p.batch * params.a_stride;
    let part = part_of(i, !TRANSPOSE_A);
    let k = k0 + part.x;
    let row = p.row + 4u * part.y;
    return vec4<f32>(element_a(base, row, k, end), element_a(base, row + 1u, k, end),
                     element_a(base, row + 2u, k, end), element_a(base, row + 3u, k, end));
}

fn load_b(p: Place, i: u32, k0: u32, end: u32) -> vec4<f32> {
    let base = p.batch * params.b_stride;
    let part = part_of(i, TRANSPOSE_B);
    let k = k0 + part.x;
    let column = p.column + 4u * part.y;
    return vec4<f32>(element_b(base, k, column, end), element_b(base, k, column + 1u, end),
                     element_b(base, k, column + 2u, end), element_b(base, k, column + 3u, end));
}

// What an invocation stages of STEP terms.
struct Staged { a0: vec4<f32>, a1: vec4<f32>, b0: vec4<f32>, b1: vec4<f32> }

fn load(p: Place, local: u32, k: u32, end: u32) -> Staged {
    return Staged(load_a(p, local, k, end), load_a(p, local + SIZE, k, end),
                  load_b(p, local, k, end), load_b(p, local + SIZE, k, end));
}

fn store(staged: Staged, local: u32) {
    let a0 = part_of(local, !TRANSPOSE_A);
    let a1 = part_of(local + SIZE, !TRANSPOSE_A);
    let b0 = part_of(local, TRANSPOSE_B);
    let b1 = part_of(local + SIZE, TRANSPOSE_B);
    tile_a[slot(a0.x, a0.y)] = staged.a0;
    tile_a[slot(a1.x, a1.y)] = staged.a1;
    tile_b[slot(b0.x, b0.y)] = staged.b0;
    tile_b[slot(b1.x, b1.y)] = staged.b1;
}

// 32 neighbours, which many GPUs run as one subgroup, have 4 x 8 blocks: they read 12 vec4s, not 18.
const ACROSS: u32 = SIDE / 8u;

@compute @workgroup_size(SIZE)
fn tiled(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, TILE, TILE);
    let own_row = local / 32u / ACROSS * 4u + local % 32u / 8u;
    let own_column = local / 32u % ACROSS * 8u + local % 8u;
    var sum00: mat4x4<f32>;
    var sum01: mat4x4<f32>;
    var sum10: mat4x4<f32>;
    var sum11: mat4x4<f32>;
    let first = p.slice * params.slice_k;
    let end = min(params.k, first + params.slice_k);
    // A round loads its terms, multiplies those of the round before meanwhile, and then stages its own.
    for (var k = first; k < end + STEP; k += STEP) {
        let staged = load(p, local, k, end);
        if k > first {
            for (var j = 0u; j < STEP; j++) {
                let a0 = tile_a[slot(j, own_row)];
                let b0 = tile_b[slot(j, own_column)];
                sum00 = add_outer(sum00, a0, b0);
                if BLOCKS == 2u {
                    let a1 = tile_a[slot(j, own_row) + SIDE];
                    let b1 = tile_b[slot(j, own_column) + SIDE];
                    sum01 = add_outer(sum01, a0, b1);
                    sum10 = add_outer(sum10, a1, b0);
                    sum11 = add_outer(sum11, a1, b1);
                }
            }
        }
        workgroupBarrier();
        store(staged, local);
        workgroupBarrier();
    }
    // The results pass through sum00[0]: no loop indexes them, and the epilogue is there once.
    for (var block = 0u; block < BLOCKS * BLOCKS; block++) {
        let row = p.row + 4u * (own_row + block / BLOCKS * SIDE);
        let column = p.column + 4u * (own_column + block % BLOCKS * SIDE);
        for (var r = 0u; r < 4u; r++) {
            if row + r < params.m && column < params.n {
                put_result(p.matrix, row + r, column, min(4u, params.n - column), sum00[0]);
            }
            sum00 = mat4x4<f32>(sum00[1], sum00[2], sum00[3], sum00[0]);
        }
        sum00 = sum01;
        sum01 = sum10;
        sum10 = sum11;
    }
}
