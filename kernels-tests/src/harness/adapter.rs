//! The adapters of this machine, each once.

use patchfield::Context;
use patchfield::dispatch::{Requirements, describe};

/// An adapter with a device of its own.
pub struct Adapter {
    /// Short and unique within a run: `lavapipe`, `swiftshader`, `gl`, or the adapter's name.
    pub name: String,
    pub info: wgpu::AdapterInfo,
    pub context: Context,
}

/// All adapters that the environment shows (`WGPU_BACKEND`, `VK_DRIVER_FILES`, ...).
pub fn all() -> Vec<Adapter> {
    let instance = instance();
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let mut out: Vec<Adapter> = Vec::new();
    for adapter in adapters {
        let info = adapter.get_info();
        let Some(mut name) = short_name(&info) else { continue };
        let twins = out.iter().filter(|a| a.name.split('#').next() == Some(&name)).count();
        if twins > 0 {
            name = format!("{name}#{}", twins + 1);
        }
        let descriptor = Requirements::for_adapter(&adapter).device_descriptor();
        match pollster::block_on(adapter.request_device(&descriptor)) {
            Ok((device, queue)) => {
                out.push(Adapter { name, info, context: Context::new(&device, &queue) });
            }
            Err(error) => eprintln!("LOUD SKIP: {} gives no device: {error}", describe(&info)),
        }
    }
    out
}

/// An instance as the environment asks for.
pub fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env())
}

fn short_name(info: &wgpu::AdapterInfo) -> Option<String> {
    Some(match info.backend {
        wgpu::Backend::Noop => return None,
        wgpu::Backend::Gl => "gl".into(),
        _ if info.name.contains("llvmpipe") => "lavapipe".into(),
        _ if info.name.contains("SwiftShader") => "swiftshader".into(),
        _ => info.name.clone(),
    })
}
