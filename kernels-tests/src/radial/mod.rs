//! Cases and references of `patchfield::radial`.

pub mod compact_basis;
pub mod coordinate_encoding;
pub mod fused_mlp;
pub mod grid_encoding;
pub mod grid_encoding_jet;
pub mod smooth_mlp;
pub mod spherical_harmonics;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(compact_basis::cases());
    all.extend(coordinate_encoding::cases());
    all.extend(fused_mlp::cases());
    all.extend(grid_encoding::cases());
    all.extend(grid_encoding_jet::cases());
    all.extend(smooth_mlp::cases());
    all.extend(spherical_harmonics::cases());
    all
}

pub const CANARIES: &[&[crate::canaries::Canary]] = &[
    compact_basis::CANARIES,
    fused_mlp::CANARIES,
    grid_encoding::CANARIES,
    grid_encoding_jet::CANARIES,
    smooth_mlp::CANARIES,
];
