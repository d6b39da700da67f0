//! Optimiser steps: Adam, AdamW, gradient descent with and without momentum, RMSprop
//! (`shaders/dense/optimizer.wgsl`).
//!
//! What changes from step to step lies in a small buffer, [`StepValues`], that the host writes with
//! `Queue::write_buffer` before each submit: a recorded step can be submitted again unchanged.

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, check_shape, kernel, read, shader, write,
};

/// The `step` buffer: eight f32.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct StepValues {
    /// Word 0: the learning rate.
    pub learning_rate: f32,
    /// Word 1: factor of every gradient. The host writes 1 (or the inverse of a loss scale);
    /// clipping overwrites it on the device. Exactly 0 skips the step: nothing changes.
    pub gradient_scale: f32,
    /// Word 2: `1 / (1 - beta1^step)`.
    pub bias1: f32,
    /// Word 3: `1 / sqrt(1 - beta2^step)`.
    pub bias2: f32,
    /// Word 4: the gradient norm before clipping, written by the clipping; the host writes 0.
    pub gradient_norm: f32,
    /// Words 5 to 7: zeros.
    pub unused: [f32; 3],
}

impl StepValues {
    /// Words of the buffer.
    pub const WORDS: u64 = 8;

    /// The values of step `step` (the first is 1; 0 is taken as 1), computed in f64.
    /// The optimisers without betas do not read the bias corrections.
    #[must_use]
    pub fn new(step: u64, learning_rate: f32, betas: [f32; 2]) -> Self {
        // beta^t is 0 in f64 long before the exponent reaches 2^31.
        let t = i32::try_from(step.max(1)).unwrap_or(i32::MAX);
        let rest = |beta: f32| 1.0 - f64::from(beta).powi(t);
        Self {
            learning_rate,
            gradient_scale: 1.0,
            bias1: (1.0 / rest(betas[0])) as f32,
            bias2: (1.0 / rest(betas[1]).sqrt()) as f32,
            gradient_norm: 0.0,
            unused: [0.0; 3],
        }
    }

    /// The bytes to write into the buffer.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }
}

/// The rule of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// Adam (Kingma and Ba 2015, algorithm 1), or AdamW if the decay is decoupled (Loshchilov and
    /// Hutter 2019, algorithm 2). Two moments.
    Adam {
        /// Decay of the two moments, in `[0, 1)`.
        betas: [f32; 2],
        /// Added to the square root; at least 0, and above 0 if a gradient may stay 0 unskipped.
        epsilon: f32,
        /// Whether weight decay acts on the parameter (AdamW) and not through the gradient.
        decoupled: bool,
    },
    /// Gradient descent: no moments if `momentum` is 0, else the first.
    Descent {
        /// In `[0, 1)`.
        momentum: f32,
        /// Nesterov's form of the momentum (Sutskever et al. 2013).
        nesterov: bool,
    },
    /// RMSprop (Tieleman and Hinton 2012): the second moment.
    RmsProp {
        /// Decay of the second moment, in `[0, 1)`.
        alpha: f32,
        /// Added to the square root; at least 0, and above 0 if a gradient may stay 0 unskipped.
        epsilon: f32,
    },
}

impl Default for Method {
    fn default() -> Self {
        Self::Adam { betas: [0.9, 0.999], epsilon: 1e-8, decoupled: false }
    }
}

impl Method {
    /// AdamW with the usual values: betas 0.9 and 0.999, epsilon 1e-8.
    #[must_use]
    pub fn adam_w() -> Self {
        Self::Adam { betas: [0.9, 0.999], epsilon: 1e-8, decoupled: true }
    }

    /// Which moment buffers it needs; they start as zeros.
    #[must_use]
    pub fn moments(&self) -> [bool; 2] {
        match *self {
            Self::Adam { .. } => [true, true],
            Self::Descent { momentum, .. } => [momentum != 0.0, false],
            Self::RmsProp { .. } => [false, true],
        }
    }

    /// The betas for [`StepValues::new`]; zeros (no correction) for methods without.
    #[must_use]
    pub fn betas(&self) -> [f32; 2] {
        if let Self::Adam { betas, .. } = *self { betas } else { [0.0; 2] }
    }
}

/// One update of one parameter tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerConfig {
    /// Elements, at least 1.
    pub count: u32,
    /// The rule.
    pub method: Method,
    /// Weight decay, at least 0. Through the gradient, unless the method decouples it.
    pub weight_decay: f32,
    /// Factor of the learning rate for this tensor (a parameter group, or layer-wise decay).
    pub rate: f32,
    /// Leave elements alone whose gradient is exactly 0, moments and decay included: the entries
    /// of a hash table that no sample touched (Müller et al. 2022, section 4).
    pub skip_zero_gradient: bool,
    /// `None`: the fastest that fits.
    pub variant: Option<OptimizerVariant>,
}

/// How many elements an invocation updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptimizerVariant {
    /// One; any count.
    Scalar,
    /// Four; the count must be a multiple of 4.
    Vec4,
}

impl OptimizerConfig {
    /// A method over `count` elements without decay.
    #[must_use]
    pub fn new(count: u32, method: Method) -> Self {
        Self { count, method, weight_decay: 0.0, rate: 1.0, skip_zero_gradient: false, variant: None }
    }
}

const WORKGROUP: u32 = 256;

