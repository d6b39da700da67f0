//! Operations on the tape, in f32: each records its kernels and knows its gradient.
//!
//! Shapes are checked by the kernels; what is new here is only which tensor goes where.

use super::tape::{Tape, Variable};
use super::tensor::Tensor;
use crate::attention::{
    AddPosition, AddPositionArgs, AddPositionBackward, AddPositionBackwardArgs, AddPositionConfig,
    AttentionConfig, AttentionGradients, AttentionInputs, FlashAttentionBackward, FlashAttentionBackwardArgs,
    FlashAttentionForward, FlashAttentionForwardArgs, JoinQkv, PatchEmbeddingBackward,
    PatchEmbeddingBackwardArgs, PatchEmbeddingConfig, PatchEmbeddingForward, PatchEmbeddingForwardArgs,
    QkvArgs, QkvConfig, SplitQkv,
};
use crate::dense::{
    Activation, Affine, CrossEntropy, CrossEntropyArgs, CrossEntropyConfig, Gather, GatherArgs, GatherConfig,
    LayerNormBackward, LayerNormBackwardArgs, LayerNormConfig, LayerNormForward, LayerNormForwardArgs,
    LinearBackward, LinearBackwardArgs, LinearConfig, LinearForward, LinearForwardArgs, Matmul, MatmulArgs,
    MatmulConfig, ReduceBackward, ReduceBackwardArgs, ReduceConfig, ReduceForward, ReduceForwardArgs,
    Reduction,
};
use crate::dispatch::{Kernel, Planned, Recording, Result, check_shape};

/// The last axis, and the product of the others.
fn rows(what: &'static str, x: &Tensor) -> Result<(u32, u32)> {
    let last = x.shape().last().copied().unwrap_or(0);
    check_shape(last > 0, what, "at least one axis", x.shape())?;
    Ok((x.len() / last, last))
}

/// A shape with another last axis.
fn with_last(shape: &[u32], last: u32) -> Vec<u32> {
    let mut shape = shape.to_vec();
    if let Some(end) = shape.last_mut() {
        *end = last;
    }
    shape
}

/// `activation(x W^T + bias)`: x `[.., inputs]`, weight `[outputs, ..]` of `outputs * inputs` elements, bias
/// `[outputs]`; the result is `[.., outputs]`.
pub fn linear(
    tape: &mut Tape,
    x: &Variable,
    weight: &Variable,
    bias: Option<&Variable>,
    activation: Activation,
) -> Result<Variable> {
    let context = tape.context().clone();
    let (rows, inputs) = rows("x", x.tensor())?;
    let outputs = weight.tensor().shape().first().copied().unwrap_or(0);
    let fits = u64::from(weight.tensor().len()) == u64::from(outputs) * u64::from(inputs);
    check_shape(fits, "weight", format!("[outputs, {inputs}]"), weight.tensor().shape())?;
    let keep = activation != Activation::Identity;
    let config =
        LinearConfig { rows, inputs, outputs, bias: bias.is_some(), activation, keep, variant: None };
    let y = Tensor::new(&context, "linear", &with_last(x.tensor().shape(), outputs))?;
    let kept = if keep { Some(Tensor::new(&context, "linear, kept", y.shape())?) } else { None };
    let kernel = LinearForward::new(&context, config)?;
    let forward = kernel.prepare(&LinearForwardArgs {
        x: x.tensor().view(),
        weight: weight.tensor().view(),
        bias: bias.map(|b| b.tensor().view()),
        y: y.view(),
        kept: kept.as_ref().map(Tensor::view),
        scratch: &kernel.create_scratch()?,
    })?;
    let (input, weights) = (x.tensor().clone(), weight.tensor().clone());
    let bias_shape = bias.map(|b| b.tensor().shape().to_vec());
    let variables: Vec<_> = [x, weight].into_iter().chain(bias).collect();
    Ok(tape.operation(forward, &variables, y, move |context, dy| {
        let dx = Tensor::new(context, "gradient", input.shape())?;
        let dweight = Tensor::new(context, "gradient", weights.shape())?;
        let dbias = bias_shape.map(|shape| Tensor::new(context, "gradient", &shape)).transpose()?;
        let kernel = LinearBackward::new(context, config)?;
        let recording = kernel.prepare(&LinearBackwardArgs {
            x: input.view(),
            weight: weights.view(),
            kept: kept.as_ref().map(Tensor::view),
            dy: dy.view(),
            dx: Some(dx.view()),
            dweight: dweight.view(),
            dbias: dbias.as_ref().map(Tensor::view),
            scratch: &kernel.create_scratch()?,
        })?;
        Ok((recording, vec![Some(dx), Some(dweight), dbias]))
    }))
}

