// What the variants of attention/attention_statistics share.

// Of a row that sees no key.
const NO_KEY: u32 = 0xffffffffu;

// -w log2 w, with the logarithm d of the weight w at hand; never negative.
fn surprise(w: f32, d: f32) -> f32 {
    return select(-w * select(d, 0.0, d > 0.0), 0.0, w == 0.0);
}

// Row and column of a token's patch; both are negative for a token before the grid.
fn patch_point(token: u32) -> vec2<f32> {
    return select(vec2<f32>(patch_place(token)), vec2<f32>(-1.0), token < params.prefix);
}

// Between two patches; 0 where one has no place.
fn patch_distance(a: vec2<f32>, b: vec2<f32>) -> f32 {
    let d = a - b;
    return select(sqrt(d.x * d.x + d.y * d.y), 0.0, a.x < 0.0 || b.x < 0.0);
}
