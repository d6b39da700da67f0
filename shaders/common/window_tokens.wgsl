// Instances of attention/window_attention: windows of a grid that is padded at its end to whole windows
// and rolled back by the shift. Sizes of a window are constants: tokens are told apart by divisions.
@group(0) @binding(4) var<storage, read> bias_rows: array<vec4<f32>>;  // [2, heads, blocks, tokens], times log2(e)

// A coordinate along one axis.
struct Coordinate {
    at: u32,      // in the grid; from its size on it is padding
    region: u32,  // before the last window, in its part from within the grid, in its part from beyond the end
}

// Where the shift has brought the coordinates of the last window together from both ends of the grid they
// differ in region. Without a shift all of a window are of one region.
fn coordinate(window: u32, offset: u32, length: u32, windows: u32, shift: u32) -> Coordinate {
    let padded = windows * length;
    let rolled = window * length + offset;
    let at = rolled + shift;
    return Coordinate(select(at, at - padded, at >= padded),
                      select(0u, 1u, rolled >= padded - length) + select(0u, 1u, rolled >= padded - shift));
}

// Token i of a window; padding has row `params.rows`.
fn key(instance: u32, i: u32) -> Token {
    let plane = params.windows_y * params.windows_z;
    let volume = instance / (params.windows_x * plane);
    let wx = instance / plane % params.windows_x;
    let wy = instance / params.windows_z % params.windows_y;
    let wz = instance % params.windows_z;
    let x = coordinate(wx, i / (WINDOW_Y * WINDOW_Z), WINDOW_X, params.windows_x, params.shift_x);
    let y = coordinate(wy, i / WINDOW_Z % WINDOW_Y, WINDOW_Y, params.windows_y, params.shift_y);
    let z = coordinate(wz, i % WINDOW_Z, WINDOW_Z, params.windows_z, params.shift_z);
    let inside = x.at < params.size_x && y.at < params.size_y && z.at < params.size_z;
    let row = ((volume * params.size_x + x.at) * params.size_y + y.at) * params.size_z + z.at;
    let region = (x.region * 3u + y.region) * 3u + z.region;
    return Token(select(NONE, select(params.rows, row, inside), i < params.tokens), region);
}

// What padding would attend to is never seen: its output is cropped.
fn query(instance: u32, i: u32) -> Token {
    var t = key(instance, i);
    if t.row == params.rows { t.row = NONE; }
    return t;
}

fn bias(head: u32, b: u32, i: u32, transposed: bool) -> vec4<f32> {
    let matrix = select(0u, params.heads, transposed) + head;
    return bias_rows[(matrix * params.blocks + b) * params.tokens + min(i, params.tokens - 1u)];
}