/// `y = op(a) op(b)` as the configuration says.
fn product(
    context: &crate::Context,
    config: MatmulConfig,
    a: &Tensor,
    b: &Tensor,
    y: &Tensor,
) -> Result<Recording> {
    let kernel = Matmul::new(context, config)?;
    let scratch = kernel.create_scratch()?;
    kernel.prepare(&MatmulArgs {
        a: a.view(),
        b: b.view(),
        bias: None,
        y: y.view(),
        kept: None,
        scratch: &scratch,
    })
}

/// The matrix product `a b`: a `[.., k]`, b `[k, n]`; the result is `[.., n]`.
pub fn matmul(tape: &mut Tape, a: &Variable, b: &Variable) -> Result<Variable> {
    let context = tape.context().clone();
    let (m, k) = rows("a", a.tensor())?;
    let (inner, n) = rows("b", b.tensor())?;
    check_shape(inner == k, "b", format!("[{k}, n]"), b.tensor().shape())?;
    let y = Tensor::new(&context, "product", &with_last(a.tensor().shape(), n))?;
    let config = MatmulConfig { m, n, k, ..Default::default() };
    let forward = product(&context, config, a.tensor(), b.tensor(), &y)?;
    let (left, right) = (a.tensor().clone(), b.tensor().clone());
    Ok(tape.operation(forward, &[a, b], y, move |context, dy| {
        let da = Tensor::new(context, "gradient", left.shape())?;
        let db = Tensor::new(context, "gradient", right.shape())?;
        let to_a = MatmulConfig { m, n: k, k: n, transpose_b: true, ..Default::default() };
        let mut recording = product(context, to_a, dy, &right, &da)?;
        let to_b = MatmulConfig { m: k, n, k: m, transpose_a: true, ..Default::default() };
        recording.append(product(context, to_b, &left, dy, &db)?);
        Ok((recording, vec![Some(da), Some(db)]))
    }))
}

/// Weight and bias of a normalisation.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Factors, `[width]`.
    pub weight: &'a Variable,
    /// Summands, `[width]`.
    pub bias: &'a Variable,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Layer norm over the last axis.
pub fn layer_norm(tape: &mut Tape, x: &Variable, norm: Norm<'_>) -> Result<Variable> {
    let context = tape.context().clone();
    let config = norm_config(x.tensor(), norm, false)?;
    let y = Tensor::new(&context, "layer norm", x.tensor().shape())?;
    let statistics = Tensor::new(&context, "layer norm, statistics", &[config.rows, 2])?;
    let forward = LayerNormForward::new(&context, config)?.prepare(&LayerNormForwardArgs {
        x: x.tensor().view(),
        residual: None,
        weight: Some(norm.weight.tensor().view()),
        bias: Some(norm.bias.tensor().view()),
        hidden: None,
        y: y.view(),
        statistics: statistics.view(),
    })?;
    let (h, weight) = (x.tensor().clone(), norm.weight.tensor().clone());
    Ok(tape.operation(forward, &[x, norm.weight, norm.bias], y, move |context, dy| {
        let (recording, [dh, dweight, dbias]) =
            norm_backward(context, config, &h, &statistics, &weight, dy, None)?;
        Ok((recording, vec![Some(dh), Some(dweight), Some(dbias)]))
    }))
}

