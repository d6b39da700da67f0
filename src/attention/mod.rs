//! Attention over patches, forward and backward, without the `N x N` matrix.

pub mod combine;
mod compose;
pub mod curve;
pub mod hopfield;
pub mod learned_order;
pub mod position;
pub mod query_pool;
pub mod rotary;
pub mod transport;

pub use combine::*;
pub use curve::*;
pub use hopfield::*;
pub use learned_order::*;
pub use position::*;
pub use query_pool::*;
pub use rotary::*;
pub use transport::*;
