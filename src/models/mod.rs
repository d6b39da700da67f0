//! What people ask for by name. A model holds no WGSL; it is put together from kernels.

// Fitting and rendering wait for the device: without `blocking` much of these has no caller.
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, dead_code))]
mod bands;
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, dead_code))]
mod field_network;
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, dead_code))]
mod fit;
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, dead_code))]
mod hybrid;
mod marching_cubes;
mod mesh;
#[cfg(feature = "blocking")]
mod mesh_batches;
#[cfg(feature = "blocking")]
mod mesh_metrics;
mod picture;
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, dead_code))]
mod radial_field;
#[cfg_attr(not(feature = "blocking"), allow(dead_code))]
mod sampler;
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, dead_code))]
mod siren_field;
mod sphere_tracing;
#[cfg_attr(not(feature = "blocking"), allow(unused_imports, dead_code))]
mod surface_field;
mod vision_transformer;

pub use fit::{FitConfig, Progress};
pub use hybrid::RadialBasesConfig;
pub use marching_cubes::{MarchingCubesConfig, marching_cubes};
pub use mesh::{Cube, FieldFunction, Mesh};
#[cfg(feature = "blocking")]
pub use mesh::{MeshDistances, MeshSearch};
#[cfg(feature = "blocking")]
pub use mesh_metrics::{Overlap, SurfaceErrors, overlap, surface_errors};
pub use picture::Picture;
pub use radial_field::{RadialField, RadialFieldConfig, Region};
pub use siren_field::{SirenField, SirenFieldConfig};
pub use sphere_tracing::{View, sphere_trace};
pub use surface_field::{SurfaceField, SurfaceFieldConfig, SurfaceTarget};
pub use vision_transformer::{
    BlockAttention, BlockScores, Pool, Positions, Prune, Pruning, VisionTrainer, VisionTrainingConfig,
    VisionTransformer, VisionTransformerConfig,
};
