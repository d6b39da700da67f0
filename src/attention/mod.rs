//! Attention over patches, forward and backward, without the `N x N` matrix.

pub mod curve;
pub mod head_selector;
pub mod learned_order;
pub mod patch;
pub mod position;
pub mod qkv;
pub mod rotary;
pub mod token_select;
pub mod tree;

pub use curve::*;
pub use head_selector::*;
pub use learned_order::*;
pub use patch::*;
pub use position::*;
pub use qkv::*;
pub use rotary::*;
pub use token_select::*;
pub use tree::*;
mod config;
pub mod flash_attention;
mod pass;

pub use config::*;
pub use flash_attention::*;
