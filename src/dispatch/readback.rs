//! Reading results back: asynchronous, with a blocking twin behind `blocking`.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use super::buffer::BufferView;
use super::context::Context;
use super::error::{Error, Result};
use super::scope;

#[derive(Debug, Default)]
struct State {
    done: Option<Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

/// Bytes on their way back from the device.
///
/// [`record`](Self::record) puts the copy into the caller's encoder. The future is ready after the
/// caller has submitted that encoder and polled the device.
#[derive(Debug)]
pub struct Readback {
    context: Context,
    staging: wgpu::Buffer,
    size: u64,
    state: Arc<Mutex<State>>,
}

impl Readback {
    /// Records a copy of `view` into a staging buffer, which is mapped when the encoder is submitted.
    pub fn record(
        context: &Context,
        encoder: &mut wgpu::CommandEncoder,
        view: BufferView<'_>,
    ) -> Result<Self> {
        Self::record_after(context, encoder, view, |_| {})
    }

    /// The same after what `before` records, once nothing can fail any more.
    pub(super) fn record_after(
        context: &Context,
        encoder: &mut wgpu::CommandEncoder,
        view: BufferView<'_>,
        before: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<Self> {
        context.check_lost()?;
        let BufferView { buffer, offset, size } = view;
        if offset.checked_add(size).is_none_or(|end| end > buffer.size()) {
            return Err(Error::OutOfBounds { what: "readback", offset, size, buffer: buffer.size() });
        }
        for (quantity, value) in [("offset", offset), ("size", size)] {
            if !value.is_multiple_of(4) {
                return Err(Error::Misaligned { what: "readback", quantity, value, alignment: 4 });
            }
        }
        if !buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
            return Err(Error::UsageMissing { what: "readback", usage: "COPY_SRC" });
        }
        let staging = context.create_buffer(
            "readback",
            size,
            wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        )?;
        // On a lost device wgpu makes buffers that are invalid and says nothing, until the submit maps
        // them and the host's handler of errors hears of it. Mapping a buffer now tells first, also where
        // nobody told the context of the loss. It must be another buffer: wgpu keeps a request to map
        // until the next poll, and a poll on another thread could answer it with the staging buffer
        // while its copy is still to come.
        let probe = context.create_buffer("readback", 4, staging.usage())?;
        let valid = scope::checked(context.device(), || probe.map_async(wgpu::MapMode::Read, .., |_| {}));
        if valid.is_err() {
            context.mark_lost();
            return Err(Error::DeviceLost);
        }
        let state = Arc::new(Mutex::new(State::default()));
        before(encoder);
        if size > 0 {
            encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, Some(size));
        }
        let shared = state.clone();
        encoder.map_buffer_on_submit(&staging, wgpu::MapMode::Read, .., move |result| {
            let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            state.done = Some(result);
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        });
        Ok(Self { context: context.clone(), staging, size, state })
    }

    fn take(&self) -> Result<Vec<u8>> {
        let range = self.staging.slice(..).get_mapped_range().map_err(|e| Error::Device(e.to_string()))?;
        let bytes = range[..self.size as usize].to_vec();
        drop(range);
        self.staging.unmap();
        Ok(bytes)
    }

    /// Waits for the copy on this thread: polls the device until it is there or `timeout` is over.
    #[cfg(feature = "blocking")]
    pub fn wait(self, timeout: std::time::Duration) -> Result<Vec<u8>> {
        // With an empty queue the copy is made, but another thread's poll may still be about to tell so.
        const GRACE: std::time::Duration = std::time::Duration::from_secs(1);
        let started = std::time::Instant::now();
        let mut empty_since = None;
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            let polled = self
                .context
                .device()
                .poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(left) });
            let done = self.state.lock().unwrap_or_else(PoisonError::into_inner).done.take();
            match (done, polled) {
                (Some(Ok(())), _) => return self.take(),
                (Some(Err(_)), _) => {
                    self.context.mark_lost();
                    return Err(Error::DeviceLost);
                }
                (None, _) if left.is_zero() => {
                    return Err(Error::Timeout { seconds: timeout.as_secs_f64() });
                }
                (None, Ok(status)) if status.is_queue_empty() => {
                    if empty_since.get_or_insert_with(std::time::Instant::now).elapsed() > GRACE {
                        return Err(Error::Device("the readback's encoder was not submitted".into()));
                    }
                    std::thread::yield_now();
                }
                _ => empty_since = None,
            }
        }
    }
}

impl Future for Readback {
    type Output = Result<Vec<u8>>;

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let done = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.waker = Some(cx.waker().clone());
            state.done.take()
        };
        match done {
            None => Poll::Pending,
            Some(Ok(())) => Poll::Ready(self.take()),
            Some(Err(_)) => {
                self.context.mark_lost();
                Poll::Ready(Err(Error::DeviceLost))
            }
        }
    }
}

#[cfg(feature = "blocking")]
impl Context {
    /// Submits a copy of `view`, waits for it, and returns the bytes as `T`s.
    pub fn read_blocking<T: bytemuck::Pod>(&self, view: BufferView<'_>) -> Result<Vec<T>> {
        let mut encoder = self.device().create_command_encoder(&Default::default());
        let readback = Readback::record(self, &mut encoder, view)?;
        self.queue().submit([encoder.finish()]);
        let bytes = readback.wait(std::time::Duration::from_secs(600))?;
        Ok(bytemuck::pod_collect_to_vec(&bytes[..bytes.len() / size_of::<T>() * size_of::<T>()]))
    }

    /// Encodes, submits and waits for a recording.
    pub fn run_blocking(&self, recording: &super::Recording) -> Result<()> {
        self.check_lost()?;
        let mut encoder = self.device().create_command_encoder(&Default::default());
        recording.encode(&mut encoder);
        self.queue().submit([encoder.finish()]);
        self.wait_blocking()
    }

    /// Waits until everything submitted so far is done.
    pub fn wait_blocking(&self) -> Result<()> {
        let timeout = std::time::Duration::from_secs(600);
        self.device()
            .poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(timeout) })
            .map(drop)
            .map_err(|_| Error::Timeout { seconds: timeout.as_secs_f64() })
    }
}
