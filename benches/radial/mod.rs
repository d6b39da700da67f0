//! One file a kernel.

mod coordinate_encoding;
mod fused_mlp;
mod grid_encoding;
mod mesh_distance;
mod mesh_sample;
mod spherical_harmonics;

pub const KERNELS: &[crate::Entry] = &[
    ("radial/fused_mlp", fused_mlp::bench),
    ("radial/grid_encoding", grid_encoding::bench),
    ("radial/mesh_distance", mesh_distance::bench),
    ("radial/mesh_sample", mesh_sample::bench),
    ("radial/coordinate_encoding", coordinate_encoding::bench),
    ("radial/spherical_harmonics", spherical_harmonics::bench),
];
