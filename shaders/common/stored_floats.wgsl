// Values that are stored as they are.
alias Stored = Floats;

fn unpacked(v: Stored) -> Floats {
    return v;
}

fn packed(v: Floats) -> Stored {
    return v;
}
