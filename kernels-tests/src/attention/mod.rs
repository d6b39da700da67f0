//! Cases and references of `patchfield::attention`.

pub mod learned_order;
pub mod position;
pub mod rotary;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(learned_order::cases());
    all.extend(position::cases());
    all.extend(rotary::cases());
    all
}

pub const CANARIES: &[&[crate::canaries::Canary]] =
    &[learned_order::CANARIES, position::CANARIES, rotary::CANARIES];
