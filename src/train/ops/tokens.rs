//! Tokens on the tape: patches embedded, positions given, tokens chosen and pooled.

use super::{gradient_of, rows};
use crate::attention::{
    AddPosition, AddPositionArgs, AddPositionBackward, AddPositionBackwardArgs, AddPositionConfig,
    LearnedOrderBackward, LearnedOrderBackwardArgs, LearnedOrderConfig, LearnedOrderForward,
    LearnedOrderForwardArgs, MixLabels, MixLabelsArgs, MixLabelsConfig, PatchEmbeddingBackward,
    PatchEmbeddingBackwardArgs, PatchEmbeddingConfig, PatchEmbeddingForward, PatchEmbeddingForwardArgs,
    PatchMix, PatchMixArgs, PatchMixConfig, QueryPoolBackward, QueryPoolBackwardArgs, QueryPoolConfig,
    QueryPoolForward, QueryPoolForwardArgs, Rotary, RotaryArgs, RotaryConfig, TokenSelect, TokenSelectArgs,
    TokenSelectConfig,
};
use crate::dense::{
    Gather, GatherArgs, GatherConfig, ReduceBackward, ReduceBackwardArgs, ReduceConfig, ReduceForward,
    ReduceForwardArgs, Reduction,
};
use crate::dispatch::{BufferView, Kernel, Planned, Result, check_config, check_shape};
use crate::train::{Tape, Tensor, Variable};

/// `[prefix | x] + table`: x `[batch, n, width]`, prefix `[p, width]` put before the tokens of each image,
/// table `[p + n, width]`. A `table` that is no parameter (sines and cosines) gets a gradient that
/// nobody asks for.
pub fn add_position(
    tape: &mut Tape,
    x: &Variable,
    prefix: Option<&Variable>,
    table: &Variable,
) -> Result<Variable> {
    let context = tape.context().clone();
    let &[batch, n, width] = x.tensor().shape() else {
        return Err(crate::Error::Shape {
            what: "x",
            need: "[batch, tokens, width]".into(),
            got: format!("{:?}", x.tensor().shape()),
        });
    };
    if let Some(shape) = prefix.map(|prefix| prefix.tensor().shape()) {
        let rows = matches!(shape, &[.., last] if last == width);
        check_shape(rows, "prefix", format!("[tokens, {width}]"), shape)?;
    }
    let before = prefix.map_or(0, |prefix| prefix.tensor().len() / width);
    let tokens = n.saturating_add(before);
    let table_fits = u64::from(table.tensor().len()) == u64::from(tokens) * u64::from(width);
    check_shape(table_fits, "table", format!("[{tokens}, {width}]"), table.tensor().shape())?;
    let config = AddPositionConfig { batch, tokens, width, prefix: before };
    let y = Tensor::new(&context, "positioned", &[batch, tokens, width])?;
    let forward = AddPosition::new(&context, config)?.prepare(&AddPositionArgs {
        x: x.tensor().view(),
        prefix: prefix.map(|prefix| prefix.tensor().view()),
        table: table.tensor().view(),
        y: y.view(),
    })?;
    let (x_shape, table_shape) = (x.tensor().shape().to_vec(), table.tensor().shape().to_vec());
    let prefix_shape = prefix.map(|prefix| prefix.tensor().shape().to_vec());
    let variables: Vec<_> = [x, table].into_iter().chain(prefix).collect();
    Ok(tape.operation(forward, &variables, y, move |context, dy| {
        let dx = Tensor::new(context, "gradient", &x_shape)?;
        let dtable = Tensor::new(context, "gradient", &table_shape)?;
        let args = AddPositionBackwardArgs { dy: dy.view(), dtable: dtable.view(), dx: dx.view() };
        let recording = AddPositionBackward::new(context, config)?.prepare(&args)?;
        // The first rows of dtable are the gradient of the prefix too.
        let dprefix = prefix_shape.map(|shape| Tensor::from_buffer(dtable.buffer(), &shape)).transpose()?;
        let gradients = [dx, dtable].into_iter().chain(dprefix).map(Some);
        Ok((recording, gradients.collect()))
    }))
}

