//! wgpu's error scopes: its errors become values here and never reach the host's handlers.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::error::{Error, Result};

/// Runs `make`, and returns an error that wgpu reported on the way: of several that memory was lacking, since
/// what could not be made is invalid from then on.
///
/// Scopes belong to the thread and are popped here before anything else can run. wgpu-core answers
/// at once; in a browser the answer comes later, and a pending one counts as none.
fn guarded<T>(device: &wgpu::Device, make: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let value = make();
    let mut error = None;
    for scope in [validation, internal, memory] {
        if let Poll::Ready(Some(e)) = pin!(scope.pop()).poll(&mut Context::from_waker(Waker::noop())) {
            error = Some(e);
        }
    }
    error.map_or(Ok(value), Err)
}

/// For buffers: out of memory is told apart.
pub(super) fn allocate<T>(
    device: &wgpu::Device,
    what: &str,
    bytes: u64,
    make: impl FnOnce() -> T,
) -> Result<T> {
    guarded(device, make).map_err(|error| match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what: what.into(), bytes },
        other => Error::Device(other.to_string()),
    })
}

/// For shader modules and pipelines: `explain` maps the places in the message. Out of memory is told apart.
pub(super) fn compile<T>(
    device: &wgpu::Device,
    shader: &'static str,
    explain: impl Fn(&str) -> String,
    make: impl FnOnce() -> T,
) -> Result<T> {
    guarded(device, make).map_err(|error| match error {
        // How much it was is not told.
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what: shader.into(), bytes: 0 },
        other => Error::Shader { shader, message: explain(&other.to_string()) },
    })
}

/// For everything else.
pub(super) fn checked<T>(device: &wgpu::Device, make: impl FnOnce() -> T) -> Result<T> {
    guarded(device, make).map_err(|error| Error::Device(error.to_string()))
}
