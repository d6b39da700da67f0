//! Radial basis neural fields and what they are made of: encodings and small networks.

mod centre_grid;
pub mod centre_initialisation;
pub mod cluster;
pub mod coordinate_encoding;
pub mod fused_mlp;
pub mod grid_encoding;
pub mod importance;
pub mod nearest_neighbours;
pub mod spherical_harmonics;
pub mod weighted_sample;

pub use centre_initialisation::*;
pub use cluster::*;
pub use coordinate_encoding::*;
pub use fused_mlp::*;
pub use grid_encoding::*;
pub use importance::*;
pub use nearest_neighbours::*;
pub use spherical_harmonics::*;
pub use weighted_sample::*;
