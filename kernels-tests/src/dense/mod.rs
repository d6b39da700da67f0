//! Cases and references of `patchfield::dense`.

pub mod activation;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(activation::cases());
    all
}
