//! Attention over patches, forward and backward, without the `N x N` matrix.

pub mod attention_blocks;
mod config;
pub mod flash_attention;
mod pass;
pub mod reversed_attention;

pub use attention_blocks::*;
pub use config::*;
pub use flash_attention::*;
pub use reversed_attention::*;
