// Weighted means and covariances of clusters of points: a step of Lloyd's k-means, and the shapes of
// anisotropic bases.
//
//   positions: [points, D]   weights, labels: [points]   centres: [clusters, D]   shapes: [clusters, D (D + 1) / 2]
//   mean         c + sum w (x - c) / sum w over the points of the cluster; without any, c stays
//   covariance   S = scale sum w (x - c)(x - c)^T / sum w; without any, scale_empty I
//                diagonal of S clamped to least ... most of the axis, then the others to
//                +-0.999 sqrt(S_ii S_jj); the shape is S^-1, as xx, xy, yy or xx, xy, xz, yy, yz, zz
//
// Sums are 64-bit integers, so that their order does not matter: each cluster has powers of two of
// its own, just above its largest weight and its largest offset, and terms are rounded to 2^-29 of
// these. Offsets from the cluster's centre are small where the cluster is: nothing cancels.
//   clear        ranges and sums
//   find_ranges  a point an invocation: largest weight, largest |x - c| on any axis (bits of f32)
//   add_means, add_covariances   a point an invocation, to sums [clusters, TERMS, 2] (low, high word)
//   move_centres, make_shapes    a cluster an invocation
// Points of no weight, and points that are not finite or farther than 1e18, take no part.
//
// In 3-D a cluster of two points, or the clamps, leave a matrix that has no inverse: if the determinant
// of its correlations is too small to be told from 0, they are halved. Each is below 1, hence each
// eigenvalue above -1, and above 0 when halved. make_shapes counts in report[2] the clusters
// without points, in [3] shapes that were clamped, in [4] those whose correlations were halved.
// Workgroup memory: none.

