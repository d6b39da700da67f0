// What the variants of radial/sinusoid_composition share: parameters, buffers and psi. F is the number
// of features; an item is one of them, or four (scalars.wgsl or vectors.wgsl), ITEMS = F / WIDTH. The rows
// that are read, weights and dy: common/composition_rows.wgsl.

struct Params {
    first_group: u32,
    groups: u32,
    points: u32,
    centres: u32,
    items: u32,
    count: u32,   // of the launch's outputs
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> phi: array<f32>;                   // [N, K]
@group(0) @binding(2) var<storage, read> neighbours: array<u32>;            // [N, K]
@group(0) @binding(4) var<storage, read> frequencies: array<Floats>;        // [ITEMS]; without SINE not read
@group(0) @binding(5) var<storage, read_write> y: array<Floats>;            // [N, ITEMS]
// backward_phi
@group(0) @binding(6) var<storage, read_write> dphi: array<f32>;            // [N, K]
// weight_gradient, frequency_gradient
@group(0) @binding(2) var<storage, read> order: array<u32>;                 // [N K] pairs n K + j, by centre
@group(0) @binding(3) var<storage, read> starts: array<u32>;                // [C + 1]
@group(0) @binding(6) var<storage, read_write> dweights: array<Floats>;     // [C, ITEMS]

fn frequency(item: u32) -> Floats {
    if SINE { return frequencies[item]; }
    return Floats();
}

fn psi(phi: f32, m: Floats) -> Floats {
    if SINE { return sine(m * phi); }
    return Floats(phi);
}

// The derivative of psi by phi.
fn psi_slope(phi: f32, m: Floats) -> Floats {
    if SINE { return m * cosine(m * phi); }
    return Floats(1.0);
}

// Adds what a pair contributes to a gradient: dy psi or, for the slope, dy phi cos(m phi).
fn add_product(sum: Floats, dy: Floats, phi: f32, m: Floats, is_slope: bool) -> Floats {
    if is_slope { return fma(dy, phi * cosine(m * phi), sum); }
    return fma(dy, psi(phi, m), sum);
}

// Of point n's pair; an index that is no centre has phi = 0, and any row will do.
fn row_of(pair: u32) -> u32 {
    return min(neighbours[pair], params.centres - 1u) * params.items;
}
