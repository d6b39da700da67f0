// Features of radial bases, and their gradients, for CPU adapters with subgroups of 8 and 64-bit integers (formulas
// and buffers: common/composition.wgsl and radial/sinusoid_composition.wgsl), for 8, 16, 32 or 64 features.
//
// A row is read as eight features a lane, by LANES lanes: they are a side, and 8 / LANES rows are read at a time. Of
// eight pairs each side has LANES in a row. What belongs to a pair is read once, by one lane, and reaches the others
// of its side by shuffles.
//
// A workgroup is one subgroup. forward, backward_phi: it has 8 EIGHTS points, each side as many of them in a row:
// the more, the fewer rows are read for a first one. No row of weights is read that the side had in the same turn
// before, and dy once for the neighbours of a point: points in rows, as of a picture, mostly share their neighbours.
// weight_gradient, frequency_gradient: it has a centre; its sides share the pairs of the centre's list and are added
// up at the end. Workgroup memory: 0 bytes.
//
// 65,536 points, K = 4, 32 features on lavapipe with AVX2, milliseconds, beside 32-bit loads (the variant for
// subgroups, and for phi the plain one): weight_gradient 20 (35), frequency_gradient 21 (33), forward 10.2 (17.0),
// backward_phi 13.5 (45). forward with eight points a workgroup: 14.4. backward_phi too, with sides that took points
// in turn: 26.5 without and 20 with rows kept; with 32 points 15.7; with points in a row a side 13.5.

@group(0) @binding(3) var<storage, read> weights: array<vec4<u64>>;         // [C, F / 8]
@group(0) @binding(5) var<storage, read> dy: array<vec4<u64>>;              // [N, F / 8]
@group(0) @binding(5) var<storage, read_write> y_rows: array<vec4<u64>>;    // [N, F / 8]

// Of a lane's eight features.
fn frequency_pair(item: u32) -> mat2x4<f32> {
    return mat2x4<f32>(frequency(2u * item), frequency(2u * item + 1u));
}

// A lane's eight features of the row that begins at `start`.
struct Row { start: u32, v: mat2x4<f32> }

fn weights_after(before: Row, start: u32, item: u32) -> Row {
    var row = before;
    if start != row.start { row = Row(start, floats_of(weights[start + item])); }
    return row;
}

// Of a lane's side in a workgroup of 8 EIGHTS points.
fn first_point(group: u32, lane: u32) -> u32 {
    return (group * 8u + lane / LANES * LANES) * EIGHTS;
}

// No row starts there.
fn no_row() -> Row {
    return Row(0xffffffffu, mat2x4<f32>());
}

// The features of a side's point so far, the row of the last pair in this turn, and of each lane's own pair its row and
// phi.
struct Features { sum: mat2x4<f32>, point: u32, row: u32, own: f32 }

struct FeatureTurn { w: Row, s: Features }

// Adds the pair in `turn` of each side, the `at`-th of the side's, and ends a point that it is the last of.
fn forward_turn(before: Row, state: Features, at: u32, turn: u32, lane: u32, m: mat2x4<f32>) -> FeatureTurn {
    if turn >= LANES { return FeatureTurn(before, state); }
    let item = lane % LANES;
    let source = lane / LANES * LANES + turn;
    var s = state;
    let w = weights_after(before, subgroupShuffle(s.row, source), item);
    let own = subgroupShuffle(s.own, source);
    s.sum = mat2x4<f32>(fma(w.v[0], psi(own, m[0]), s.sum[0]), fma(w.v[1], psi(own, m[1]), s.sum[1]));
    if (at + turn + 1u) % K == 0u {
        if s.point < params.points { y_rows[s.point * LANES + item] = words_of(s.sum); }
        s.point += 1u;
        s.sum = mat2x4<f32>();
    }
    return FeatureTurn(w, s);
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let m = frequency_pair(lane % LANES);
    let last = params.points * K - 1u;
    let point = first_point(group, lane);
    var a = FeatureTurn(no_row(), Features(mat2x4<f32>(), point, 0u, 0.0));
    var b = a;
    var c = a;
    var d = a;
    var e = a;
    var f = a;
    var g = a;
    var h = a;
    for (var at = 0u; at < EIGHTS * LANES * K; at += LANES) {
        let pair = min(point * K + at + lane % LANES, last);
        a = forward_turn(a.w, Features(h.s.sum, h.s.point, row_of(pair) / 2u, phi[pair]), at, 0u, lane, m);
        b = forward_turn(b.w, a.s, at, 1u, lane, m);
        c = forward_turn(c.w, b.s, at, 2u, lane, m);
        d = forward_turn(d.w, c.s, at, 3u, lane, m);
        e = forward_turn(e.w, d.s, at, 4u, lane, m);
        f = forward_turn(f.w, e.s, at, 5u, lane, m);
        g = forward_turn(g.w, f.s, at, 6u, lane, m);
        h = forward_turn(h.w, g.s, at, 7u, lane, m);
    }
}