/// The scalar form of an entry point, and the one that takes vec4s.
macro_rules! forms {
    ($name:ident, $entry:literal, [$($moment:literal),*]) => {
        static $name: [Shader; 2] = [
            shader!(
                "dense/optimizer",
                $entry,
                [index, scalars, stored_floats],
                [read("step"), read("gradient"), write("parameter"), $(write($moment)),*]
            ),
            shader!(
                "dense/optimizer",
                $entry,
                [index, quads, vectors, stored_quads],
                [read("step"), read("gradient").vec4(), write("parameter").vec4(), $(write($moment).vec4()),*]
            ),
        ];
    };
}
forms!(ADAM, "adam", ["moment1", "moment2"]);
forms!(MOMENTUM, "momentum", ["moment1"]);
forms!(DESCENT, "descent", []);
forms!(RMSPROP, "rmsprop", ["moment2_only"]);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    items: u32,
    skip_zero: u32,
    decoupled: u32,
    nesterov: u32,
    rate: f32,
    weight_decay: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    epsilon: f32,
}

kernel! {
    /// One optimiser step over one tensor, in place.
    Optimizer, OptimizerConfig
}

/// Buffers of [`Optimizer`].
#[derive(Debug, Clone, Copy)]
pub struct OptimizerArgs<'a> {
    /// [`StepValues`], `[8]`.
    pub step: BufferView<'a>,
    /// Gradient, `[count]`.
    pub gradient: BufferView<'a>,
    /// Parameter, `[count]`; updated.
    pub parameter: BufferView<'a>,
    /// First moment, `[count]`, exactly if [`Method::moments`] says so; updated, zeros at first.
    pub moment1: Option<BufferView<'a>>,
    /// Second moment, as the first.
    pub moment2: Option<BufferView<'a>>,
}

impl Optimizer {
    /// Chooses the rule and the grid.
    pub fn plan(config: &OptimizerConfig, caps: &Capabilities) -> Result<Plan> {
        let OptimizerConfig { count, method, weight_decay, rate, skip_zero_gradient, variant } = *config;
        check_config(count > 0, "count", "at least 1", count)?;
        let decay = weight_decay.is_finite() && weight_decay >= 0.0;
        check_config(decay, "weight_decay", "at least 0 and finite", weight_decay)?;
        check_config(rate.is_finite(), "rate", "finite", rate)?;
        let share = |what, beta: f32| check_config((0.0..1.0).contains(&beta), what, "in [0, 1)", beta);
        let positive =
            |what, e: f32| check_config(e.is_finite() && e >= 0.0, what, "at least 0 and finite", e);
        let (shaders, betas, epsilon, decoupled, nesterov, flops) = match method {
            Method::Adam { betas, epsilon, decoupled } => {
                share("betas[0]", betas[0])?;
                share("betas[1]", betas[1])?;
                positive("epsilon", epsilon)?;
                (&ADAM, betas, epsilon, decoupled, false, 14)
            }
            Method::Descent { momentum, nesterov } => {
                share("momentum", momentum)?;
                let shaders = if momentum == 0.0 { &DESCENT } else { &MOMENTUM };
                (shaders, [momentum, 0.0], 0.0, false, nesterov, 5)
            }
            Method::RmsProp { alpha, epsilon } => {
                share("alpha", alpha)?;
                positive("epsilon", epsilon)?;
                (&RMSPROP, [0.0, alpha], epsilon, false, false, 9)
            }
        };
        let rest = |beta: f32| (1.0 - f64::from(beta)) as f32;
        let whole = count.is_multiple_of(4);
        let fastest = if whole { OptimizerVariant::Vec4 } else { OptimizerVariant::Scalar };
        let (shader, name, items) = match variant.unwrap_or(fastest) {
            OptimizerVariant::Scalar => (&shaders[0], "scalar", count),
            OptimizerVariant::Vec4 => {
                check_config(whole, "count", "a multiple of 4 for the vec4 variant", count)?;
                (&shaders[1], "vec4", count / 4)
            }
        };
        let params = Params {
            items,
            skip_zero: skip_zero_gradient.into(),
            decoupled: decoupled.into(),
            nesterov: nesterov.into(),
            rate,
            weight_decay,
            beta1: betas[0],
            one_minus_beta1: rest(betas[0]),
            beta2: betas[1],
            one_minus_beta2: rest(betas[1]),
            epsilon,
        };
        // The gradient is read once; parameter and moments are read and written.
        let updated = 1 + method.moments().iter().filter(|&&m| m).count() as u64;
        let cost = Cost::new(u64::from(count) * flops, u64::from(count) * 4 * (1 + 2 * updated));
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP);
        let groups = items.div_ceil(WORKGROUP).into();
        Ok(Plan::single(name, Launch::new(shader, constants, &params, groups, caps, cost)?))
    }
}

impl Kernel for Optimizer {
    type Args<'a> = OptimizerArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let n = self.config.count.into();
        let mut list = vec![
            Arg::words("step", args.step, StepValues::WORDS),
            Arg::words("gradient", args.gradient, n),
            Arg::words("parameter", args.parameter, n),
        ];
        let moments = [("moment1", args.moment1), ("moment2", args.moment2)];
        for ((what, view), needed) in moments.into_iter().zip(self.config.method.moments()) {
            let need = if needed { "a buffer" } else { "none for this method" };
            check_shape(needed == view.is_some(), what, need, view.map(|view| view.size))?;
            list.extend(view.map(|view| Arg::words(what, view, n)));
        }
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}
