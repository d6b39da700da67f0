//! What people ask for by name. A model holds no WGSL; it is put together from kernels.

// Fitting and rendering wait for the device: without `blocking` much of these has no caller.
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, dead_code))]
mod grid_network;
mod picture;
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, dead_code))]
mod radial_field;
#[cfg_attr(not(feature = "blocking"), allow(dead_code))]
mod sampler;

pub use grid_network::{FitConfig, Progress};
pub use picture::Picture;
pub use radial_field::{RadialField, RadialFieldConfig, Region};