/// Patches of images as vectors `[batch, tokens, width]`: weight `[width, ..]` of `token_width` columns, bias
/// `[width]`. The images are data and get no gradient.
pub fn patch_embedding(
    tape: &mut Tape,
    image: &Tensor,
    weight: &Variable,
    bias: Option<&Variable>,
    patch: crate::attention::PatchConfig,
) -> Result<Variable> {
    let context = tape.context().clone();
    let width = weight.tensor().shape().first().copied().unwrap_or(0);
    let columns = patch.token_width();
    let fits = u64::from(weight.tensor().len()) == u64::from(width) * u64::from(columns);
    check_shape(fits, "weight", format!("[width, {columns}]"), weight.tensor().shape())?;
    let config = PatchEmbeddingConfig { patch, width, bias: bias.is_some() };
    let kernel = PatchEmbeddingForward::new(&context, config)?;
    let patches = Tensor::new(&context, "patches", &[patch.batch, patch.tokens(), columns])?;
    let y = Tensor::new(&context, "embedded", &[patch.batch, patch.tokens(), width])?;
    let forward = kernel.prepare(&PatchEmbeddingForwardArgs {
        image: image.view(),
        weight: weight.tensor().view(),
        bias: bias.map(|b| b.tensor().view()),
        patches: patches.view(),
        y: y.view(),
        scratch: &kernel.create_scratch()?,
    })?;
    let weights = weight.tensor().clone();
    let bias_shape = bias.map(|b| b.tensor().shape().to_vec());
    let variables: Vec<_> = std::iter::once(weight).chain(bias).collect();
    Ok(tape.operation(forward, &variables, y, move |context, dy| {
        let dweight = Tensor::new(context, "gradient", weights.shape())?;
        let dbias = bias_shape.map(|shape| Tensor::new(context, "gradient", &shape)).transpose()?;
        let kernel = PatchEmbeddingBackward::new(context, config)?;
        let recording = kernel.prepare(&PatchEmbeddingBackwardArgs {
            patches: patches.view(),
            weight: weights.view(),
            dy: dy.view(),
            dweight: dweight.view(),
            dbias: dbias.as_ref().map(Tensor::view),
            dimage: None,
            scratch: &kernel.create_scratch()?,
        })?;
        let gradients = std::iter::once(dweight).chain(dbias).map(Some);
        Ok((recording, gradients.collect()))
    }))
}

/// Heads turned by the angles of a table ([`rotary_table`](crate::attention::rotary_table)): x as the
/// configuration says, of which the table is no parameter.
pub fn rotary(tape: &mut Tape, x: &Variable, table: &Tensor, config: RotaryConfig) -> Result<Variable> {
    let context = tape.context().clone();
    let y = Tensor::new(&context, "turned", x.tensor().shape())?;
    let args = RotaryArgs { x: x.tensor().view(), table: table.view(), y: y.view() };
    let forward = Rotary::new(&context, config)?.prepare(&args)?;
    let (table, shape) = (table.clone(), x.tensor().shape().to_vec());
    Ok(tape.operation(forward, &[x], y, move |context, dy| {
        let dx = Tensor::new(context, "gradient", &shape)?;
        let args = RotaryArgs { x: dy.view(), table: table.view(), y: dx.view() };
        Ok((Rotary::new(context, config.backward())?.prepare(&args)?, vec![Some(dx)]))
    }))
}

/// `[sin(X W) | cos(X W)]`, `[batch, tokens, 2 frequencies]`, of the places `X = order + shift` (LOOPE,
/// arXiv 2504.14386): order `[tokens]`, no parameter; shift `[batch, tokens]`; frequencies `W`.
pub fn learned_order(
    tape: &mut Tape,
    order: &Tensor,
    shift: &Variable,
    frequency: &Variable,
) -> Result<Variable> {
    let context = tape.context().clone();
    let (tokens, inputs) = (order.len(), [shift, frequency]);
    let [shift, frequency] = inputs.map(|x| x.tensor().clone());
    let whole = shift.len().is_multiple_of(tokens);
    check_shape(whole, "shift", format!("[batch, {tokens}]"), shift.shape())?;
    let batch = shift.len() / tokens;
    let config = LearnedOrderConfig { batch, tokens, frequencies: frequency.len(), lanes: None };
    let e = Tensor::new(&context, "positions", &[batch, tokens, frequency.len().saturating_mul(2)])?;
    let forward = LearnedOrderForward::new(&context, config)?.prepare(&LearnedOrderForwardArgs {
        order: order.view(),
        shift: shift.view(),
        frequency: frequency.view(),
        e: e.view(),
    })?;
    let order = order.clone();
    Ok(tape.operation(forward, &inputs, e, move |context, de| {
        let (dshift, dfrequency) = (gradient_of(context, &shift)?, gradient_of(context, &frequency)?);
        let kernel = LearnedOrderBackward::new(context, config)?;
        let recording = kernel.prepare(&LearnedOrderBackwardArgs {
            order: order.view(),
            shift: shift.view(),
            frequency: frequency.view(),
            de: de.view(),
            dshift: dshift.view(),
            dfrequency: dfrequency.view(),
            scratch: &kernel.create_scratch()?,
        })?;
        Ok((recording, vec![Some(dshift), Some(dfrequency)]))
    }))
}

