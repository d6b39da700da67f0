//! What smooth fields are put together from, on a tape.

use super::tape::{Tape, Variable};
use super::tensor::Tensor;
use crate::dispatch::{Context, Kernel, Planned, Recording, Result, check_shape};
use crate::radial::{
    CompactBasisBackward, CompactBasisBackwardArgs, CompactBasisConfig, CompactBasisForward,
    CompactBasisForwardArgs, CompactBasisInputs, CompactBasisLists, CompactBasisListsArgs, SmoothLayer,
    SmoothMlpBackward, SmoothMlpBackwardArgs, SmoothMlpConfig, SmoothMlpForward, SmoothMlpForwardArgs,
};

/// An input of an operation: with a gradient, or without.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// No gradient is computed.
    Constant(&'a Tensor),
    /// On the tape.
    Variable(&'a Variable),
}

impl<'a> Input<'a> {
    fn tensor(self) -> &'a Tensor {
        match self {
            Self::Constant(tensor) => tensor,
            Self::Variable(variable) => variable.tensor(),
        }
    }

    fn variable(self) -> Option<&'a Variable> {
        match self {
            Self::Constant(_) => None,
            Self::Variable(variable) => Some(variable),
        }
    }
}

fn views(layers: &[(Tensor, Tensor)]) -> Vec<SmoothLayer<'_>> {
    layers.iter().map(|(weight, bias)| SmoothLayer { weight: weight.view(), bias: bias.view() }).collect()
}

fn like(context: &Context, what: &'static str, tensor: &Tensor) -> Result<Tensor> {
    Tensor::new(context, what, tensor.shape())
}

/// A network of smooth activations with its tangents: `[batch, 1 + tangents, points, outputs]` from
/// `[batch, 1 + tangents, points, inputs]` and the weights and biases of its layers.
pub fn smooth_mlp(
    tape: &mut Tape,
    config: SmoothMlpConfig,
    x: Input<'_>,
    layers: &[(Variable, Variable)],
) -> Result<Variable> {
    let context = tape.context().clone();
    let planes = 1 + config.tangents;
    let y = Tensor::new(&context, "y", &[config.batch, planes, config.points, config.outputs])?;
    let kept = config.create_kept(&context)?;
    let parameters: Vec<(Tensor, Tensor)> =
        layers.iter().map(|(weight, bias)| (weight.tensor().clone(), bias.tensor().clone())).collect();
    let kernel = SmoothMlpForward::new(&context, config)?;
    let forward = kernel.prepare(&SmoothMlpForwardArgs {
        x: x.tensor().view(),
        layers: &views(&parameters),
        y: y.view(),
        kept: &kept,
        scratch: &kernel.create_scratch()?,
    })?;
    let mut inputs: Vec<&Variable> = x.variable().into_iter().collect();
    inputs.extend(layers.iter().flat_map(|(weight, bias)| [weight, bias]));
    let wants_x = x.variable().is_some();
    let x = x.tensor().clone();
    Ok(tape.operation(forward, &inputs, y, move |context, dy| {
        let dx = if wants_x { Some(like(context, "dx", &x)?) } else { None };
        let gradients: Vec<(Tensor, Tensor)> = parameters
            .iter()
            .map(|(weight, bias)| Ok((like(context, "dweight", weight)?, like(context, "dbias", bias)?)))
            .collect::<Result<_>>()?;
        let kernel = SmoothMlpBackward::new(context, config)?;
        let recording = kernel.prepare(&SmoothMlpBackwardArgs {
            x: x.view(),
            layers: &views(&parameters),
            kept: &kept,
            dy: dy.view(),
            dx: dx.as_ref().map(Tensor::view),
            gradients: &views(&gradients),
            scratch: &kernel.create_scratch()?,
        })?;
        let mut given: Vec<Option<Tensor>> = dx.into_iter().map(Some).collect();
        given.extend(gradients.into_iter().flat_map(|(weight, bias)| [Some(weight), Some(bias)]));
        Ok((recording, given))
    }))
}

