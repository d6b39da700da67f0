//! Operations on the tape, in f32: each records its kernels and knows its gradient.
//!
//! Shapes are checked by the kernels; what is new here is only which tensor goes where.

mod attention;
mod tokens;

pub use attention::*;
pub use tokens::*;

use super::tape::{Tape, Variable};
use super::tensor::Tensor;
use crate::attention::{
    AddPosition, AddPositionArgs, AddPositionConfig, WeighBackward, WeighBackwardArgs, WeighConfig,
    WeighForward, WeighForwardArgs,
};
use crate::dense::{
    Activation, Affine, CrossEntropy, CrossEntropyArgs, CrossEntropyConfig, CrossEntropyTarget,
    LayerNormBackward, LayerNormBackwardArgs, LayerNormConfig, LayerNormForward, LayerNormForwardArgs,
    LinearBackward, LinearBackwardArgs, LinearConfig, LinearForward, LinearForwardArgs, Matmul, MatmulArgs,
    MatmulConfig,
};
use crate::dispatch::{Context, Kernel, Planned, Recording, Result, check_shape};

/// A tensor for the gradient of another.
fn gradient_of(context: &Context, x: &Tensor) -> Result<Tensor> {
    Tensor::new(context, "gradient", x.shape())
}

/// The gradient of an output that nothing depends on.
fn or_zeros(context: &Context, gradient: Option<&Tensor>, shape: &[u32]) -> Result<Tensor> {
    let zeros = || {
        let n = crate::dispatch::count("gradient", shape)?;
        Tensor::from_slice(context, "gradient", shape, &vec![0.0; n as usize])
    };
    gradient.cloned().map_or_else(zeros, Ok)
}

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
        let gradients = [dx, dweight].into_iter().chain(dbias).map(Some);
        Ok((recording, gradients.collect()))
    }))
}

/// `y = op(a) op(b)` as the configuration says.
fn product(context: &Context, config: MatmulConfig, a: &Tensor, b: &Tensor, y: &Tensor) -> Result<Recording> {
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
    context: &Context,
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

/// Rows times a weight each: x `[rows, ..]`, weight of `rows` elements, the first axes of x.
pub fn weigh_rows(tape: &mut Tape, x: &Variable, weight: &Variable) -> Result<Variable> {
    let context = tape.context().clone();
    let (x, weight, inputs) = (x.tensor().clone(), weight.tensor().clone(), [x, weight]);
    let config = WeighConfig { rows: weight.len(), width: x.len() / weight.len() };
    let whole = x.len().is_multiple_of(weight.len());
    check_shape(whole, "weight", format!("a divisor of {} elements", x.len()), weight.shape())?;
    let y = Tensor::new(&context, "weighed", x.shape())?;
    let args = WeighForwardArgs { x: x.view(), weight: weight.view(), y: y.view() };
    let forward = WeighForward::new(&context, config)?.prepare(&args)?;
    Ok(tape.operation(forward, &inputs, y, move |context, dy| {
        let (dx, dweight) = (gradient_of(context, &x)?, gradient_of(context, &weight)?);
        let recording = WeighBackward::new(context, config)?.prepare(&WeighBackwardArgs {
            x: x.view(),
            weight: weight.view(),
            dy: dy.view(),
            dx: dx.view(),
            dweight: dweight.view(),
        })?;
        Ok((recording, vec![Some(dx), Some(dweight)]))
    }))
}

/// What logits are held against.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A class a row, u32 `[rows]`.
    Classes(&'a wgpu::Buffer),
    /// A weight for each class of a row, `[rows, classes]`: mixed labels, say.
    Weights(&'a Tensor),
}

/// The mean cross-entropy of logits `[rows, classes]`, a share `smoothing` of the target spread over all
/// classes: the loss, `[1]`, and its gradient, from which [`Tape::backward`] of the logits begins.
pub fn cross_entropy(
    tape: &mut Tape,
    logits: &Variable,
    target: Target<'_>,
    smoothing: f32,
) -> Result<[Tensor; 2]> {
    let context = tape.context().clone();
    let (rows, classes) = rows("logits", logits.tensor())?;
    let (target, kind) = match target {
        Target::Classes(buffer) => (buffer.into(), CrossEntropyTarget::Classes),
        Target::Weights(tensor) => (tensor.view(), CrossEntropyTarget::Weights),
    };
    let config = CrossEntropyConfig { target: kind, smoothing, ..CrossEntropyConfig::new(rows, classes) };
    let kernel = CrossEntropy::new(&context, config)?;
    let loss = Tensor::new(&context, "loss", &[1])?;
    let gradient = gradient_of(&context, logits.tensor())?;
    tape.constant(kernel.prepare(&CrossEntropyArgs {
        logits: logits.tensor().view(),
        target,
        loss: loss.view(),
        gradient: Some(gradient.view()),
        scratch: &kernel.create_scratch()?,
    })?);
    Ok([loss, gradient])
}
