//! Attention over patches, forward and backward, without the `N x N` matrix.

mod instances;
pub mod small_attention;
pub mod window_attention;

pub use small_attention::*;
pub use window_attention::*;
