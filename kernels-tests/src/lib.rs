//! The proving ground: cases, f64 references and the harness that runs them on every adapter.

pub mod args;
pub mod attention;
pub mod browser;
pub mod canaries;
pub mod dense;
pub mod harness;
pub mod radial;
pub mod report;
pub mod translation;

/// Every case of every kernel.
pub fn cases() -> Vec<harness::Case> {
    let mut all = Vec::new();
    all.extend(attention::cases());
    all.extend(dense::cases());
    all.extend(radial::cases());
    all
}
