//! Attention over patches, forward and backward, without the `N x N` matrix.

pub mod query_pool;

pub use query_pool::*;
