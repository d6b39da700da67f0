//! Radial basis neural fields and what they are made of: encodings and small networks.

pub mod coordinate_encoding;
pub mod fused_mlp;
pub mod grid_encoding;
pub mod mesh_bvh;
pub mod mesh_distance;
pub mod mesh_sample;
pub mod spherical_harmonics;

pub use coordinate_encoding::*;
pub use fused_mlp::*;
pub use grid_encoding::*;
pub use mesh_bvh::{BvhBox, BvhDipole, MeshBuffers, MeshBvh};
pub use mesh_distance::*;
pub use mesh_sample::*;
pub use spherical_harmonics::*;
