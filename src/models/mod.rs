//! What people ask for by name. A model holds no WGSL; it is put together from kernels.

mod picture;

pub use picture::Picture;
