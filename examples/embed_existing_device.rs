//! An application with its own device, encoder and error handlers records two kernels between
//! passes of its own. Nothing is submitted, polled or installed on its behalf.
//!
//! `cargo run --release --example embed_existing_device`

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use patchfield::dense::{
    Activation, ActivationBackward, ActivationBackwardArgs, ActivationConfig, ActivationForward,
    ActivationForwardArgs,
};
use patchfield::dispatch::Readback;
use patchfield::{BufferView, Context, Kernel, Requirements, wgpu};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The application's own set-up. `Requirements` only says what would be useful to add.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let wanted = Requirements::for_adapter(&adapter);
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("the application's device"),
        required_features: wgpu::Features::empty() | wanted.features,
        required_limits: wanted.limits,
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    let errors = Arc::new(AtomicU32::new(0));
    let counter = errors.clone();
    device.on_uncaptured_error(Arc::new(move |error| {
        eprintln!("the application's handler: {error}");
        counter.fetch_add(1, Ordering::Relaxed);
    }));

    let context = Context::new(&device, &queue);
    let lost = context.clone();
    device.set_device_lost_callback(move |_, _| lost.mark_lost());

    const N: u32 = 1 << 20;
    let input: Vec<f32> = (0..N).map(|i| i as f32 / N as f32 * 8.0 - 4.0).collect();
    let x = context.create_storage_with("x", &input)?;
    let [y, dy, dx] = [0; 3].map(|_| context.create_storage("activations", u64::from(N) * 4));
    let (y, dy, dx) = (y?, dy?, dx?);
    let config = ActivationConfig { activation: Activation::Gelu, count: N, variant: None };
    let forward = ActivationForward::new(&context, config)?;
    let backward = ActivationBackward::new(&context, config)?;

    let mut encoder = device
        .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("the application's frame") });
    // A pass of the application's comes first ...
    encoder.clear_buffer(&dy, 0, None);
    // ... then a kernel in a pass of its own ...
    forward
        .record(&mut encoder, &ActivationForwardArgs { x: BufferView::new(&x), y: BufferView::new(&y) })?;
    // ... the application uses the result, here as the gradient of y^2 / 2 ...
    encoder.copy_buffer_to_buffer(&y, 0, &dy, 0, None);
    // ... and the next kernel goes into a pass that the application has open.
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("the application's pass"),
            timestamp_writes: None,
        });
        let args = ActivationBackwardArgs {
            x: BufferView::new(&x),
            dy: BufferView::new(&dy),
            dx: BufferView::new(&dx),
        };
        backward.record_in(&mut pass, &args)?;
    }
    // A mistake is an `Err` before anything is recorded: the encoder stays good.
    let aliased = ActivationForwardArgs { x: BufferView::new(&x), y: BufferView::new(&x) };
    match forward.record(&mut encoder, &aliased) {
        Err(error) => println!("refused, as it should be: {error}"),
        Ok(()) => return Err("an aliased buffer was not noticed".into()),
    }
    let readback = Readback::record(&context, &mut encoder, BufferView::new(&dx))?;
    queue.submit([encoder.finish()]);

    // Polling is the application's business.
    while !device.poll(wgpu::PollType::wait_indefinitely())?.is_queue_empty() {}
    let gradient: Vec<f32> = bytemuck::pod_collect_to_vec(&pollster::block_on(readback)?);
    let at = (N / 2 + N / 8) as usize;
    println!("{}", patchfield::dispatch::describe(&adapter.get_info()));
    println!("d (GELU(x)^2 / 2) / dx at x = {}: {}", input[at], gradient[at]);
    println!("errors that reached the application's handler: {}", errors.load(Ordering::Relaxed));
    Ok(())
}
