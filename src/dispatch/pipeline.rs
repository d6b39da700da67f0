//! Pipelines: compiled when first needed, kept by shader and permutation.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};

use super::buffer::Access;
use super::error::Result;
use super::scope;
use super::shader::{self, Constants, Dialect, Shader};

/// A compiled permutation.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// Entry point, the files in front of it, constants.
type Key = (&'static str, Vec<&'static str>, Constants);
/// Locked while it is compiled. What failed is not kept: memory may be there the next time.
type Entry = Arc<Mutex<Option<Arc<Pipeline>>>>;

#[derive(Debug, Default)]
pub(super) struct Pipelines {
    entries: Mutex<HashMap<Key, (Entry, &'static Shader)>>,
}

impl Pipelines {
    /// The pipeline, compiled now if no call for it has succeeded before. The map is not locked
    /// meanwhile: other threads compile other pipelines at the same time.
    pub fn get(
        &self,
        device: &wgpu::Device,
        shader: &'static Shader,
        constants: &Constants,
        params_size: u64,
    ) -> Result<Arc<Pipeline>> {
        let entry = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let files = shader.common.iter().map(|common| common.file).collect();
            entries
                .entry((shader.name, files, constants.clone()))
                .or_insert_with(|| (Entry::default(), shader))
                .0
                .clone()
        };
        let mut built = entry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = &*built {
            return Ok(pipeline.clone());
        }
        let pipeline = Arc::new(build(device, shader, constants, params_size)?);
        *built = Some(pipeline.clone());
        Ok(pipeline)
    }

    /// All permutations asked for so far.
    pub fn permutations(&self) -> Vec<(&'static Shader, Constants)> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> =
            entries.iter().map(|((_, _, constants), (_, shader))| (*shader, constants.clone())).collect();
        all.sort_by_key(|(shader, constants)| (shader.name, format!("{constants:?}")));
        all
    }
}

fn build(
    device: &wgpu::Device,
    shader: &'static Shader,
    constants: &Constants,
    params_size: u64,
) -> Result<Pipeline> {
    let composed = shader::compose(shader, constants, Dialect::Naga);
    let explain = |message: &str| composed.explain(message);
    let module =
        scope::compile(device, shader.name, explain, || create_module(device, shader, &composed.wgsl))?;
    scope::compile(device, shader.name, explain, || {
        let layout = create_layout(device, shader, params_size);
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(shader.name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(shader.name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(shader.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: cfg!(feature = "checked"),
                ..Default::default()
            },
            cache: None,
        });
        Pipeline { pipeline, layout }
    })
}

fn create_layout(device: &wgpu::Device, shader: &Shader, params_size: u64) -> wgpu::BindGroupLayout {
    let entry = |binding, ty, has_dynamic_offset, size| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: NonZeroU64::new(size) },
        count: None,
    };
    let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform, true, params_size)];
    entries.extend(shader.bindings.iter().zip(1..).map(|(binding, index)| {
        let read_only = binding.access == Access::Read;
        entry(index, wgpu::BufferBindingType::Storage { read_only }, false, binding.stride)
    }));
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(shader.name),
        entries: &entries,
    })
}

/// The one place of `unsafe` in the crate.
#[allow(unsafe_code)]
fn create_module(device: &wgpu::Device, shader: &Shader, wgsl: &str) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(shader.name),
        source: wgpu::ShaderSource::Wgsl(wgsl.into()),
    };
    if cfg!(feature = "checked") || !shader.trusted {
        return device.create_shader_module(descriptor);
    }
    let checks =
        wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
    // SAFETY: without loop bounding a loop that never ends is undefined behaviour. `trusted` is set
    // by the `shader!` macro alone, whose text comes from the crate's own files. A loop in them counts
    // an integer towards a bound that does not change inside the loop, but for two kinds. Bisections
    // (centre_grid, compact_basis, mesh_sample, gather) move one end of their range to or past its
    // middle in each round, so that it shrinks until it is empty, or one long in mesh_sample. In
    // flash_attention_subgroup_forward a pair of keys whose scores exceed the largest so far is taken
    // again, once: those scores are the largest then. Bounds checks and integer division checks stay on.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}