/// `h = x + residual` and the layer norm of h, in one kernel: `[h, y]`.
pub fn add_layer_norm(
    tape: &mut Tape,
    x: &Variable,
    residual: &Variable,
    norm: Norm<'_>,
) -> Result<[Variable; 2]> {
    let context = tape.context().clone();
    let same = x.tensor().len() == residual.tensor().len();
    check_shape(same, "residual", format!("{:?}", x.tensor().shape()), residual.tensor().shape())?;
    let config = norm_config(x.tensor(), norm, true)?;
    let h = Tensor::new(&context, "residual stream", x.tensor().shape())?;
    let y = Tensor::new(&context, "layer norm", x.tensor().shape())?;
    let statistics = Tensor::new(&context, "layer norm, statistics", &[config.rows, 2])?;
    let forward = LayerNormForward::new(&context, config)?.prepare(&LayerNormForwardArgs {
        x: x.tensor().view(),
        residual: Some(residual.tensor().view()),
        weight: Some(norm.weight.tensor().view()),
        bias: Some(norm.bias.tensor().view()),
        hidden: Some(h.view()),
        y: y.view(),
        statistics: statistics.view(),
    })?;
    let (kept, weight) = (h.clone(), norm.weight.tensor().clone());
    let inputs = [x, residual, norm.weight, norm.bias];
    Ok(tape.operation_of_many(forward, &inputs, [h, y], move |context, gradients| {
        let (dh, dy) = match gradients {
            [dh, Some(dy)] => (dh.as_ref(), dy),
            // Only the sum was used: its gradient goes to both terms.
            [Some(dh), None] => {
                return Ok((Recording::new(), vec![Some(dh.clone()), Some(dh.clone()), None, None]));
            }
            _ => return Ok((Recording::new(), Vec::new())),
        };
        let config = LayerNormConfig { residual: dh.is_some(), ..config };
        let (recording, [dx, dweight, dbias]) =
            norm_backward(context, config, &kept, &statistics, &weight, dy, dh)?;
        Ok((recording, vec![Some(dx.clone()), Some(dx), Some(dweight), Some(dbias)]))
    }))
}

fn norm_config(x: &Tensor, norm: Norm<'_>, residual: bool) -> Result<LayerNormConfig> {
    let (rows, width) = rows("x", x)?;
    for (what, variable) in [("weight", norm.weight), ("bias", norm.bias)] {
        let tensor = variable.tensor();
        check_shape(tensor.len() == width, what, format!("{width} elements"), tensor.shape())?;
    }
    let affine = Affine::WeightAndBias;
    Ok(LayerNormConfig { rows, width, affine, residual, epsilon: norm.epsilon, ..Default::default() })
}

/// Gradients of what was normalised, of the weight and of the bias.
fn norm_backward(
    context: &crate::Context,
    config: LayerNormConfig,
    h: &Tensor,
    statistics: &Tensor,
    weight: &Tensor,
    dy: &Tensor,
    dhidden: Option<&Tensor>,
) -> Result<(Recording, [Tensor; 3])> {
    let dh = Tensor::new(context, "gradient", h.shape())?;
    let dweight = Tensor::new(context, "gradient", weight.shape())?;
    let dbias = Tensor::new(context, "gradient", weight.shape())?;
    let kernel = LayerNormBackward::new(context, config)?;
    let recording = kernel.prepare(&LayerNormBackwardArgs {
        h: h.view(),
        statistics: statistics.view(),
        weight: Some(weight.view()),
        dy: dy.view(),
        dhidden: dhidden.map(Tensor::view),
        dh: dh.view(),
        dweight: Some(dweight.view()),
        dbias: Some(dbias.view()),
        scratch: &kernel.create_scratch()?,
    })?;
    Ok((recording, [dh, dweight, dbias]))
}

/// `a + b`, of the same shape.
pub fn add(tape: &mut Tape, a: &Variable, b: &Variable) -> Result<Variable> {
    let context = tape.context().clone();
    let same = a.tensor().len() == b.tensor().len();
    check_shape(same, "b", format!("{:?}", a.tensor().shape()), b.tensor().shape())?;
    let y = Tensor::new(&context, "sum", a.tensor().shape())?;
    let config = AddPositionConfig { batch: 1, tokens: 1, width: y.len(), prefix: 0 };
    let args = AddPositionArgs { x: a.tensor().view(), prefix: None, table: b.tensor().view(), y: y.view() };
    let forward = AddPosition::new(&context, config)?.prepare(&args)?;
    Ok(tape.operation(forward, &[a, b], y, |_, dy| {
        Ok((Recording::new(), vec![Some(dy.clone()), Some(dy.clone())]))
    }))
}

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
        Ok((recording, vec![Some(dx), Some(dtable), dprefix]))
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
        Ok((recording, vec![Some(dweight), dbias]))
    }))
}

