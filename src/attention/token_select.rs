//! Tokens kept by score or at random (`shaders/attention/token_select.wgsl`): pruning and dropout.

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, check_workgroup, count, kernel, read, shader, write,
};

/// What decides which tokens are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenOrder {
    /// f32 scores: the largest are kept. A NaN counts above every number.
    #[default]
    Score,
    /// u32 ranks: the smallest are kept. With [`RandomPermutation`](crate::dense::RandomPermutation)
    /// this is patch dropout.
    Rank,
}

/// The `keep` first tokens of each image by an order; ties go to the smaller index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenSelectConfig {
    /// Images, at least 1.
    pub batch: u32,
    /// Tokens of an image, at least 1.
    pub tokens: u32,
    /// Tokens of an image that are kept, 1 to `tokens`.
    pub keep: u32,
    /// What decides.
    pub order: TokenOrder,
}

/// Tokens left after each of `prunes` prunings of DependencyViT's lite form (arXiv 2304.03282), which
/// take the share `ratio` of the first number away each time: the k-th keeps
/// `floor(n (1 - k ratio) / (1 - (k - 1) ratio))` of n. 196 tokens and 0.16 give 164, 132, 100, 69.
pub fn pruned_tokens(tokens: u32, ratio: f64, prunes: u32) -> Result<Vec<u32>> {
    check_config(tokens > 0, "tokens", "at least 1", tokens)?;
    let last = f64::from(prunes) * ratio;
    check_config(ratio >= 0.0 && last < 1.0, "ratio", "from 0 to below 1 / prunes", ratio)?;
    let mut left = tokens;
    let mut all = Vec::with_capacity(prunes as usize);
    for k in 1..=prunes {
        let share = (1.0 - f64::from(k) * ratio) / (1.0 - f64::from(k - 1) * ratio);
        left = ((f64::from(left) * share) as u32).max(1);
        all.push(left);
    }
    Ok(all)
}

static CHOOSE: Shader =
    shader!("attention/token_select", "choose", [index], [read("score"), write("index"), write("inverse")]);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    tokens: u32,
    keep: u32,
}

kernel! {
    /// Chooses tokens. [`Gather`](crate::dense::Gather) by `index` takes them, and a gather by `inverse`
    /// is the gradient of that: no index comes twice, so nothing needs to be added up.
    TokenSelect, TokenSelectConfig
}

/// Buffers of [`TokenSelect`].
#[derive(Debug, Clone, Copy)]
pub struct TokenSelectArgs<'a> {
    /// Scores, f32 `[batch, tokens]`, or ranks, u32.
    pub score: BufferView<'a>,
    /// The kept tokens in the order of their indices, u32 `[batch, keep]`: rows of all tokens of the
    /// batch, `[batch * tokens]`.
    pub index: BufferView<'a>,
    /// Where each token went, u32 `[batch, tokens]`: rows of all kept tokens, `[batch * keep]`, or
    /// `2^32 - 1`.
    pub inverse: BufferView<'a>,
}

impl TokenSelect {
    /// A workgroup an image.
    pub fn plan(config: &TokenSelectConfig, caps: &Capabilities) -> Result<Plan> {
        let TokenSelectConfig { batch, tokens, keep, order } = *config;
        check_config(batch > 0, "batch", "at least 1", batch)?;
        check_config((1..=tokens).contains(&keep), "keep", "1 to `tokens`", keep)?;
        // Steps go beyond the last token by up to a workgroup.
        check_config(tokens <= u32::MAX - 256, "tokens", "below 2^32 - 256", tokens)?;
        let n = u64::from(count("score", &[batch, tokens])?);
        // The index of a token must not be taken for none.
        check_config(n < u64::from(u32::MAX), "tokens", "fewer than 2^32 - 1 in the batch", n)?;
        // Four searches, and a prefix sum of eight steps for each 256 tokens.
        caps.check_rounds("tokens", tokens, 4 * 255 + 13 * u64::from(tokens.div_ceil(256)))?;
        check_workgroup("attention/token_select", 256, 2056, caps)?;
        let constants = Constants::new().bool("BY_RANK", order == TokenOrder::Rank);
        // Integer operations: five readings of each key, and the prefix sum.
        let cost = Cost::new(0, 8 * n + 4 * u64::from(batch) * u64::from(keep));
        let params = Params { tokens, keep };
        let launch = Launch::new(&CHOOSE, constants, &params, batch.into(), caps, cost)?;
        Ok(Plan::single("radix", launch))
    }
}

impl Kernel for TokenSelect {
    type Args<'a> = TokenSelectArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let [batch, tokens, keep] = [self.config.batch, self.config.tokens, self.config.keep].map(u64::from);
        let list = [
            Arg::words("score", args.score, batch * tokens),
            Arg::words("index", args.index, batch * keep),
            Arg::words("inverse", args.inverse, batch * tokens),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_the_lite_form() {
        assert_eq!(pruned_tokens(196, 0.16, 4).unwrap(), [164, 132, 100, 69]);
        assert_eq!(pruned_tokens(5, 0.0, 2).unwrap(), [5, 5]);
        assert_eq!(pruned_tokens(1, 0.4, 2).unwrap(), [1, 1]);
        for (tokens, ratio) in [(0, 0.1), (196, 0.25), (196, -0.1), (196, f64::NAN)] {
            assert!(pruned_tokens(tokens, ratio, 4).is_err());
        }
    }
}
