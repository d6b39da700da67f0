//! From a list of indices to the places at which each index stands (`shaders/dense/gather.wgsl`).

use super::gather::{CLAMP, GatherConfig, STARTS};
use super::sort::{Sort, SortConfig, SortKey, SortPayload};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Cost, Error, Kernel, Plan, Recording, Result, Scratch, check_apart,
    check_config, kernel,
};

/// `n` indices below `rows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvertedIndexConfig {
    /// Rows that the indices name, 1 to 2^32 - 2.
    pub rows: u32,
    /// Indices, 1 to 2^32 - 4,096.
    pub n: u32,
}

impl InvertedIndexConfig {
    fn gather(&self) -> GatherConfig {
        GatherConfig { rows: self.rows, n: self.n, width: 1, variant: None }
    }

    fn sort(&self) -> SortConfig {
        // Keys are 0 to `rows`.
        SortConfig {
            key: SortKey::U32,
            count: self.n,
            payload: SortPayload::Indices,
            descending: false,
            bits: 32 - self.rows.leading_zeros(),
            variant: None,
        }
    }
}

kernel! {
    /// The inverted lists of an index (compressed sparse rows): whoever owns a row can then add up
    /// what the places that name it have, without atomics and in a fixed order.
    InvertedIndex, InvertedIndexConfig
}

/// Buffers of [`InvertedIndex`].
#[derive(Debug, Clone, Copy)]
pub struct InvertedIndexArgs<'a> {
    /// The index, u32 `[n]`. What is not below `rows` is in no list.
    pub index: BufferView<'a>,
    /// The places, u32 `[n]`: list after list, each in ascending order; what is in no list is last.
    pub order: BufferView<'a>,
    /// Where each row's list begins in `order`, u32 `[rows + 1]`; the last is the end of the last list.
    pub starts: BufferView<'a>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

/// Scratch buffers before the sort's: keys, sorted keys.
const OWN_SCRATCH: usize = 2;

impl InvertedIndex {
    /// Sort keys, a stable sort, and a bisection for each row.
    pub fn plan(config: &InvertedIndexConfig, caps: &Capabilities) -> Result<Plan> {
        let InvertedIndexConfig { rows, n } = *config;
        check_config(rows > 0 && rows < u32::MAX, "rows", "1 to 2^32 - 2", rows)?;
        check_config(n > 0, "n", "at least 1", n)?;
        let gather = config.gather();
        let sort = Sort::plan(&config.sort(), caps)?;
        let (wide_n, wide_rows) = (u64::from(n), u64::from(rows));
        let mut plan = Plan { variant: "sorted", ..Plan::default() };
        plan.launches.push(gather.launch(&CLAMP, n, false, caps, Cost::new(0, 8 * wide_n))?);
        plan.launches.extend(sort.launches);
        // A bisection reads a key a step; all of them no more than there are.
        let seen = (wide_rows * u64::from(n.ilog2() + 1)).min(wide_n);
        let cost = Cost::new(0, 4 * (seen + wide_rows));
        plan.launches.push(gather.launch(&STARTS, rows + 1, false, caps, cost)?);
        plan.scratch = vec![wide_n * 4; OWN_SCRATCH];
        plan.scratch.extend(sort.scratch);
        Ok(plan)
    }
}

impl Kernel for InvertedIndex {
    type Args<'a> = InvertedIndexArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let InvertedIndexConfig { rows, n } = self.config;
        let scratch: Vec<_> =
            (0..self.plan.scratch.len()).map(|i| args.scratch.view(i)).collect::<Result<_>>()?;
        let (own, sort_scratch) = scratch.split_at(OWN_SCRATCH.min(scratch.len()));
        let (&[keys, sorted], [clamp, passes @ .., starts]) = (own, &self.plan.launches[..]) else {
            let have = own.len() as u64;
            return Err(Error::BufferTooSmall { what: "scratch", need: OWN_SCRATCH as u64, have });
        };
        let words = |what, view, n: u32| Arg::words(what, view, n.into());
        // No launch sees them all.
        let (index, starts_out) = (words("index", args.index, n), words("starts", args.starts, rows + 1));
        check_apart(&[words("order", args.order, n), starts_out], &[Some(index)])?;
        let clamped = [index, words("keys", keys, n)];
        let mut recording = Recording::single(self.context.bind(clamp, &clamped)?);
        recording.append(Sort::bind(
            &self.context,
            passes,
            &self.config.sort(),
            (keys, sorted),
            (None, Some(args.order)),
            sort_scratch,
        )?);
        let bisected = [words("sorted", sorted, n), starts_out];
        recording.push(self.context.bind(starts, &bisected)?);
        Ok(recording)
    }
}
