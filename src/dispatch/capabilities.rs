//! What a device can do, and what to ask of an adapter before the device exists.

use super::error::{Result, check_config};

/// What the kernels choose their variants by; read from the device alone.
///
/// All fields are public so that a plan can be made for a device that is not at hand.
#[derive(Debug, Clone, PartialEq)]
pub struct Capabilities {
    /// The limits the device was created with.
    pub limits: wgpu::Limits,
    /// `SHADER_F16`: f16 arithmetic and storage in shaders.
    pub f16: bool,
    /// `SHADER_INT64`: 64-bit integers in shaders.
    pub int64: bool,
    /// `SUBGROUP`, with the smallest and the largest subgroup size that may occur.
    pub subgroups: Option<(u32, u32)>,
    /// `SHADER_FLOAT32_ATOMIC`. Results that use it are not bitwise repeatable.
    pub float_atomics: bool,
    /// `TIMESTAMP_QUERY`.
    pub timestamps: bool,
    /// The device runs on a CPU (lavapipe, SwiftShader, WARP): it wants uniform loads and many
    /// accumulators instead of shared-memory tiles.
    pub cpu: bool,
    /// Name, driver and backend, for messages.
    pub adapter: String,
}

impl Capabilities {
    /// Reads them from a device.
    #[must_use]
    pub fn of(device: &wgpu::Device) -> Self {
        let features = device.features();
        let info = device.adapter_info();
        Self {
            limits: device.limits(),
            f16: features.contains(wgpu::Features::SHADER_F16),
            int64: features.contains(wgpu::Features::SHADER_INT64),
            subgroups: features
                .contains(wgpu::Features::SUBGROUP)
                .then_some((info.subgroup_min_size, info.subgroup_max_size)),
            float_atomics: features.contains(wgpu::Features::SHADER_FLOAT32_ATOMIC),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            cpu: info.device_type == wgpu::DeviceType::Cpu,
            adapter: describe(&info),
        }
    }

    /// Whether a load takes as long as it has numbers, be they of 32 or of 64 bits: so it is with llvmpipe, which goes
    /// through its lanes one by one, if their indices differ. What that costs fell between Mesa 22 and 25, where numbers of
    /// 64 bits still save a fifth of the time of matrix products.
    pub(crate) fn has_slow_loads(&self) -> bool {
        self.cpu && self.int64 && self.subgroups == Some((8, 8))
    }

    /// A device with no feature and WebGPU's default limits: what every kernel must run on.
    #[must_use]
    pub fn baseline() -> Self {
        Self {
            limits: wgpu::Limits::defaults(),
            f16: false,
            int64: false,
            subgroups: None,
            float_atomics: false,
            timestamps: false,
            cpu: false,
            adapter: "baseline".into(),
        }
    }

    /// Workgroup memory in bytes.
    #[must_use]
    pub fn workgroup_bytes(&self) -> u32 {
        self.limits.max_compute_workgroup_storage_size
    }

    /// The rounds that all loops of an invocation may have together. Mesa's llvmpipe ends them after
    /// 65,535, without a word, and results are wrong. A loop of `n` turns has `n + 1` rounds, and there is
    /// room here for small loops that a plan does not count. GPU drivers have no such limit.
    pub(crate) fn rounds(&self) -> u64 {
        if self.cpu { 60_000 } else { u64::MAX }
    }

    /// `Err(Config)` where the loops of an invocation have too many rounds, which grow with `value`.
    pub(crate) fn check_rounds(&self, what: &'static str, value: u32, rounds: u64) -> Result<()> {
        let most = u128::from(value) * u128::from(self.rounds()) / u128::from(rounds.max(1));
        check_config(rounds <= self.rounds(), what, &format!("at most {most} on a CPU adapter"), value)
    }
}

/// `name (backend, driver)`.
#[must_use]
pub fn describe(info: &wgpu::AdapterInfo) -> String {
    let driver = format!("{} {}", info.driver, info.driver_info);
    format!("{} ({:?}, {})", info.name, info.backend, driver.trim())
}

/// The place of an adapter among all of a machine, best first: sort by it, take the first.
///
/// GPUs before CPUs (discrete, integrated, virtual), Mesa's llvmpipe before other software drivers
/// (ten times as fast as SwiftShader on these kernels), and OpenGL last among equals.
/// `wgpu::Instance::request_adapter` does not tell software drivers apart.
#[must_use]
pub fn preference(info: &wgpu::AdapterInfo) -> (u32, bool) {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        _ if info.name.contains("llvmpipe") => 3,
        _ => 4,
    };
    (kind, info.backend == wgpu::Backend::Gl)
}

/// What to OR into a `wgpu::DeviceDescriptor` so that the fastest variants can run.
///
/// Nothing of it is required: every kernel has a variant for no feature and the default limits.
#[derive(Debug, Clone)]
pub struct Requirements {
    /// Features that the adapter has and that some kernel has a variant for.
    pub features: wgpu::Features,
    /// The adapter's compute limits over the defaults (or over what a smaller adapter has).
    pub limits: wgpu::Limits,
}

impl Requirements {
    /// What this adapter can offer.
    #[must_use]
    pub fn for_adapter(adapter: &wgpu::Adapter) -> Self {
        let useful = wgpu::Features::SHADER_F16
            | wgpu::Features::SHADER_INT64
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SHADER_FLOAT32_ATOMIC
            | wgpu::Features::TIMESTAMP_QUERY;
        let has = adapter.limits();
        // Everything but the compute limits stays at the default, or at the adapter's where
        // that is lower: raising what nobody uses can cost memory in a driver.
        let mut limits = wgpu::Limits::defaults().or_worse_values_from(&has);
        limits.max_storage_buffer_binding_size = has.max_storage_buffer_binding_size;
        limits.max_buffer_size = has.max_buffer_size;
        limits.max_storage_buffers_per_shader_stage = has.max_storage_buffers_per_shader_stage;
        limits.max_compute_workgroup_storage_size = has.max_compute_workgroup_storage_size;
        limits.max_compute_invocations_per_workgroup = has.max_compute_invocations_per_workgroup;
        limits.max_compute_workgroup_size_x = has.max_compute_workgroup_size_x;
        limits.max_compute_workgroup_size_y = has.max_compute_workgroup_size_y;
        limits.max_compute_workgroup_size_z = has.max_compute_workgroup_size_z;
        limits.max_compute_workgroups_per_dimension = has.max_compute_workgroups_per_dimension;
        Self { features: adapter.features() & useful, limits }
    }

    /// A device descriptor with just these features and limits.
    #[must_use]
    pub fn device_descriptor(&self) -> wgpu::DeviceDescriptor<'static> {
        wgpu::DeviceDescriptor {
            label: Some("patchfield"),
            required_features: self.features,
            required_limits: self.limits.clone(),
            ..Default::default()
        }
    }
}
