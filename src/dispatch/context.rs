//! The context: a device, its queue, and what was compiled for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::buffer::{self, Arg, BufferView};
use super::capabilities::Capabilities;
use super::error::{Error, Result};
use super::launch::{Launch, Plan};
use super::params::ParamSlots;
use super::pipeline::Pipelines;
use super::recording::Dispatch;
use super::scope;
use super::shader::{Constants, Shader};

/// A device, its queue, and the pipelines compiled for them. Cheap to clone; `Send + Sync`.
///
/// It never submits, polls, blocks or spawns, installs no callbacks, and holds no global state.
#[derive(Debug, Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    capabilities: Capabilities,
    pipelines: Pipelines,
    params: Mutex<ParamSlots>,
    lost: AtomicBool,
}

impl Context {
    /// For a device that the caller owns.
    #[must_use]
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        Self::with_capabilities(device, queue, Capabilities::of(device))
    }

    /// As [`new`](Self::new), with capabilities other than the device's own: fewer features or lower limits,
    /// or the variants for CPUs on a GPU. More than the device has ends in errors from the device.
    #[must_use]
    pub fn with_capabilities(device: &wgpu::Device, queue: &wgpu::Queue, capabilities: Capabilities) -> Self {
        Self {
            inner: Arc::new(Inner {
                device: device.clone(),
                queue: queue.clone(),
                capabilities,
                pipelines: Pipelines::default(),
                params: Mutex::default(),
                lost: AtomicBool::new(false),
            }),
        }
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// What variants are chosen by.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.inner.capabilities
    }

    /// Tells the context that its device is lost; call it from your device-lost callback. From
    /// then on every call returns [`Error::DeviceLost`].
    pub fn mark_lost(&self) {
        self.inner.lost.store(true, Ordering::Release);
    }

    /// `Err(DeviceLost)` once the device is known to be lost.
    pub fn check_lost(&self) -> Result<()> {
        if self.inner.lost.load(Ordering::Acquire) { Err(Error::DeviceLost) } else { Ok(()) }
    }

    /// A new buffer of `bytes` bytes (rounded up to 4), checked against the device's limits.
    pub fn create_buffer(
        &self,
        what: &'static str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        self.check_lost()?;
        let size = bytes.max(16).next_multiple_of(4);
        let limits = &self.inner.capabilities.limits;
        let storage = usage.contains(wgpu::BufferUsages::STORAGE);
        let (limit, have) = if storage && limits.max_storage_buffer_binding_size < limits.max_buffer_size {
            ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size)
        } else {
            ("max_buffer_size", limits.max_buffer_size)
        };
        if size > have {
            return Err(Error::LimitExceeded { what, limit, need: size, have });
        }
        scope::allocate(&self.inner.device, what, size, || {
            self.inner.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(what),
                size,
                usage,
                mapped_at_creation: false,
            })
        })
    }

    /// A storage buffer that can be copied from and to.
    pub fn create_storage(&self, what: &'static str, bytes: u64) -> Result<wgpu::Buffer> {
        use wgpu::BufferUsages as U;
        self.create_buffer(what, bytes, U::STORAGE | U::COPY_SRC | U::COPY_DST)
    }

    /// A storage buffer with contents, through `Queue::write_buffer`.
    pub fn create_storage_with<T: bytemuck::NoUninit>(
        &self,
        what: &'static str,
        data: &[T],
    ) -> Result<wgpu::Buffer> {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let buffer = self.create_storage(what, bytes.len() as u64)?;
        self.write(&buffer, 0, bytes)?;
        Ok(buffer)
    }

    /// `Queue::write_buffer` for any length: the last word is filled up with zeros. `offset` is a multiple of 4.
    ///
    /// Refused, as wgpu would tell the device's error handler of it: what ends behind the buffer, and a buffer without
    /// `COPY_DST`.
    pub fn write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        let what = "buffer";
        let size = bytes.len().next_multiple_of(4) as u64;
        if offset.checked_add(size).is_none_or(|end| end > buffer.size()) {
            return Err(Error::OutOfBounds { what, offset, size, buffer: buffer.size() });
        }
        if !offset.is_multiple_of(4) {
            return Err(Error::Misaligned { what, quantity: "offset", value: offset, alignment: 4 });
        }
        if !buffer.usage().contains(wgpu::BufferUsages::COPY_DST) {
            return Err(Error::UsageMissing { what, usage: "COPY_DST" });
        }
        let whole = bytes.len() / 4 * 4;
        self.inner.queue.write_buffer(buffer, offset, &bytes[..whole]);
        if whole < bytes.len() {
            let mut word = [0; 4];
            word[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.inner.queue.write_buffer(buffer, offset + whole as u64, &word);
        }
        Ok(())
    }

    /// The scratch buffers that a plan asks for.
    pub fn create_scratch(&self, plan: &Plan) -> Result<Scratch> {
        plan.scratch
            .iter()
            .map(|&bytes| self.create_storage("scratch", bytes))
            .collect::<Result<_>>()
            .map(Scratch)
    }

    /// Compiles what the launches need, unless it was compiled before.
    pub fn warm_up(&self, plan: &Plan) -> Result<()> {
        self.check_lost()?;
        plan.launches.iter().try_for_each(|launch| self.pipeline(launch).map(drop))
    }

    /// Every shader and permutation compiled so far.
    #[must_use]
    pub fn permutations(&self) -> Vec<(&'static Shader, Constants)> {
        self.inner.pipelines.permutations()
    }

    /// Bytes of GPU memory that the parameter slots hold.
    #[must_use]
    pub fn parameter_bytes(&self) -> u64 {
        self.inner.params.lock().unwrap_or_else(PoisonError::into_inner).bytes()
    }

    /// Lets parameter slots be used again. Slots are kept for repetition; a program that records
    /// ever new sizes calls this now and then, at a moment when every encoder it recorded into
    /// has been submitted. Slots of living [`Recording`](super::Recording)s stay.
    pub fn reclaim_parameters(&self) {
        self.inner.params.lock().unwrap_or_else(PoisonError::into_inner).reclaim();
    }

    fn pipeline(&self, launch: &Launch) -> Result<Arc<super::pipeline::Pipeline>> {
        self.inner.pipelines.get(
            &self.inner.device,
            launch.shader,
            &launch.constants,
            launch.params.len() as u64,
        )
    }

    /// Checks the arguments and binds them to a launch. Nothing is recorded yet.
    pub fn bind(&self, launch: &Launch, args: &[Arg<'_>]) -> Result<Dispatch> {
        self.check_lost()?;
        let shader = launch.shader;
        if args.len() != shader.bindings.len() {
            return Err(Error::Shape {
                what: shader.name,
                need: format!("{} buffers", shader.bindings.len()),
                got: format!("{}", args.len()),
            });
        }
        buffer::check(args, shader.bindings, &self.inner.capabilities.limits)?;
        let pipeline = self.pipeline(launch)?;
        let slot = {
            let mut params = self.inner.params.lock().unwrap_or_else(PoisonError::into_inner);
            params.slot(&self.inner.device, &self.inner.queue, &launch.params)?
        };
        let size = std::num::NonZeroU64::new(launch.params.len() as u64);
        let mut entries = vec![wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &slot.page,
                offset: 0,
                size,
            }),
        }];
        entries.extend(args.iter().zip(shader.bindings).zip(1..).map(|((arg, binding), index)| {
            wgpu::BindGroupEntry {
                binding: index,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: arg.view.buffer,
                    offset: arg.view.offset,
                    // Exactly what the shader touches, so that a wrong index cannot reach further.
                    size: std::num::NonZeroU64::new(
                        arg.need.max(binding.stride).next_multiple_of(binding.stride).min(arg.view.size),
                    ),
                }),
            }
        }));
        let bind_group = scope::checked(&self.inner.device, || {
            self.inner.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(shader.name),
                layout: &pipeline.layout,
                entries: &entries,
            })
        })?;
        Ok(Dispatch::new(pipeline, bind_group, slot, launch, args))
    }

    /// Binds the same launch with other parameters: a piece of a longer one.
    pub(super) fn rebind(&self, dispatch: &Dispatch, launch: &Launch) -> Result<Dispatch> {
        let views = dispatch.buffers();
        let args: Vec<_> = views
            .iter()
            .map(|(what, buffer, range)| {
                let view = BufferView::range(buffer, range.start, range.end - range.start);
                Arg { what, view, need: view.size }
            })
            .collect();
        self.bind(launch, &args)
    }
}

/// Scratch buffers for one plan; may be used again by any recording of the same plan.
#[derive(Debug, Clone, Default)]
pub struct Scratch(pub Vec<wgpu::Buffer>);

impl Scratch {
    /// The buffers handed out to the parts of a kernel, so many to each in order.
    pub(crate) fn split<const N: usize>(&self, lengths: [usize; N]) -> Result<[Self; N]> {
        let need: usize = lengths.iter().sum();
        if self.0.len() < need {
            let (need, have) = (need as u64, self.0.len() as u64);
            return Err(Error::BufferTooSmall { what: "scratch", need, have });
        }
        let mut buffers = self.0.iter().cloned();
        Ok(lengths.map(|n| Self(buffers.by_ref().take(n).collect())))
    }

    /// A view of buffer `index`; `Err` if the plan asks for more buffers than are here.
    pub fn view(&self, index: usize) -> Result<BufferView<'_>> {
        self.0.get(index).map(BufferView::new).ok_or(Error::BufferTooSmall {
            what: "scratch",
            need: index as u64 + 1,
            have: self.0.len() as u64,
        })
    }
}
