//! The adapter's ceilings: multiply-adds a second, and bytes a second of a copy.

use std::fmt;

use patchfield::dispatch::Cost;
use patchfield::{Context, Result};

use crate::harness::clock::Clock;

/// What the adapter can do at the most.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    /// Operations a second; a multiply-add counts two.
    pub flops: f64,
    /// Bytes a second, those read plus those written.
    pub bytes: f64,
}

impl Ceilings {
    /// The least time for some work.
    pub fn seconds(&self, cost: Cost) -> f64 {
        (cost.flops as f64 / self.flops).max(cost.bytes as f64 / self.bytes)
    }

    pub fn mean(&self, other: &Self) -> Self {
        // Of rates, the harmonic mean: that of the times.
        let mean = |a: f64, b: f64| 2.0 / (1.0 / a + 1.0 / b);
        Self { flops: mean(self.flops, other.flops), bytes: mean(self.bytes, other.bytes) }
    }
}

impl fmt::Display for Ceilings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "    f32 multiply-add {:10.1} GFLOP/s\n    copy             {:10.1} GB/s",
            self.flops * 1e-9,
            self.bytes * 1e-9
        )
    }
}

/// Chains of vec4 multiply-adds, the steps of each in a turn of the loop, and invocations of a workgroup. Many steps
/// hide the loop. A CPU driver may put them in order chain by chain, though, and a processor sees two chains at once
/// only where the first is short.
const CHAINS: [(u32, u32, u32); 13] = [
    (2, 64, 64),
    (3, 64, 64),
    (4, 64, 64),
    (8, 64, 64),
    (2, 64, 256),
    (3, 64, 256),
    (4, 64, 256),
    (2, 4, 64),
    (2, 8, 64),
    (2, 16, 64),
    (3, 4, 64),
    (3, 8, 64),
    (4, 4, 64),
];

struct Candidate {
    name: String,
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    params: wgpu::Buffer,
    grid: [u32; 2],
    /// Operations of a turn, or bytes of the copy.
    work: f64,
    turns: u32,
}

impl Candidate {
    fn rate(&self, clock: &Clock, times: u64) -> Result<f64> {
        let seconds = clock.seconds(times, &|pass| {
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &self.bind_group, &[]);
            pass.dispatch_workgroups(self.grid[0], self.grid[1], 1);
        })?;
        Ok(self.work * f64::from(self.turns) / seconds)
    }
}

/// The fastest of several multiply-add kernels and of several copies on this adapter.
pub struct Roofline {
    multiply_add: Candidate,
    copy: Candidate,
    first: Ceilings,
}

impl Roofline {
    /// Tries them all.
    pub fn new(context: &Context, clock: &Clock, quick: bool) -> Result<Self> {
        let cpu = context.capabilities().cpu;
        // The copy is larger than any cache: 64 MiB on a CPU, 128 MiB on a GPU, twice.
        let count: u32 = if cpu { 1 << 22 } else { 1 << 23 };
        let buffers = [count, count].map(|n| context.create_storage("roofline", u64::from(n) * 16));
        let [x, y] = buffers;
        let maker = Maker { context, x: x?, y: y?, count };
        let invocations = if cpu { 1 << 12 } else { 1 << 19 };
        let times = if quick { 5 } else { 10 };
        let mut chains = Vec::new();
        for (n, steps, workgroup) in CHAINS {
            let mut candidate = maker.multiply_add(n, steps, workgroup, invocations)?;
            // The first launch compiles.
            candidate.rate(clock, 1)?;
            // A launch of about 10 ms: long against what starting it costs.
            while candidate.turns < 1 << 20 {
                let seconds = candidate.work * f64::from(candidate.turns) / candidate.rate(clock, 1)?;
                if seconds > 5e-3 {
                    break;
                }
                candidate.turns *= 2;
                maker.write(&candidate)?;
            }
            chains.push(candidate);
        }
        let mut copies = Vec::new();
        // A CPU driver may take as long for a number of 64 bits as for one of 32.
        let blocks: &[&str] =
            if context.capabilities().int64 { &["vec4<f32>", "vec2<u64>"] } else { &["vec4<f32>"] };
        for block in blocks {
            for (items, workgroup) in [(1, 64), (1, 256), (2, 256), (4, 256), (8, 256)] {
                copies.push(maker.copy(block, items, workgroup)?);
            }
        }
        let (multiply_add, flops) = best(chains, times, clock)?;
        let (copy, bytes) = best(copies, times, clock)?;
        Ok(Self { multiply_add, copy, first: Ceilings { flops, bytes } })
    }

    /// As found when all were tried.
    pub fn first(&self) -> Ceilings {
        self.first
    }

    /// The ceilings at this moment, over `times` launches of about 10 ms each.
    pub fn measure(&self, clock: &Clock, times: u64) -> Result<Ceilings> {
        let flops = self.multiply_add.rate(clock, times)?;
        Ok(Ceilings { flops, bytes: self.copy.rate(clock, times)? })
    }
}