/// What a compactly supported basis is made of, on a tape.
#[derive(Debug, Clone, Copy)]
pub struct CompactBasisOperands<'a> {
    /// Positions, `[N, dims]`. As a variable they need `to_positions` in the configuration.
    pub positions: Input<'a>,
    /// Weights, `[nodes, features]`.
    pub weights: &'a Variable,
    /// Frequencies, `[features]`, for sinusoids.
    pub frequencies: Option<&'a Tensor>,
    /// Shapes, `[nodes, dims + 1]`, for adaptive nodes.
    pub shapes: Option<&'a Variable>,
    /// Directions, `[N, dims]`, for derivatives along them.
    pub direction: Option<&'a Tensor>,
}

/// Features of positions and their derivatives: `[planes, N, levels * features]`.
///
/// The lists of the cells are made anew in each step: positions may change from one to the next.
pub fn compact_basis(
    tape: &mut Tape,
    config: CompactBasisConfig,
    operands: CompactBasisOperands<'_>,
) -> Result<Variable> {
    let context = tape.context().clone();
    let wants_positions = operands.positions.variable().is_some();
    check_shape(
        wants_positions == config.to_positions,
        "positions",
        "a variable if and only if their gradient is computed",
        wants_positions,
    )?;
    let rows = config.points;
    let all = config.output_count()?;
    check_shape(all > 0, "features", "at least one of at least one point", all)?;
    let planes = all / (rows * config.outputs());
    let y = Tensor::new(&context, "y", &[planes, rows, config.outputs()])?;
    let lists = Tensor::new(&context, "lists", &[config.list_count()?])?;
    let positions = operands.positions.tensor().clone();
    let weights = operands.weights.tensor().clone();
    let frequencies = operands.frequencies.cloned();
    let shapes = operands.shapes.map(|shapes| shapes.tensor().clone());
    let direction = operands.direction.cloned();
    let all = (positions, weights, frequencies, shapes, direction);
    fn bound(
        (positions, weights, frequencies, shapes, direction): &(
            Tensor,
            Tensor,
            Option<Tensor>,
            Option<Tensor>,
            Option<Tensor>,
        ),
    ) -> CompactBasisInputs<'_> {
        CompactBasisInputs {
            positions: positions.view(),
            weights: weights.view(),
            frequencies: frequencies.as_ref().map(Tensor::view),
            shapes: shapes.as_ref().map(Tensor::view),
            direction: direction.as_ref().map(Tensor::view),
        }
    }
    let kernel = CompactBasisForward::new(&context, config)?;
    let forward = kernel.prepare(&CompactBasisForwardArgs { inputs: bound(&all), y: y.view() })?;
    let mut inputs: Vec<&Variable> = operands.positions.variable().into_iter().collect();
    inputs.push(operands.weights);
    inputs.extend(operands.shapes);
    Ok(tape.operation(forward, &inputs, y, move |context, dy| {
        let (positions, weights, _, shapes, _) = &all;
        let dx = if wants_positions { Some(like(context, "dx", positions)?) } else { None };
        let dweights = like(context, "dweights", weights)?;
        let dshapes = shapes.as_ref().map(|shapes| like(context, "dshapes", shapes)).transpose()?;
        let kernel = CompactBasisLists::new(context, config)?;
        let mut recording = Recording::new();
        recording.append(kernel.prepare(&CompactBasisListsArgs {
            positions: positions.view(),
            lists: lists.view(),
            scratch: &kernel.create_scratch()?,
        })?);
        let kernel = CompactBasisBackward::new(context, config)?;
        recording.append(kernel.prepare(&CompactBasisBackwardArgs {
            inputs: bound(&all),
            lists: lists.view(),
            dy: dy.view(),
            dweights: dweights.view(),
            dshapes: dshapes.as_ref().map(Tensor::view),
            dx: dx.as_ref().map(Tensor::view),
            scratch: &kernel.create_scratch()?,
        })?);
        let mut given: Vec<Option<Tensor>> = dx.into_iter().map(Some).collect();
        given.push(Some(dweights));
        given.extend(dshapes.into_iter().map(Some));
        Ok((recording, given))
    }))
}
