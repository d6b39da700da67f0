//! Dense building blocks: what every family stands on.

pub mod activation;
pub mod loss;
pub mod norm;
pub mod optimizer;
mod sum;

pub use activation::*;
pub use loss::*;
pub use norm::*;
pub use optimizer::*;
pub mod copy;

pub use activation::*;
pub use copy::*;
