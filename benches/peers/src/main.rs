//! Other libraries beside ours: the same work on the same device in one process, taking turns.
//!
//! `cargo run --release -- [--adapter NAME] [--report FILE]`

#[path = "../../harness/adapter.rs"]
mod adapter;
mod radial_field;

use std::time::Instant;

use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor, TensorData};
use patchfield::attention::*;
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
    let mut rows: Vec<_> = [512, 1024].map(|n| matmul(&context, &burn, n)).into_iter().collect::<Result<_>>()?;
    for (heads, tokens) in [(4, 1024), (3, 785), (12, 196)] {
        rows.push(attention(&context, &burn, heads, tokens, 64)?);
    }
    rows.push(radial_field::race(&context, &burn)?);
    if let Some(path) = report {
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(())
}

/// So many numbers in [-1, 1).
fn noise(count: u32, seed: u32) -> Vec<f32> {
    let hash = |i: u32| i.wrapping_mul(0x9e37_79b9).wrapping_add(seed).wrapping_mul(0x85eb_ca6b) >> 8;
    (0..count).map(|i| hash(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// A buffer with these numbers.
fn upload(context: &Context, values: &[f32]) -> Result<wgpu::Buffer> {
    Ok(context.create_storage_with("peers", values)?)
}

/// A product of two square matrices.
fn matmul(context: &Context, burn: &Device, n: u32) -> Result<serde_json::Value> {
    let side = n as usize;
    let (a, b) = (noise(n * n, 1), noise(n * n, 2));
    let kernel = Matmul::new(context, MatmulConfig { m: n, n, k: n, ..MatmulConfig::default() })?;
    let scratch = kernel.create_scratch()?;
    let (our_a, our_b) = (upload(context, &a)?, upload(context, &b)?);
    let our_y = context.create_storage("matmul", u64::from(n) * u64::from(n) * 4)?;
    let recording = kernel.prepare(&MatmulArgs {
        a: BufferView::new(&our_a),
        b: BufferView::new(&our_b),
        bias: None,
        y: BufferView::new(&our_y),
        kept: None,
        scratch: &scratch,
    })?;
    let tensor = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [side, side]), burn);
    let (burn_a, burn_b) = (tensor(a), tensor(b));
    let race = Race {
        kernel: "dense/matmul",
        variant: format!("A B, {}", kernel.planned().variant),
        shape: format!("{n} x {n} x {n}"),
        // Sums of n products of at most 1 in f32.
        tolerance: 1e-5 * n as f32,
    };
    race.run(context, &recording, &our_y, || burn_a.clone().matmul(burn_b.clone()))
}

/// Attention of every token to every token.
fn attention(context: &Context, burn: &Device, heads: u32, n: u32, d: u32) -> Result<serde_json::Value> {
    let count = heads * n * d;
    let inputs = [1, 2, 3].map(|seed| noise(count, seed));
    // burn's layout.
    let layout = AttentionLayout::HeadsTokens;
    let config = AttentionConfig {
        heads,
        queries: n,
        keys: n,
        head_dim: d,
        q_layout: layout,
        k_layout: layout,
        v_layout: layout,
        o_layout: layout,
        ..AttentionConfig::default()
    };
    let kernel = FlashAttentionForward::new(context, config)?;
    let scratch = kernel.create_scratch()?;
    let [q, k, v] = [0, 1, 2].map(|i| upload(context, &inputs[i]));
    let (q, k, v) = (q?, k?, v?);
    let o = context.create_storage("attention", u64::from(count) * 4)?;
    let lse = context.create_storage("attention", config.lse_count() * 4)?;
    let recording = kernel.prepare(&FlashAttentionForwardArgs {
        inputs: AttentionInputs::new((&q).into(), (&k).into(), (&v).into()),
        o: BufferView::new(&o),
        lse: BufferView::new(&lse),
        scratch: &scratch,
    })?;
    let shape = [1, heads, n, d].map(|n| n as usize);
    let [q, k, v] = inputs.map(|values| Tensor::<4>::from_data(TensorData::new(values, shape), burn));
    let race = Race {
        kernel: "attention/flash_attention",
        variant: format!("forward, {}", kernel.planned().variant),
        shape: format!("{heads} x {n} x {d}"),
        // Means of values of at most 1.
        tolerance: 1e-4,
    };
    race.run(context, &recording, &o, || {
        let options = Default::default();
        burn::tensor::module::attention(q.clone(), k.clone(), v.clone(), None, None, options)
    })
}

/// The same work on both sides.
struct Race {
    kernel: &'static str,
    variant: String,
    shape: String,
    /// How far apart the results may be.
    tolerance: f32,
}

impl Race {
    fn run<const RANK: usize>(
        &self,
        context: &Context,
        recording: &Recording,
        y: &wgpu::Buffer,
        theirs: impl Fn() -> Tensor<RANK>,
    ) -> Result<serde_json::Value> {
        let Self { kernel, variant, shape, tolerance } = self;
        let ours = |times| ours(context, recording, y, times);
        // Tensors are lazy, so the whole of the last result is read back, on both sides.
        let theirs = |times: usize| -> Result<(f64, Vec<f32>)> {
            let start = Instant::now();
            let mut y = theirs();
            for _ in 1..times {
                y = theirs();
            }
            let values = y.into_data().try_to_vec::<f32>().map_err(|e| format!("{e:?}"))?;
            Ok((start.elapsed().as_secs_f64() / times as f64, values))
        };
        // The first turns compile, and burn tunes itself.
        for _ in 0..2 {
            let (x, y) = (ours(1)?.1, theirs(1)?.1);
            let apart = x.iter().zip(&y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            if x.len() != y.len() || apart.is_nan() || apart > *tolerance {
                return Err(format!("{kernel} {shape}: the results are {apart} apart").into());
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
        let rate = |seconds: &mut Vec<f64>| recording.cost().flops as f64 / median(seconds) * 1e-9;
        let (gflops, peer_gflops, ratio) =
            (rate(&mut our_seconds), rate(&mut their_seconds), median(&mut ratios));
        println!("{kernel} {shape}: {gflops:.2} GFLOP/s, burn {peer_gflops:.2}, ratio {ratio:.2}");
        Ok(json!({
            "kernel": kernel,
            "variant": variant,
            "shape": shape,
            "adapter": context.capabilities().adapter,
            "gflops": gflops,
            "peer": "burn 0.22",
            "peer_gflops": peer_gflops,
            "ratio": ratio,
        }))
    }
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
