// Where a field needs its centres: weights of points, divided by their mean.
//
//   sobel               picture [height, width, channels] -> sqrt(sum over channels and directions of
//                       s^2), s the Sobel derivative / 8; beyond the edge the edge's pixels go on
//   sobel_band          the same for some rows of a picture that does not fit: the band's rows come with
//                       one more above and below unless the picture ends there. raw: not divided by
//                       the mean, -1 where it is no weight, so that `given` counts it
//   inverse_distance    signed distances [points] -> 1 / (|distance| + 1e-9)
//   given               weights [points] as they are
//   weights, positions: [points], [points, 2]
//   (weight_tree.wgsl sums the weights)
//   normalise           weights / mean, or 1 each if all are 0
//   pixel_positions     pixel (i, j) at ((2 i + 1 - width) / 128, (2 j + 1 - height) / 128), exactly
//
// A weight that is NaN, infinite, negative or above 1e27 becomes 0 and is counted in report[0]; a
// NaN pixel so takes the importance of itself and its neighbours away. report[1] is 1 if all weights
// were 0. An invocation takes a point. Workgroup memory: none.

struct Params {
    first_group: u32,
    groups: u32,
    points: u32,
    width: u32,
    height: u32,
    channels: u32,
    skipped: u32,    // of a band: its rows above the first that is weighed, 0 or 1,
    first: u32,      // and the pixel of the picture at which that begins
    root: u32,       // where the sum of all weights stands in `sums`
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> values: array<f32>;                // picture, distances or weights
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read_write> positions: array<f32>;       // [points, 2]
@group(0) @binding(1) var<storage, read_write> cleared: array<u32>;         // [8]
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;         // [points]
@group(0) @binding(2) var<storage, read_write> raw: array<f32>;             // [pixels of the picture]
@group(0) @binding(3) var<storage, read_write> report: array<atomic<u32>>;  // [8]

@compute @workgroup_size(8)
fn clear_report(@builtin(local_invocation_index) local: u32) {
    if local < params.groups * 8u {
        cleared[local] = 0u;
    }
}

fn store_weight(i: u32, w: f32) {
    if !is_weight(w) {
        atomicAdd(&report[0], 1u);
    }
    weights[i] = usable_weight(w);
}

fn pixel(x: u32, y: u32, channel: u32) -> f32 {
    return values[(y * params.width + x) * params.channels + channel];
}

// The norm of the gradient at pixel i; NaN or infinite where a pixel around it is.
fn gradient(i: u32) -> f32 {
    let x = i % params.width;
    let y = i / params.width;
    let left = max(x, 1u) - 1u;
    let right = min(x + 1u, params.width - 1u);
    let above = max(y, 1u) - 1u;
    let below = min(y + 1u, params.height - 1u);
    var sum = 0.0;
    for (var c = 0u; c < params.channels; c++) {
        let nw = pixel(left, above, c);
        let ne = pixel(right, above, c);
        let sw = pixel(left, below, c);
        let se = pixel(right, below, c);
        let along_x = (ne - nw) + 2.0 * (pixel(right, y, c) - pixel(left, y, c)) + (se - sw);
        let along_y = (sw - nw) + 2.0 * (pixel(x, below, c) - pixel(x, above, c)) + (se - ne);
        sum += along_x * along_x + along_y * along_y;
        // A pixel in the middle has no weight in its own derivative.
        if !is_finite(pixel(x, y, c)) {
            return pixel(x, y, c);
        }
    }
    // The root of a number that is not finite may be anything.
    return select(sum, sqrt(sum) * 0.125, is_finite(sum));
}

@compute @workgroup_size(WORKGROUP)
fn sobel(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    store_weight(i, gradient(i));
}

@compute @workgroup_size(WORKGROUP)
fn sobel_band(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    let w = gradient(i + params.skipped * params.width);
    raw[params.first + i] = select(-1.0, w, is_weight(w));
}

@compute @workgroup_size(WORKGROUP)
fn inverse_distance(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    let distance = values[i];
    store_weight(i, select(distance, 1.0 / (abs(distance) + 1e-9), is_finite(distance)));
}

@compute @workgroup_size(WORKGROUP)
fn given(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    store_weight(i, values[i]);
}

@compute @workgroup_size(WORKGROUP)
fn normalise(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    let sum = sums[params.root];
    if sum > 0.0 {
        weights[i] = weights[i] / (sum / f32(params.points));
    } else {
        weights[i] = 1.0;
        if i == 0u {
            atomicStore(&report[1], 1u);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn pixel_positions(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    let x = i32(2u * (i % params.width) + 1u) - i32(params.width);
    let y = i32(2u * (i / params.width) + 1u) - i32(params.height);
    positions[2u * i] = f32(x) * 0.0078125;
    positions[2u * i + 1u] = f32(y) * 0.0078125;
}
