//! The linear layer, `y = activation(x W^T + bias)`, of matrix products (`dense::matmul`),
//! activations and sums over the rows.

use super::{
    Activation, ActivationBackward, ActivationBackwardArgs, ActivationConfig, Matmul, MatmulArgs,
    MatmulConfig, MatmulVariant, ReduceConfig, ReduceForward, ReduceForwardArgs, Reduction,
};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Error, Kernel, Plan, Recording, Result, Scratch, check_apart, count,
    kernel,
};

/// A layer of `outputs` neurons over `rows` inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearConfig {
    /// Inputs in a batch, at least 1.
    pub rows: u32,
    /// Elements of an input, at least 1.
    pub inputs: u32,
    /// Elements of an output, at least 1.
    pub outputs: u32,
    /// There is a bias.
    pub bias: bool,
    /// Applied to the output.
    pub activation: Activation,
    /// Forward: keep the pre-activations. The backward pass needs them unless the activation is the
    /// identity.
    pub keep: bool,
    /// How the products are computed; `None`: what suits the device.
    pub variant: Option<MatmulVariant>,
}

impl LinearConfig {
    /// `y = activation(x W^T + bias)`.
    fn forward(&self) -> MatmulConfig {
        MatmulConfig {
            m: self.rows,
            n: self.outputs,
            k: self.inputs,
            transpose_b: true,
            bias: self.bias,
            activation: self.activation,
            keep: self.keep,
            variant: self.variant,
            ..Default::default()
        }
    }

    /// `dx = dz W`.
    fn input(&self) -> MatmulConfig {
        MatmulConfig {
            m: self.rows,
            n: self.inputs,
            k: self.outputs,
            variant: self.variant,
            ..Default::default()
        }
    }

    /// `dW = dz^T x`.
    fn weight(&self) -> MatmulConfig {
        MatmulConfig {
            m: self.outputs,
            n: self.inputs,
            k: self.rows,
            transpose_a: true,
            variant: self.variant,
            ..Default::default()
        }
    }

    /// `dz = dy activation'(z)`; nothing for the identity.
    fn activation(&self) -> Result<Option<ActivationConfig>> {
        if self.activation == Activation::Identity {
            return Ok(None);
        }
        let count = count("dy", &[self.rows, self.outputs])?;
        Ok(Some(ActivationConfig { activation: self.activation, count, variant: None }))
    }

    /// `dbias`: the sum of dz over the rows; nothing without a bias.
    fn sum(&self) -> Option<ReduceConfig> {
        self.bias.then_some(ReduceConfig {
            reduction: Reduction::Sum,
            outer: 1,
            n: self.rows,
            inner: self.outputs,
            variant: None,
            part: None,
        })
    }
}

pub(super) fn missing(what: &'static str) -> Error {
    Error::Config { what, need: "a buffer, since the configuration asks for it".into(), got: "none".into() }
}

kernel! {
    /// `y = activation(x W^T + bias)`.
    LinearForward, LinearConfig
}

/// Buffers of [`LinearForward`].
#[derive(Debug, Clone, Copy)]
pub struct LinearForwardArgs<'a> {
    /// Input, `[rows, inputs]`.
    pub x: BufferView<'a>,
    /// Weights, `[outputs, inputs]`.
    pub weight: BufferView<'a>,
    /// `[outputs]`, if the configuration has a bias.
    pub bias: Option<BufferView<'a>>,
    /// Output, `[rows, outputs]`.
    pub y: BufferView<'a>,
    /// What went into the activation, `[rows, outputs]`, if the configuration keeps it.
    pub kept: Option<BufferView<'a>>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl LinearForward {
    /// One product.
    pub fn plan(config: &LinearConfig, caps: &Capabilities) -> Result<Plan> {
        Matmul::plan(&config.forward(), caps)
    }
}

impl Kernel for LinearForward {
    type Args<'a> = LinearForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let LinearForwardArgs { x, weight, bias, y, kept, scratch } = *args;
        let args = MatmulArgs { a: x, b: weight, bias, y, kept, scratch };
        Matmul::new(&self.context, self.config.forward())?.prepare(&args)
    }
}

kernel! {
    /// Gradients of a linear layer's input, weights and bias.
    LinearBackward, LinearConfig
}

