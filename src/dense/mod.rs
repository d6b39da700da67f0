//! Dense building blocks: what every family stands on.

pub mod activation;

pub use activation::*;
