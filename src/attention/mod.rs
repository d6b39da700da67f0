//! Attention over patches, forward and backward, without the `N x N` matrix.

pub mod combine;
mod compose;
pub mod hopfield;
pub mod query_pool;
pub mod transport;

pub use combine::*;
pub use hopfield::*;
pub use query_pool::*;
pub use transport::*;
