//! Attention over patches, forward and backward, without the `N x N` matrix.

pub mod curve;
pub mod learned_order;
pub mod position;
pub mod rotary;

pub use curve::*;
pub use learned_order::*;
pub use position::*;
pub use rotary::*;
