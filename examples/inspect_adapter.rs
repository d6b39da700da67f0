//! What this machine's adapters can do, best first, and which variant a kernel would take there,
//! for the kernels that have several or that need scratch.
//!
//! `cargo run --release --example inspect_adapter`

use patchfield::attention::*;
use patchfield::dense::*;
use patchfield::dispatch::{Capabilities, Plan, describe, preference};
use patchfield::radial::*;
use patchfield::{Requirements, Result, wgpu};

/// A typical size of each kernel.
fn plans(caps: &Capabilities) -> Vec<(&'static str, Result<Plan>)> {
    let activation = ActivationConfig { activation: Activation::Gelu, count: 1 << 20, variant: None };
    let reduce =
        ReduceConfig { reduction: Reduction::Sum, outer: 4096, n: 1024, inner: 1, variant: None, part: None };
    let sort = SortConfig {
        key: SortKey::U32,
        count: 1 << 20,
        payload: SortPayload::Indices,
        descending: false,
        bits: 32,
        variant: None,
    };
    let matmul = MatmulConfig { m: 1024, n: 1024, k: 1024, ..Default::default() };
    let linear = LinearConfig {
        rows: 4096,
        inputs: 256,
        outputs: 256,
        bias: true,
        activation: Activation::Gelu,
        keep: true,
        variant: None,
    };
    let network = FusedMlpConfig { points: 1 << 16, ..Default::default() };
    let gather = GatherConfig { rows: 4096, n: 1 << 16, width: 64, variant: None };
    let grid = GridEncodingConfig { points: 1 << 16, ..Default::default() };
    let softmax = SoftmaxConfig { rows: 4096, n: 1024, ..Default::default() };
    let pool = QueryPoolConfig { batch: 64, ..Default::default() };
    let hopfield = HopfieldConfig {
        batch: 64,
        heads: 8,
        states: 4,
        patterns: 64,
        width: 32,
        update_steps_max: Some(3),
        keep: true,
        ..Default::default()
    };
    let transport = TransportConfig { tokens: 1024, experts: 16, nonzeros: 64, gamma: 1.0 };
    let transport = TransportSolveConfig { transport, ..Default::default() };
    let lattice =
        CompactBasisConfig { points: 1 << 16, differential: Differential::Jet, ..Default::default() };
    let smooth = SmoothMlpConfig { points: 1 << 16, width: 64, ..Default::default() };
    let nearest =
        NearestConfig { dims: 2, points: 1 << 16, centres: 2776, k: 4, distances: false, variant: None };
    let centres = CentreInitialisationConfig::for_picture(256, 256, 3, 2776);
    let norm = LayerNormConfig { rows: 4096, width: 256, residual: true, ..Default::default() };
    let attention = AttentionConfig { heads: 12, queries: 1024, keys: 1024, ..Default::default() };
    let statistics = AttentionRowStatisticsConfig { attention, grid: None };
    vec![
        ("attention/attention_statistics", AttentionRowStatistics::plan(&statistics, caps)),
        ("attention/flash_attention", FlashAttentionForward::plan(&attention, caps)),
        ("attention/flash_attention, backward", FlashAttentionBackward::plan(&attention, caps)),
        ("attention/hopfield", HopfieldForward::plan(&hopfield, caps)),
        ("attention/hopfield, backward", HopfieldBackward::plan(&hopfield, caps)),
        ("attention/query_pool", QueryPoolForward::plan(&pool, caps)),
        ("attention/query_pool, backward", QueryPoolBackward::plan(&pool, caps)),
        ("attention/reversed_attention", ReversedAttentionForward::plan(&attention, caps)),
        ("attention/transport", TransportSolve::plan(&transport, caps)),
        ("dense/activation", ActivationForward::plan(&activation, caps)),
        ("dense/layer_norm", LayerNormForward::plan(&norm, caps)),
        ("dense/layer_norm, backward", LayerNormBackward::plan(&norm, caps)),
        ("dense/matmul", Matmul::plan(&matmul, caps)),
        ("dense/linear", LinearForward::plan(&linear, caps)),
        ("dense/linear, backward", LinearBackward::plan(&linear, caps)),
        ("dense/reduce", ReduceForward::plan(&reduce, caps)),
        ("dense/sort", Sort::plan(&sort, caps)),
        ("dense/softmax", SoftmaxForward::plan(&softmax, caps)),
        ("dense/gather", Gather::plan(&gather, caps)),
        ("radial/centre_initialisation", CentreInitialisation::plan(&centres, caps)),
        ("radial/compact_basis", CompactBasisForward::plan(&lattice, caps)),
        ("radial/compact_basis, backward", CompactBasisBackward::plan(&lattice, caps)),
        ("radial/smooth_mlp", SmoothMlpForward::plan(&smooth, caps)),
        ("radial/smooth_mlp, backward", SmoothMlpBackward::plan(&smooth, caps)),
        ("radial/grid_encoding", GridEncodingForward::plan(&grid, caps)),
        ("radial/grid_encoding, to the table", GridEncodingBackwardTable::plan(&grid, caps)),
        ("radial/grid_encoding, to the input", GridEncodingBackwardInput::plan(&grid, caps)),
        ("radial/nearest_neighbours", NearestNeighbours::plan(&nearest, caps)),
        ("radial/fused_mlp", FusedMlpForward::plan(&network, caps)),
        ("radial/fused_mlp, backward", FusedMlpBackward::plan(&network, caps)),
    ]
}

fn main() {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    adapters.sort_by_key(|adapter| preference(&adapter.get_info()));
    if adapters.is_empty() {
        println!("no adapter: `cargo xtask demo` installs Mesa's software Vulkan driver on Linux");
    }
    for adapter in adapters {
        let info = adapter.get_info();
        println!("{}", describe(&info));
        let wanted = Requirements::for_adapter(&adapter);
        let (device, _queue) = match pollster::block_on(adapter.request_device(&wanted.device_descriptor())) {
            Ok(device) => device,
            Err(error) => {
                println!("  gives no device: {error}\n");
                continue;
            }
        };
        let caps = Capabilities::of(&device);
        let limits = &caps.limits;
        println!(
            "  kind              {:?}{}",
            info.device_type,
            if caps.cpu { " (variants for CPUs)" } else { "" }
        );
        println!("  f16               {}", caps.f16);
        match caps.subgroups {
            Some((low, high)) => println!("  subgroups         {low} to {high} invocations"),
            None => println!("  subgroups         no"),
        }
        println!("  f32 atomics       {}", caps.float_atomics);
        println!("  timestamps        {}", caps.timestamps);
        println!("  storage binding   {} MiB", limits.max_storage_buffer_binding_size >> 20);
        println!("  storage buffers   {} in a shader", limits.max_storage_buffers_per_shader_stage);
        println!("  workgroup memory  {} KiB", limits.max_compute_workgroup_storage_size >> 10);
        println!("  invocations       {} in a workgroup", limits.max_compute_invocations_per_workgroup);
        for (kernel, plan) in plans(&caps) {
            match plan {
                Ok(plan) => println!(
                    "  {kernel:<35} {:<12} {:>3} dispatches, {:>6} KiB of scratch",
                    plan.variant,
                    plan.launches.len(),
                    plan.scratch_bytes() >> 10
                ),
                Err(error) => println!("  {kernel:<35} {error}"),
            }
        }
        println!();
    }
}
