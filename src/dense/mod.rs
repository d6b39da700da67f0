//! Dense building blocks: what every family stands on.

pub mod activation;
pub mod concatenate;
pub mod copy;
pub mod gather;
pub mod layer_norm;
pub mod inverted_index;
pub mod linear;
pub mod loss;
pub mod matmul;
pub mod norm;
pub mod optimizer;
pub mod random;
pub mod reduce;
pub mod scan;
pub mod softmax;
pub mod sort;
mod sum;
pub mod swap_axes;

pub use activation::*;
pub use concatenate::*;
pub use copy::*;
pub use gather::*;
pub use layer_norm::*;
pub use inverted_index::*;
pub use linear::*;
pub use loss::*;
pub use matmul::*;
pub use norm::*;
pub use optimizer::*;
pub use random::*;
pub use reduce::*;
pub use scan::*;
pub use softmax::*;
pub use sort::*;
pub use swap_axes::*;