// Eight pairs of a list, of which a lane has read one; one that is not there adds 0, whatever the pair after it has.
struct Pairs { row: u32, own: f32, is_there: u32 }

// Adds what the pair in `turn` of each side contributes.
fn add_turn(sum: mat2x4<f32>, p: Pairs, turn: u32, lane: u32, m: mat2x4<f32>, is_slope: bool) -> mat2x4<f32> {
    if turn >= LANES { return sum; }
    let source = lane / LANES * LANES + turn;
    let g = floats_of(dy[subgroupShuffle(p.row, source) + lane % LANES]);
    let own = subgroupShuffle(p.own, source);
    let is_there = vec4<bool>(subgroupShuffle(p.is_there, source) != 0u);
    let zero = vec4<f32>();
    return mat2x4<f32>(add_product(sum[0], select(zero, g[0], is_there), own, m[0], is_slope),
                       add_product(sum[1], select(zero, g[1], is_there), own, m[1], is_slope));
}

fn list_sum(centre: u32, lane: u32, is_slope: bool) -> mat2x4<f32> {
    let m = frequency_pair(lane % LANES);
    let last = params.points * K - 1u;
    let end = min(starts[centre + 1u], params.points * K);
    var sum = mat2x4<f32>();
    for (var at = starts[centre]; at < end; at += 8u) {
        let pair = min(order[min(at + lane, last)], last);
        let is_there = at + lane < end;
        let p = Pairs(pair / K * LANES, select(0.0, phi[pair], is_there), u32(is_there));
        sum = add_turn(sum, p, 0u, lane, m, is_slope);
        sum = add_turn(sum, p, 1u, lane, m, is_slope);
        sum = add_turn(sum, p, 2u, lane, m, is_slope);
        sum = add_turn(sum, p, 3u, lane, m, is_slope);
        sum = add_turn(sum, p, 4u, lane, m, is_slope);
        sum = add_turn(sum, p, 5u, lane, m, is_slope);
        sum = add_turn(sum, p, 6u, lane, m, is_slope);
        sum = add_turn(sum, p, 7u, lane, m, is_slope);
    }
    if LANES <= 4u { sum = sum + other_lanes(sum, lane ^ 4u); }
    if LANES <= 2u { sum = sum + other_lanes(sum, lane ^ 2u); }
    if LANES <= 1u { sum = sum + other_lanes(sum, lane ^ 1u); }
    return sum;
}

fn other_lanes(sum: mat2x4<f32>, source: u32) -> mat2x4<f32> {
    return mat2x4<f32>(subgroupShuffle(sum[0], source), subgroupShuffle(sum[1], source));
}

@compute @workgroup_size(WORKGROUP)
fn weight_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                   @builtin(subgroup_invocation_id) lane: u32) {
    let centre = linear_group(params.first_group, id, n);
    if centre >= params.groups { return; }
    let sum = list_sum(centre, lane, false);
    if lane < LANES {
        dweights[centre * params.items + 2u * lane] = sum[0];
        dweights[centre * params.items + 2u * lane + 1u] = sum[1];
    }
}

