//! Cases and references of `patchfield::attention`.

pub fn cases() -> Vec<crate::harness::Case> {
    Vec::new()
}

pub const CANARIES: &[&[crate::canaries::Canary]] = &[];
