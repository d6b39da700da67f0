//! What an application that owns the device can rely on: after every kind of `Err` its encoder
//! still finishes and submits, threads may record at once, its callbacks stay its own, parameters
//! stay right when many records share an encoder, and long work comes in pieces.
//!
//! Runs on the first adapter that there is; without one it is a loud skip, and a failure when
//! `PATCHFIELD_REQUIRE_GPU=1`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kernels_tests::harness::adapter;
use patchfield::dense::activation::*;
use patchfield::dispatch::{Capabilities, Dialect, Planned, Readback, Requirements, compose, describe};
use patchfield::{BufferView, Context, Error, Kernel};

fn device() -> Option<(wgpu::Device, wgpu::Queue)> {
    let adapters = pollster::block_on(adapter::instance().enumerate_adapters(wgpu::Backends::all()));
    let found = adapters.iter().find(|a| a.get_info().backend != wgpu::Backend::Noop);
    let Some(adapter) = found else {
        assert!(std::env::var("PATCHFIELD_REQUIRE_GPU").as_deref() != Ok("1"), "no adapter");
        eprintln!("LOUD SKIP: no adapter");
        return None;
    };
    eprintln!("on {}", describe(&adapter.get_info()));
    let descriptor = Requirements::for_adapter(adapter).device_descriptor();
    Some(pollster::block_on(adapter.request_device(&descriptor)).unwrap())
}

fn relu(count: u32) -> ActivationConfig {
    ActivationConfig { activation: Activation::Relu, count, variant: None }
}

fn forward<'a>(x: &'a wgpu::Buffer, y: &'a wgpu::Buffer) -> ActivationForwardArgs<'a> {
    ActivationForwardArgs { x: BufferView::new(x), y: BufferView::new(y) }
}

#[test]
fn after_every_kind_of_error_the_encoder_still_submits() {
    let Some((device, queue)) = device() else { return };
    let context = Context::new(&device, &queue);
    let reported = Arc::new(AtomicU32::new(0));
    let counter = reported.clone();
    device.on_uncaptured_error(Arc::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    let x = context.create_storage_with("x", &[-1.0f32; 256]).unwrap();
    let y = context.create_storage("y", 1024).unwrap();
    let plain = context.create_buffer("plain", 1024, wgpu::BufferUsages::COPY_DST).unwrap();
    let kernel = ActivationForward::new(&context, relu(256)).unwrap();
    let check = |name: &str, args: ActivationForwardArgs<'_>, fits: fn(&Error) -> bool| {
        let mut encoder = device.create_command_encoder(&Default::default());
        let error = kernel.record(&mut encoder, &args).expect_err(name);
        assert!(fits(&error), "{name}: {error}");
        assert!(error.to_string().contains("`x`") || error.to_string().contains("`y`"), "{name}: {error}");
        // The same encoder still works, for us and for the host.
        kernel.record(&mut encoder, &forward(&x, &y)).unwrap();
        let readback = Readback::record(&context, &mut encoder, BufferView::new(&y)).unwrap();
        queue.submit([encoder.finish()]);
        assert_eq!(readback.wait(Duration::from_secs(60)).unwrap(), vec![0; 1024], "{name}");
    };
    check("aliased", forward(&x, &x), |e| matches!(e, Error::Aliased { .. }));
    check("usage", forward(&plain, &y), |e| matches!(e, Error::UsageMissing { .. }));
    let view = |offset, size| BufferView::range(&y, offset, size);
    let with = |y| ActivationForwardArgs { x: BufferView::new(&x), y };
    check("short", with(view(0, 1020)), |e| {
        matches!(e, Error::BufferTooSmall { need: 1024, have: 1020, .. })
    });
    check("past the end", with(view(256, 1024)), |e| matches!(e, Error::OutOfBounds { .. }));
    check("overflow", with(view(u64::MAX - 3, 1024)), |e| matches!(e, Error::OutOfBounds { .. }));
    let long = context.create_storage("long", 4096).unwrap();
    let skewed = BufferView::range(&long, 4, 1024);
    check("misaligned", with(skewed), |e| matches!(e, Error::Misaligned { value: 4, .. }));
    assert_eq!(reported.load(Ordering::Relaxed), 0, "an error reached the host's handler");
}

