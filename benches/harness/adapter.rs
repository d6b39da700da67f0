//! Which adapter is measured.

use patchfield::dispatch::{describe, preference};
use wgpu::{Adapter, Backend, Backends};

/// The first adapter whose description contains `name`; without a name the first GPU, else
/// lavapipe, else any. `WGPU_BACKEND` and `VK_DRIVER_FILES` say which adapters there are.
pub fn find(name: &str) -> Result<(wgpu::Instance, Adapter), String> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let mut adapters = pollster::block_on(instance.enumerate_adapters(Backends::all()));
    adapters.retain(|adapter| adapter.get_info().backend != Backend::Noop);
    adapters.sort_by_key(|adapter| preference(&adapter.get_info()));
    let wanted = name.to_lowercase();
    let wanted = if wanted == "lavapipe" { "llvmpipe" } else { &wanted };
    let found = adapters.into_iter().find(|a| describe(&a.get_info()).to_lowercase().contains(wanted));
    match (found, name) {
        (Some(adapter), _) => Ok((instance, adapter)),
        (None, "") => Err("there is no adapter; `cargo xtask bench` helps to install one".to_string()),
        (None, name) => Err(format!("there is no adapter whose name contains `{name}`")),
    }
}
