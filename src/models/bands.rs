//! Pictures that are larger than a buffer may be: in bands of rows.

use super::picture::Picture;
use crate::dispatch::{Context, Kernel, Result};
use crate::radial::{SobelBand, SobelBandArgs, SobelBandConfig};
use crate::train::Tensor;

/// The most bytes that a storage buffer may have.
pub(super) fn most_bytes(context: &Context) -> u64 {
    let limits = &context.capabilities().limits;
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)
}

/// The norms of a picture's gradient, `[height, width]`, weighed band by band.
#[cfg(feature = "blocking")]
pub(super) fn gradient_norms(context: &Context, picture: &Picture) -> Result<Tensor> {
    /// Of a band's rows: enough to keep a device busy.
    const BYTES: u64 = 1 << 25;
    let Picture { width, height, channels, ref data } = *picture;
    let raw = Tensor::new(context, "gradient norms", &[height, width])?;
    let row = width as usize * channels as usize;
    // One row more on each side is read.
    let rows = (most_bytes(context).min(BYTES) / (4 * row as u64)).saturating_sub(2);
    let rows = rows.clamp(1, height.into()) as u32;
    for first_row in (0..height).step_by(rows as usize) {
        let rows = rows.min(height - first_row);
        let band = SobelBand::new(context, SobelBandConfig { width, height, channels, first_row, rows })?;
        let read = band.config().rows_read();
        let shape = [read.len() as u32, width, channels];
        let read = read.start as usize * row..read.end as usize * row;
        let values = Tensor::from_slice(context, "rows", &shape, &data[read])?;
        context.run_blocking(&band.prepare(&SobelBandArgs { values: values.view(), raw: raw.view() })?)?;
    }
    Ok(raw)
}