/// Tokens that were chosen: u32 buffers for [`gather_rows`].
#[derive(Debug, Clone)]
pub struct Chosen {
    /// Rows of all tokens, `[batch * keep]`.
    pub index: wgpu::Buffer,
    /// The place of each token among them, or `2^32 - 1`, `[batch * tokens]`.
    pub inverse: wgpu::Buffer,
}

/// Chooses tokens by f32 scores or u32 ranks, `[batch, tokens]`, as configured. No gradient flows through the
/// choice.
pub fn choose_tokens(tape: &mut Tape, score: BufferView<'_>, config: TokenSelectConfig) -> Result<Chosen> {
    let context = tape.context().clone();
    let kernel = TokenSelect::new(&context, config)?;
    let batch = u64::from(config.batch);
    let index = context.create_storage("index", 4 * batch * u64::from(config.keep))?;
    let inverse = context.create_storage("inverse", 4 * batch * u64::from(config.tokens))?;
    let args = TokenSelectArgs { score, index: (&index).into(), inverse: (&inverse).into() };
    tape.constant(kernel.prepare(&args)?);
    Ok(Chosen { index, inverse })
}

/// Images with patches of others in them, and their labels mixed by the same share (Lee et al. 2023): data,
/// without a gradient. `partner` u32 `[batch]`, `rank` u32 `[batch, tokens]` as in [`PatchMixArgs`]; labels
/// `[batch, classes]`. Gives the images and the labels.
pub fn mix_patches(
    tape: &mut Tape,
    image: &Tensor,
    label: &Tensor,
    partner: &wgpu::Buffer,
    rank: &wgpu::Buffer,
    config: PatchMixConfig,
) -> Result<[Tensor; 2]> {
    let context = tape.context().clone();
    let kernel = PatchMix::new(&context, config)?;
    let mixed = Tensor::new(&context, "image", image.shape())?;
    tape.constant(kernel.prepare(&PatchMixArgs {
        image: image.view(),
        partner: partner.into(),
        rank: rank.into(),
        y: mixed.view(),
    })?);
    let (batch, classes) = rows("label", label)?;
    let share = f64::from(config.replaced) / f64::from(config.patch.tokens());
    let config = MixLabelsConfig { batch, classes, share: share as f32 };
    let labels = Tensor::new(&context, "label", label.shape())?;
    let args = MixLabelsArgs { label: label.view(), partner: partner.into(), y: labels.view() };
    tape.constant(MixLabels::new(&context, config)?.prepare(&args)?);
    Ok([mixed, labels])
}

/// Rows by index: x `[.., width]`, `index` u32 of rows of x, none of them twice, and `inverse` the place of
/// each row of x among them, or `2^32 - 1` (see [`TokenSelect`](crate::attention::TokenSelect)). The
/// result has the shape given, `[.., width]`.
pub fn gather_rows(
    tape: &mut Tape,
    x: &Variable,
    index: &wgpu::Buffer,
    inverse: &wgpu::Buffer,
    shape: &[u32],
) -> Result<Variable> {
    let context = tape.context().clone();
    let (all, width) = rows("x", x.tensor())?;
    let y = Tensor::new(&context, "rows", shape)?;
    let (kept, same) = rows("y", &y)?;
    check_shape(same == width, "shape", format!("[.., {width}]"), shape)?;
    let config = GatherConfig { rows: all, n: kept, width, variant: None };
    let args = GatherArgs { x: x.tensor().view(), index: index.into(), y: y.view() };
    let forward = Gather::new(&context, config)?.prepare(&args)?;
    let (x_shape, inverse) = (x.tensor().shape().to_vec(), inverse.clone());
    Ok(tape.operation(forward, &[x], y, move |context, dy| {
        let dx = Tensor::new(context, "gradient", &x_shape)?;
        let config = GatherConfig { rows: kept, n: all, width, variant: None };
        let args = GatherArgs { x: dy.view(), index: (&inverse).into(), y: dx.view() };
        Ok((Gather::new(context, config)?.prepare(&args)?, vec![Some(dx)]))
    }))
}