struct Params {
    first_group: u32,
    groups: u32,
    points: u32,
    clusters: u32,
    words: u32,         // of `clear`
    scale: f32,
    scale_empty: f32,
    least_x: f32,       // variances
    least_y: f32,
    least_z: f32,
    most_x: f32,
    most_y: f32,
    most_z: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> cleared: array<u32>;             // [words]
@group(0) @binding(1) var<storage, read> positions: array<f32>;                 // [points, D]
@group(0) @binding(2) var<storage, read> weights: array<f32>;                   // [points]
@group(0) @binding(3) var<storage, read> labels: array<u32>;                    // [points]
@group(0) @binding(4) var<storage, read> centres: array<f32>;                   // [clusters, D]
@group(0) @binding(5) var<storage, read_write> ranges: array<atomic<u32>>;      // [clusters, 2] weight, offset
@group(0) @binding(5) var<storage, read> found_ranges: array<u32>;              // [clusters, 2]
@group(0) @binding(6) var<storage, read_write> sums: array<atomic<u32>>;        // [clusters, TERMS, 2]
@group(0) @binding(1) var<storage, read> done_ranges: array<u32>;               // [clusters, 2]
@group(0) @binding(2) var<storage, read> done: array<u32>;                      // [clusters, TERMS, 2]
@group(0) @binding(3) var<storage, read_write> moved: array<f32>;               // [clusters, D]
@group(0) @binding(3) var<storage, read_write> shapes: array<f32>;              // [clusters, D (D + 1) / 2]
@group(0) @binding(4) var<storage, read_write> report: array<atomic<u32>>;      // [8]

// Its square still is an f32.
const LARGEST_OFFSET: f32 = 1e18;

@compute @workgroup_size(WORKGROUP)
fn clear(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.words {
        cleared[i] = 0u;
    }
}

// A point as seen from its cluster; of weight 0 if it takes no part.
struct Member {
    cluster: u32,
    weight: f32,
    offset: vec3<f32>,
}

fn is_offset(x: f32) -> bool {
    return is_finite(x) && abs(x) <= LARGEST_OFFSET;
}

fn member(i: u32) -> Member {
    var m = Member(labels[i], usable_weight(weights[i]), vec3<f32>());
    if m.weight == 0.0 || m.cluster >= params.clusters {
        m.weight = 0.0;
        return m;
    }
    m.offset.x = positions[i * D] - centres[m.cluster * D];
    if D > 1u { m.offset.y = positions[i * D + 1u] - centres[m.cluster * D + 1u]; }
    if D > 2u { m.offset.z = positions[i * D + 2u] - centres[m.cluster * D + 2u]; }
    if !(is_offset(m.offset.x) && is_offset(m.offset.y) && is_offset(m.offset.z)) {
        m.weight = 0.0;
    }
    return m;
}

@compute @workgroup_size(WORKGROUP)
fn find_ranges(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    let m = member(i);
    if m.weight > 0.0 {
        let o = bitcast<vec3<u32>>(m.offset) & vec3<u32>(0x7fffffffu);
        atomicMax(&ranges[2u * m.cluster], bitcast<u32>(m.weight));
        atomicMax(&ranges[2u * m.cluster + 1u], max(o.x, max(o.y, o.z)));
    }
}

// The exponent e with x < 2^e, and e no lower than `lowest`.
fn exponent_above(bits: u32, lowest: i32) -> i32 {
    return max(i32(bits >> 23u) - 126, lowest);
}

fn offset_exponent(bits: u32) -> i32 {
    return exponent_above(bits, -60);
}

fn power_of_two(e: i32) -> f32 {
    return bitcast<f32>(u32(e + 127) << 23u);
}

// Weight and offset of a member as parts of the cluster's powers of two, below 1 in magnitude.
fn scaled(m: Member) -> vec4<f32> {
    let weight = power_of_two(-exponent_above(found_ranges[2u * m.cluster], -120));
    let offset = power_of_two(-offset_exponent(found_ranges[2u * m.cluster + 1u]));
    return vec4<f32>(m.offset * offset, m.weight * weight);
}

// Adds a term, which is below 1 in magnitude, in units of 2^-29.
fn add(cluster: u32, t: u32, x: f32) {
    let term = i32(round(x * 536870912.0));
    if term != 0 {
        let at = 2u * (cluster * TERMS + t);
        let low = bitcast<u32>(term);
        let before = atomicAdd(&sums[at], low);
        // The sign extension of a negative term and its carry cancel nearly always.
        let high = select(0u, 0xffffffffu, term < 0) + select(0u, 1u, before + low < before);
        if high != 0u {
            atomicAdd(&sums[at + 1u], high);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn add_means(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    let m = member(i);
    if m.weight > 0.0 {
        let s = scaled(m);
        add(m.cluster, 0u, s.w);
        add(m.cluster, 1u, s.w * s.x);
        if D > 1u { add(m.cluster, 2u, s.w * s.y); }
        if D > 2u { add(m.cluster, 3u, s.w * s.z); }
    }
}

@compute @workgroup_size(WORKGROUP)
fn add_covariances(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    let m = member(i);
    if m.weight > 0.0 {
        let s = scaled(m);
        add(m.cluster, 0u, s.w);
        add(m.cluster, 1u, s.w * (s.x * s.x));
        if D == 2u {
            add(m.cluster, 2u, s.w * (s.x * s.y));
            add(m.cluster, 3u, s.w * (s.y * s.y));
        }
        if D == 3u {
            add(m.cluster, 2u, s.w * (s.x * s.y));
            add(m.cluster, 3u, s.w * (s.x * s.z));
            add(m.cluster, 4u, s.w * (s.y * s.y));
            add(m.cluster, 5u, s.w * (s.y * s.z));
            add(m.cluster, 6u, s.w * (s.z * s.z));
        }
    }
}

// A sum as a float.
fn sum_of(cluster: u32, t: u32) -> f32 {
    let at = 2u * (cluster * TERMS + t);
    var low = done[at];
    var high = done[at + 1u];
    let negative = high >= 0x80000000u;
    if negative {
        low = ~low + 1u;
        high = ~high + select(0u, 1u, low == 0u);
    }
    let magnitude = f32(high) * 4294967296.0 + f32(low);
    return select(magnitude, -magnitude, negative);
}

@compute @workgroup_size(WORKGROUP)
fn move_centres(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let cluster = group * WORKGROUP + local;
    if group >= params.groups || cluster >= params.clusters {
        return;
    }
    let weight = sum_of(cluster, 0u);
    if weight == 0.0 {
        return;
    }
    let unit = power_of_two(offset_exponent(done_ranges[2u * cluster + 1u]));
    for (var d = 0u; d < D; d++) {
        moved[cluster * D + d] += sum_of(cluster, 1u + d) / weight * unit;
    }
}

// A mean product of offsets, times `scale`.
fn covariance(cluster: u32, t: u32) -> f32 {
    let unit = power_of_two(offset_exponent(done_ranges[2u * cluster + 1u]));
    return sum_of(cluster, 1u + t) / sum_of(cluster, 0u) * unit * unit * params.scale;
}

// A correlation from a covariance and two standard deviations, clamped.
fn correlation(s: f32, a: f32, b: f32) -> f32 {
    return clamp(s / (a * b), -0.999, 0.999);
}

@compute @workgroup_size(WORKGROUP)
fn make_shapes(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let cluster = group * WORKGROUP + local;
    if group >= params.groups || cluster >= params.clusters {
        return;
    }
    let empty = sum_of(cluster, 0u) == 0.0;
    var variance = vec3<f32>(params.scale_empty);
    var s = vec3<f32>();   // xy, xz, yz
    if empty {
        atomicAdd(&report[2], 1u);
    } else {
        variance.x = covariance(cluster, 0u);
        if D == 2u {
            s.x = covariance(cluster, 1u);
            variance.y = covariance(cluster, 2u);
        }
        if D == 3u {
            s.x = covariance(cluster, 1u);
            s.y = covariance(cluster, 2u);
            variance.y = covariance(cluster, 3u);
            s.z = covariance(cluster, 4u);
            variance.z = covariance(cluster, 5u);
        }
    }
    let kept = clamp(variance, vec3<f32>(params.least_x, params.least_y, params.least_z),
                     vec3<f32>(params.most_x, params.most_y, params.most_z));
    let deviation = sqrt(kept);
    var r = vec3<f32>();
    if D > 1u { r.x = correlation(s.x, deviation.x, deviation.y); }
    if D > 2u {
        r.y = correlation(s.y, deviation.x, deviation.z);
        r.z = correlation(s.z, deviation.y, deviation.z);
    }
    var clamped = kept.x != variance.x || abs(r.x) == 0.999;
    if D > 1u { clamped = clamped || kept.y != variance.y; }
    if D > 2u { clamped = clamped || kept.z != variance.z || abs(r.y) == 0.999 || abs(r.z) == 0.999; }
    if clamped {
        atomicAdd(&report[3], 1u);
    }
    if D == 1u {
        shapes[cluster] = 1.0 / kept.x;
    }
    if D == 2u {
        let determinant = (1.0 - r.x) * (1.0 + r.x);
        shapes[3u * cluster] = 1.0 / (kept.x * determinant);
        shapes[3u * cluster + 1u] = -r.x / (deviation.x * deviation.y * determinant);
        shapes[3u * cluster + 2u] = 1.0 / (kept.y * determinant);
    }
    if D == 3u {
        var cofactors = (vec3<f32>(1.0) - r) * (vec3<f32>(1.0) + r);      // zz, yy, xx
        var others = vec3<f32>(r.y * r.z - r.x, r.x * r.z - r.y, r.x * r.y - r.z);   // xy, xz, yz
        var determinant = cofactors.y * cofactors.x - others.z * others.z;
        // An error d of the correlations changes the determinant by 2 d sqrt(..) where it is near 0.
        if determinant <= 1e-4 * sqrt(cofactors.x * cofactors.y) {
            atomicAdd(&report[4], 1u);
            r = 0.5 * r;
            cofactors = (vec3<f32>(1.0) - r) * (vec3<f32>(1.0) + r);
            others = vec3<f32>(r.y * r.z - r.x, r.x * r.z - r.y, r.x * r.y - r.z);
            determinant = cofactors.y * cofactors.x - others.z * others.z;
        }
        let d = deviation;
        shapes[6u * cluster] = cofactors.z / (kept.x * determinant);
        shapes[6u * cluster + 1u] = others.x / (d.x * d.y * determinant);
        shapes[6u * cluster + 2u] = others.y / (d.x * d.z * determinant);
        shapes[6u * cluster + 3u] = cofactors.y / (kept.y * determinant);
        shapes[6u * cluster + 4u] = others.z / (d.y * d.z * determinant);
        shapes[6u * cluster + 5u] = cofactors.x / (kept.z * determinant);
    }
}
