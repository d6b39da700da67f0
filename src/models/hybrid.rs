//! The radial half of a hybrid field: bases with frozen centres and shapes, their features beside
//! those of the grid, and the first hidden layer with its sinusoid.

use std::path::Path;

use super::field_network::Location;
use crate::dense::{
    Activation, ConcatenateBackward, ConcatenateBackwardArgs, ConcatenateConfig, ConcatenateForward,
    ConcatenateForwardArgs, InvertedIndex, InvertedIndexArgs, InvertedIndexConfig, LinearBackward,
    LinearBackwardArgs, LinearConfig, LinearForward, LinearForwardArgs,
};
use crate::dispatch::{Context, Kernel, Planned, Recording, Result, Scratch, check_config};
use crate::radial::{
    FeatureSinusoidBackward, FeatureSinusoidBackwardArgs, FeatureSinusoidConfig, FeatureSinusoidForward,
    FeatureSinusoidForwardArgs, NearestArgs, NearestConfig, NearestNeighbours, RadialBasisBackward,
    RadialBasisBackwardArgs, RadialBasisConfig, RadialBasisForward, RadialBasisForwardArgs, RadialFunction,
    RadialNormalisation, RadialShape, SinusoidCompositionBackward, SinusoidCompositionBackwardArgs,
    SinusoidCompositionBackwardConfig, SinusoidCompositionConfig, SinusoidCompositionForward,
    SinusoidCompositionForwardArgs, log_spaced,
};
use crate::train::{Checkpoint, Tensor};

/// The radial half of a hybrid field (Chen et al. 2023, "NeuRBF").
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RadialBasesConfig {
    /// Centres, at least as many as neighbours.
    pub centres: u32,
    /// Nearest centres of a point, 1 to 32.
    pub neighbours: u32,
    /// Features, at least 1.
    pub features: u32,
    /// The kernel function.
    pub function: RadialFunction,
    /// What a shape is: symmetric for a picture, a scalar for a surface.
    pub shape: RadialShape,
    /// A picture spans `-extent` to `extent` along each axis: its size over 128, as published. The bases of a
    /// surface live in the unit cube, whatever stands here.
    pub extent: [f64; 2],
    /// Lowest and highest frequency of the features' sinusoids. `None`: features without them, to compare.
    pub frequencies: Option<[f64; 2]>,
    /// The same of the first hidden layer, which is of ReLUs without them.
    pub hidden_frequencies: Option<[f64; 2]>,
}

impl RadialBasesConfig {
    pub(super) fn check(&self, dims: u32) -> Result<()> {
        let Self { centres, neighbours, features, shape, .. } = *self;
        check_config((1..=32).contains(&neighbours), "neighbours", "1 to 32", neighbours)?;
        check_config(features > 0, "features", "at least 1", features)?;
        let need = format!("at least the {neighbours} neighbours");
        check_config(centres >= neighbours, "centres", &need, centres)?;
        let fits = shape == if dims == 2 { RadialShape::Symmetric } else { RadialShape::Scalar };
        check_config(fits, "shape", "symmetric for a picture, scalar for a surface", shape)?;
        let above = |v: f64| v.is_finite() && v > 0.0;
        check_config(self.extent.into_iter().all(above), "extent", "above 0", self.extent)?;
        for (what, range) in
            [("frequencies", self.frequencies), ("hidden_frequencies", self.hidden_frequencies)]
        {
            check_config(range.into_iter().flatten().all(above), what, "above 0", range)?;
        }
        crate::dispatch::count("radial weights", &[centres, features]).map(drop)
    }

