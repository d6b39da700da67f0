//! The radial half of a hybrid field: bases with frozen centres and shapes, their features beside
//! those of the grid, and the first hidden layer with its sinusoid.

use super::radial_field::RadialBasesConfig;
use crate::dense::{
    ConcatenateBackward, ConcatenateBackwardArgs, ConcatenateConfig, ConcatenateForward,
    ConcatenateForwardArgs, InvertedIndex, InvertedIndexArgs, InvertedIndexConfig, LinearBackward,
    LinearBackwardArgs, LinearConfig, LinearForward, LinearForwardArgs,
};
use crate::dispatch::{Context, Kernel, Planned, Recording, Result, Scratch};
use crate::radial::{
    FeatureSinusoidBackward, FeatureSinusoidBackwardArgs, FeatureSinusoidConfig, FeatureSinusoidForward,
    FeatureSinusoidForwardArgs, NearestArgs, NearestConfig, NearestNeighbours, RadialBasisConfig,
    RadialBasisForward, RadialBasisForwardArgs, SinusoidCompositionBackward, SinusoidCompositionBackwardArgs,
    SinusoidCompositionBackwardConfig, SinusoidCompositionConfig, SinusoidCompositionForward,
    SinusoidCompositionForwardArgs, log_spaced,
};
use crate::train::Tensor;

/// Parameters of the radial half. Centres and shapes are frozen, as published.
#[derive(Debug, Clone)]
pub(super) struct Hybrid {
    pub config: RadialBasesConfig,
    /// Features of the grid, and neurons of the first layer.
    grid: u32,
    width: u32,
    pub centres: Tensor,
    pub shapes: Tensor,
    pub weights: Tensor,
    pub bias: Tensor,
    pub first_weight: Tensor,
    pub first_bias: Tensor,
    frequencies: Tensor,
    hidden_frequencies: Tensor,
}

/// What a batch needs between its passes.
pub(super) struct Buffers {
    points: u32,
    /// Positions within the extent, `[N, 2]`.
    pub places: Tensor,
    neighbours: Tensor,
    phi: Tensor,
    features: Tensor,
    joined: Tensor,
    z: Tensor,
    /// What goes into the rest of the network, `[N, width]`.
    pub hidden: Tensor,
    scratch: Vec<Scratch>,
}

/// Gradients, in the order of [`Hybrid::trained`], and the inverted lists that they need.
pub(super) struct Gradients {
    pub parameters: [Tensor; 4],
    order: Tensor,
    starts: Tensor,
}

impl Hybrid {
    /// With initial values from `uniform(size)`: features and their bias in +-1e-4, the layer in
    /// +-1 / sqrt(inputs). Centres and shapes are written later.
    pub fn new(
        context: &Context,
        config: RadialBasesConfig,
        grid: u32,
        width: u32,
        uniform: &mut dyn FnMut(f32) -> f32,
    ) -> Result<Self> {
        let joined = grid + config.features;
        let mut random = |what, shape: &[u32], size: f32| -> Result<Tensor> {
            let n = crate::dispatch::count(what, shape)?;
            let data: Vec<f32> = (0..n).map(|_| uniform(size)).collect();
            Tensor::from_slice(context, what, shape, &data)
        };
        let layer = 1.0 / (joined as f32).sqrt();
        let fixed = |what, range: [f64; 2], n: u32| {
            Tensor::from_slice(context, what, &[n], &log_spaced(range[0], range[1], n))
        };
        let shape_size = config.shape.size(2);
        Ok(Self {
            config,
            grid,
            width,
            centres: Tensor::new(context, "centres", &[config.centres, 2])?,
            shapes: Tensor::new(context, "shapes", &[config.centres, shape_size])?,
            weights: random("radial weights", &[config.centres, config.features], 1e-4)?,
            bias: random("radial bias", &[joined], 1e-4)?,
            first_weight: random("first weight", &[width, joined], layer)?,
            first_bias: random("first bias", &[width], layer)?,
            frequencies: fixed("frequencies", config.frequencies, config.features)?,
            hidden_frequencies: fixed("hidden frequencies", config.hidden_frequencies, width)?,
        })
    }

