//! Time: the GPU's own where the adapter has timestamps, else that around submit and wait.

use std::time::{Duration, Instant};

use patchfield::dispatch::Timer;
use patchfield::{Context, Result};

/// Executions that one pass holds at the most.
const BATCH: u64 = 256;

pub struct Clock {
    context: Context,
    timer: Option<Timer>,
}

impl Clock {
    pub fn new(context: &Context) -> Result<Self> {
        let timer = context.capabilities().timestamps.then(|| Timer::new(context)).transpose()?;
        Ok(Self { context: context.clone(), timer })
    }

    /// For people.
    pub fn name(&self) -> &'static str {
        match self.timer {
            Some(_) => "timestamps of the GPU around a compute pass",
            None => "wall time around submit and wait (this adapter has no timestamps)",
        }
    }

    /// Mean seconds of one of `times` executions of what `encode` puts into a pass.
    pub fn seconds(&self, times: u64, encode: &dyn Fn(&mut wgpu::ComputePass<'_>)) -> Result<f64> {
        let (mut total, mut left) = (0.0, times);
        while left > 0 {
            let now = left.min(BATCH);
            total += self.pass(now, encode)?;
            left -= now;
        }
        Ok(total / times.max(1) as f64)
    }

    fn pass(&self, times: u64, encode: &dyn Fn(&mut wgpu::ComputePass<'_>)) -> Result<f64> {
        let mut encoder = self.context.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("bench"),
            timestamp_writes: self.timer.as_ref().map(Timer::writes),
        });
        for _ in 0..times {
            encode(&mut pass);
        }
        drop(pass);
        let resolved = self.timer.as_ref().map(|timer| timer.resolve(&mut encoder)).transpose()?;
        let commands = encoder.finish();
        let start = Instant::now();
        self.context.queue().submit([commands]);
        let (Some(timer), Some(readback)) = (&self.timer, resolved) else {
            self.context.wait_blocking()?;
            return Ok(start.elapsed().as_secs_f64());
        };
        let bytes = readback.wait(Duration::from_secs(600))?;
        let (seconds, wall) = (timer.seconds(&bytes), start.elapsed().as_secs_f64());
        // Some drivers write zeros.
        Ok(if seconds > 0.0 { seconds } else { wall })
    }
}
