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

// Four rows, with rows and columns of their patches, and what they know of the keys so far.
struct RowParts {
    l: vec4<f32>,
    down: vec4<f32>,
    right: vec4<f32>,
    entropy: vec4<f32>,
    distance: vec4<f32>,
    best: vec4<f32>,
    best_at: vec4<u32>,
}

fn no_keys(row: vec4<u32>, l: vec4<f32>) -> RowParts {
    let x = patch_point(row.x);
    let y = patch_point(row.y);
    let z = patch_point(row.z);
    let w = patch_point(row.w);
    return RowParts(l, vec4<f32>(x.x, y.x, z.x, w.x), vec4<f32>(x.y, y.y, z.y, w.y), vec4<f32>(), vec4<f32>(),
                    vec4<f32>(HIDDEN), vec4<u32>(NO_KEY));
}

// The same as surprise and patch_distance, of four rows.
fn surprises(w: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    let zero = vec4<f32>();
    return select(-w * select(d, zero, d > zero), zero, w == zero);
}

fn patch_distances(p: RowParts, key: u32) -> vec4<f32> {
    let zero = vec4<f32>();
    let point = patch_point(key);
    let down = p.down - point.x;
    let right = p.right - point.y;
    let distance = sqrt(down * down + right * right);
    return select(distance, zero, (p.down < zero) | vec4<bool>(point.x < 0.0));
}

// `s`: the scores of the four rows and the key.
fn add_key(parts: RowParts, s: vec4<f32>, key: u32) -> RowParts {
    var p = parts;
    let d = s - p.l;
    let w = select(probabilities(d), vec4<f32>(), s == vec4<f32>(HIDDEN));
    p.entropy += surprises(w, d);
    if GRID { p.distance += w * patch_distances(p, key); }
    let is_better = s > p.best;
    p.best = select(p.best, s, is_better);
    // One by one: GLSL has no choice between integer vectors.
    p.best_at = vec4<u32>(select(p.best_at.x, key, is_better.x), select(p.best_at.y, key, is_better.y),
                          select(p.best_at.z, key, is_better.z), select(p.best_at.w, key, is_better.w));
    return p;
}
