// Scores of four pairs at a time, without branches.

// Below every score, and far above HIDDEN: exp2(HIDDEN - m) is 0.
const FLOOR: f32 = -2.0e38;
// CPU adapters run both sides of every branch. So rows that are not there are zeros with hidden scores; only
// where a window or a matrix hides single pairs are these kept out of the sums one by one, lest NaN spread
// as 0 * NaN.
const CAREFUL: bool = WINDOW || BIAS == 1u;

// Four rows with their places on the grid of the table.
struct Rows { row: vec4<u32>, down: vec4<u32>, right: vec4<u32> }

fn rows_of(row: vec4<u32>) -> Rows {
    let x = grid_place(row.x);
    let y = grid_place(row.y);
    let z = grid_place(row.z);
    let w = grid_place(row.w);
    return Rows(row, vec4<u32>(x.x, y.x, z.x, w.x), vec4<u32>(x.y, y.y, z.y, w.y));
}

// Four times row `row`.
fn row_of(row: u32) -> Rows {
    let x = grid_place(row);
    return Rows(vec4<u32>(row), vec4<u32>(x.x), vec4<u32>(x.y));
}

fn scores(product: vec4<f32>, batch: u32, head: u32, q: Rows, k: Rows, is_there: vec4<bool>) -> vec4<f32> {
    var s = product;
    if BIAS > 0u {
        let query = min(q.row, vec4<u32>(params.queries - 1u));
        let key = min(k.row, vec4<u32>(params.keys - 1u));
        s.x = add_bias(s.x, batch, head, query.x, key.x, vec2<u32>(q.down.x, q.right.x), vec2<u32>(k.down.x, k.right.x));
        s.y = add_bias(s.y, batch, head, query.y, key.y, vec2<u32>(q.down.y, q.right.y), vec2<u32>(k.down.y, k.right.y));
        s.z = add_bias(s.z, batch, head, query.z, key.z, vec2<u32>(q.down.z, q.right.z), vec2<u32>(k.down.z, k.right.z));
        s.w = add_bias(s.w, batch, head, query.w, key.w, vec2<u32>(q.down.w, q.right.w), vec2<u32>(k.down.w, k.right.w));
    }
    if WINDOW {
        let position = vec4<i32>(q.row) + vec4<i32>(params.offset);
        let near = vec4<i32>(k.row) >= position - vec4<i32>(params.before);
        s = select(vec4<f32>(HIDDEN), s, near & (vec4<i32>(k.row) <= position + vec4<i32>(params.after)));
    }
    return select(vec4<f32>(HIDDEN), s, is_there);
}

fn has_key(batch: u32, key: u32, end: u32) -> bool {
    return key < end && !is_masked(batch, min(key, params.keys - 1u));
}

const FOUR: vec4<u32> = vec4<u32>(0u, 1u, 2u, 3u);

fn row_weights(batch: u32, head: u32, query: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(row_weight(batch, head, query.x), row_weight(batch, head, query.y),
                     row_weight(batch, head, query.z), row_weight(batch, head, query.w));
}
