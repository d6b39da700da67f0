//! Radial basis neural fields and what they are made of: encodings and small networks.

pub mod fused_mlp;
pub mod grid_encoding;

pub use fused_mlp::*;
pub use grid_encoding::*;
