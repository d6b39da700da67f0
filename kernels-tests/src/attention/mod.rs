//! Cases and references of `patchfield::attention`.

pub mod combine;
pub mod hopfield;
pub mod learned_order;
pub mod position;
pub mod query_pool;
pub mod rotary;
pub mod transport;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(combine::cases());
    all.extend(hopfield::cases());
    all.extend(learned_order::cases());
    all.extend(position::cases());
    all.extend(query_pool::cases());
    all.extend(rotary::cases());
    all.extend(transport::cases());
    all
}

pub const CANARIES: &[&[crate::canaries::Canary]] = &[
    combine::CANARIES,
    hopfield::CANARIES,
    learned_order::CANARIES,
    position::CANARIES,
    query_pool::CANARIES,
    rotary::CANARIES,
    transport::CANARIES,
];