/// Queries, keys and values of one linear layer apart: x `[.., 3 width]` gives three `[.., width]`.
pub fn split_qkv(tape: &mut Tape, x: &Variable) -> Result<[Variable; 3]> {
    let context = tape.context().clone();
    let (rows, all) = rows("x", x.tensor())?;
    check_shape(all.is_multiple_of(3), "x", "[.., 3 width]", x.tensor().shape())?;
    let config = QkvConfig { rows, width: all / 3 };
    let shape = with_last(x.tensor().shape(), all / 3);
    let tensor = |what| Tensor::new(&context, what, &shape);
    let (q, k, v) = (tensor("queries")?, tensor("keys")?, tensor("values")?);
    let args = QkvArgs { x: x.tensor().view(), q: q.view(), k: k.view(), v: v.view() };
    let forward = SplitQkv::new(&context, config)?.prepare(&args)?;
    let x_shape = x.tensor().shape().to_vec();
    Ok(tape.operation_of_many(forward, &[x], [q, k, v], move |context, gradients| {
        let dx = Tensor::new(context, "gradient", &x_shape)?;
        // A part that nothing depends on has no gradient.
        let zeros = || {
            let n = x_shape.iter().product::<u32>() / 3;
            Tensor::from_slice(context, "gradient", &[n], &vec![0.0; n as usize])
        };
        let part = |i: usize| gradients.get(i).cloned().flatten().map_or_else(zeros, Ok);
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let args = QkvArgs { x: dx.view(), q: q.view(), k: k.view(), v: v.view() };
        Ok((JoinQkv::new(context, config)?.prepare(&args)?, vec![Some(dx)]))
    }))
}

/// Attention of queries over keys and values, each `[batch, tokens, heads * dim]`. Of the configuration's
/// options those that take no buffer of their own are taken: causal, window, scale, layouts.
pub fn attention(
    tape: &mut Tape,
    q: &Variable,
    k: &Variable,
    v: &Variable,
    config: &AttentionConfig,
) -> Result<Variable> {
    let context = tape.context().clone();
    let config = *config;
    let [qt, kt, vt] = [q, k, v].map(|x| x.tensor().clone());
    let shape = [config.batch, config.queries, config.heads.saturating_mul(config.value_dim())];
    let o = Tensor::new(&context, "attention", &shape)?;
    let lse = Tensor::new(&context, "log-sum-exp", &[config.batch, config.heads, config.queries])?;
    let kernel = FlashAttentionForward::new(&context, config)?;
    let forward = kernel.prepare(&FlashAttentionForwardArgs {
        inputs: AttentionInputs::new(qt.view(), kt.view(), vt.view()),
        o: o.view(),
        lse: lse.view(),
        scratch: &kernel.create_scratch()?,
    })?;
    let output = o.clone();
    Ok(tape.operation(forward, &[q, k, v], o, move |context, dy| {
        let gradient = |x: &Tensor| Tensor::new(context, "gradient", x.shape());
        let (dq, dk, dv) = (gradient(&qt)?, gradient(&kt)?, gradient(&vt)?);
        let kernel = FlashAttentionBackward::new(context, config)?;
        let recording = kernel.prepare(&FlashAttentionBackwardArgs {
            inputs: AttentionInputs::new(qt.view(), kt.view(), vt.view()),
            o: output.view(),
            lse: lse.view(),
            d_o: dy.view(),
            d_lse: None,
            gradients: AttentionGradients::new(dq.view(), dk.view(), dv.view()),
            scratch: &kernel.create_scratch()?,
        })?;
        Ok((recording, vec![Some(dq), Some(dk), Some(dv)]))
    }))
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

/// The mean cross-entropy of logits `[rows, classes]` against classes, u32 `[rows]`: the loss, `[1]`, and its
/// gradient, from which [`Tape::backward`] of the logits begins.
pub fn cross_entropy(tape: &mut Tape, logits: &Variable, target: &wgpu::Buffer) -> Result<[Tensor; 2]> {
    let context = tape.context().clone();
    let (rows, classes) = rows("logits", logits.tensor())?;
    let config = CrossEntropyConfig::new(rows, classes);
    let kernel = CrossEntropy::new(&context, config)?;
    let loss = Tensor::new(&context, "loss", &[1])?;
    let gradient = Tensor::new(&context, "gradient", logits.tensor().shape())?;
    tape.constant(kernel.prepare(&CrossEntropyArgs {
        logits: logits.tensor().view(),
        target: target.into(),
        loss: loss.view(),
        gradient: Some(gradient.view()),
        scratch: &kernel.create_scratch()?,
    })?);
    Ok([loss, gradient])
}