    /// The trained tensors with their names.
    pub fn trained(&self) -> [(&'static str, &Tensor); 4] {
        [
            ("radial.weights", &self.weights),
            ("radial.bias", &self.bias),
            ("first.weight", &self.first_weight),
            ("first.bias", &self.first_bias),
        ]
    }

    /// The frozen tensors with their names.
    pub fn frozen(&self) -> [(&'static str, &Tensor); 2] {
        [("radial.centres", &self.centres), ("radial.shapes", &self.shapes)]
    }

    fn joined(&self, points: u32) -> ConcatenateConfig {
        ConcatenateConfig { rows: points, first: self.grid, second: self.config.features, bias: true }
    }

    fn layer(&self, points: u32) -> LinearConfig {
        LinearConfig {
            rows: points,
            inputs: self.grid + self.config.features,
            outputs: self.width,
            bias: true,
            activation: crate::dense::Activation::Identity,
            keep: false,
            variant: None,
        }
    }

    fn sinusoid(&self, points: u32) -> FeatureSinusoidConfig {
        FeatureSinusoidConfig { points, width: self.width }
    }

    fn composition(&self, points: u32) -> SinusoidCompositionConfig {
        SinusoidCompositionConfig {
            points,
            centres: self.config.centres,
            neighbours: self.config.neighbours,
            features: self.config.features,
            ..Default::default()
        }
    }

    pub fn buffers(&self, context: &Context, points: u32) -> Result<Buffers> {
        let RadialBasesConfig { neighbours, features, .. } = self.config;
        let tensor = |what, width: u32| Tensor::new(context, what, &[points, width]);
        Ok(Buffers {
            points,
            places: tensor("places", 2)?,
            neighbours: tensor("neighbours", neighbours)?,
            phi: tensor("phi", neighbours)?,
            features: tensor("radial features", features)?,
            joined: tensor("joined features", self.grid + features)?,
            z: tensor("first layer", self.width)?,
            hidden: tensor("hidden", self.width)?,
            scratch: Vec::new(),
        })
    }

    /// The neighbours of the batch's places, and the bases there: the same for as long as the places
    /// are, since centres and shapes are frozen.
    pub fn locate(&self, context: &Context, buffers: &mut Buffers) -> Result<Recording> {
        let RadialBasesConfig { centres, neighbours, function, shape, .. } = self.config;
        let config = NearestConfig {
            dims: 2,
            points: buffers.points,
            centres,
            k: neighbours,
            distances: false,
            variant: None,
        };
        let nearest = NearestNeighbours::new(context, config)?;
        let scratch = nearest.create_scratch()?;
        let mut recording = nearest.prepare(&NearestArgs {
            points: buffers.places.view(),
            centres: self.centres.view(),
            indices: buffers.neighbours.view(),
            distances: None,
            scratch: &scratch,
        })?;
        buffers.scratch.push(scratch);
        let config = RadialBasisConfig {
            function,
            shape,
            centres,
            neighbours,
            points: buffers.points,
            ..Default::default()
        };
        recording.append(RadialBasisForward::new(context, config)?.prepare(&RadialBasisForwardArgs {
            positions: buffers.places.view(),
            centres: self.centres.view(),
            shapes: self.shapes.view(),
            neighbours: buffers.neighbours.view(),
            phi: buffers.phi.view(),
        })?);
        Ok(recording)
    }

    /// From the grid's features and the bases to the first hidden layer.
    pub fn forward(&self, context: &Context, buffers: &mut Buffers, encoded: &Tensor) -> Result<Recording> {
        let points = buffers.points;
        let composition = SinusoidCompositionForward::new(context, self.composition(points))?;
        let mut recording = composition.prepare(&SinusoidCompositionForwardArgs {
            phi: buffers.phi.view(),
            neighbours: buffers.neighbours.view(),
            weights: self.weights.view(),
            frequencies: Some(self.frequencies.view()),
            y: buffers.features.view(),
        })?;
        let join = ConcatenateForward::new(context, self.joined(points))?;
        recording.append(join.prepare(&ConcatenateForwardArgs {
            a: encoded.view(),
            b: buffers.features.view(),
            bias: Some(self.bias.view()),
            y: buffers.joined.view(),
        })?);
        let layer = LinearForward::new(context, self.layer(points))?;
        let scratch = layer.create_scratch()?;
        recording.append(layer.prepare(&LinearForwardArgs {
            x: buffers.joined.view(),
            weight: self.first_weight.view(),
            bias: Some(self.first_bias.view()),
            y: buffers.z.view(),
            kept: None,
            scratch: &scratch,
        })?);
        buffers.scratch.push(scratch);
        let sinusoid = FeatureSinusoidForward::new(context, self.sinusoid(points))?;
        recording.append(sinusoid.prepare(&FeatureSinusoidForwardArgs {
            x: buffers.z.view(),
            frequencies: self.hidden_frequencies.view(),
            y: buffers.hidden.view(),
        })?);
        Ok(recording)
    }

    pub fn gradients(&self, context: &Context, points: u32) -> Result<Gradients> {
        let [(_, a), (_, b), (_, c), (_, d)] = self.trained();
        let like = |tensor: &Tensor| Tensor::new(context, "gradient", tensor.shape());
        Ok(Gradients {
            parameters: [like(a)?, like(b)?, like(c)?, like(d)?],
            order: Tensor::new(context, "order", &[points, self.config.neighbours])?,
            starts: Tensor::new(context, "starts", &[self.config.centres + 1])?,
        })
    }

    /// The lists of the pairs that each centre has; as constant as what `locate` gives.
    pub fn invert(&self, context: &Context, buffers: &mut Buffers, to: &Gradients) -> Result<Recording> {
        let config = InvertedIndexConfig { rows: self.config.centres, n: buffers.neighbours.len() };
        let index = InvertedIndex::new(context, config)?;
        let scratch = index.create_scratch()?;
        let recording = index.prepare(&InvertedIndexArgs {
            index: buffers.neighbours.view(),
            order: to.order.view(),
            starts: to.starts.view(),
            scratch: &scratch,
        })?;
        buffers.scratch.push(scratch);
        Ok(recording)
    }

    /// From the gradient of the hidden layer to those of the parameters and of the grid's features.
    pub fn backward(
        &self,
        context: &Context,
        buffers: &mut Buffers,
        to: &Gradients,
        d_hidden: &Tensor,
        d_encoded: &Tensor,
    ) -> Result<Recording> {
        let points = buffers.points;
        let [d_weights, d_bias, d_first_weight, d_first_bias] = &to.parameters;
        // The layer's output is overwritten by nothing until the next forward pass: its gradient
        // needs a tensor of its own, those of the features do too.
        let d_z = Tensor::new(context, "d first layer", buffers.z.shape())?;
        let d_joined = Tensor::new(context, "d joined features", buffers.joined.shape())?;
        let d_features = Tensor::new(context, "d radial features", buffers.features.shape())?;
        let sinusoid = FeatureSinusoidBackward::new(context, self.sinusoid(points))?;
        let mut recording = sinusoid.prepare(&FeatureSinusoidBackwardArgs {
            x: buffers.z.view(),
            frequencies: self.hidden_frequencies.view(),
            dy: d_hidden.view(),
            dx: d_z.view(),
        })?;
        let layer = LinearBackward::new(context, self.layer(points))?;
        let scratch = layer.create_scratch()?;
        recording.append(layer.prepare(&LinearBackwardArgs {
            x: buffers.joined.view(),
            weight: self.first_weight.view(),
            kept: None,
            dy: d_z.view(),
            dx: Some(d_joined.view()),
            dweight: d_first_weight.view(),
            dbias: Some(d_first_bias.view()),
            scratch: &scratch,
        })?);
        buffers.scratch.push(scratch);
        let split = ConcatenateBackward::new(context, self.joined(points))?;
        let scratch = split.create_scratch()?;
        recording.append(split.prepare(&ConcatenateBackwardArgs {
            dy: d_joined.view(),
            da: d_encoded.view(),
            db: d_features.view(),
            dbias: Some(d_bias.view()),
            scratch: &scratch,
        })?);
        buffers.scratch.push(scratch);
        let config = SinusoidCompositionBackwardConfig {
            forward: self.composition(points),
            phi: false,
            weights: true,
            frequencies: false,
        };
        let composition = SinusoidCompositionBackward::new(context, config)?;
        recording.append(composition.prepare(&SinusoidCompositionBackwardArgs {
            phi: buffers.phi.view(),
            neighbours: buffers.neighbours.view(),
            weights: self.weights.view(),
            frequencies: Some(self.frequencies.view()),
            order: to.order.view(),
            starts: to.starts.view(),
            dy: d_features.view(),
            dphi: None,
            dweights: Some(d_weights.view()),
            dfrequencies: None,
            scratch: &Scratch::default(),
        })?);
        Ok(recording)
    }
}
