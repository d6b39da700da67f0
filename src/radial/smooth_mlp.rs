//! Networks of smooth activations with derivatives of any loss of their outputs **and** of their
//! spatial derivatives, composed of matrix products and activations of jets.
//!
//! What goes through the network are jets, `[batch, 1 + tangents, points, features]`: a value with
//! its derivatives along some directions. A layer maps the value to `a(W v + b)` and a tangent to
//! `a'(W v + b) W t`. So the forward pass gives `y` and `dy/dx` along each direction, and **one**
//! reverse pass through it gives the gradient of a loss `L(y, dy/dx)` with respect to weights,
//! biases and inputs: no second graph, no double backward. It needs `a''`, hence the name.
//!
//! For the derivatives with respect to a position, let the tangents of the input be its rows of the
//! identity, or those of an encoding ([`Differential::Jet`](super::Differential)).
//!
//! Without tangents it is a plain network, and `batch` networks of the same shape run side by side,
//! each with weights of its own: fields by the thousand, as in COIN++ or RECOMBINER.

use crate::dense::{
    Activation, ActivationJetBackward, ActivationJetBackwardArgs, ActivationJetConfig, ActivationJetForward,
    ActivationJetForwardArgs, Matmul, MatmulArgs, MatmulConfig, MatmulVariant, ReduceConfig, ReduceForward,
    ReduceForwardArgs, Reduction,
};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Context, Error, Kernel, Plan, Planned, Recording, Result, Scratch,
    check_apart, check_config, check_shape, kernel,
};

/// `layers` hidden layers of `width` neurons and a last one of `outputs`, each with a bias.
///
/// The default is a SIREN (Sitzmann et al. 2020) from the plane to colours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SmoothMlpConfig {
    /// Networks side by side, each with weights, inputs and outputs of its own. More than one only
    /// without tangents.
    pub batch: u32,
    /// Derivatives that are carried along; usually the dimensions of space, or 0.
    pub tangents: u32,
    /// Points of each network.
    pub points: u32,
    /// Elements of an input.
    pub inputs: u32,
    /// Neurons of a hidden layer.
    pub width: u32,
    /// Hidden layers, 1 to 16.
    pub layers: u32,
    /// Elements of an output.
    pub outputs: u32,
    /// Of the hidden layers. Where it has kinks, its curvature counts as 0.
    pub activation: Activation,
    /// Of the last layer.
    pub output_activation: Activation,
    /// How the products are computed; `None`: what suits the device.
    pub variant: Option<MatmulVariant>,
}

impl Default for SmoothMlpConfig {
    fn default() -> Self {
        Self {
            batch: 1,
            tangents: 0,
            points: 1,
            inputs: 2,
            width: 256,
            layers: 3,
            outputs: 3,
            activation: Activation::Sine { frequency: 30.0 },
            output_activation: Activation::Identity,
            variant: None,
        }
    }
}

/// Sizes of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Layer {
    inputs: u32,
    outputs: u32,
    activation: Activation,
}

impl SmoothMlpConfig {
    fn check(&self) -> Result<()> {
        check_config((1..=16).contains(&self.layers), "layers", "1 to 16", self.layers)?;
        check_config(self.tangents == 0 || self.batch == 1, "batch", "1 where there are tangents", self.batch)
    }

    fn layer_table(&self) -> Vec<Layer> {
        let hidden = |inputs| Layer { inputs, outputs: self.width, activation: self.activation };
        let mut layers = vec![hidden(self.inputs)];
        layers.extend((1..self.layers).map(|_| hidden(self.width)));
        layers.push(Layer { inputs: self.width, outputs: self.outputs, activation: self.output_activation });
        layers
    }

    /// Inputs and outputs of each layer: its weights are `[batch, outputs, inputs]`, its biases
    /// `[batch, outputs]`. There are `layers + 1`.
    #[must_use]
    pub fn layer_sizes(&self) -> Vec<(u32, u32)> {
        self.layer_table().iter().map(|layer| (layer.inputs, layer.outputs)).collect()
    }

