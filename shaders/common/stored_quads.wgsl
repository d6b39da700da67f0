// Items of four as they lie in a buffer: see quads.wgsl.
alias Stored = Quad;

fn unpacked(q: Stored) -> Floats {
    return four(q);
}

fn packed(v: Floats) -> Stored {
    return quad_of(v);
}
