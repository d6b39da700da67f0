// Weights as all kernels of the initialisation read them.

const LARGEST_WEIGHT: f32 = 1e27;

fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

fn is_weight(w: f32) -> bool {
    return is_finite(w) && w >= 0.0 && w <= LARGEST_WEIGHT;
}

// What is no weight counts as 0.
fn usable_weight(w: f32) -> f32 {
    return select(0.0, w, is_weight(w));
}