    /// Weights and biases of all layers and networks.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        let count = |&(i, o): &(u32, u32)| u64::from(self.batch) * u64::from(o) * (u64::from(i) + 1);
        self.layer_sizes().iter().map(count).sum()
    }

    /// Buffers for what the backward pass needs: of each layer what goes into the activation, then
    /// of each hidden layer what comes out.
    pub fn create_kept(&self, context: &Context) -> Result<Scratch> {
        self.check()?;
        let layers = self.layer_table();
        let hidden = layers.len().saturating_sub(1);
        layers
            .iter()
            .chain(layers.iter().take(hidden))
            .map(|layer| context.create_storage("kept", u64::from(self.jet(layer).count()?) * 4))
            .collect::<Result<_>>()
            .map(Scratch)
    }

    fn jet(&self, layer: &Layer) -> ActivationJetConfig {
        ActivationJetConfig {
            activation: layer.activation,
            batch: self.batch,
            tangents: self.tangents,
            rows: self.points,
            features: layer.outputs,
            bias: true,
        }
    }

    /// Rows that one network's weights act on: values and tangents alike.
    fn rows(&self) -> u32 {
        self.points.saturating_mul(1 + self.tangents.min(1023))
    }

    /// `z = x W^T`.
    fn forward(&self, layer: &Layer) -> MatmulConfig {
        MatmulConfig {
            m: self.rows(),
            n: layer.outputs,
            k: layer.inputs,
            batch: self.batch,
            transpose_b: true,
            variant: self.variant,
            ..MatmulConfig::default()
        }
    }

    /// `dx = dz W`.
    fn input_gradient(&self, layer: &Layer) -> MatmulConfig {
        MatmulConfig { n: layer.inputs, k: layer.outputs, transpose_b: false, ..self.forward(layer) }
    }

    /// `dW = dz^T x`, summed over the values and the tangents.
    fn weight_gradient(&self, layer: &Layer) -> MatmulConfig {
        MatmulConfig {
            m: layer.outputs,
            n: layer.inputs,
            k: self.rows(),
            transpose_a: true,
            transpose_b: false,
            ..self.forward(layer)
        }
    }

    /// `dbias`: the sum over the values; with tangents they are the first plane of the only network.
    fn bias_gradient(&self, layer: &Layer) -> ReduceConfig {
        ReduceConfig {
            reduction: Reduction::Sum,
            outer: self.batch,
            n: self.points,
            inner: layer.outputs,
            variant: None,
            part: None,
        }
    }
}

/// Weights and biases of a layer, or their gradients.
#[derive(Debug, Clone, Copy)]
pub struct SmoothLayer<'a> {
    /// `[batch, outputs, inputs]`.
    pub weight: BufferView<'a>,
    /// `[batch, outputs]`.
    pub bias: BufferView<'a>,
}

/// Hands out the buffers of a scratch in order.
struct Buffers<'a>(std::slice::Iter<'a, wgpu::Buffer>);

impl<'a> Buffers<'a> {
    fn new(scratch: &'a Scratch) -> Self {
        Self(scratch.0.iter())
    }

    fn one(&mut self) -> Result<BufferView<'a>> {
        let missing = Error::BufferTooSmall { what: "scratch", need: 1, have: 0 };
        self.0.next().map(BufferView::new).ok_or(missing)
    }

    fn of(&mut self, kernel: &impl Planned) -> Scratch {
        Scratch(self.0.by_ref().take(kernel.planned().scratch.len()).cloned().collect())
    }
}

fn check_layers(what: &'static str, layers: &[SmoothLayer<'_>], config: &SmoothMlpConfig) -> Result<()> {
    let need = config.layers as usize + 1;
    check_shape(layers.len() == need, what, format!("{need} layers"), layers.len())
}

fn product(
    context: &Context,
    config: MatmulConfig,
    [a, b, y]: [BufferView<'_>; 3],
    buffers: &mut Buffers<'_>,
) -> Result<Recording> {
    let product = Matmul::new(context, config)?;
    let scratch = buffers.of(&product);
    product.prepare(&MatmulArgs { a, b, bias: None, y, kept: None, scratch: &scratch })
}

kernel! {
    /// Values and tangents of the outputs.
    SmoothMlpForward, SmoothMlpConfig
}

/// Buffers of [`SmoothMlpForward`].
#[derive(Debug, Clone, Copy)]
pub struct SmoothMlpForwardArgs<'a> {
    /// Input, `[batch, 1 + tangents, points, inputs]`.
    pub x: BufferView<'a>,
    /// The `layers + 1` layers.
    pub layers: &'a [SmoothLayer<'a>],
    /// Output, `[batch, 1 + tangents, points, outputs]`.
    pub y: BufferView<'a>,
    /// Of [`SmoothMlpConfig::create_kept`]; overwritten.
    pub kept: &'a Scratch,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl SmoothMlpForward {
    /// A product and an activation for each layer.
    pub fn plan(config: &SmoothMlpConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let mut whole = Plan::default();
        for layer in config.layer_table() {
            let product = Matmul::plan(&config.forward(&layer), caps)?;
            whole.variant = product.variant;
            whole.launches.extend(product.launches);
            whole.scratch.extend(product.scratch);
            whole.launches.extend(ActivationJetForward::plan(&config.jet(&layer), caps)?.launches);
        }
        Ok(whole)
    }
}

impl Kernel for SmoothMlpForward {
    type Args<'a> = SmoothMlpForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (context, config) = (&self.context, &self.config);
        check_layers("layers", args.layers, config)?;
        let table = config.layer_table();
        let mut buffers = Buffers::new(args.scratch);
        let mut recording = Recording::new();
        let mut x = args.x;
        for (l, (layer, parameters)) in table.iter().zip(args.layers).enumerate() {
            let z = args.kept.view(l)?;
            let y = if l + 1 == table.len() { args.y } else { args.kept.view(table.len() + l)? };
            let operands = [x, parameters.weight, z];
            recording.append(product(context, config.forward(layer), operands, &mut buffers)?);
            let activation = ActivationJetForward::new(context, config.jet(layer))?;
            let bias = Some(parameters.bias);
            recording.append(activation.prepare(&ActivationJetForwardArgs { z, bias, y })?);
            x = y;
        }
        Ok(recording)
    }
}

