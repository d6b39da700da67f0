//! What people ask for by name. A model holds no WGSL; it is put together from kernels.

mod picture;
mod radial_field;
mod sampler;

pub use picture::Picture;
pub use radial_field::{FitConfig, Progress, RadialField, RadialFieldConfig, Region};
