//! Cases and references of `patchfield::radial`.

pub mod cluster;
pub mod coordinate_encoding;
pub mod fused_mlp;
pub mod grid_encoding;
pub mod importance;
pub mod nearest_neighbours;
pub mod spherical_harmonics;
pub mod weighted_sample;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(cluster::cases());
    all.extend(coordinate_encoding::cases());
    all.extend(fused_mlp::cases());
    all.extend(grid_encoding::cases());
    all.extend(importance::cases());
    all.extend(nearest_neighbours::cases());
    all.extend(spherical_harmonics::cases());
    all.extend(weighted_sample::cases());
    all
}

pub const CANARIES: &[&[crate::canaries::Canary]] = &[
    cluster::CANARIES,
    fused_mlp::CANARIES,
    grid_encoding::CANARIES,
    importance::CANARIES,
    nearest_neighbours::CANARIES,
    weighted_sample::CANARIES,
];
