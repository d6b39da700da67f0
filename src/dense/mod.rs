//! Dense building blocks: what every family stands on.

pub mod activation;
pub mod loss;
pub mod optimizer;

pub use activation::*;
pub use loss::*;
pub use optimizer::*;
pub mod copy;

pub use activation::*;
pub use copy::*;
