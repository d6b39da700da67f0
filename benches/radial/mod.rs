//! One file a kernel.

mod centre_initialisation;
mod cluster;
mod compact_basis;
mod coordinate_encoding;
mod feature_sinusoid;
mod fused_mlp;
mod grid_encoding;
mod grid_encoding_jet;
mod importance;
mod mesh_distance;
mod mesh_sample;
mod nearest_neighbours;
mod radial_basis;
mod sinusoid_composition;
mod smooth_mlp;
mod spherical_harmonics;
mod weighted_sample;

pub const KERNELS: &[crate::Entry] = &[
    ("radial/feature_sinusoid", feature_sinusoid::bench),
    ("radial/fused_mlp", fused_mlp::bench),
    ("radial/grid_encoding", grid_encoding::bench),
    ("radial/compact_basis", compact_basis::bench),
    ("radial/grid_encoding_jet", grid_encoding_jet::bench),
    ("radial/mesh_distance", mesh_distance::bench),
    ("radial/mesh_sample", mesh_sample::bench),
    ("radial/coordinate_encoding", coordinate_encoding::bench),
    ("radial/smooth_mlp", smooth_mlp::bench),
    ("radial/radial_basis", radial_basis::bench),
    ("radial/sinusoid_composition", sinusoid_composition::bench),
    ("radial/nearest_neighbours", nearest_neighbours::bench),
    ("radial/centre_initialisation", centre_initialisation::bench),
    ("radial/importance", importance::bench),
    ("radial/weighted_sample", weighted_sample::bench),
    ("radial/cluster", cluster::bench),
    ("radial/spherical_harmonics", spherical_harmonics::bench),
];
