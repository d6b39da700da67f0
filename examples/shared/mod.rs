//! What the demos share: the choice of an adapter, and Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use patchfield::dispatch::{describe, preference};
use patchfield::{Context, Requirements, wgpu};

/// The best adapter, or the best whose description contains `name`.
pub fn device(name: Option<&str>) -> Result<(Context, wgpu::AdapterInfo), String> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    adapters.sort_by_key(|adapter| preference(&adapter.get_info()));
    let names: Vec<String> = adapters.iter().map(|adapter| describe(&adapter.get_info())).collect();
    let wanted = name.unwrap_or_default().to_lowercase();
    let found = names.iter().position(|name| name.to_lowercase().contains(&wanted));
    let adapter = found.and_then(|i| adapters.into_iter().nth(i)).ok_or_else(|| match name {
        Some(name) if !names.is_empty() => format!("--adapter {name}: none of {}", names.join("; ")),
        _ => "no adapter; on Linux, `cargo xtask demo` installs a software one".into(),
    })?;
    let descriptor = Requirements::for_adapter(&adapter).device_descriptor();
    let (device, queue) =
        pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| e.to_string())?;
    let context = Context::new(&device, &queue);
    let lost = context.clone();
    device.set_device_lost_callback(move |_, _| lost.mark_lost());
    Ok((context, adapter.get_info()))
}

/// Becomes true at the first Ctrl-C. A second one, or one after the caller has set it, ends the program.
pub fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    let handler = stop.clone();
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|e| e.to_string())?;
    Ok(stop)
}
