//! Reference and cases of `attention::token_select`.

use patchfield::Kernel;
use patchfield::attention::token_select::*;
use patchfield::dense::{
    Gather, GatherArgs, GatherConfig, PermutationConfig, RandomArgs, RandomPermutation, RandomState,
};

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "attention/token_select";

/// `index` and `inverse` of scores, by sorting.
pub fn by_score(score: &[f32], tokens: usize, keep: usize) -> [Vec<u32>; 2] {
    // Floats by value, NaN above all and -0 equal to 0.
    let above = |a: f32, b: f32| match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        _ => b.partial_cmp(&a).unwrap_or(std::cmp::Ordering::Equal),
    };
    select(score.len() / tokens, tokens, keep, |a, b| above(score[a], score[b]))
}

/// The same of ranks.
pub fn by_rank(rank: &[u32], tokens: usize, keep: usize) -> [Vec<u32>; 2] {
    select(rank.len() / tokens, tokens, keep, |a, b| rank[a].cmp(&rank[b]))
}

fn select(
    batch: usize,
    tokens: usize,
    keep: usize,
    order: impl Fn(usize, usize) -> std::cmp::Ordering,
) -> [Vec<u32>; 2] {
    let (mut index, mut inverse) = (Vec::new(), vec![u32::MAX; batch * tokens]);
    for b in 0..batch {
        let mut all: Vec<usize> = (b * tokens..(b + 1) * tokens).collect();
        // Stable: ties stay in the order of their indices.
        all.sort_by(|&a, &b| order(a, b));
        let mut kept = all[..keep].to_vec();
        kept.sort_unstable();
        for t in kept {
            inverse[t] = index.len() as u32;
            index.push(t as u32);
        }
    }
    [index, inverse]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Scores {
    Any,
    /// A few values: most tokens tie.
    Few,
    /// Zeros of both signs: all tie.
    Zeros,
    /// Zeros of both signs, infinities, NaN and denormals.
    Special,
}

fn case(batch: u32, tokens: u32, keep: u32, kind: Scores, random: &mut Random) -> Case {
    let config = TokenSelectConfig { batch, tokens, keep, order: TokenOrder::Score };
    let special =
        [0.0, -0.0, f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, -1e-40, 1.0, 1.000_000_1];
    let score: Vec<f32> = (0..batch * tokens)
        .map(|_| match kind {
            Scores::Any => random.uniform(-1.0, 1.0),
            Scores::Few => random.below(3) as f32 - 1.0,
            Scores::Zeros => [0.0, -0.0][random.below(2) as usize],
            Scores::Special => special[random.below(10) as usize],
        })
        .collect();
    let [index, inverse] = by_score(&score, tokens as usize, keep as usize);
    Case::new(KERNEL, format!("{config:?}, {kind:?}"), move |context, b| {
        let args = TokenSelectArgs { score: b["score"], index: b["index"], inverse: b["inverse"] };
        TokenSelect::new(context, config)?.prepare(&args)
    })
    .input("score", &score)
    .output("index", Expected::Exact(index))
    .output("inverse", Expected::Exact(inverse))
}

/// Patch dropout as a whole: a permutation, the choice, the gather and its transpose.
fn dropout(batch: u32, tokens: u32, keep: u32, width: u32, random: &mut Random) -> Case {
    let order = TokenOrder::Rank;
    let config = TokenSelectConfig { batch, tokens, keep, order };
    let n = (batch * tokens) as usize;
    let ranks: Vec<u32> = (0..batch)
        .flat_map(|_| {
            let mut own: Vec<u32> = (0..tokens).collect();
            (1..tokens).rev().for_each(|i| own.swap(i as usize, random.below(i + 1) as usize));
            own
        })
        .collect();
    let [index, inverse] = by_rank(&ranks, tokens as usize, keep as usize);
    let x = random.u32s(n * width as usize);
    let dy = random.u32s((batch * keep * width) as usize);
    let rows = |from: &[u32], index: &[u32]| crate::dense::gather::gather(from, index, width as usize);
    let (y, dx) = (rows(&x, &index), rows(&dy, &inverse));
    Case::new(KERNEL, format!("dropout [{batch}, {tokens} to {keep}, {width}]"), move |context, b| {
        let args = TokenSelectArgs { score: b["rank"], index: b["index"], inverse: b["inverse"] };
        let mut recording = TokenSelect::new(context, config)?.prepare(&args)?;
        let (all, kept) = (batch * tokens, batch * keep);
        let forward = GatherConfig { rows: all, n: kept, width, variant: None };
        let args = GatherArgs { x: b["x"], index: b["index"], y: b["y"] };
        recording.append(Gather::new(context, forward)?.prepare(&args)?);
        let backward = GatherConfig { rows: kept, n: all, width, variant: None };
        let args = GatherArgs { x: b["dy"], index: b["inverse"], y: b["dx"] };
        recording.append(Gather::new(context, backward)?.prepare(&args)?);
        Ok(recording)
    })
    .read("rank", Data::U32(ranks))
    .read("x", Data::U32(x))
    .read("dy", Data::U32(dy))
    .output("index", Expected::Exact(index))
    .output("inverse", Expected::Exact(inverse))
    .output("y", Expected::Exact(y))
    .output("dx", Expected::Exact(dx))
}

/// Permutations from the device as ranks: as many are kept as asked for, whatever they are.
fn random_ranks(batch: u32, tokens: u32, keep: u32) -> Case {
    let config = TokenSelectConfig { batch, tokens, keep, order: TokenOrder::Rank };
    let permutations = PermutationConfig { rows: batch, n: tokens, stream: 3 };
    let state: Vec<u32> = bytemuck::pod_collect_to_vec(RandomState::new(5, 1).bytes());
    Case::new(KERNEL, format!("permutations [{batch}, {tokens} to {keep}]"), move |context, b| {
        let args = RandomArgs { state: b["state"], y: b["rank"] };
        let mut recording = RandomPermutation::new(context, permutations)?.prepare(&args)?;
        let args = TokenSelectArgs { score: b["rank"], index: b["index"], inverse: b["inverse"] };
        recording.append(TokenSelect::new(context, config)?.prepare(&args)?);
        Ok(recording)
    })
    .read("state", Data::U32(state))
    .update("rank", Data::U32(vec![0; (batch * tokens) as usize]), Expected::Any)
    // All of them are kept: the index is 0, 1, 2, ...
    .output("index", Expected::Exact((0..batch * keep).collect()))
    .output("inverse", Expected::Exact((0..batch * tokens).collect()))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "all ties kept",
        kernel: KERNEL,
        shader: "attention/token_select::choose",
        find: "(mine != 0u && equal < ties)",
        replace: "(mine != 0u && equal <= ties)",
    },
    Canary {
        bug: "the ties of the blocks before forgotten",
        kernel: KERNEL,
        shader: "attention/token_select::choose",
        find: "ties_before += all >> 16u;",
        replace: "ties_before = all >> 16u;",
    },
    Canary {
        bug: "-0 below 0",
        kernel: KERNEL,
        shader: "attention/token_select::choose",
        find: "if size == 0u {",
        replace: "if bits == 0u {",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(101);
    let mut cases = Vec::new();
    for (batch, tokens, keep) in [
        (1, 1, 1),
        (3, 7, 2),
        (2, 196, 164),
        (2, 255, 100),
        (1, 256, 256),
        (2, 257, 1),
        (3, 1009, 500),
        (1, 5000, 1250),
    ] {
        for kind in [Scores::Any, Scores::Few, Scores::Zeros, Scores::Special] {
            cases.push(case(batch, tokens, keep, kind, &mut random));
        }
    }
    cases.push(case(700, 3, 2, Scores::Any, &mut random));
    for (batch, tokens, keep, width) in [(1, 1, 1, 1), (3, 65, 16, 8), (2, 300, 75, 5)] {
        cases.push(dropout(batch, tokens, keep, width, &mut random));
    }
    cases.push(random_ranks(3, 77, 77));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_smaller_index_and_the_inverse_undoes_the_index() {
        let [index, inverse] = by_score(&[1.0, 2.0, 1.0, 2.0, f32::NAN, -0.0, 0.0, -1.0], 4, 3);
        assert_eq!(index, [0, 1, 3, 4, 5, 6]);
        assert_eq!(inverse, [0, 1, u32::MAX, 2, 3, 4, 5, u32::MAX]);
    }
}
