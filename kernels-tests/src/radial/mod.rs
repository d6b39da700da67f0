//! Cases and references of `patchfield::radial`.

pub mod cluster;
pub mod compact_basis;
pub mod coordinate_encoding;
pub mod feature_sinusoid;
pub mod fused_mlp;
pub mod grid_encoding;
pub mod grid_encoding_jet;
pub mod importance;
pub mod mesh_distance;
pub mod mesh_sample;
pub mod nearest_neighbours;
pub mod radial_basis;
pub mod sinusoid_composition;
pub mod smooth_mlp;
pub mod spherical_harmonics;
pub mod weighted_sample;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(cluster::cases());
    all.extend(compact_basis::cases());
    all.extend(coordinate_encoding::cases());
    all.extend(feature_sinusoid::cases());
    all.extend(fused_mlp::cases());
    all.extend(grid_encoding::cases());
    all.extend(grid_encoding_jet::cases());
    all.extend(importance::cases());
    all.extend(mesh_distance::cases());
    all.extend(mesh_sample::cases());
    all.extend(nearest_neighbours::cases());
    all.extend(radial_basis::cases());
    all.extend(sinusoid_composition::cases());
    all.extend(smooth_mlp::cases());
    all.extend(spherical_harmonics::cases());
    all.extend(weighted_sample::cases());
    all
}

pub const CANARIES: &[&[crate::canaries::Canary]] = &[
    cluster::CANARIES,
    compact_basis::CANARIES,
    coordinate_encoding::CANARIES,
    feature_sinusoid::CANARIES,
    fused_mlp::CANARIES,
    grid_encoding::CANARIES,
    grid_encoding_jet::CANARIES,
    importance::CANARIES,
    mesh_distance::CANARIES,
    mesh_sample::CANARIES,
    nearest_neighbours::CANARIES,
    radial_basis::CANARIES,
    sinusoid_composition::CANARIES,
    smooth_mlp::CANARIES,
    spherical_harmonics::CANARIES,
    weighted_sample::CANARIES,
];

/// For tests of what a kernel of some dispatches refuses.
#[cfg(test)]
pub(crate) mod aliased {
    use patchfield::{BufferView, Context, Error, Recording, Result};

    /// Buffers with room for each argument of a small configuration.
    pub fn buffers<const N: usize>(context: &Context) -> [wgpu::Buffer; N] {
        std::array::from_fn(|_| context.create_storage("argument", 1 << 18).expect("memory"))
    }

    pub fn views<const N: usize>(buffers: &[wgpu::Buffer; N]) -> [BufferView<'_>; N] {
        buffers.each_ref().map(BufferView::new)
    }

    pub fn assert_refused(result: Result<Recording>, what: &'static str, other: &'static str) {
        assert_eq!(result.map(drop), Err(Error::Aliased { what, other }));
    }
}
