//! Attention over patches, forward and backward, without the `N x N` matrix.

pub mod combine;
mod compose;
mod config;
pub mod curve;
pub mod flash_attention;
pub mod head_selector;
pub mod hopfield;
pub mod learned_order;
mod pass;
pub mod patch;
pub mod position;
pub mod qkv;
pub mod query_pool;
pub mod rotary;
pub mod token_select;
pub mod transport;
pub mod tree;

pub use combine::*;
pub use config::*;
pub use curve::*;
pub use flash_attention::*;
pub use head_selector::*;
pub use hopfield::*;
pub use learned_order::*;
pub use patch::*;
pub use position::*;
pub use qkv::*;
pub use query_pool::*;
pub use rotary::*;
pub use token_select::*;
pub use transport::*;
pub use tree::*;
mod instances;
pub mod small_attention;
pub mod window_attention;

pub use small_attention::*;
pub use window_attention::*;
