//! Cases and references of `patchfield::radial`.

pub mod fused_mlp;
pub mod grid_encoding;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(fused_mlp::cases());
    all.extend(grid_encoding::cases());
    all
}
