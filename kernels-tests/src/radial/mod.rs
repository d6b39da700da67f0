//! Cases and references of `patchfield::radial`.

pub mod coordinate_encoding;
pub mod fused_mlp;
pub mod grid_encoding;
pub mod mesh_distance;
pub mod mesh_sample;
pub mod spherical_harmonics;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(coordinate_encoding::cases());
    all.extend(fused_mlp::cases());
    all.extend(grid_encoding::cases());
    all.extend(mesh_distance::cases());
    all.extend(mesh_sample::cases());
    all.extend(spherical_harmonics::cases());
    all
}

pub const CANARIES: &[&[crate::canaries::Canary]] =
    &[fused_mlp::CANARIES, grid_encoding::CANARIES, mesh_distance::CANARIES, mesh_sample::CANARIES];