    /// Pairs of numbers, with their names in a file.
    #[cfg(feature = "blocking")]
    fn ranges(&self) -> [(&'static str, Option<[f64; 2]>); 3] {
        [
            ("extent", Some(self.extent)),
            ("frequencies", self.frequencies),
            ("hidden_frequencies", self.hidden_frequencies),
        ]
    }

    /// `None` if the file is that of a grid alone: it has no centres.
    pub(super) fn of_file(file: &Checkpoint, path: &Path, dims: u32) -> Result<Option<Self>> {
        let centres = file.get_or(path, "centres", 0)?;
        if centres == 0 {
            return Ok(None);
        }
        // A field without sinusoids has none.
        let range = |name: &str| -> Result<Option<[f64; 2]>> {
            let [low, high] = [format!("{name}.0"), format!("{name}.1")];
            if !file.has(&low) && !file.has(&high) {
                return Ok(None);
            }
            Ok(Some([file.get(path, &low)?, file.get(path, &high)?]))
        };
        let number: usize = file.get(path, "function")?;
        let function = RadialFunction::ALL.get(number).copied();
        check_config(function.is_some(), "function", "the number of a kernel function", number)?;
        Ok(Some(Self {
            centres,
            neighbours: file.get(path, "neighbours")?,
            features: file.get(path, "radial_features")?,
            function: function.unwrap_or_default(),
            shape: if dims == 2 { RadialShape::Symmetric } else { RadialShape::Scalar },
            extent: [file.get(path, "extent.0")?, file.get(path, "extent.1")?],
            frequencies: range("frequencies")?,
            hidden_frequencies: range("hidden_frequencies")?,
        }))
    }

    #[cfg(feature = "blocking")]
    pub(super) fn describe(&self, file: &mut Checkpoint) {
        file.set("centres", self.centres);
        file.set("neighbours", self.neighbours);
        file.set("radial_features", self.features);
        file.set("function", self.function as u32);
        for (name, range) in self.ranges() {
            let Some([low, high]) = range else { continue };
            file.set(format!("{name}.0"), low);
            file.set(format!("{name}.1"), high);
        }
    }
}

/// Parameters of the radial half. Centres and shapes are frozen, as published.
#[derive(Debug, Clone)]
pub(super) struct Hybrid {
    pub config: RadialBasesConfig,
    dims: u32,
    /// Features of the grid, and neurons of the first layer.
    grid: u32,
    width: u32,
    pub centres: Tensor,
    pub shapes: Tensor,
    pub weights: Tensor,
    pub bias: Tensor,
    pub first_weight: Tensor,
    pub first_bias: Tensor,
    frequencies: Option<Tensor>,
    hidden_frequencies: Option<Tensor>,
}

/// What a batch needs between its passes.
pub(super) struct Buffers {
    points: u32,
    /// Positions among the centres, `[N, dims]`.
    places: Tensor,
    /// The gradient of those, once it is [`Wanted`].
    pub d_places: Option<Tensor>,
    neighbours: Tensor,
    phi: Tensor,
    features: Tensor,
    joined: Tensor,
    z: Tensor,
    /// What goes into the rest of the network, `[N, width]`.
    pub hidden: Tensor,
    scratch: Vec<Scratch>,
}

/// What a backward pass goes down to.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// The parameters, when a field is fitted.
    Parameters(&'a Gradients),
    /// The places, when the slope of a field is asked for.
    Places,
}

/// Gradients, in the order of [`Hybrid::trained`], and the inverted lists that they need.
pub(super) struct Gradients {
    pub parameters: [Tensor; 4],
    order: Tensor,
    starts: Tensor,
}

impl Hybrid {
    /// With initial values from `uniform(size)`: features and their bias in +-1e-4, the layer in
    /// +-1 / sqrt(inputs), centres anywhere, each as wide as its share of the area or volume.
    /// `[dims, grid, width]`: dimensions, features of the grid, neurons of the layer.
    pub fn new(
        context: &Context,
        config: RadialBasesConfig,
        [dims, grid, width]: [u32; 3],
        uniform: &mut dyn FnMut(f32) -> f32,
    ) -> Result<Self> {
        let joined = grid + config.features;
        let mut random = |what, shape: &[u32], size: f32| -> Result<Tensor> {
            let n = crate::dispatch::count(what, shape)?;
            let data: Vec<f32> = (0..n).map(|_| uniform(size)).collect();
            Tensor::from_slice(context, what, shape, &data)
        };
        let layer = 1.0 / (joined as f32).sqrt();
        let fixed = |what, range: Option<[f64; 2]>, n: u32| {
            let spaced =
                |[low, high]: [f64; 2]| Tensor::from_slice(context, what, &[n], &log_spaced(low, high, n));
            range.map(spaced).transpose()
        };
        let weights = random("radial weights", &[config.centres, config.features], 1e-4)?;
        let bias = random("radial bias", &[joined], 1e-4)?;
        let first_weight = random("first weight", &[width, joined], layer)?;
        let first_bias = random("first bias", &[width], layer)?;

        let n = f64::from(config.centres);
        let (centres, shape): (Vec<f32>, Vec<f32>) = match dims {
            2 => {
                let [x, y] = config.extent.map(|extent| extent as f32);
                let share = config.extent.map(|extent| 4.0 * extent * extent / n);
                let centres = (0..config.centres).flat_map(|_| [uniform(x), uniform(y)]).collect();
                (centres, vec![(1.0 / share[0]) as f32, 0.0, (1.0 / share[1]) as f32])
            }
            _ => {
                let count = crate::dispatch::count("centres", &[config.centres, dims])?;
                let centres = (0..count).map(|_| 0.5 + uniform(0.5)).collect();
                (centres, vec![n.powf(1.0 / f64::from(dims)) as f32])
            }
        };
        let shapes = shape.repeat(config.centres as usize);
        Ok(Self {
            config,
            dims,
            grid,
            width,
            centres: Tensor::from_slice(context, "centres", &[config.centres, dims], &centres)?,
            shapes: Tensor::from_slice(context, "shapes", &[config.centres, shape.len() as u32], &shapes)?,
            weights,
            bias,
            first_weight,
            first_bias,
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

    /// With a sinusoid after it, or an activation of its own.
    fn layer(&self, points: u32) -> LinearConfig {
        let plain = self.hidden_frequencies.is_none();
        LinearConfig {
            rows: points,
            inputs: self.grid + self.config.features,
            outputs: self.width,
            bias: true,
            activation: if plain { Activation::Relu } else { Activation::Identity },
            keep: plain,
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
            sinusoid: self.frequencies.is_some(),
            ..Default::default()
        }
    }

    fn bases(&self, points: u32) -> RadialBasisConfig {
        let RadialBasesConfig { function, shape, centres, neighbours, .. } = self.config;
        RadialBasisConfig {
            function,
            shape,
            centres,
            neighbours,
            points,
            dims: self.dims,
            ..Default::default()
        }
    }

    /// `places`: `[N, dims]`.
    pub fn buffers(&self, context: &Context, places: &Tensor) -> Result<Buffers> {
        let RadialBasesConfig { neighbours, features, .. } = self.config;
        let points = places.len() / self.dims;
        let tensor = |what, width: u32| Tensor::new(context, what, &[points, width]);
        Ok(Buffers {
            points,
            places: places.clone(),
            d_places: None,
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
    pub fn locate(&self, context: &Context, buffers: &mut Buffers) -> Result<Location> {
        let RadialBasesConfig { centres, neighbours, .. } = self.config;
        let config = NearestConfig {
            dims: self.dims,
            points: buffers.points,
            centres,
            k: neighbours,
            distances: false,
            variant: None,
        };
        let nearest = NearestNeighbours::new(context, config)?;
        let scratch = nearest.create_scratch()?;
        let args = NearestArgs {
            points: buffers.places.view(),
            centres: self.centres.view(),
            indices: buffers.neighbours.view(),
            distances: None,
            scratch: &scratch,
        };
        let build = nearest.prepare(&args)?;
        let mut find = nearest.prepare_search(&args)?;
        buffers.scratch.push(scratch);
        let bases = RadialBasisForward::new(context, self.bases(buffers.points))?;
        find.append(bases.prepare(&RadialBasisForwardArgs {
            positions: buffers.places.view(),
            centres: self.centres.view(),
            shapes: self.shapes.view(),
            neighbours: buffers.neighbours.view(),
            phi: buffers.phi.view(),
        })?);
        Ok(Location { build, find })
    }

    /// From the grid's features and the bases to the first hidden layer.
    pub fn forward(&self, context: &Context, buffers: &mut Buffers, encoded: &Tensor) -> Result<Recording> {
        let points = buffers.points;
        let composition = SinusoidCompositionForward::new(context, self.composition(points))?;
        let mut recording = composition.prepare(&SinusoidCompositionForwardArgs {
            phi: buffers.phi.view(),
            neighbours: buffers.neighbours.view(),
            weights: self.weights.view(),
            frequencies: self.frequencies.as_ref().map(Tensor::view),
            y: buffers.features.view(),
        })?;
        let join = ConcatenateForward::new(context, self.joined(points))?;
        recording.append(join.prepare(&ConcatenateForwardArgs {
            a: encoded.view(),
            b: buffers.features.view(),
            bias: Some(self.bias.view()),
            y: buffers.joined.view(),
        })?);
        let plain = self.hidden_frequencies.is_none();
        let layer = LinearForward::new(context, self.layer(points))?;
        let scratch = layer.create_scratch()?;
        recording.append(layer.prepare(&LinearForwardArgs {
            x: buffers.joined.view(),
            weight: self.first_weight.view(),
            bias: Some(self.first_bias.view()),
            y: if plain { buffers.hidden.view() } else { buffers.z.view() },
            kept: plain.then(|| buffers.z.view()),
            scratch: &scratch,
        })?);
        buffers.scratch.push(scratch);
        if let Some(frequencies) = &self.hidden_frequencies {
            let sinusoid = FeatureSinusoidForward::new(context, self.sinusoid(points))?;
            recording.append(sinusoid.prepare(&FeatureSinusoidForwardArgs {
                x: buffers.z.view(),
                frequencies: frequencies.view(),
                y: buffers.hidden.view(),
            })?);
        }
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

    /// From the gradient of the hidden layer to that of the grid's features, and to what else is wanted.
    pub fn backward(
        &self,
        context: &Context,
        buffers: &mut Buffers,
        to: Wanted<'_>,
        d_hidden: &Tensor,
        d_encoded: &Tensor,
    ) -> Result<Recording> {
        let points = buffers.points;
        let unused;
        let to_parameters = match to {
            Wanted::Parameters(to) => to,
            Wanted::Places => {
                unused = self.gradients(context, points)?;
                &unused
            }
        };
        let [d_weights, d_bias, d_first_weight, d_first_bias] = &to_parameters.parameters;
        // The layer's output is overwritten by nothing until the next forward pass: its gradient
        // needs a tensor of its own, those of the features do too.
        let d_z = Tensor::new(context, "d first layer", buffers.z.shape())?;
        let d_joined = Tensor::new(context, "d joined features", buffers.joined.shape())?;
        let d_features = Tensor::new(context, "d radial features", buffers.features.shape())?;
        let mut recording = Recording::new();
        let (mut dy, mut kept) = (d_hidden.view(), Some(buffers.z.view()));
        if let Some(frequencies) = &self.hidden_frequencies {
            let sinusoid = FeatureSinusoidBackward::new(context, self.sinusoid(points))?;
            recording.append(sinusoid.prepare(&FeatureSinusoidBackwardArgs {
                x: buffers.z.view(),
                frequencies: frequencies.view(),
                dy,
                dx: d_z.view(),
            })?);
            (dy, kept) = (d_z.view(), None);
        }
        let layer = LinearBackward::new(context, self.layer(points))?;
        let scratch = layer.create_scratch()?;
        recording.append(layer.prepare(&LinearBackwardArgs {
            x: buffers.joined.view(),
            weight: self.first_weight.view(),
            kept,
            dy,
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
        let places = matches!(to, Wanted::Places);
        let config = SinusoidCompositionBackwardConfig {
            forward: self.composition(points),
            phi: places,
            weights: !places,
            frequencies: false,
        };
        let d_phi = Tensor::new(context, "d phi", buffers.phi.shape())?;
        let composition = SinusoidCompositionBackward::new(context, config)?;
        recording.append(composition.prepare(&SinusoidCompositionBackwardArgs {
            phi: buffers.phi.view(),
            neighbours: buffers.neighbours.view(),
            weights: self.weights.view(),
            frequencies: self.frequencies.as_ref().map(Tensor::view),
            order: to_parameters.order.view(),
            starts: to_parameters.starts.view(),
            dy: d_features.view(),
            dphi: places.then(|| d_phi.view()),
            dweights: (!places).then(|| d_weights.view()),
            dfrequencies: None,
            scratch: &Scratch::default(),
        })?);
        if places {
            // A fit holds the sum of the bases constant, as published; the slope of the field does not.
            let config = RadialBasisConfig { normalisation: RadialNormalisation::Full, ..self.bases(points) };
            let d_kernel = Tensor::new(context, "d kernel", buffers.phi.shape())?;
            let d_places = Tensor::new(context, "d places", buffers.places.shape())?;
            recording.append(RadialBasisBackward::new(context, config)?.prepare(
                &RadialBasisBackwardArgs {
                    positions: buffers.places.view(),
                    centres: self.centres.view(),
                    shapes: self.shapes.view(),
                    neighbours: buffers.neighbours.view(),
                    dphi: d_phi.view(),
                    dkernel: d_kernel.view(),
                    dpositions: d_places.view(),
                    centre_gradients: None,
                },
            )?);
            buffers.d_places = Some(d_places);
        }
        Ok(recording)
    }
}
