//! What an application that owns the device can rely on: threads may record at once, parameters stay
//! right when many records share an encoder, long work comes in pieces, and compile errors name the
//! place. (`bad_input.rs`: after every kind of `Err` its encoder still finishes and submits, and its
//! callbacks stay its own.)
//!
//! Runs on the first adapter that there is; without one it is a loud skip, and a failure when
//! `PATCHFIELD_REQUIRE_GPU=1`.

use std::future::Future;

use kernels_tests::harness::adapter::best_device;
use patchfield::dense::activation::*;
use patchfield::dispatch::{Dialect, Planned, Readback, compose};
use patchfield::{BufferView, Context, Kernel};

fn relu(count: u32) -> ActivationConfig {
    ActivationConfig { activation: Activation::Relu, count, variant: None }
}

fn forward<'a>(x: &'a wgpu::Buffer, y: &'a wgpu::Buffer) -> ActivationForwardArgs<'a> {
    ActivationForwardArgs { x: BufferView::new(x), y: BufferView::new(y) }
}

#[test]
fn eight_threads_record_at_once() {
    let Some((device, queue)) = best_device() else { return };
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
                    let want = -((thread * 8 + round + 1) as f32);
                    let wrong = values.iter().filter(|&&v| v != want).count();
                    let first = values[0];
                    assert_eq!(wrong, 0, "thread {thread}, round {round}: not {want} of {n}; {first} first");
                }
            });
        }
    });
}

/// A host that polls without waiting must not be handed the buffer before the copy was made.
#[test]
fn a_readback_is_never_ready_before_its_copy() {
    let Some((device, queue)) = best_device() else { return };
    let context = Context::new(&device, &queue);
    let n = 1 << 22;
    let x = context.create_storage_with("x", &vec![-1.0f32; n]).unwrap();
    let y = context.create_storage("y", n as u64 * 4).unwrap();
    let activation = Activation::LeakyRelu { slope: 3.0 };
    let config = ActivationConfig { activation, count: n as u32, variant: None };
    let kernel = ActivationForward::new(&context, config).unwrap();
    let mut encoder = device.create_command_encoder(&Default::default());
    kernel.record(&mut encoder, &forward(&x, &y)).unwrap();
    let readback = Readback::record(&context, &mut encoder, BufferView::new(&y)).unwrap();
    queue.submit([encoder.finish()]);
    let mut readback = std::pin::pin!(readback);
    let bytes = loop {
        device.poll(wgpu::PollType::Poll).unwrap();
        let mut waker = std::task::Context::from_waker(std::task::Waker::noop());
        match readback.as_mut().poll(&mut waker) {
            std::task::Poll::Ready(bytes) => break bytes.unwrap(),
            std::task::Poll::Pending => std::thread::yield_now(),
        }
    };
    assert!(bytemuck::cast_slice::<u8, f32>(&bytes).iter().all(|&v| v == -3.0));
}

#[test]
fn parameters_stay_right_when_records_share_an_encoder() {
    let Some((device, queue)) = best_device() else { return };
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
    let Some((device, queue)) = best_device() else { return };
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
fn compile_errors_name_the_file_and_line_that_a_person_wrote() {
    let Some((device, queue)) = best_device() else { return };
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
