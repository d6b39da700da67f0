// Sums over the LANES invocations that share a row, WORKGROUP / LANES rows a workgroup; order fixed.
// Workgroup memory: 8 WORKGROUP bytes, used if LANES > 1.

var<workgroup> lane_sums: array<vec2<f32>, WORKGROUP>;

// All invocations must call it. With one lane there is no barrier.
fn row_sum(mine: vec2<f32>, local: u32) -> vec2<f32> {
    if LANES == 1u {
        return mine;
    }
    lane_sums[local] = mine;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local % LANES < half {
            lane_sums[local] += lane_sums[local + half];
        }
    }
    workgroupBarrier();
    let total = lane_sums[local - local % LANES];
    // The next sum goes to the same place.
    workgroupBarrier();
    return total;
}
