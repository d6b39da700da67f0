//! Other libraries beside ours: the same work on the same device in one process, taking turns.
//!
//! `cargo run --release -- [--adapter NAME] [--report FILE]`

#[path = "../../harness/adapter.rs"]
mod adapter;

use std::time::Instant;

use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor, TensorData};
use patchfield::dense::{Matmul, MatmulArgs, MatmulConfig};
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Context, Kernel, Recording};
use serde_json::json;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Times that each side has its turn.
const ROUNDS: usize = 9;

fn main() -> Result {
    let (mut name, mut report) = (String::new(), None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        match word.as_str() {
            "--adapter" => name = value,
            "--report" => report = Some(value),
            _ => return Err(format!("there is no option `{word}`").into()),
        }
    }
    let (instance, adapter) = adapter::find(&name)?;
    // burn wants all that the adapter has (64-bit integers among others).
    let features = adapter.features()
        - wgpu::Features::all_experimental_mask()
        - wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: features,
        required_limits: adapter.limits(),
        ..Default::default()
    }))?;
    let context = Context::new(&device, &queue);
    println!("adapter: {}", context.capabilities().adapter);
    let backend = adapter.get_info().backend;
    let setup = WgpuSetup { instance, adapter, device, queue, backend };
    let burn = Device::wgpu_options().setup(setup).init()?;
    let rows: Vec<_> = [512, 1024].map(|n| matmul(&context, &burn, n)).into_iter().collect::<Result<_>>()?;
    if let Some(path) = report {
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(())
}

/// A product of two square matrices.
fn matmul(context: &Context, burn: &Device, n: u32) -> Result<serde_json::Value> {
    let side = n as usize;
    let noise = |seed: u32| -> Vec<f32> {
        let hash = |i: u32| i.wrapping_mul(0x9e37_79b9).wrapping_add(seed).wrapping_mul(0x85eb_ca6b) >> 8;
        (0..n * n).map(|i| hash(i) as f32 / (1 << 23) as f32 - 1.0).collect()
    };
    let (a, b) = (noise(1), noise(2));

    let kernel = Matmul::new(context, MatmulConfig { m: n, n, k: n, ..MatmulConfig::default() })?;
    let scratch = kernel.create_scratch()?;
    let buffers = [(); 3].map(|()| context.create_storage("matmul", u64::from(n) * u64::from(n) * 4));
    let [our_a, our_b, our_y] = buffers;
    let (our_a, our_b, our_y) = (our_a?, our_b?, our_y?);
    context.write(&our_a, 0, bytemuck::cast_slice(&a));
    context.write(&our_b, 0, bytemuck::cast_slice(&b));
    let recording = kernel.prepare(&MatmulArgs {
        a: BufferView::new(&our_a),
        b: BufferView::new(&our_b),
        bias: None,
        y: BufferView::new(&our_y),
        kept: None,
        scratch: &scratch,
    })?;
    let ours = |times| ours(context, &recording, &our_y, times);

    let tensor = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [side, side]), burn);
    let (burn_a, burn_b) = (tensor(a), tensor(b));
    // Tensors are lazy, so the whole of the last product is read back, on both sides.
    let theirs = |times: usize| -> Result<(f64, Vec<f32>)> {
        let start = Instant::now();
        let mut y = burn_a.clone().matmul(burn_b.clone());
        for _ in 1..times {
            y = burn_a.clone().matmul(burn_b.clone());
        }
        let values = y.into_data().try_to_vec::<f32>().map_err(|e| format!("{e:?}"))?;
        Ok((start.elapsed().as_secs_f64() / times as f64, values))
    };

    // The first turns compile, and burn tunes itself.
    for _ in 0..2 {
        let (x, y) = (ours(1)?.1, theirs(1)?.1);
        let apart = x.iter().zip(&y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        // Sums of n products of at most 1 in f32.
        if x.len() != y.len() || apart.is_nan() || apart > 1e-5 * n as f32 {
            return Err(format!("matmul {n}: the results are {apart} apart").into());
        }
    }
    // So many that the readback costs little.
    let times = (0.1 / ours(1)?.0).clamp(1.0, 256.0) as usize;
    let (mut our_seconds, mut their_seconds, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (x, y) = (ours(times)?.0, theirs(times)?.0);
        our_seconds.push(x);
        their_seconds.push(y);
        ratios.push(y / x);
    }
    let rate = |seconds: &mut Vec<f64>| 2.0 * f64::from(n).powi(3) / median(seconds) * 1e-9;
    let (gflops, peer_gflops, ratio) =
        (rate(&mut our_seconds), rate(&mut their_seconds), median(&mut ratios));
    let shape = format!("{n} x {n} x {n}");
    println!("matmul {shape}: {gflops:.2} GFLOP/s, burn {peer_gflops:.2}, ratio {ratio:.2}");
    Ok(json!({
        "kernel": "dense/matmul",
        "variant": format!("A B, {}", kernel.planned().variant),
        "shape": shape,
        "adapter": context.capabilities().adapter,
        "gflops": gflops,
        "peer": "burn 0.22",
        "peer_gflops": peer_gflops,
        "ratio": ratio,
    }))
}

/// Mean seconds of one of `times` executions, and the result.
fn ours(context: &Context, recording: &Recording, y: &wgpu::Buffer, times: usize) -> Result<(f64, Vec<f32>)> {
    let start = Instant::now();
    let mut encoder = context.device().create_command_encoder(&Default::default());
    for _ in 0..times {
        recording.encode(&mut encoder);
    }
    context.queue().submit([encoder.finish()]);
    let values = context.read_blocking(BufferView::new(y))?;
    Ok((start.elapsed().as_secs_f64() / times as f64, values))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
