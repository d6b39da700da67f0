//! Which adapter is measured.

use patchfield::Context;
use patchfield::dispatch::{Requirements, describe};
use wgpu::{Adapter, Backend, Backends, DeviceType};

/// The first adapter whose description contains `name`; without a name the first GPU, else
/// lavapipe, else any. `WGPU_BACKEND` and `VK_DRIVER_FILES` say which adapters there are.
pub fn choose(name: &str) -> Result<Context, String> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let mut adapters = pollster::block_on(instance.enumerate_adapters(Backends::all()));
    adapters.retain(|adapter| adapter.get_info().backend != Backend::Noop);
    adapters.sort_by_key(rank);
    let wanted = name.to_lowercase();
    let wanted = if wanted == "lavapipe" { "llvmpipe" } else { &wanted };
    let found = adapters.iter().find(|a| describe(&a.get_info()).to_lowercase().contains(wanted));
    let adapter = found.ok_or_else(|| match name {
        "" => "there is no adapter; `cargo xtask bench` helps to install one".to_string(),
        _ => format!("there is no adapter whose name contains `{name}`"),
    })?;
    let descriptor = Requirements::for_adapter(adapter).device_descriptor();
    let (device, queue) =
        pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| error.to_string())?;
    Ok(Context::new(&device, &queue))
}

fn rank(adapter: &Adapter) -> (u32, u32) {
    let info = adapter.get_info();
    let kind = match info.device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        _ if info.name.contains("llvmpipe") => 3,
        _ => 4,
    };
    (kind, u32::from(info.backend == Backend::Gl))
}