/// The fastest of them; they take turns, so that a busy moment hits all.
fn best(candidates: Vec<Candidate>, times: usize, clock: &Clock) -> Result<(Candidate, f64)> {
    let mut rates = vec![0.0f64; candidates.len()];
    for _ in 0..times {
        for (rate, candidate) in rates.iter_mut().zip(&candidates) {
            *rate = rate.max(candidate.rate(clock, 1)?);
        }
    }
    for (rate, candidate) in rates.iter().zip(&candidates) {
        println!("    {:40} {:8.1} G/s", candidate.name, rate * 1e-9);
    }
    let fastest = candidates.into_iter().zip(rates).max_by(|a, b| a.1.total_cmp(&b.1));
    fastest.ok_or_else(|| patchfield::Error::Device("no roofline kernel".into()))
}

struct Maker<'a> {
    context: &'a Context,
    x: wgpu::Buffer,
    y: wgpu::Buffer,
    count: u32,
}

impl Maker<'_> {
    fn multiply_add(&self, chains: u32, steps: u32, workgroup: u32, invocations: u32) -> Result<Candidate> {
        let each = |form: &dyn Fn(u32) -> String| (0..chains).map(form).collect::<Vec<_>>();
        let begin = each(&|c| format!("var c{c} = begin + {c}.0;")).join(" ");
        let step = each(&|c| format!("c{c} = fma(c{c}, factor, term);")).join(" ");
        let text = include_str!("roofline.wgsl")
            .replace("CHAINS_BEGIN", &begin)
            .replace("CHAINS_STEP", &vec![step; steps as usize].join("\n        "))
            .replace("CHAINS_SUM", &each(&|c| format!("c{c}")).join(" + "))
            .replace("BLOCK", "vec4<f32>")
            .replace("COPY_STEPS", "");
        let name = format!("{chains} chains of {steps} vec4 multiply-adds x {workgroup}");
        let work = 8.0 * f64::from(chains) * f64::from(steps) * f64::from(invocations);
        self.make(name, "multiply_add", &text, workgroup, 1, [invocations / workgroup, 1], work)
    }

    fn copy(&self, block: &str, items: u32, workgroup: u32) -> Result<Candidate> {
        let form = |k| format!("y[first + {k}u * WORKGROUP] = x[first + {k}u * WORKGROUP];");
        let steps = (0..items).map(form).collect::<Vec<_>>().join(" ");
        // The other entry point is replaced by nothing that needs the host's text.
        let text = include_str!("roofline.wgsl")
            .replace("CHAINS_BEGIN", "")
            .replace("CHAINS_STEP", "")
            .replace("y[id.x] = CHAINS_SUM;", "")
            .replace("BLOCK", block)
            .replace("COPY_STEPS", &steps);
        let groups = self.count.div_ceil(workgroup * items);
        let rows = groups.div_ceil(32768);
        let name = format!("copy of {items} {block} x {workgroup}");
        let work = f64::from(self.count) * 32.0;
        self.make(name, "copy", &text, workgroup, items, [groups.div_ceil(rows), rows], work)
    }

    #[allow(clippy::too_many_arguments)]
    fn make(
        &self,
        name: String,
        entry: &str,
        text: &str,
        workgroup: u32,
        items: u32,
        grid: [u32; 2],
        work: f64,
    ) -> Result<Candidate> {
        let device = self.context.device();
        let text = format!("const WORKGROUP: u32 = {workgroup}u;\nconst ITEMS: u32 = {items}u;\n{text}");
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(entry),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        };
        let checks =
            wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
        // SAFETY: the loops count an integer up to a bound that does not change inside of them; the
        // other checks stay on. The library's kernels are compiled the same way.
        let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
        let buffer = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let storage = |read_only| wgpu::BufferBindingType::Storage { read_only };
        let entries = [
            buffer(0, wgpu::BufferBindingType::Uniform),
            buffer(1, storage(true)),
            buffer(2, storage(false)),
        ];
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(entry),
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(entry),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let params = self.context.create_buffer("roofline", 16, usage)?;
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(entry),
            layout: &layout,
            entries: &[&params, &self.x, &self.y]
                .map(wgpu::Buffer::as_entire_binding)
                .into_iter()
                .zip(0..)
                .map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource })
                .collect::<Vec<_>>(),
        });
        let candidate = Candidate { name, pipeline, bind_group, params, grid, work, turns: 1 };
        self.write(&candidate)?;
        Ok(candidate)
    }

    fn write(&self, candidate: &Candidate) -> Result<()> {
        // A factor below 1 keeps the chains finite.
        let words = [candidate.turns, self.count, 0.75f32.to_bits(), 0.5f32.to_bits()];
        self.context.write(&candidate.params, 0, bytemuck::cast_slice(&words))
    }
}
