// Four values a time stored as f16, in two words: needs no device feature.
alias Stored = vec2<u32>;

fn unpacked(v: Stored) -> Floats {
    return Floats(unpack2x16float(v.x), unpack2x16float(v.y));
}
