//! What people ask for by name. A model holds no WGSL; it is put together from kernels.

#[cfg_attr(not(feature = "blocking"), allow(dead_code, unused_imports))]
mod centre_placement;
#[cfg_attr(not(feature = "blocking"), allow(dead_code))]
mod hybrid;
mod picture;
// Fitting and rendering wait for the device: without `blocking` much of these has no caller.
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, dead_code))]
mod radial_field;
#[cfg_attr(not(feature = "blocking"), allow(dead_code))]
mod sampler;
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, dead_code))]
mod siren_field;
mod vision_transformer;

pub use picture::Picture;
pub use radial_field::{FitConfig, Progress, RadialBasesConfig, RadialField, RadialFieldConfig, Region};
pub use siren_field::{SirenField, SirenFieldConfig, SirenFit};
pub use vision_transformer::{Pool, Positions, VisionTrainer, VisionTransformer, VisionTransformerConfig};
