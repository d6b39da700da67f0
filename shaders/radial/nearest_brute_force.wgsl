// The K nearest centres of each point by looking at all of them, in the order of (squared distance,
// index); see nearest.wgsl. The oracle of nearest_neighbours.wgsl, and its equal where centres are few.
//
//   points: [points, D]   centres: [centres, D]   indices, distances: [points, K], D of 1 to 4
//
// An invocation takes a point. All invocations read the same centre at a time, which is one load.
// Many centres take several passes, each of which goes on from what the one before has found; so no
// dispatch is long, and none reaches the 65,535 rounds after which Mesa's llvmpipe ends all loops.
// Workgroup memory: none.

@group(0) @binding(1) var<storage, read> points: array<f32>;             // [points, D]
@group(0) @binding(2) var<storage, read> centres: array<f32>;            // [centres, D]
@group(0) @binding(3) var<storage, read_write> indices: array<u32>;      // [points, K]
@group(0) @binding(4) var<storage, read_write> distances: array<u32>;    // [points, K], bits of f32

fn point_at(i: u32) -> vec4<f32> {
    var p = vec4<f32>(points[i * D], 0.0, 0.0, 0.0);
    if D > 1u { p.y = points[i * D + 1u]; }
    if D > 2u { p.z = points[i * D + 2u]; }
    if D > 3u { p.w = points[i * D + 3u]; }
    return p;
}

fn centre_at(i: u32) -> vec4<f32> {
    var c = vec4<f32>(centres[i * D], 0.0, 0.0, 0.0);
    if D > 1u { c.y = centres[i * D + 1u]; }
    if D > 2u { c.z = centres[i * D + 2u]; }
    if D > 3u { c.w = centres[i * D + 3u]; }
    return c;
}

fn nearest_of(at: u32) -> Nearest {
    let point = point_at(at);
    var list = none_yet();
    if params.first > 0u {
        for (var i = 0u; i < K; i++) {
            let before = indices[at * K + i] & ~LEFT;
            insert(&list, Candidate(squared_distance(point, centre_at(before)), i32(before)));
        }
    }
    for (var i = params.first; i < params.end; i++) {
        let candidate = Candidate(squared_distance(point, centre_at(i)), i32(i));
        // Indices rise: an equal distance comes after those in the list.
        if candidate.distance < farthest(&list).distance {
            insert(&list, candidate);
        }
    }
    return list;
}

fn is_done(point: u32) -> bool {
    return params.only_left == 1u && (indices[point * K] & LEFT) == 0u;
}

// What marks the first index for the passes to come.
fn left(i: u32) -> u32 {
    return select(0u, LEFT, i == 0u && params.only_left == 1u && params.end < params.centres);
}

@compute @workgroup_size(WORKGROUP)
fn search(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let point = group * WORKGROUP + local;
    if group >= params.groups || point >= params.points || is_done(point) {
        return;
    }
    var list = nearest_of(point);
    for (var i = 0u; i < K; i++) {
        indices[point * K + i] = u32(ranked(&list, i).index) | left(i);
    }
}

@compute @workgroup_size(WORKGROUP)
fn search_distances(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let point = group * WORKGROUP + local;
    if group >= params.groups || point >= params.points || is_done(point) {
        return;
    }
    var list = nearest_of(point);
    for (var i = 0u; i < K; i++) {
        let next = ranked(&list, i);
        indices[point * K + i] = u32(next.index) | left(i);
        distances[point * K + i] = u32(next.distance);
    }
}