/// The mean over the middle axis: x `[batch, tokens, width]` gives `[batch, width]`.
pub fn mean_tokens(tape: &mut Tape, x: &Variable) -> Result<Variable> {
    let context = tape.context().clone();
    let &[outer, n, inner] = x.tensor().shape() else {
        return Err(crate::Error::Shape {
            what: "x",
            need: "[batch, tokens, width]".into(),
            got: format!("{:?}", x.tensor().shape()),
        });
    };
    let config = ReduceConfig { reduction: Reduction::Mean, outer, n, inner, variant: None, part: None };
    let y = Tensor::new(&context, "mean", &[outer, inner])?;
    let kernel = ReduceForward::new(&context, config)?;
    let scratch = kernel.create_scratch()?;
    let args = ReduceForwardArgs { x: x.tensor().view(), y: y.view(), index: None, scratch: &scratch };
    let forward = kernel.prepare(&args)?;
    let x_shape = x.tensor().shape().to_vec();
    Ok(tape.operation(forward, &[x], y, move |context, dy| {
        let dx = Tensor::new(context, "gradient", &x_shape)?;
        let args = ReduceBackwardArgs { dy: dy.view(), x: None, y: None, index: None, dx: dx.view() };
        Ok((ReduceBackward::new(context, config)?.prepare(&args)?, vec![Some(dx)]))
    }))
}

/// Averages of tokens under learned queries, projected if configured
/// ([`QueryPoolConfig::efficient_probing`]): x `[batch, patches, channels]`, queries `[queries, channels]`,
/// weight `[projections, outputs, channels]`; the result is `[batch, queries * outputs]`, or
/// `[batch, queries * channels]` without a projection.
pub fn query_pool(
    tape: &mut Tape,
    x: &Variable,
    queries: &Variable,
    weight: Option<&Variable>,
    config: QueryPoolConfig,
) -> Result<Variable> {
    let context = tape.context().clone();
    let keyless = config.keys.is_none() && !config.mask;
    check_config(keyless, "keys, mask", "none", (config.keys, config.mask))?;
    let inputs: Vec<_> = [x, queries].into_iter().chain(weight).collect();
    let (x, queries) = (x.tensor().clone(), queries.tensor().clone());
    let weight = weight.map(|weight| weight.tensor().clone());
    let QueryPoolConfig { batch, patches, channels, queries: q, outputs, .. } = config;
    let attention = Tensor::new(&context, "attention", &[batch, q, patches])?;
    let pooled = Tensor::new(&context, "pooled", &[batch, q.saturating_mul(channels)])?;
    let projected = match &weight {
        Some(_) => Some(Tensor::new(&context, "projected", &[batch, q.saturating_mul(outputs)])?),
        None => None,
    };
    let kernel = QueryPoolForward::new(&context, config)?;
    let forward = kernel.prepare(&QueryPoolForwardArgs {
        x: x.view(),
        keys: None,
        queries: queries.view(),
        weight: weight.as_ref().map(Tensor::view),
        mask: None,
        attention: attention.view(),
        pooled: pooled.view(),
        y: projected.as_ref().map(Tensor::view),
        scratch: &kernel.create_scratch()?,
    })?;
    let averages = pooled.clone();
    Ok(tape.operation(forward, &inputs, projected.unwrap_or(pooled), move |context, dy| {
        let (dx, dqueries) = (gradient_of(context, &x)?, gradient_of(context, &queries)?);
        let dweight = weight.as_ref().map(|weight| gradient_of(context, weight)).transpose()?;
        let kernel = QueryPoolBackward::new(context, config)?;
        let recording = kernel.prepare(&QueryPoolBackwardArgs {
            x: x.view(),
            keys: None,
            queries: queries.view(),
            weight: weight.as_ref().map(Tensor::view),
            attention: attention.view(),
            pooled: averages.view(),
            dy: dy.view(),
            dqueries: dqueries.view(),
            dweight: dweight.as_ref().map(Tensor::view),
            dx: Some(dx.view()),
            dkeys: None,
            scratch: &kernel.create_scratch()?,
        })?;
        let mut list = vec![Some(dx), Some(dqueries)];
        list.extend(dweight.map(Some));
        Ok((recording, list))
    }))
}