/// Buffers of [`LinearBackward`].
#[derive(Debug, Clone, Copy)]
pub struct LinearBackwardArgs<'a> {
    /// The forward pass's input, `[rows, inputs]`.
    pub x: BufferView<'a>,
    /// Weights, `[outputs, inputs]`.
    pub weight: BufferView<'a>,
    /// What the forward pass kept, `[rows, outputs]`; not needed for the identity.
    pub kept: Option<BufferView<'a>>,
    /// Gradient of the output, `[rows, outputs]`.
    pub dy: BufferView<'a>,
    /// Gradient of the input, `[rows, inputs]`; overwritten. `None`: not wanted.
    pub dx: Option<BufferView<'a>>,
    /// Gradient of the weights, `[outputs, inputs]`; overwritten.
    pub dweight: BufferView<'a>,
    /// Gradient of the bias, `[outputs]`, if the configuration has one; overwritten.
    pub dbias: Option<BufferView<'a>>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl LinearBackward {
    /// The activation, then two products and a sum.
    pub fn plan(config: &LinearConfig, caps: &Capabilities) -> Result<Plan> {
        let mut parts = Vec::new();
        if let Some(activation) = config.activation()? {
            let mut part = ActivationBackward::plan(&activation, caps)?;
            part.scratch.push(u64::from(activation.count) * 4);
            parts.push(part);
        }
        parts.push(Matmul::plan(&config.input(), caps)?);
        let weight = Matmul::plan(&config.weight(), caps)?;
        let variant = weight.variant;
        parts.push(weight);
        if let Some(sum) = config.sum() {
            parts.push(ReduceForward::plan(&sum, caps)?);
        }
        let mut whole = Plan { variant, launches: Vec::new(), scratch: Vec::new() };
        for part in parts {
            whole.launches.extend(part.launches);
            whole.scratch.extend(part.scratch);
        }
        Ok(whole)
    }
}

impl Kernel for LinearBackward {
    type Args<'a> = LinearBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        use crate::dispatch::Planned;
        let (context, config) = (&self.context, &self.config);
        if args.scratch.0.len() < self.plan.scratch.len() {
            return Err(Error::BufferTooSmall {
                what: "scratch",
                need: self.plan.scratch.len() as u64,
                have: args.scratch.0.len() as u64,
            });
        }
        // The gradient of the input is written before the input is read. The parts check sizes.
        let whole = |what, view| Arg::words(what, view, 0);
        let outputs: Vec<_> = [
            args.dx.map(|view| whole("dx", view)),
            Some(whole("dweight", args.dweight)),
            args.dbias.map(|view| whole("dbias", view)),
        ]
        .into_iter()
        .flatten()
        .collect();
        // After the activation's gradient nothing reads dy.
        let dy = config.activation()?.is_none().then(|| whole("dy", args.dy));
        check_apart(&outputs, &[Some(whole("x", args.x)), Some(whole("weight", args.weight)), dy])?;
        let mut buffers = args.scratch.0.iter().cloned();
        let mut take = |n: usize| Scratch(buffers.by_ref().take(n).collect());
        let mut recording = Recording::new();
        let activated;
        let dz = match config.activation()? {
            None => args.dy,
            Some(activation) => {
                activated = take(1);
                let dx = activated.view(0)?;
                let x = args.kept.ok_or_else(|| missing("kept"))?;
                let kernel = ActivationBackward::new(context, activation)?;
                recording.append(kernel.prepare(&ActivationBackwardArgs { x, dy: args.dy, dx })?);
                dx
            }
        };
        let product = Matmul::new(context, config.input())?;
        let scratch = take(product.planned().scratch.len());
        if let Some(y) = args.dx {
            let args = MatmulArgs { a: dz, b: args.weight, bias: None, y, kept: None, scratch: &scratch };
            recording.append(product.prepare(&args)?);
        }
        let product = Matmul::new(context, config.weight())?;
        let scratch = take(product.planned().scratch.len());
        let products =
            MatmulArgs { a: dz, b: args.x, bias: None, y: args.dweight, kept: None, scratch: &scratch };
        recording.append(product.prepare(&products)?);
        if let Some(sum) = config.sum() {
            let y = args.dbias.ok_or_else(|| missing("dbias"))?;
            let sum = ReduceForward::new(context, sum)?;
            let scratch = take(sum.planned().scratch.len());
            recording.append(sum.prepare(&ReduceForwardArgs { x: dz, y, index: None, scratch: &scratch })?);
        }
        Ok(recording)
    }
}
