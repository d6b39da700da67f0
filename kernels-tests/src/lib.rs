//! The proving ground: cases, f64 references and the harness that runs them on every adapter.

pub mod dense;
pub mod harness;
pub mod radial;

/// Every case of every kernel.
pub fn cases() -> Vec<harness::Case> {
    let mut all = Vec::new();
    all.extend(dense::cases());
    all.extend(radial::cases());
    all
}
