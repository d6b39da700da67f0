//! Dense building blocks: what every family stands on.

pub mod activation;
pub mod activation_jet;
pub mod concatenate;
pub mod copy;
pub mod gather;
pub mod inverted_index;
pub mod linear;
pub mod loss;
pub mod matmul;
pub mod norm;
pub mod optimizer;
pub mod random;
pub mod reduce;
pub mod scan;
pub mod sort;
mod sum;

pub use activation::*;
pub use activation_jet::*;
pub use concatenate::*;
pub use copy::*;
pub use gather::*;
pub use inverted_index::*;
pub use linear::*;
pub use loss::*;
pub use matmul::*;
pub use norm::*;
pub use optimizer::*;
pub use random::*;
pub use reduce::*;
pub use scan::*;
pub use sort::*;