@group(0) @binding(6) var<storage, read_write> dfrequencies: array<Floats>;  // [C, ITEMS]
@group(0) @binding(7) var<storage, read> weights_in: array<Stored>;          // [C, ITEMS]

@compute @workgroup_size(WORKGROUP)
fn frequency_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                      @builtin(subgroup_invocation_id) lane: u32) {
    let centre = linear_group(params.first_group, id, n);
    if centre >= params.groups { return; }
    let sum = list_sum(centre, lane, true);
    if lane < LANES {
        let at = centre * params.items + 2u * lane;
        dfrequencies[at] = unpacked(weights_in[at]) * sum[0];
        dfrequencies[at + 1u] = unpacked(weights_in[at + 1u]) * sum[1];
    }
}

fn gradient_after(before: Row, start: u32, item: u32) -> Row {
    var row = before;
    if start != row.start { row = Row(start, floats_of(dy[start + item])); }
    return row;
}

// The sum over a pair's features, in all lanes of its side.
fn side_sum(own: f32, lane: u32) -> f32 {
    var sum = own;
    if LANES >= 2u { sum += subgroupShuffle(sum, lane ^ 1u); }
    if LANES >= 4u { sum += subgroupShuffle(sum, lane ^ 2u); }
    if LANES >= 8u { sum += subgroupShuffle(sum, lane ^ 4u); }
    return sum;
}

// What eight pairs know: of each lane's own its row and phi; dy of the point before, and the gradients so far.
struct PhiState { row: u32, own: f32, pair: u32, g: Row, result: f32 }

// The pair in `turn` of each side, with the row of the last one in that turn.
struct Turn { w: Row, s: PhiState }

fn phi_turn(before: Row, state: PhiState, turn: u32, lane: u32, m: mat2x4<f32>) -> Turn {
    if turn >= LANES { return Turn(before, state); }
    let item = lane % LANES;
    let source = lane / LANES * LANES + turn;
    var s = state;
    s.g = gradient_after(s.g, subgroupShuffle(s.pair, source) / K * LANES, item);
    let w = weights_after(before, subgroupShuffle(s.row, source), item);
    let own = subgroupShuffle(s.own, source);
    let sum = s.g.v[0] * w.v[0] * psi_slope(own, m[0]) + s.g.v[1] * w.v[1] * psi_slope(own, m[1]);
    s.result = select(s.result, side_sum(lanes_sum(sum), lane), item == turn);
    return Turn(w, s);
}

@compute @workgroup_size(WORKGROUP)
fn backward_phi(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let m = frequency_pair(lane % LANES);
    let last = params.points * K - 1u;
    let none = no_row();
    var a = Turn(none, PhiState(0u, 0.0, 0u, none, 0.0));
    var b = a;
    var c = a;
    var d = a;
    var e = a;
    var f = a;
    var g = a;
    var h = a;
    let first = first_point(group, lane) * K + lane % LANES;
    for (var at = 0u; at < EIGHTS * LANES * K; at += LANES) {
        let place = first + at;
        let pair = min(place, last);
        a = phi_turn(a.w, PhiState(row_of(pair) / 2u, phi[pair], pair, h.s.g, 0.0), 0u, lane, m);
        b = phi_turn(b.w, a.s, 1u, lane, m);
        c = phi_turn(c.w, b.s, 2u, lane, m);
        d = phi_turn(d.w, c.s, 3u, lane, m);
        e = phi_turn(e.w, d.s, 4u, lane, m);
        f = phi_turn(f.w, e.s, 5u, lane, m);
        g = phi_turn(g.w, f.s, 6u, lane, m);
        h = phi_turn(h.w, g.s, 7u, lane, m);
        if place <= last { dphi[pair] = h.s.result; }
    }
}