#[test]
fn bad_sizes_are_refused_before_anything_happens() {
    let caps = Capabilities::baseline();
    assert!(matches!(ActivationForward::plan(&relu(0), &caps), Err(Error::Config { what: "count", .. })));
    let nan = ActivationConfig { activation: Activation::Sine { frequency: f32::NAN }, ..relu(4) };
    assert!(matches!(ActivationForward::plan(&nan, &caps), Err(Error::Config { .. })));
    let odd = ActivationConfig { variant: Some(ActivationVariant::Vec4), ..relu(5) };
    assert!(matches!(ActivationForward::plan(&odd, &caps), Err(Error::Config { .. })));
    assert!(ActivationForward::plan(&relu(u32::MAX), &caps).is_ok());
}

#[test]
fn more_memory_than_the_device_offers_is_an_error() {
    let Some((device, queue)) = device() else { return };
    let context = Context::new(&device, &queue);
    let error = context.create_storage("huge", 1 << 50).unwrap_err();
    assert!(matches!(error, Error::LimitExceeded { .. }), "{error}");
    assert!(error.to_string().contains("huge needs max_"), "{error}");
}

#[test]
fn eight_threads_record_at_once() {
    let Some((device, queue)) = device() else { return };
    let context = Context::new(&device, &queue);
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let (context, device, queue) = (&context, &device, &queue);
            scope.spawn(move || {
                for round in 0..8u32 {
                    let n = 100 + thread * 31 + round;
                    let activation = Activation::LeakyRelu { slope: (thread * 8 + round + 1) as f32 };
                    let config = ActivationConfig { activation, count: n, variant: None };
                    let x = context.create_storage_with("x", &vec![-1.0f32; n as usize]).unwrap();
                    let y = context.create_storage("y", u64::from(n) * 4).unwrap();
                    let kernel = ActivationForward::new(context, config).unwrap();
                    let mut encoder = device.create_command_encoder(&Default::default());
                    kernel.record(&mut encoder, &forward(&x, &y)).unwrap();
                    queue.submit([encoder.finish()]);
                    let values: Vec<f32> = context.read_blocking(BufferView::new(&y)).unwrap();
                    assert!(values.iter().all(|&v| v == -((thread * 8 + round + 1) as f32)));
                }
            });
        }
    });
}

#[test]
fn parameters_stay_right_when_records_share_an_encoder() {
    let Some((device, queue)) = device() else { return };
    let context = Context::new(&device, &queue);
    let x = context.create_storage_with("x", &[-1.0f32; 64]).unwrap();
    let outputs: Vec<_> = (0..600).map(|_| context.create_storage("y", 256).unwrap()).collect();
    let mut encoder = device.create_command_encoder(&Default::default());
    for (i, y) in outputs.iter().enumerate() {
        let activation = Activation::LeakyRelu { slope: i as f32 };
        let config = ActivationConfig { activation, count: 64, variant: None };
        ActivationForward::new(&context, config).unwrap().record(&mut encoder, &forward(&x, y)).unwrap();
    }
    let bytes = context.parameter_bytes();
    queue.submit([encoder.finish()]);
    for (i, y) in outputs.iter().enumerate() {
        let values: Vec<f32> = context.read_blocking(BufferView::new(y)).unwrap();
        assert!(values.iter().all(|&v| v == -(i as f32)), "record {i}: {}", values[0]);
    }
    // Submitted: the slots can be used again, and 600 more records need no new memory.
    context.reclaim_parameters();
    for i in 0..600 {
        let activation = Activation::LeakyRelu { slope: -1.0 - i as f32 };
        let config = ActivationConfig { activation, count: 64, variant: None };
        let mut encoder = device.create_command_encoder(&Default::default());
        ActivationForward::new(&context, config)
            .unwrap()
            .record(&mut encoder, &forward(&x, &outputs[0]))
            .unwrap();
        queue.submit([encoder.finish()]);
    }
    assert_eq!(context.parameter_bytes(), bytes);
}

