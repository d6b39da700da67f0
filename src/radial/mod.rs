//! Radial basis neural fields and what they are made of: encodings and small networks.

mod centre_grid;
pub mod coordinate_encoding;
pub mod fused_mlp;
pub mod grid_encoding;
pub mod nearest_neighbours;
pub mod spherical_harmonics;

pub use coordinate_encoding::*;
pub use fused_mlp::*;
pub use grid_encoding::*;
pub use nearest_neighbours::*;
pub use spherical_harmonics::*;
