//! Cases and references of `patchfield::attention`.

pub mod flash_attention;
pub mod reversed_attention;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(flash_attention::cases());
    all.extend(reversed_attention::cases());
    all
}

pub const CANARIES: &[&[crate::canaries::Canary]] =
    &[flash_attention::CANARIES, reversed_attention::CANARIES];
