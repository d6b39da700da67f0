// What the kernels of flash attention share: parameters, the side buffer, who sees whom, and scores.
// The tensors are in attention_scalars.wgsl, or in attention_vectors.wgsl and attention_other_*.wgsl.
//
// Scores are kept in base 2: s = log2(e) S, so that weights are exp2. The side buffer holds small things
// of three kinds, so that no kernel needs more than eight storage buffers:
//   [heads, 2]         log2(e) scale beta_h / T, and the gate or 1        (if HEADS)
//   [batch, keys]      0 for a masked key                                 (if MASK)
//   [batch, heads, queries, 2]  log2(e) L_i and D_i, at `rows_at`         (backward, and where L is known)
//   [batch, heads, queries]     weights of the query rows, at `weights_at` (if WEIGHTS)

struct Params {
    first_group: u32,
    groups: u32,
    batch: u32,
    heads: u32,
    sharing: u32,        // query heads that share a head of keys
    queries: u32,
    keys: u32,
    offset: i32,         // the position of query i among the keys is i + offset
    before: i32,         // keys that a query sees before its position, and after it
    after: i32,
    // Tensors, in elements: where they begin, and from one batch, head and row to the next. "Own" are q and
    // the output's gradient, "other" are k and v; the other way round for the gradients of k and v.
    own_first: u32, own_batch: u32, own_head: u32, own_row: u32,
    other_first: u32, other_batch: u32, other_head: u32, other_row: u32,
    other_values_first: u32, other_values_batch: u32, other_values_head: u32, other_values_row: u32,
    own_values_first: u32, own_values_batch: u32, own_values_head: u32, own_values_row: u32,
    // Results; with several slices each has a result of its own.
    y_slice: u32, y_first: u32, y_batch: u32, y_head: u32, y_row: u32,
    z_slice: u32, z_first: u32, z_batch: u32, z_head: u32, z_row: u32,
    bias_batch: u32,
    bias_head: u32,
    prefix: u32,         // tokens without a place on the grid
    grid_height: u32,
    grid_width: u32,
    // Rows of this launch (queries, or keys for their gradient), of `row_heads` heads.
    row_first: u32,
    row_end: u32,
    row_heads: u32,
    column_first: u32,   // other rows of this launch, where not all are wanted
    column_end: u32,
    slice_length: u32,   // keys (or queries) of a slice
    slices: u32,
    rows_at: u32,        // in the side buffer
    weights_at: u32,
    extra_sums: u32,     // in the extra buffer: where the rows' sums begin, then dS
    extra_ds: u32,
    scale: f32,          // log2(e) times the factor of the scores
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(4) var<storage, read> side: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;     // [1 or batch, 1 or heads, queries, keys], or the table

// The score of a key that is not seen: below all others, and finite.
const HIDDEN: f32 = -3.0e38;

// The first row of a workgroup, and what it belongs to.
struct Place { slice: u32, batch: u32, head: u32, row: u32 }

// Workgroup `group`, of `rows` rows each.
fn place(group: u32, rows: u32) -> Place {
    let tiles = (params.row_end - params.row_first + rows - 1u) / rows;
    let matrix = group / tiles;
    let batch = matrix / params.row_heads;
    return Place(batch / params.batch, batch % params.batch, matrix % params.row_heads,
                 params.row_first + group % tiles * rows);
}

// The keys that some of `count` queries from `row` may see, within a slice: [first, end).
fn key_range(slice: u32, row: u32, count: u32) -> vec2<u32> {
    let slice_first = slice * params.slice_length;
    let slice_end = min(params.keys, slice_first + params.slice_length);
    if !WINDOW { return vec2<u32>(slice_first, slice_end); }
    let last = i32(min(row + count, params.queries) - 1u) + params.offset + params.after;
    let first = max(i32(row) + params.offset - params.before, i32(slice_first));
    return vec2<u32>(u32(first), u32(clamp(last + 1, first, max(first, i32(slice_end)))));
}

// The queries that may see some of `count` keys from `row`, within a slice: [first, end).
fn query_range(slice: u32, row: u32, count: u32) -> vec2<u32> {
    let slice_first = slice * params.slice_length;
    let slice_end = min(params.queries, slice_first + params.slice_length);
    if !WINDOW { return vec2<u32>(slice_first, slice_end); }
    let last = i32(min(row + count, params.keys) - 1u) - params.offset + params.before;
    let first = max(i32(row) - params.offset - params.after, i32(slice_first));
    return vec2<u32>(u32(first), u32(clamp(last + 1, first, max(first, i32(slice_end)))));
}

fn sees(query: u32, key: u32) -> bool {
    let position = i32(query) + params.offset;
    return !WINDOW || (i32(key) >= position - params.before && i32(key) <= position + params.after);
}

fn is_masked(batch: u32, key: u32) -> bool {
    return MASK && side[2u * params.heads + batch * params.keys + key] == 0.0;
}

fn score_scale(head: u32) -> f32 {
    if HEADS { return side[2u * head]; }
    return params.scale;
}

// Factor of a query row's values: the gate of its head, or a weight of its own.
fn row_weight(batch: u32, head: u32, query: u32) -> f32 {
    var weight = 1.0;
    if HEADS { weight = side[2u * head + 1u]; }
    if WEIGHTS { weight = side[params.weights_at + (batch * params.heads + head) * params.queries + query]; }
    return weight;
}

// log2(e) L and D of a query row.
fn row_terms(batch: u32, head: u32, query: u32) -> vec2<f32> {
    let at = params.rows_at + 2u * ((batch * params.heads + head) * params.queries + query);
    return vec2<f32>(side[at], side[at + 1u]);
}

// Row and column of a token on the grid of the table; a token before the grid has none.
const NOWHERE: u32 = 0xffffffffu;

fn grid_place(token: u32) -> vec2<u32> {
    var place = vec2<u32>();
    if BIAS == 2u { place = patch_place(token); }
    return place;
}

fn patch_place(token: u32) -> vec2<u32> {
    let i = token - params.prefix;
    return select(vec2<u32>(i / params.grid_width, i % params.grid_width), vec2<u32>(NOWHERE), token < params.prefix);
}

// The score of a visible key from the scaled product of its query and itself.
fn add_bias(product: f32, batch: u32, head: u32, query: u32, key: u32,
            query_place: vec2<u32>, key_place: vec2<u32>) -> f32 {
    var b = 0.0;
    if BIAS == 1u {
        b = bias[batch * params.bias_batch + head * params.bias_head + query * params.keys + key];
    }
    if BIAS == 2u {
        let is_placed = (query_place.y != NOWHERE) & (key_place.y != NOWHERE);
        let down = query_place.x + params.grid_height - 1u - key_place.x;
        let right = query_place.y + params.grid_width - 1u - key_place.y;
        let at = (down * (2u * params.grid_width - 1u) + right) * params.heads + head;
        b = select(0.0, bias[select(0u, at, is_placed)], is_placed);
    }
    return select(fma(b, LOG2_E, product), HIDDEN, b <= SENTINEL);
}
