//! Cases and references of `patchfield::attention`.

pub mod small_attention;
pub mod window_attention;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(small_attention::cases());
    all.extend(window_attention::cases());
    all
}

pub const CANARIES: &[&[crate::canaries::Canary]] = &[small_attention::CANARIES, window_attention::CANARIES];
