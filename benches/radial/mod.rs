//! One file a kernel.

mod centre_initialisation;
mod coordinate_encoding;
mod fused_mlp;
mod grid_encoding;
mod nearest_neighbours;
mod spherical_harmonics;

pub const KERNELS: &[crate::Entry] = &[
    ("radial/fused_mlp", fused_mlp::bench),
    ("radial/grid_encoding", grid_encoding::bench),
    ("radial/coordinate_encoding", coordinate_encoding::bench),
    ("radial/nearest_neighbours", nearest_neighbours::bench),
    ("radial/centre_initialisation", centre_initialisation::bench),
    ("radial/spherical_harmonics", spherical_harmonics::bench),
];