#[test]
fn long_work_comes_in_pieces_that_add_up() {
    let Some((device, queue)) = device() else { return };
    let context = Context::new(&device, &queue);
    let n = 5_000_003u32;
    let x = context.create_storage_with("x", &vec![-3.0f32; n as usize]).unwrap();
    let y = context.create_storage("y", u64::from(n) * 4).unwrap();
    let config =
        ActivationConfig { activation: Activation::Sine { frequency: 30.0 }, count: n, variant: None };
    let kernel = ActivationForward::new(&context, config).unwrap();
    let recording = kernel.prepare(&forward(&x, &y)).unwrap();
    let whole = recording.cost();
    let chunks = recording.chunks(&context, whole.weight() / 7).unwrap();
    assert!((7..=9).contains(&chunks.len()), "{} chunks", chunks.len());
    for chunk in &chunks {
        assert!(chunk.cost().weight() <= whole.weight() / 7 + 1);
        context.run_blocking(chunk).unwrap();
    }
    let values: Vec<f32> = context.read_blocking(BufferView::new(&y)).unwrap();
    assert!(values.iter().all(|&v| v == values[0]) && (values[0] - (-90f32).sin()).abs() < 1e-5);
}

#[test]
fn a_lost_device_is_an_error_and_the_callbacks_stay_the_hosts() {
    let Some((device, queue)) = device() else { return };
    let context = Context::new(&device, &queue);
    let told = Arc::new(AtomicU32::new(0));
    let (counter, for_context) = (told.clone(), context.clone());
    device.set_device_lost_callback(move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        for_context.mark_lost();
    });
    let x = context.create_storage_with("x", &[1.0f32; 64]).unwrap();
    let y = context.create_storage("y", 256).unwrap();
    let kernel = ActivationForward::new(&context, relu(64)).unwrap();
    // During: recorded and submitted, then lost before the result is read.
    let mut encoder = device.create_command_encoder(&Default::default());
    kernel.record(&mut encoder, &forward(&x, &y)).unwrap();
    let readback = Readback::record(&context, &mut encoder, BufferView::new(&y)).unwrap();
    device.destroy();
    queue.submit([encoder.finish()]);
    assert_eq!(readback.wait(Duration::from_secs(10)), Err(Error::DeviceLost));
    let _ = device.poll(wgpu::PollType::Poll);
    // After: every call says so.
    assert_eq!(kernel.prepare(&forward(&x, &y)).unwrap_err(), Error::DeviceLost);
    assert_eq!(context.create_storage("z", 4).unwrap_err(), Error::DeviceLost);
    assert_eq!(told.load(Ordering::Relaxed), 1, "the host's callback was not called");
    // Before: a context on a lost device refuses from the start once it is told.
    let late = Context::new(&device, &queue);
    late.mark_lost();
    assert_eq!(late.create_storage("z", 4).unwrap_err(), Error::DeviceLost);
}

#[test]
fn compile_errors_name_the_file_and_line_that_a_person_wrote() {
    let Some((device, queue)) = device() else { return };
    let context = Context::new(&device, &queue);
    let kernel = ActivationForward::new(&context, relu(63)).unwrap();
    let x = context.create_storage("x", 256).unwrap();
    let y = context.create_storage("y", 256).unwrap();
    let recording = kernel.prepare(&forward(&x, &y)).unwrap();
    let dispatch = &recording.dispatches()[0];
    let shader = dispatch.launch().shader();
    let broken = shader.source().replace("y[i] = activate(x[i]", "y[i] = activated(x[i]");
    let line = 1 + broken.lines().position(|l| l.contains("activated(")).unwrap();
    let broken = Box::leak(Box::new(shader.with_source("test/broken", broken.leak())));
    let launch = dispatch.launch().with_shader(broken);
    let args: Vec<_> =
        [&x, &y].iter().map(|b| patchfield::dispatch::Arg::words("x", BufferView::new(b), 63)).collect();
    let error = context.bind(&launch, &args).unwrap_err().to_string();
    assert!(error.contains(&format!("shaders/dense/activation.wgsl:{line}")), "{error}");
    // The same text on both dialects but for directives.
    let composed = compose(shader, launch.constants(), Dialect::Browser);
    assert!(composed.wgsl.ends_with(&format!("{}\n", shader.source().trim_end())));
    kernel.warm_up().unwrap();
}
