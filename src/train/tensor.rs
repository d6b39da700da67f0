//! A tensor: a buffer of f32 and a shape.

use crate::dispatch::{BufferView, Context, Error, Result, check_shape, count};

/// A buffer of f32 with a shape, row-major, the last axis contiguous. Clones share the buffer.
#[derive(Debug, Clone)]
pub struct Tensor {
    buffer: wgpu::Buffer,
    shape: Vec<u32>,
}

impl Tensor {
    /// A new tensor whose contents are not defined until something writes them.
    pub fn new(context: &Context, what: &'static str, shape: &[u32]) -> Result<Self> {
        let n = count(what, shape)?;
        check_shape(n > 0, what, "no zero in the shape", shape)?;
        Ok(Self { buffer: context.create_storage(what, u64::from(n) * 4)?, shape: shape.to_vec() })
    }

    /// A new tensor with contents; `data` has as many elements as the shape.
    pub fn from_slice(context: &Context, what: &'static str, shape: &[u32], data: &[f32]) -> Result<Self> {
        let tensor = Self::new(context, what, shape)?;
        tensor.write(context, data)?;
        Ok(tensor)
    }

    /// A tensor over the start of a buffer of the caller's.
    pub fn from_buffer(buffer: &wgpu::Buffer, shape: &[u32]) -> Result<Self> {
        let n = count("tensor", shape)?;
        check_shape(n > 0, "tensor", "no zero in the shape", shape)?;
        let need = u64::from(n) * 4;
        if buffer.size() < need {
            return Err(Error::BufferTooSmall { what: "tensor", need, have: buffer.size() });
        }
        Ok(Self { buffer: buffer.clone(), shape: shape.to_vec() })
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &[u32] {
        &self.shape
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.shape.iter().product()
    }

    /// Never true: a shape has no zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The view that kernels take.
    #[must_use]
    pub fn view(&self) -> BufferView<'_> {
        BufferView::range(&self.buffer, 0, u64::from(self.len()) * 4)
    }

    /// The buffer.
    #[must_use]
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Overwrites the contents, through `Queue::write_buffer`; the buffer has the usage `COPY_DST`.
    pub fn write(&self, context: &Context, data: &[f32]) -> Result<()> {
        let fits = data.len() == self.len() as usize;
        check_shape(fits, "tensor data", format!("{} elements", self.len()), data.len())?;
        context.write(&self.buffer, 0, bytemuck::cast_slice(data))
    }

    /// Submits a copy and waits for it.
    #[cfg(feature = "blocking")]
    pub fn read(&self, context: &Context) -> Result<Vec<f32>> {
        context.read_blocking(self.view())
    }
}
