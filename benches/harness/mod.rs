//! What every bench shares: the adapter, buffers, the clock, and a row of the table for each run.
//!
//! A shared machine is now fast and now slow. So each sample of a kernel stands between two short
//! measurements of the ceilings, its share of the roof is taken against these, and a row reports
//! the medians over its samples.

pub mod adapter;
pub mod clock;
pub mod report;

use std::time::Duration;

use criterion::{Criterion, SamplingMode};
use patchfield::dense::{Distribution, RandomArgs, RandomConfig, RandomFill, RandomState};
use patchfield::{BufferView, Context, Kernel, Recording, Result};

use crate::roofline::{Ceilings, Roofline};
use clock::Clock;
use report::Row;

/// Samples of a row.
const SAMPLES: usize = 10;

/// The state of a run.
pub struct Bench {
    context: Context,
    clock: Clock,
    roofline: Roofline,
    criterion: Criterion,
    kernel: &'static str,
    rows: Vec<Row>,
}

/// One sample: the seconds of one execution, and the ceilings around it.
struct Sample {
    seconds: f64,
    roof_seconds: f64,
}

impl Bench {
    pub fn new(context: &Context, quick: bool) -> Result<Self> {
        let clock = Clock::new(context)?;
        let roofline = Roofline::new(context, &clock, quick)?;
        let (warm, measure) = if quick { (50, 100) } else { (300, 1000) };
        let criterion = Criterion::default()
            .without_plots()
            .sample_size(SAMPLES)
            .nresamples(1000)
            .warm_up_time(Duration::from_millis(warm))
            .measurement_time(Duration::from_millis(measure));
        Ok(Self { context: context.clone(), clock, roofline, criterion, kernel: "", rows: Vec::new() })
    }

    /// How time is taken.
    pub fn clock(&self) -> &'static str {
        self.clock.name()
    }

    /// The ceilings as measured at the start.
    pub fn ceilings(&self) -> Ceilings {
        self.roofline.first()
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The rows that follow belong to this kernel.
    pub fn begin(&mut self, kernel: &'static str) {
        self.kernel = kernel;
    }

    /// The adapter and all rows.
    pub fn finish(self) -> (String, Vec<Row>) {
        (self.context.capabilities().adapter.clone(), self.rows)
    }

    /// Elements of an array that no cache holds: 64 MiB of f32 on a CPU, 128 MiB on a GPU.
    pub fn elements(&self) -> u32 {
        if self.context.capabilities().cpu { 1 << 24 } else { 1 << 25 }
    }

    /// `on_cpu` on a CPU adapter, else `on_gpu`: how many points make about a tenth of a second.
    pub fn size(&self, on_cpu: u32, on_gpu: u32) -> u32 {
        if self.context.capabilities().cpu { on_cpu } else { on_gpu }
    }

    /// A buffer of `words` 32-bit words, zeros.
    pub fn zeros(&self, words: u32) -> Result<wgpu::Buffer> {
        self.context.create_storage("bench", u64::from(words) * 4)
    }

    /// A buffer of `words` random numbers.
    pub fn random(&self, words: u32, distribution: Distribution) -> Result<wgpu::Buffer> {
        let y = self.zeros(words)?;
        let state = self.upload(RandomState::new(7, 0).bytes())?;
        let config = RandomConfig { count: words, distribution, scale: 1.0, stream: 0, first_block: 0 };
        let fill = RandomFill::new(&self.context, config)?;
        let args = RandomArgs { state: BufferView::new(&state), y: BufferView::new(&y) };
        self.context.run_blocking(&fill.prepare(&args)?)?;
        Ok(y)
    }

    /// A buffer of f32 in [-1, 1).
    pub fn noise(&self, elements: u32) -> Result<wgpu::Buffer> {
        self.random(elements, Distribution::Symmetric)
    }

    /// A buffer with these bytes.
    pub fn upload(&self, bytes: &[u8]) -> Result<wgpu::Buffer> {
        let buffer = self.context.create_storage("bench", bytes.len() as u64)?;
        self.context.write(&buffer, 0, bytes)?;
        Ok(buffer)
    }

    /// Measures a kernel with its buffers bound, as the row `variant` of the current kernel.
    pub fn row<K: Kernel>(
        &mut self,
        kernel: &K,
        what: &str,
        shape: impl Into<String>,
        args: &K::Args<'_>,
    ) -> Result<()> {
        let recording = kernel.prepare(args)?;
        let variant = match kernel.planned().variant {
            // Some kernels name the variant after what they compute.
            plan if what.contains(plan) => what.to_string(),
            plan => format!("{what}, {plan}"),
        };
        self.measure(variant, shape.into(), &recording)
    }

    /// Seconds of the row measured last; 0 before the first.
    pub fn last_seconds(&self) -> f64 {
        self.rows.last().map_or(0.0, |row| row.seconds)
    }

    fn measure(&mut self, variant: String, shape: String, recording: &Recording) -> Result<()> {
        let (clock, roofline) = (&self.clock, &self.roofline);
        let mut samples = Vec::new();
        let mut failure = None;
        let mut group = self.criterion.benchmark_group(self.kernel);
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function(format!("{variant} {shape}"), |bencher| {
            bencher.iter_custom(|times| {
                let sample = sample(clock, roofline, recording, times);
                let seconds = sample.as_ref().map_or(0.0, |sample| sample.seconds);
                match sample {
                    Ok(sample) => samples.push(sample),
                    Err(error) => failure = Some(error),
                }
                Duration::from_secs_f64((seconds * times as f64).max(1e-9))
            });
        });
        group.finish();
        if let Some(error) = failure {
            return Err(error);
        }
        // The first calls were criterion's warm-up.
        let samples = &samples[samples.len().saturating_sub(SAMPLES)..];
        let seconds = median(samples.iter().map(|s| s.seconds));
        let cost = recording.cost();
        self.rows.push(Row {
            kernel: self.kernel.to_string(),
            variant,
            shape,
            seconds,
            gflops: cost.flops as f64 / seconds * 1e-9,
            gbytes_per_s: cost.bytes as f64 / seconds * 1e-9,
            roof_percent: 100.0 * median(samples.iter().map(|s| s.roof_seconds / s.seconds)),
            peer: None,
        });
        Ok(())
    }
}

fn sample(clock: &Clock, roofline: &Roofline, recording: &Recording, times: u64) -> Result<Sample> {
    let before = roofline.measure(clock, 1)?;
    let seconds = clock.seconds(times, &|pass| recording.encode_in(pass))?;
    // Schedulers favour short bursts: beside a long sample the ceilings take their time too.
    let turns = (seconds * times as f64 / 0.05).clamp(1.0, 8.0) as u64;
    let after = roofline.measure(clock, turns)?;
    let ceilings = before.mean(&after);
    // Launches run one after the other: each has a roof of its own.
    let roof_seconds = recording.dispatches().iter().map(|d| ceilings.seconds(d.launch().cost)).sum();
    Ok(Sample { seconds, roof_seconds })
}

/// The median; 0 of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n => (values[n / 2] + values[(n - 1) / 2]) / 2.0,
    }
}
