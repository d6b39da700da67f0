// The features of radial bases for CPU adapters with subgroups of 8 (formulas and buffers:
// common/composition.wgsl and radial/sinusoid_composition.wgsl). Workgroups are one subgroup, whose
// lanes have neighbouring items. Eight pairs are read at a time, one a lane, and reach the others by
// shuffles with constant lanes: a load in a loop costs about a hundred cycles on lavapipe, a shuffle one.
//
// forward: a workgroup has 8 points, K times 8 pairs, and 8 items. weight_gradient and frequency_gradient:
// a centre and 8 items. Workgroup memory: 0 bytes. They are taken where the device has no 64-bit integers, weights
// are f16 or the features are not 8, 16, 32 or 64 (else radial/sinusoid_composition_wide.wgsl). There is no
// backward_phi: sums over the items are sums over the lanes, and eight subgroupAdd for eight pairs took half as long
// again as the plain variant.
//
// forward keeps the last four rows of weights: points in rows, as of a picture, mostly share those of the
// point before. A load whose index differs between lanes is a loop over them there that puts each word into
// its vector through memory, and every word waits for the one before.
//
// 65,536 points, K = 4, 32 features on lavapipe, beside the plain variant: weight_gradient 3.8 ms (9.0),
// frequency_gradient 4.0 (8.4); before it kept rows, forward 4.6 (7.2). Keeping them made forward twice as fast
// (16.9 to 34.0 % of the roof) for points in rows and some 4 % slower for points in any order. Tried in vain:
// a row by eight loads at an index that subgroupBroadcast made the same in all lanes (over six times slower,
// as if each were a loop of its own).

// What is added up along the pairs.
struct State { sum: Floats, m: Floats, item: u32, point: u32 }

// The lane's item of a row of weights.
struct Row { start: u32, w: Floats }

// Row `start`: the one before if it is the same, else read.
fn row_after(before: Row, start: u32, item: u32) -> Row {
    var row = before;
    if start != row.start { row = Row(start, unpacked(weights[start + min(item, params.items - 1u)])); }
    return row;
}

// Adds the pair at place l of a block of eight, and ends its point's sum if it is the last of it.
fn add_pair(s: State, at: u32, l: u32, w: Floats, own: f32) -> State {
    var t = s;
    t.sum = fma(w, psi(own, t.m), t.sum);
    if (at + l + 1u) % K == 0u {
        if t.point < params.points && t.item < params.items { y[t.point * params.items + t.item] = t.sum; }
        t.point += 1u;
        t.sum = Floats();
    }
    return t;
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let tiles = (params.items + 7u) / 8u;
    let block = group / tiles * 8u;
    let item = group % tiles * 8u + lane;
    var s = State(Floats(), frequency(min(item, params.items - 1u)), item, block);
    let last = params.points * K - 1u;
    // No row starts there.
    var a = Row(0xffffffffu, Floats());
    var b = a;
    var c = a;
    var d = a;
    for (var at = 0u; at < 8u * K; at += 8u) {
        let pair = min(block * K + at + lane, last);
        let row = row_of(pair);
        let own = phi[pair];
        a = row_after(a, subgroupShuffle(row, 0u), item);
        s = add_pair(s, at, 0u, a.w, subgroupShuffle(own, 0u));
        b = row_after(b, subgroupShuffle(row, 1u), item);
        s = add_pair(s, at, 1u, b.w, subgroupShuffle(own, 1u));
        c = row_after(c, subgroupShuffle(row, 2u), item);
        s = add_pair(s, at, 2u, c.w, subgroupShuffle(own, 2u));
        d = row_after(d, subgroupShuffle(row, 3u), item);
        s = add_pair(s, at, 3u, d.w, subgroupShuffle(own, 3u));
        a = row_after(a, subgroupShuffle(row, 4u), item);
        s = add_pair(s, at, 4u, a.w, subgroupShuffle(own, 4u));
        b = row_after(b, subgroupShuffle(row, 5u), item);
        s = add_pair(s, at, 5u, b.w, subgroupShuffle(own, 5u));
        c = row_after(c, subgroupShuffle(row, 6u), item);
        s = add_pair(s, at, 6u, c.w, subgroupShuffle(own, 6u));
        d = row_after(d, subgroupShuffle(row, 7u), item);
        s = add_pair(s, at, 7u, d.w, subgroupShuffle(own, 7u));
    }
}

fn list_product(sum: Floats, point: u32, own: f32, item: u32, m: Floats, is_slope: bool) -> Floats {
    return add_product(sum, dy[point * params.items + item], own, m, is_slope);
}

// The sum over the pairs of a centre's list of dy psi or, for the slope, of dy phi cos(m phi).
fn list_sum(centre: u32, item: u32, lane: u32, is_slope: bool) -> Floats {
    let m = frequency(item);
    let last = params.points * K - 1u;
    let end = min(starts[centre + 1u], params.points * K);
    var at = starts[centre];
    var a = Floats();
    var b = Floats();
    for (; at + 8u <= end; at += 8u) {
        let pair = min(order[at + lane], last);
        let own = phi[pair];
        let point = pair / K;
        a = list_product(a, subgroupShuffle(point, 0u), subgroupShuffle(own, 0u), item, m, is_slope);
        b = list_product(b, subgroupShuffle(point, 1u), subgroupShuffle(own, 1u), item, m, is_slope);
        a = list_product(a, subgroupShuffle(point, 2u), subgroupShuffle(own, 2u), item, m, is_slope);
        b = list_product(b, subgroupShuffle(point, 3u), subgroupShuffle(own, 3u), item, m, is_slope);
        a = list_product(a, subgroupShuffle(point, 4u), subgroupShuffle(own, 4u), item, m, is_slope);
        b = list_product(b, subgroupShuffle(point, 5u), subgroupShuffle(own, 5u), item, m, is_slope);
        a = list_product(a, subgroupShuffle(point, 6u), subgroupShuffle(own, 6u), item, m, is_slope);
        b = list_product(b, subgroupShuffle(point, 7u), subgroupShuffle(own, 7u), item, m, is_slope);
    }
    for (; at < end; at++) {
        let pair = min(order[at], last);
        a = list_product(a, pair / K, phi[pair], item, m, is_slope);
    }
    return a + b;
}

@compute @workgroup_size(WORKGROUP)
fn weight_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                   @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let tiles = (params.items + TILE - 1u) / TILE;
    let item = group % tiles * TILE + lane;
    let sum = list_sum(group / tiles, min(item, params.items - 1u), lane, false);
    if item < params.items { dweights[group / tiles * params.items + item] = sum; }
}

@group(0) @binding(6) var<storage, read_write> dfrequencies: array<Floats>;  // [C, ITEMS]
@group(0) @binding(7) var<storage, read> weights_in: array<Stored>;          // [C, ITEMS]

@compute @workgroup_size(WORKGROUP)
fn frequency_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                      @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let tiles = (params.items + TILE - 1u) / TILE;
    let item = group % tiles * TILE + lane;
    let sum = list_sum(group / tiles, min(item, params.items - 1u), lane, true);
    if item < params.items {
        let at = group / tiles * params.items + item;
        dfrequencies[at] = unpacked(weights_in[at]) * sum;
    }
}
