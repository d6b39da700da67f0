//! Batches of points around a mesh with their distances, for fits.

use super::mesh::{MeshSearch, SearchOutputs};
use crate::dense::{
    Activation, ActivationConfig, ActivationForward, ActivationForwardArgs, Add, AddArgs, AddConfig,
    CopyArgs, CopyConfig, CopyWords, RandomState, SwapAxes, SwapAxesArgs, SwapAxesConfig,
};
use crate::dispatch::{BufferView, Context, Kernel, Recording, Result};
use crate::radial::MeshSign;
use crate::train::Tensor;

/// The points of a pool, about; and the most batches of one.
const POINTS: u32 = 1 << 21;
const MOST: u32 = 64;

/// How often a CPU goes through a pool of many batches: searching for a point takes it longer than training with it.
const ROUNDS_OF_A_CPU: u64 = 4;

/// The pool and its batch of a step.
fn place(step: u64, batches: u64, is_cpu: bool) -> (u64, u64) {
    let rounds = if is_cpu && batches >= 16 { ROUNDS_OF_A_CPU } else { 1 };
    (step / (batches * rounds), step % batches)
}

/// New points for each step (on a CPU for each fourth: see `place`), many batches at a time: a pool of points that are
/// neighbours in memory and in space is searched several times as fast as batches of their own. A batch takes every n-th
/// point (or pair) of a pool of n batches, so that it too has points everywhere.
pub(super) struct MeshBatches {
    context: Context,
    seed: u64,
    state: wgpu::Buffer,
    fill: Recording,
    /// One for each batch of the pool.
    take: Vec<Recording>,
    filled: Option<u64>,
}

impl MeshBatches {
    /// For batches of `counts` points on the surface (a multiple of 64), near it and anywhere in the unit cube. The first
    /// two have a standard deviation, which may be 0 for those on the surface; the third is that between the two
    /// points of a pair, 0 for points by themselves. Points are written to `positions`, `[batch, 3]`, and distances times
    /// `scale`, or the sigmoid of that, to `target`, `[batch, 1]`.
    pub fn new(
        search: &MeshSearch,
        counts: [u32; 3],
        sigmas: [f32; 3],
        (scale, squash): (f32, bool),
        seed: u64,
        [positions, target]: [&Tensor; 2],
    ) -> Result<Self> {
        let context = search.context().clone();
        let batch: u32 = counts.iter().sum();
        // A batch must begin where a buffer can be bound.
        let batches = if batch.is_multiple_of(64) { (POINTS / batch).clamp(1, MOST) } else { 1 };
        let all = crate::dispatch::count("pool", &[batch, batches, 3])? / 3;
        let together = if sigmas[2] > 0.0 { 2 } else { 1 };
        // Points that need no search.
        let surface = if sigmas[0] > 0.0 || together > 1 { 0 } else { counts[0] * batches };
        let tensor = |what, shape: &[u32]| Tensor::new(&context, what, shape);
        let state = context.create_storage("state", RandomState::WORDS * 4)?;
        let strewn = tensor("strewn", &[all, 3])?;
        let mut fill = search.sample(&state, &strewn, counts.map(|n| n * batches), sigmas, true)?;
        // On the surface the distance is 0.
        let distance = Tensor::from_slice(&context, "distance", &[all], &vec![0.0; all as usize])?;
        let rest = SearchOutputs::new(&context, (all - surface).max(1))?;
        let sign = MeshSign::Approximate { beta: 2.0 };
        if surface < all {
            fill.append(search.search(surface, &strewn, &distance, &rest, sign)?);
        }
        let mut scaled = tensor("scaled", &[all])?;
        let add = Add::new(&context, AddConfig { count: all, a: scale, b: 0.0, variant: None })?;
        fill.append(add.prepare(&AddArgs { x: distance.view(), y: scaled.view() })?);
        if squash {
            let config = ActivationConfig { activation: Activation::Sigmoid, count: all, variant: None };
            let squashed = tensor("squashed", &[all])?;
            let args = ActivationForwardArgs { x: scaled.view(), y: squashed.view() };
            fill.append(ActivationForward::new(&context, config)?.prepare(&args)?);
            scaled = squashed;
        }
        let mut take: Vec<Recording> = (0..batches).map(|_| Recording::new()).collect();
        for (from, width, to) in [(&strewn, 3, positions), (&scaled, 1, target)] {
            let sorted = tensor("sorted", from.shape())?;
            let config = SwapAxesConfig { a: batch / together, b: batches, width: width * together };
            let swap = SwapAxes::new(&context, config)?;
            fill.append(swap.prepare(&SwapAxesArgs { x: from.view(), y: sorted.view() })?);
            let copy = CopyWords::new(&context, CopyConfig { count: batch * width, variant: None })?;
            let bytes = u64::from(batch * width) * 4;
            for (i, take) in take.iter_mut().enumerate() {
                let x = BufferView::range(sorted.buffer(), i as u64 * bytes, bytes);
                take.append(copy.prepare(&CopyArgs { x, y: to.view() })?);
            }
        }
        Ok(Self { context, seed, state, fill, take, filled: None })
    }

    /// Writes the batch of a step.
    #[cfg(feature = "blocking")]
    pub fn write(&mut self, step: u64) -> Result<()> {
        let (pool, batch) = place(step, self.take.len() as u64, self.context.capabilities().cpu);
        if self.filled != Some(pool) {
            self.context.write(&self.state, 0, RandomState::new(self.seed, pool).bytes())?;
            self.context.run_blocking(&self.fill)?;
            self.filled = Some(pool);
        }
        self.take.get(batch as usize).map_or(Ok(()), |take| self.context.run_blocking(take))
    }
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn a_cpu_goes_four_times_through_a_pool_of_many_batches() {
        assert_eq!(
            [0, 63, 64, 255, 256].map(|step| place(step, 64, true)),
            [(0, 0), (0, 63), (0, 0), (0, 63), (1, 0)]
        );
        assert_eq!([0, 63, 64, 255].map(|step| place(step, 64, false)), [(0, 0), (0, 63), (1, 0), (3, 63)]);
        assert_eq!([0, 1, 2].map(|step| place(step, 1, true)), [(0, 0), (1, 0), (2, 0)]);
    }
}
