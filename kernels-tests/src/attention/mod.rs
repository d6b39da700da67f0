//! Cases and references of `patchfield::attention`.

pub mod hopfield;
pub mod query_pool;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(hopfield::cases());
    all.extend(query_pool::cases());
    all
}

pub const CANARIES: &[&[crate::canaries::Canary]] = &[hopfield::CANARIES, query_pool::CANARIES];
