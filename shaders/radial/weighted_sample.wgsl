// Points drawn with replacement, each with a probability proportional to its weight.
//
//   weights: [points]   positions: [points, D]   samples: [draws, D]
//
// The weights are the leaves of a tree whose nodes hold the sums of 64 children each, level upon
// level (level 1 first in `sums`) up to the root. A draw descends from the root and throws the dice
// anew at each node, so that a child is met with its share of the node to about 2^-22, however many
// leaves there are and however far their weights lie apart.
//   sum_weights, sum_level  a node an invocation; children are added in their order
//   draw                    a draw an invocation. The first child is taken whose running sum, in the
//                           same order, exceeds u times the node's: never one of weight 0. u are the
//                           words of philox(counter = [2 draw + level / 4, stream, step], key = seed).
//                           If all weights are 0, all points are alike.
// Nothing but sums and one product a node: the same bits on every adapter.
// Workgroup memory: none.

struct Params {
    first_group: u32,
    groups: u32,
    points: u32,
    draws: u32,
    stream: u32,
    levels: u32,      // above the leaves, 1 to 6
    children: u32,    // of sum_level: how many nodes are summed,
    from_node: u32,   // where they stand in `sums`,
    to_node: u32,     // and where their sums go
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weights: array<f32>;            // [points]
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;         // the levels from 1 on
@group(0) @binding(1) var<storage, read_write> level_sums: array<f32>;   // the same
@group(0) @binding(2) var<storage, read> tree: array<f32>;               // the same
@group(0) @binding(3) var<storage, read> positions: array<f32>;          // [points, D]
@group(0) @binding(4) var<storage, read> state: array<u32>;              // [4]: seed, step
@group(0) @binding(5) var<storage, read_write> samples: array<f32>;      // [draws, D]

const CHILDREN: u32 = 64u;

@compute @workgroup_size(WORKGROUP)
fn sum_weights(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let node = group * WORKGROUP + local;
    if group >= params.groups || node > (params.points - 1u) / CHILDREN {
        return;
    }
    let first = node * CHILDREN;
    var sum = 0.0;
    for (var k = 0u; k < min(CHILDREN, params.points - first); k++) {
        sum += usable_weight(weights[first + k]);
    }
    sums[node] = sum;
}

@compute @workgroup_size(WORKGROUP)
fn sum_level(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let node = group * WORKGROUP + local;
    if group >= params.groups || node > (params.children - 1u) / CHILDREN {
        return;
    }
    let first = node * CHILDREN;
    var sum = 0.0;
    for (var k = 0u; k < min(CHILDREN, params.children - first); k++) {
        sum += level_sums[params.from_node + first + k];
    }
    level_sums[params.to_node + node] = sum;
}

// How many nodes a level has; level 0 are the leaves.
fn nodes(level: u32) -> u32 {
    var count = params.points;
    for (var l = 0u; l < level; l++) {
        count = (count - 1u) / CHILDREN + 1u;
    }
    return count;
}

// Where a level above the leaves begins in the tree.
fn level_start(level: u32) -> u32 {
    var start = 0u;
    for (var l = 1u; l < level; l++) {
        start += nodes(l);
    }
    return start;
}

@compute @workgroup_size(WORKGROUP)
fn draw(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let sample = group * WORKGROUP + local;
    if group >= params.groups || sample >= params.draws {
        return;
    }
    let seed = vec2<u32>(state[0], state[1]);
    let low = philox4x32(vec4<u32>(2u * sample, params.stream, state[2], state[3]), seed);
    let high = philox4x32(vec4<u32>(2u * sample + 1u, params.stream, state[2], state[3]), seed);
    var at = 0u;
    var total = tree[level_start(params.levels)];
    if total > 0.0 {
        for (var level = params.levels; level > 0u; level--) {
            let below = level - 1u;
            var word = select(select(low.x, low.y, below == 1u), select(low.z, low.w, below == 3u), below > 1u);
            if below > 3u {
                word = select(high.x, high.y, below == 5u);
            }
            let target_sum = uniform_from_bits(word) * total;
            let first = at * CHILDREN;
            let children = min(CHILDREN, nodes(below) - first);
            let start = level_start(max(below, 1u));
            var sum = 0.0;
            for (var k = 0u; k < children; k++) {
                var value = 0.0;
                if below == 0u {
                    value = usable_weight(weights[first + k]);
                } else {
                    value = tree[start + first + k];
                }
                if value > 0.0 {
                    sum += value;
                    at = first + k;
                    total = value;
                    if sum > target_sum {
                        break;
                    }
                }
            }
        }
    } else {
        at = multiply_high(low.x, params.points);
    }
    for (var d = 0u; d < D; d++) {
        samples[sample * D + d] = positions[at * D + d];
    }
}
