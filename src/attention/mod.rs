//! Attention over patches, forward and backward, without the `N x N` matrix.

mod config;
pub mod flash_attention;
mod pass;

pub use config::*;
pub use flash_attention::*;
