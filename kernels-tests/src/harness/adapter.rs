//! The adapters of this machine, each once.

use patchfield::Context;
use patchfield::dispatch::{Requirements, describe, preference};

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

/// The best adapter. Without one a test is left out, and says so; `PATCHFIELD_REQUIRE_GPU=1` lets it fail.
pub fn best_adapter() -> Option<wgpu::Adapter> {
    let mut all = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::all()));
    all.retain(|a| a.get_info().backend != wgpu::Backend::Noop);
    all.sort_by_key(|a| preference(&a.get_info()));
    let Some(best) = all.into_iter().next() else {
        assert!(std::env::var("PATCHFIELD_REQUIRE_GPU").as_deref() != Ok("1"), "no adapter");
        eprintln!("LOUD SKIP: no adapter");
        return None;
    };
    eprintln!("on {}", describe(&best.get_info()));
    Some(best)
}

/// A device of the [`best_adapter`].
pub fn best_device() -> Option<(wgpu::Device, wgpu::Queue)> {
    let adapter = best_adapter()?;
    let descriptor = Requirements::for_adapter(&adapter).device_descriptor();
    Some(pollster::block_on(adapter.request_device(&descriptor)).expect("a device"))
}

/// A context of the [`best_adapter`].
pub fn best_context() -> Option<Context> {
    best_device().map(|(device, queue)| Context::new(&device, &queue))
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

/// A device of the best adapter whose storage buffers have at most so many bytes, and other buffers
/// twice as many.
pub fn small_context(bytes: u64) -> Option<Context> {
    let adapter = best_adapter()?;
    let limits = wgpu::Limits {
        max_storage_buffer_binding_size: bytes,
        max_buffer_size: 2 * bytes,
        ..wgpu::Limits::defaults()
    };
    let descriptor = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    let context = Context::new(&device, &queue);
    assert_eq!(context.capabilities().limits.max_storage_buffer_binding_size, bytes);
    Some(context)
}
