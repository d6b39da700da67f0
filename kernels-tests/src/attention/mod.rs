//! Cases and references of `patchfield::attention`.

pub mod combine;
pub mod hopfield;
pub mod query_pool;
pub mod transport;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(combine::cases());
    all.extend(hopfield::cases());
    all.extend(query_pool::cases());
    all.extend(transport::cases());
    all
}

pub const CANARIES: &[&[crate::canaries::Canary]] =
    &[combine::CANARIES, hopfield::CANARIES, query_pool::CANARIES, transport::CANARIES];