kernel! {
    /// Gradients of a loss of values and tangents with respect to inputs, weights and biases.
    SmoothMlpBackward, SmoothMlpConfig
}

/// Buffers of [`SmoothMlpBackward`].
#[derive(Debug, Clone, Copy)]
pub struct SmoothMlpBackwardArgs<'a> {
    /// As in the forward pass.
    pub x: BufferView<'a>,
    /// As in the forward pass.
    pub layers: &'a [SmoothLayer<'a>],
    /// What the forward pass kept.
    pub kept: &'a Scratch,
    /// Gradient of the output, values and tangents, `[batch, 1 + tangents, points, outputs]`.
    pub dy: BufferView<'a>,
    /// Gradient of the input, values and tangents, `[batch, 1 + tangents, points, inputs]`;
    /// overwritten. `None`: not wanted.
    pub dx: Option<BufferView<'a>>,
    /// Gradients of the layers; overwritten.
    pub gradients: &'a [SmoothLayer<'a>],
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl SmoothMlpBackwardArgs<'_> {
    /// A layer's gradients are written before those of the layers below it are computed.
    fn check_apart(&self) -> Result<()> {
        // Sizes are checked where the arguments are bound.
        let whole = |what, view| Arg::words(what, view, 0);
        let mut inputs = vec![Some(whole("x", self.x)), Some(whole("dy", self.dy))];
        for layer in self.layers {
            inputs.push(Some(whole("layers.weight", layer.weight)));
            inputs.push(Some(whole("layers.bias", layer.bias)));
        }
        for buffer in &self.kept.0 {
            inputs.push(Some(whole("kept", BufferView::new(buffer))));
        }
        let mut outputs = Vec::new();
        for layer in self.gradients {
            outputs.push(whole("gradients.weight", layer.weight));
            outputs.push(whole("gradients.bias", layer.bias));
        }
        outputs.extend(self.dx.map(|view| whole("dx", view)));
        check_apart(&outputs, &inputs)
    }
}

impl SmoothMlpBackward {
    /// For each layer, from the last to the first: the activation, the sum of the biases' gradient,
    /// and two products.
    pub fn plan(config: &SmoothMlpConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let table = config.layer_table();
        let mut whole = Plan::default();
        let mut widest = 0u64;
        for layer in table.iter().rev() {
            widest = widest.max(config.jet(layer).count()?.into());
            let parts = [
                ActivationJetBackward::plan(&config.jet(layer), caps)?,
                ReduceForward::plan(&config.bias_gradient(layer), caps)?,
                Matmul::plan(&config.weight_gradient(layer), caps)?,
                Matmul::plan(&config.input_gradient(layer), caps)?,
            ];
            for part in parts {
                whole.variant = part.variant;
                whole.launches.extend(part.launches);
                whole.scratch.extend(part.scratch);
            }
        }
        // The gradients of an activation's input and output take turns.
        whole.scratch.splice(0..0, [widest * 4, widest * 4]);
        Ok(whole)
    }
}

impl Kernel for SmoothMlpBackward {
    type Args<'a> = SmoothMlpBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (context, config) = (&self.context, &self.config);
        check_layers("layers", args.layers, config)?;
        check_layers("gradients", args.gradients, config)?;
        args.check_apart()?;
        let table = config.layer_table();
        let mut buffers = Buffers::new(args.scratch);
        let (dz, between) = (buffers.one()?, buffers.one()?);
        let mut recording = Recording::new();
        let mut dy = args.dy;
        let layers = table.iter().zip(args.layers).zip(args.gradients).enumerate().rev();
        for (l, ((layer, parameters), gradients)) in layers {
            let z = args.kept.view(l)?;
            let activation = ActivationJetBackward::new(context, config.jet(layer))?;
            let bias = Some(parameters.bias);
            recording.append(activation.prepare(&ActivationJetBackwardArgs { z, bias, dy, dz })?);
            let sum = ReduceForward::new(context, config.bias_gradient(layer))?;
            let scratch = buffers.of(&sum);
            let sums = ReduceForwardArgs { x: dz, y: gradients.bias, index: None, scratch: &scratch };
            recording.append(sum.prepare(&sums)?);
            let x = match l.checked_sub(1) {
                Some(before) => args.kept.view(table.len() + before)?,
                None => args.x,
            };
            let operands = [dz, x, gradients.weight];
            recording.append(product(context, config.weight_gradient(layer), operands, &mut buffers)?);
            let dx = if l == 0 { args.dx } else { Some(between) };
            if let Some(dx) = dx {
                let operands = [dz, parameters.weight, dx];
                recording.append(product(context, config.input_gradient(layer), operands, &mut buffers)?);
                dy = dx;
            }
        }
        Ok(recording)
    }
}
