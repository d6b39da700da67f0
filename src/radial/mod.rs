//! Radial basis neural fields and what they are made of: encodings and small networks.

mod centre_grid;
pub mod compact_basis;
pub mod coordinate_encoding;
mod differential;
pub mod feature_sinusoid;
pub mod fused_mlp;
pub mod grid_encoding;
pub mod grid_encoding_jet;
pub mod mesh_bvh;
pub mod mesh_distance;
pub mod mesh_sample;
pub mod nearest_neighbours;
pub mod radial_basis;
pub mod sinusoid_composition;
pub mod smooth_mlp;
pub mod spherical_harmonics;

pub use compact_basis::*;
pub use coordinate_encoding::*;
pub use differential::Differential;
pub use feature_sinusoid::*;
pub use fused_mlp::*;
pub use grid_encoding::*;
pub use grid_encoding_jet::*;
pub use mesh_bvh::{BvhBox, BvhDipole, MeshBuffers, MeshBvh};
pub use mesh_distance::*;
pub use mesh_sample::*;
pub use nearest_neighbours::*;
pub use radial_basis::*;
pub use sinusoid_composition::*;
pub use smooth_mlp::*;
pub use spherical_harmonics::*;
