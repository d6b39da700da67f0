// The sum of the slices of dense/matmul, in order, then its epilogue. One invocation has four columns
// of a row of Y; A is the slices' results, [slices, batch, m, n]. Workgroup memory: 0 bytes.

@compute @workgroup_size(64)
fn sum_slices(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let columns = (params.n + 3u) / 4u;
    let index = group * 64u + local;
    let column = index % columns * 4u;
    let row = index / columns % params.m;
    let matrix = index / (columns * params.m);
    if group >= params.groups || matrix >= params.batch { return; }
    let count = min(4u, params.n - column);
    let size = params.batch * params.m * params.n;
    var sum: vec4<f32>;
    for (var slice = 0u; slice < params.slices; slice++) {
        sum += get_a(slice * size + (matrix * params.m + row) * params.n + column, count);
    }
    put_result(matrix, row, column, count, sum);
}
