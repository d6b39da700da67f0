//! Attention over patches, forward and backward, without the `N x N` matrix.

mod config;
pub mod curve;
pub mod flash_attention;
pub mod head_selector;
pub mod learned_order;
mod pass;
pub mod patch;
pub mod position;
pub mod qkv;
pub mod rotary;
pub mod token_select;
pub mod tree;

pub use config::*;
pub use curve::*;
pub use flash_attention::*;
pub use head_selector::*;
pub use learned_order::*;
pub use patch::*;
pub use position::*;
pub use qkv::*;
pub use rotary::*;
pub use token_select::*;
pub use tree::*;
