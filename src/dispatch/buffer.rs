//! Views into the caller's buffers, and the checks that they must pass.

use super::error::{Error, Result};
use super::shader::Binding;

/// A range of a buffer, in bytes. Kernels never own the buffers they work on.
#[derive(Debug, Clone, Copy)]
pub struct BufferView<'a> {
    /// The buffer.
    pub buffer: &'a wgpu::Buffer,
    /// First byte; a multiple of the device's storage alignment (256 by default).
    pub offset: u64,
    /// Number of bytes.
    pub size: u64,
}

impl<'a> BufferView<'a> {
    /// The whole buffer.
    #[must_use]
    pub fn new(buffer: &'a wgpu::Buffer) -> Self {
        Self { buffer, offset: 0, size: buffer.size() }
    }

    /// The `size` bytes from `offset`.
    #[must_use]
    pub fn range(buffer: &'a wgpu::Buffer, offset: u64, size: u64) -> Self {
        Self { buffer, offset, size }
    }
}

impl<'a> From<&'a wgpu::Buffer> for BufferView<'a> {
    fn from(buffer: &'a wgpu::Buffer) -> Self {
        Self::new(buffer)
    }
}

/// How a shader uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    Write,
}

/// One argument of a launch: a view, its name for error messages, and the bytes the shader touches.
#[derive(Debug, Clone, Copy)]
pub struct Arg<'a> {
    /// The name the caller knows it by.
    pub what: &'static str,
    /// The range.
    pub view: BufferView<'a>,
    /// Bytes that the shader may read or write; the binding is made this long.
    pub need: u64,
}

impl<'a> Arg<'a> {
    /// `elements` elements of `element_size` bytes each.
    #[must_use]
    pub fn new(what: &'static str, view: BufferView<'a>, elements: u64, element_size: u64) -> Self {
        let need = elements.saturating_mul(element_size).saturating_add(3) / 4 * 4;
        Self { what, view, need }
    }

    /// `elements` 32-bit elements.
    #[must_use]
    pub fn words(what: &'static str, view: BufferView<'a>, elements: u64) -> Self {
        Self::new(what, view, elements, 4)
    }
}

/// Checks the arguments of one launch against each other and against the device.
pub(super) fn check(args: &[Arg<'_>], bindings: &[Binding], limits: &wgpu::Limits) -> Result<()> {
    let align = u64::from(limits.min_storage_buffer_offset_alignment);
    for (index, (arg, binding)) in args.iter().zip(bindings).enumerate() {
        let Arg { what, view, need } = *arg;
        let need = need.max(binding.stride);
        let buffer = view.buffer.size();
        if view.offset.checked_add(view.size).is_none_or(|end| end > buffer) {
            return Err(Error::OutOfBounds { what, offset: view.offset, size: view.size, buffer });
        }
        if view.size < need {
            return Err(Error::BufferTooSmall { what, need, have: view.size });
        }
        if !view.offset.is_multiple_of(align) {
            return Err(Error::Misaligned { what, quantity: "offset", value: view.offset, alignment: align });
        }
        if !view.buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::UsageMissing { what, usage: "STORAGE" });
        }
        let limit = limits.max_storage_buffer_binding_size;
        if need > limit {
            return Err(Error::LimitExceeded {
                what,
                limit: "max_storage_buffer_binding_size",
                need,
                have: limit,
            });
        }
        for (other, other_binding) in args.iter().zip(bindings).take(index) {
            let (here, there) = (binding.access == Access::Write, other_binding.access == Access::Write);
            if (here || there) && other.view.buffer == view.buffer {
                let (what, other) = if here { (what, other.what) } else { (other.what, what) };
                return Err(Error::Aliased { what, other });
            }
        }
    }
    Ok(())
}

/// No launch of a kernel may see an output that is an input of another, nor two the same output:
/// [`check`] sees one launch alone. Other ranges of one buffer are other data.
pub(crate) fn check_apart(outputs: &[Arg<'_>], inputs: &[Option<Arg<'_>>]) -> Result<()> {
    for (i, output) in outputs.iter().enumerate() {
        let mut others = inputs.iter().flatten().chain(&outputs[..i]);
        if let Some(other) = others.find(|other| overlap(&other.view, &output.view)) {
            return Err(Error::Aliased { what: output.what, other: other.what });
        }
    }
    Ok(())
}

fn overlap(a: &BufferView<'_>, b: &BufferView<'_>) -> bool {
    let apart = a.offset.saturating_add(a.size) <= b.offset || b.offset.saturating_add(b.size) <= a.offset;
    a.buffer == b.buffer && !apart
}

/// The number of elements of `shape`, if it and every index into it fits into 32 bits.
pub(crate) fn count(what: &'static str, shape: &[u32]) -> Result<u32> {
    let elements = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(u64::from(d)));
    match elements {
        Some(n) if n <= u64::from(u32::MAX) => Ok(n as u32),
        other => Err(Error::IndexOverflow { what, elements: other.unwrap_or(u64::MAX) }),
    }
}
