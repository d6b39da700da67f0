// The cell of one axis that lies `t` sides above the grid's low end: 0 where t is NaN or infinite.
fn cell_coordinate(t: f32, cells: u32) -> u32 {
    if (bitcast<u32>(t) & 0x7f800000u) == 0x7f800000u {
        return 0u;
    }
    return u32(clamp(t, 0.0, f32(cells - 1u)));
}
