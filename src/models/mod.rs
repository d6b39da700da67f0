//! What people ask for by name. A model holds no WGSL; it is put together from kernels.

mod picture;
// Fitting and rendering wait for the device: without `blocking` much of these has no caller.
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, dead_code))]
mod radial_field;
#[cfg_attr(not(feature = "blocking"), allow(dead_code))]
mod sampler;
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, dead_code))]
mod siren_field;

pub use picture::Picture;
pub use radial_field::{FitConfig, Progress, RadialField, RadialFieldConfig, Region};
pub use siren_field::{SirenField, SirenFieldConfig, SirenFit};
