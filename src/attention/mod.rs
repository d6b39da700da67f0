//! Attention over patches, forward and backward, without the `N x N` matrix.

mod compose;
pub mod hopfield;
pub mod query_pool;

pub use hopfield::*;
pub use query_pool::*;
