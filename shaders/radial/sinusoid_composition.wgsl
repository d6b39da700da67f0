// Features of radial bases by multi-frequency sinusoid composition (Chen et al. 2023, "NeuRBF",
// equation 7), forward and backward.
//
//   forward:             y[n, f]    = sum_j w[i_j, f] psi_jf,   psi_jf = sin(m_f phi[n, j]), or phi[n, j]
//   backward_phi:        dphi[n, j] = sum_f dy[n, f] w[i_j, f] m_f cos(m_f phi[n, j])
//   weight_gradient:     dw[i, f]   = sum of dy[n, f] psi_jf over the pairs (n, j) with i_j = i
//   frequency_gradient:  e[i, f]    = w[i, f] * sum of dy[n, f] phi cos(m_f phi) over the same pairs;
//                        dm_f is their sum over the centres (dense/reduce)
//   with i_j the neighbours of point n, j < K. psi is computed again wherever it is needed: nothing
//   has points x neighbours x features elements.
//
// forward: one invocation a point and item. backward_phi: one a point and SLOTS of its neighbours, for
// which it reads dy once: on an H100 faster than eight invocations a point that add up in workgroup memory.
// weight_gradient, frequency_gradient: a workgroup has a centre and TILE items; its LANES share the
// pairs of the centre's list, four at a time against the wait for memory, and add up in a fixed order
// (1,024 bytes for 8 lanes, 4,096 for 32).
// The variants for CPU adapters are sinusoid_composition_subgroup.wgsl and, by 64-bit integers,
// sinusoid_composition_wide.wgsl.

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.count { return; }
    let first = i / params.items * K;
    let item = i % params.items;
    let m = frequency(item);
    var sum = Floats();
    for (var j = 0u; j < K; j++) {
        let w = unpacked(weights[row_of(first + j) + item]);
        sum = fma(w, psi(phi[first + j], m), sum);
    }
    y[i] = sum;
}

struct Slots { a: Floats, b: Floats, c: Floats, d: Floats }

@compute @workgroup_size(WORKGROUP)
fn backward_phi(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.count { return; }
    let blocks = (K + SLOTS - 1u) / SLOTS;
    let first = i / blocks * params.items;
    let slot = i % blocks * SLOTS;
    let end = i / blocks * K + K - 1u;
    let a = end + 1u - K + slot;
    let b = min(a + 1u, end);
    let c = min(a + 2u, end);
    let d = min(a + 3u, end);
    let row_a = row_of(a);
    let row_b = row_of(b);
    let row_c = row_of(c);
    let row_d = row_of(d);
    let phi_a = phi[a];
    let phi_b = phi[b];
    let phi_c = phi[c];
    let phi_d = phi[d];
    var s = Slots();
    for (var item = 0u; item < params.items; item++) {
        let g = dy[first + item];
        let m = frequency(item);
        s.a = fma(g * unpacked(weights[row_a + item]), psi_slope(phi_a, m), s.a);
        if SLOTS > 1u {
            s.b = fma(g * unpacked(weights[row_b + item]), psi_slope(phi_b, m), s.b);
            s.c = fma(g * unpacked(weights[row_c + item]), psi_slope(phi_c, m), s.c);
            s.d = fma(g * unpacked(weights[row_d + item]), psi_slope(phi_d, m), s.d);
        }
    }
    dphi[a] = lanes_sum(s.a);
    if SLOTS > 1u {
        if a + 1u <= end { dphi[a + 1u] = lanes_sum(s.b); }
        if a + 2u <= end { dphi[a + 2u] = lanes_sum(s.c); }
        if a + 3u <= end { dphi[a + 3u] = lanes_sum(s.d); }
    }
}

var<workgroup> sums: array<Floats, WORKGROUP>;

// The sum over the lanes, in their order of pairs; valid in the first.
fn lanes_total(own: Floats, local: u32) -> Floats {
    if LANES == 1u { return own; }
    sums[local] = own;
    for (var half = LANES / 2u; half > 0u; half = half >> 1u) {
        workgroupBarrier();
        if local / TILE < half { sums[local] += sums[local + half * TILE]; }
    }
    return sums[local];
}

// A lane's sum over its pairs of a centre's list. Four pairs are read before their sines are computed, so
// that one wait for memory serves them all; they are added in the list's order.
fn list_sum(centre: u32, item: u32, lane: u32, is_slope: bool) -> Floats {
    let m = frequency(item);
    let last = params.points * K - 1u;
    let end = min(starts[centre + 1u], last + 1u);
    var sum = Floats();
    var at = starts[centre] + lane;
    for (; at + 3u * LANES < end; at += 4u * LANES) {
        let a = min(order[at], last);
        let b = min(order[at + LANES], last);
        let c = min(order[at + 2u * LANES], last);
        let d = min(order[at + 3u * LANES], last);
        let phi_a = phi[a];
        let phi_b = phi[b];
        let phi_c = phi[c];
        let phi_d = phi[d];
        let dy_a = dy[a / K * params.items + item];
        let dy_b = dy[b / K * params.items + item];
        let dy_c = dy[c / K * params.items + item];
        let dy_d = dy[d / K * params.items + item];
        sum = add_product(sum, dy_a, phi_a, m, is_slope);
        sum = add_product(sum, dy_b, phi_b, m, is_slope);
        sum = add_product(sum, dy_c, phi_c, m, is_slope);
        sum = add_product(sum, dy_d, phi_d, m, is_slope);
    }
    for (; at < end; at += LANES) {
        let pair = min(order[at], last);
        sum = add_product(sum, dy[pair / K * params.items + item], phi[pair], m, is_slope);
    }
    return sum;
}

@compute @workgroup_size(WORKGROUP)
fn weight_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let tiles = (params.items + TILE - 1u) / TILE;
    let centre = group / tiles;
    let own = group % tiles * TILE + local % TILE;
    let item = min(own, params.items - 1u);
    let total = lanes_total(list_sum(centre, item, local / TILE, false), local);
    if local < TILE && own < params.items { dweights[centre * params.items + own] = total; }
}

@group(0) @binding(6) var<storage, read_write> dfrequencies: array<Floats>;  // [C, ITEMS]
@group(0) @binding(7) var<storage, read> weights_in: array<Stored>;          // [C, ITEMS]

@compute @workgroup_size(WORKGROUP)
fn frequency_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                      @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let tiles = (params.items + TILE - 1u) / TILE;
    let centre = group / tiles;
    let own = group % tiles * TILE + local % TILE;
    let item = min(own, params.items - 1u);
    let total = lanes_total(list_sum(centre, item, local / TILE, true), local);
    if local < TILE && own < params.items {
        let at = centre * params.items + own;
        dfrequencies[at] = unpacked(weights_in[at]) * total;
    }
}
