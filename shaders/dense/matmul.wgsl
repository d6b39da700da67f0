// Matrix product, batched, with an epilogue:
//
//   Y[b] = activation(scale op(A[b]) op(B[b]) + C[b] + bias)
//
// op(A): [m, k], op(B): [k, n], Y: [m, n], all dense; op is nothing or the transpose.
//
// naive: one invocation has four columns of a row; the oracle of the others.
// tiled: for GPUs. A workgroup of 64 has a tile of 8 ROWS x 8 COLUMNS of Y, an invocation ROWS x
// COLUMNS of it; 16 steps of k at a time pass through workgroup memory, stored by k, so that an
// invocation reads vec4s: 64 multiply-adds for 4 loads at 8 x 8. Workgroup memory: 512 (ROWS +
// COLUMNS) bytes, 8 KiB at 8 x 8.
// sum_slices: adds the slices' results in order (long sums for few results are cut into slices that
// run side by side), then the epilogue.

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
        for (var i = 0u; i < count; i++) {
            sum[i] = fma(v, f32(b[p.batch * params.b_stride + b_index(k, p.column + i)]), sum[i]);
        }
    }
    put_result(p.matrix, p.row, p.column, count, sum);
}

const STEP: u32 = 16u;
const TILE_ROWS: u32 = 8u * ROWS;
const TILE_COLUMNS: u32 = 8u * COLUMNS;
const A_VECTORS: u32 = STEP * TILE_ROWS / 4u;
const B_VECTORS: u32 = STEP * TILE_COLUMNS / 4u;
var<workgroup> tile_a: array<vec4<f32>, A_VECTORS>;     // [STEP, TILE_ROWS]
var<workgroup> tile_b: array<vec4<f32>, B_VECTORS>;     // [STEP, TILE_COLUMNS]

// Neighbours read neighbours: along k where that is how the matrix lies.
fn part_of(i: u32, quads: u32, along_k: bool) -> vec2<u32> {
    return select(vec2<u32>(i / quads, i % quads), vec2<u32>(i % STEP, i / STEP), along_k);
}

// One element each: a vec4 filled in a loop, by a variable component, came out wrong in Chromium 148 on
// SwiftShader where A is transposed and B is not.
fn element_a(base: u32, row: u32, k: u32, end: u32) -> f32 {
    if row >= params.m || k >= end { return 0.0; }
    return f32(a[base + a_index(row, k)]);
}

fn element_b(base: u32, k: u32, column: u32, end: u32) -> f32 {
    if column >= params.n || k >= end { return 0.0; }
    return f32(b[base + b_index(k, column)]);
}

fn stage_a(base: u32, row: u32, k0: u32, end: u32, local: u32) {
    for (var i = local; i < A_VECTORS; i += 64u) {
        let at = part_of(i, TILE_ROWS / 4u, !TRANSPOSE_A);
        let r = row + 4u * at.y;
        let k = k0 + at.x;
        tile_a[at.x * (TILE_ROWS / 4u) + at.y] =
            vec4<f32>(element_a(base, r, k, end), element_a(base, r + 1u, k, end),
                      element_a(base, r + 2u, k, end), element_a(base, r + 3u, k, end));
    }
}

fn stage_b(base: u32, column: u32, k0: u32, end: u32, local: u32) {
    for (var i = local; i < B_VECTORS; i += 64u) {
        let at = part_of(i, TILE_COLUMNS / 4u, TRANSPOSE_B);
        let c = column + 4u * at.y;
        let k = k0 + at.x;
        tile_b[at.x * (TILE_COLUMNS / 4u) + at.y] =
            vec4<f32>(element_b(base, k, c, end), element_b(base, k, c + 1u, end),
                      element_b(base, k, c + 2u, end), element_b(base, k, c + 3u, end));
    }
}

const ROWS4: u32 = ROWS / 4u;
const COLUMNS4: u32 = COLUMNS / 4u;
const SUMS: u32 = ROWS * COLUMNS4;

@compute @workgroup_size(64)
fn tiled(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group, TILE_ROWS, TILE_COLUMNS);
    var sums: array<vec4<f32>, SUMS>;
    let end = min(params.k, (p.slice + 1u) * params.slice_k);
    for (var k = p.slice * params.slice_k; k < end; k += STEP) {
        workgroupBarrier();
        stage_a(p.batch * params.a_stride, p.row, k, end, local);
        stage_b(p.batch * params.b_stride, p.column, k, end, local);
        workgroupBarrier();
        for (var j = 0u; j < STEP; j++) {
            for (var r4 = 0u; r4 < ROWS4; r4++) {
                let va = tile_a[j * (TILE_ROWS / 4u) + local / 8u * ROWS4 + r4];
                for (var c4 = 0u; c4 < COLUMNS4; c4++) {
                    let vb = tile_b[j * (TILE_COLUMNS / 4u) + local % 8u * COLUMNS4 + c4];
                    let s = r4 * 4u * COLUMNS4 + c4;
                    sums[s] = fma(va.xxxx, vb, sums[s]);
                    sums[s + COLUMNS4] = fma(va.yyyy, vb, sums[s + COLUMNS4]);
                    sums[s + 2u * COLUMNS4] = fma(va.zzzz, vb, sums[s + 2u * COLUMNS4]);
                    sums[s + 3u * COLUMNS4] = fma(va.wwww, vb, sums[s + 3u * COLUMNS4]);
                }
            }
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        let row = p.row + local / 8u * ROWS + r;
        for (var c4 = 0u; c4 < COLUMNS4; c4++) {
            let column = p.column + local % 8u * COLUMNS + 4u * c4;
            if row < params.m && column < params.n {
                put_result(p.matrix, row, column, min(4u, params.n - column), sums[r * COLUMNS4 + c4]);
            }
        }
    }
}
