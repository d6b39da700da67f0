//! Vision transformers (Dosovitskiy et al. 2021) with patches down to single pixels.

use std::path::Path;

use super::sampler::mix;
use crate::attention::{AttentionConfig, PatchConfig, sin_cos_table};
use crate::dense::Activation;
use crate::dispatch::{Context, Error, Recording, Result, check_config, check_shape, count};
use crate::train::ops::{self, AttentionOperands, Norm, Target};
use crate::train::{
    Checkpoint, Gradients, Parameters, Tape, Tensor, Update, UpdateConfig, Updated, Variable,
};

/// What the head sees of the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pool {
    /// A learned token put before the patches.
    #[default]
    ClassToken,
    /// The mean of the patches.
    Mean,
}

/// How tokens know where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Positions {
    /// A learned vector for each place.
    #[default]
    Learned,
    /// Fixed sines and cosines of x and y ([`sin_cos_table`]); zeros for the class token.
    SinCos,
}

/// A vision transformer of pre-norm blocks. The default is ViT-Tiny with patches of 16.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VisionTransformerConfig {
    /// Height and width of an image.
    pub image: [u32; 2],
    /// Its channels.
    pub channels: u32,
    /// Side of a patch; divides height and width.
    pub patch: u32,
    /// Elements of a token; a multiple of `heads`.
    pub width: u32,
    /// Blocks, at least 1.
    pub depth: u32,
    /// Heads of attention.
    pub heads: u32,
    /// Neurons of the hidden layer of a block's network.
    pub hidden: u32,
    /// Classes.
    pub classes: u32,
    /// What the head sees.
    pub pool: Pool,
    /// How tokens know where they are.
    pub positions: Positions,
    /// Of the layer norms.
    pub epsilon: f32,
}

impl Default for VisionTransformerConfig {
    fn default() -> Self {
        Self {
            image: [224; 2],
            channels: 3,
            patch: 16,
            width: 192,
            depth: 12,
            heads: 3,
            hidden: 768,
            classes: 1000,
            pool: Pool::ClassToken,
            positions: Positions::Learned,
            epsilon: 1e-6,
        }
    }
}

/// How a parameter begins.
#[derive(Debug, Clone, Copy)]
enum Start {
    /// Normal, with this standard deviation.
    Normal(f64),
    /// Uniform within `sqrt(6 / (inputs + outputs))` (Glorot and Bengio 2010).
    Uniform { inputs: u32, outputs: u32 },
    /// All the same.
    Constant(f32),
}

impl VisionTransformerConfig {
    fn patches(&self, batch: u32) -> PatchConfig {
        let [height, width] = self.image;
        PatchConfig {
            size: [1, height, width],
            patch: [1, self.patch, self.patch],
            ..PatchConfig::square(batch, self.channels, 1, 1)
        }
    }

    /// Tokens put before the patches.
    fn prefix(&self) -> u32 {
        u32::from(self.pool == Pool::ClassToken)
    }

    /// Tokens of an image, the class token included.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.patches(1).tokens().saturating_add(self.prefix())
    }

    fn check(&self) -> Result<()> {
        let fields = [
            ("channels", self.channels),
            ("width", self.width),
            ("depth", self.depth),
            ("heads", self.heads),
            ("hidden", self.hidden),
            ("classes", self.classes),
        ];
        for (what, value) in fields {
            check_config(value > 0, what, "at least 1", value)?;
        }
        let [height, width] = self.image;
        let divides = self.patch > 0 && height.is_multiple_of(self.patch) && width.is_multiple_of(self.patch);
        check_config(divides && height > 0 && width > 0, "patch", "a divisor of both sides", self.patch)?;
        check_config(self.width.is_multiple_of(self.heads), "width", "a multiple of `heads`", self.width)?;
        check_config(self.depth <= 1024, "depth", "at most 1,024", self.depth)?;
        // Every matrix fits, and so every shape below.
        for shape in [
            [self.tokens(), self.width],
            [self.width, self.patches(1).token_width()],
            [self.width, self.width.saturating_mul(3)],
            [self.width, self.hidden],
            [self.width, self.classes],
        ] {
            count("parameter", &shape)?;
        }
        Ok(())
    }

    /// Names (those of timm's checkpoints), shapes and first values of all parameters.
    fn parameters(&self) -> Vec<(String, Vec<u32>, Start)> {
        let (width, hidden, zeros) = (self.width, self.hidden, Start::Constant(0.0));
        let mut all = Vec::new();
        let mut add = |name: &str, shape: &[u32], start| all.push((name.to_owned(), shape.to_vec(), start));
        if self.pool == Pool::ClassToken {
            add("cls_token", &[1, 1, width], Start::Normal(0.02));
        }
        if self.positions == Positions::Learned {
            add("pos_embed", &[1, self.tokens(), width], Start::Normal(0.02));
        }
        let inputs = self.patches(1).token_width();
        let kernel = [width, self.channels, self.patch, self.patch];
        add("patch_embed.proj.weight", &kernel, Start::Uniform { inputs, outputs: width });
        add("patch_embed.proj.bias", &[width], zeros);
        let norm = |name: &str, add: &mut dyn FnMut(&str, &[u32], Start)| {
            add(&format!("{name}.weight"), &[width], Start::Constant(1.0));
            add(&format!("{name}.bias"), &[width], zeros);
        };
        let linear = |name: &str, shape: [u32; 2], outputs, add: &mut dyn FnMut(&str, &[u32], Start)| {
            add(&format!("{name}.weight"), &shape, Start::Uniform { inputs: shape[1], outputs });
            add(&format!("{name}.bias"), &shape[..1], zeros);
        };
        for i in 0..self.depth {
            norm(&format!("blocks.{i}.norm1"), &mut add);
            // Three matrices of `width` outputs each.
            linear(&format!("blocks.{i}.attn.qkv"), [3 * width, width], width, &mut add);
            linear(&format!("blocks.{i}.attn.proj"), [width, width], width, &mut add);
            norm(&format!("blocks.{i}.norm2"), &mut add);
            linear(&format!("blocks.{i}.mlp.fc1"), [hidden, width], hidden, &mut add);
            linear(&format!("blocks.{i}.mlp.fc2"), [width, hidden], width, &mut add);
        }
        norm(self.last_norm(), &mut add);
        linear("head", [self.classes, width], self.classes, &mut add);
        all
    }

    /// The norm before the head. After the mean it has another name, as in timm.
    fn last_norm(&self) -> &'static str {
        match self.pool {
            Pool::ClassToken => "norm",
            Pool::Mean => "fc_norm",
        }
    }
}

/// A vision transformer with its parameters.
#[derive(Debug, Clone)]
pub struct VisionTransformer {
    context: Context,
    config: VisionTransformerConfig,
    parameters: Parameters,
    /// `[tokens, width]`, where positions are fixed.
    table: Option<Tensor>,
}

/// Parameters on a tape, by name.
struct Recorded<'a> {
    names: Vec<&'a str>,
    variables: Vec<Variable>,
}

impl Recorded<'_> {
    fn get(&self, name: &str) -> Result<&Variable> {
        let at = self.names.iter().position(|&n| n == name);
        at.and_then(|at| self.variables.get(at)).ok_or_else(|| Error::Shape {
            what: "parameters",
            need: format!("one named {name}"),
            got: format!("{} others", self.names.len()),
        })
    }

    fn norm(&self, name: &str, epsilon: f32) -> Result<Norm<'_>> {
        let weight = self.get(&format!("{name}.weight"))?;
        Ok(Norm { weight, bias: self.get(&format!("{name}.bias"))?, epsilon })
    }

    fn linear(&self, tape: &mut Tape, name: &str, x: &Variable, activation: Activation) -> Result<Variable> {
        let weight = self.get(&format!("{name}.weight"))?;
        ops::linear(tape, x, weight, Some(self.get(&format!("{name}.bias"))?), activation)
    }
}

impl VisionTransformer {
    /// With first values from a seed: matrices uniform (Glorot and Bengio 2010; queries, keys and values
    /// as three of them), positions and class token normal with deviation 0.02, norms 1, biases 0.
    pub fn new(context: &Context, config: VisionTransformerConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let mut state = seed;
        let mut unit = move || {
            state = mix(state);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut parameters = Parameters::new();
        for (name, shape, start) in config.parameters() {
            let mut draw = || match start {
                Start::Constant(value) => value,
                Start::Uniform { inputs, outputs } => {
                    let size = (6.0 / (f64::from(inputs) + f64::from(outputs))).sqrt();
                    ((2.0 * unit() - 1.0) * size) as f32
                }
                Start::Normal(deviation) => {
                    // Box and Muller 1958.
                    let radius = (-2.0 * (1.0 - unit()).ln()).sqrt();
                    (deviation * radius * (std::f64::consts::TAU * unit()).cos()) as f32
                }
            };
            let values: Vec<f32> = (0..count("parameter", &shape)?).map(|_| draw()).collect();
            parameters.insert(name, &Tensor::from_slice(context, "parameter", &shape, &values)?)?;
        }
        let table = match config.positions {
            Positions::Learned => None,
            Positions::SinCos => {
                let grid = config.patches(1).grid();
                let mut table = vec![0.0; (config.prefix() * config.width) as usize];
                table.extend(sin_cos_table(&grid[1..], config.width)?);
                let shape = [config.tokens(), config.width];
                Some(Tensor::from_slice(context, "positions", &shape, &table)?)
            }
        };
        Ok(Self { context: context.clone(), config, parameters, table })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &VisionTransformerConfig {
        &self.config
    }

    /// Its parameters, under the names of timm's checkpoints.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Records the forward pass over images `[batch, channels, height, width]`: the logits
    /// `[batch, classes]`, and the parameters as variables in the order of [`parameters`](Self::parameters).
    pub fn record(&self, tape: &mut Tape, image: &Tensor) -> Result<(Variable, Vec<Variable>)> {
        let config = &self.config;
        let batch = image.shape().first().copied().unwrap_or(0);
        let [height, width] = config.image;
        let need = [batch, config.channels, height, width];
        check_shape(image.shape() == need, "image", format!("{need:?}"), image.shape())?;
        let (names, variables) =
            self.parameters.iter().map(|(name, tensor)| (name, tape.variable(tensor))).unzip();
        let p = Recorded { names, variables };

        let weight = p.get("patch_embed.proj.weight")?;
        let bias = p.get("patch_embed.proj.bias")?;
        let patches = ops::patch_embedding(tape, image, weight, Some(bias), config.patches(batch))?;
        let class = if config.prefix() > 0 { Some(p.get("cls_token")?) } else { None };
        let mut x = match &self.table {
            Some(table) => {
                let table = tape.variable(table);
                ops::add_position(tape, &patches, class, &table)?
            }
            None => ops::add_position(tape, &patches, class, p.get("pos_embed")?)?,
        };
        let norm = |name: String| p.norm(&name, config.epsilon);
        let mut y = ops::layer_norm(tape, &x, norm("blocks.0.norm1".into())?)?;
        for i in 0..config.depth {
            let attended = self.attend(tape, &p, i, batch, &y)?;
            [x, y] = ops::add_layer_norm(tape, &attended, &x, norm(format!("blocks.{i}.norm2"))?)?;
            let hidden = p.linear(tape, &format!("blocks.{i}.mlp.fc1"), &y, Activation::Gelu)?;
            let changed = p.linear(tape, &format!("blocks.{i}.mlp.fc2"), &hidden, Activation::Identity)?;
            if i + 1 < config.depth {
                [x, y] = ops::add_layer_norm(tape, &changed, &x, norm(format!("blocks.{}.norm1", i + 1))?)?;
            } else {
                x = ops::add(tape, &changed, &x)?;
            }
        }
        // The norm is one of each token: it may follow the pooling of one.
        let pooled = match config.pool {
            Pool::ClassToken => self.class_tokens(tape, &x, batch)?,
            Pool::Mean => ops::mean_tokens(tape, &x)?,
        };
        let pooled = ops::layer_norm(tape, &pooled, norm(config.last_norm().into())?)?;
        let logits = p.linear(tape, "head", &pooled, Activation::Identity)?;
        Ok((logits, p.variables))
    }

    fn attend(
        &self,
        tape: &mut Tape,
        p: &Recorded<'_>,
        block: u32,
        batch: u32,
        y: &Variable,
    ) -> Result<Variable> {
        let config = &self.config;
        let packed = p.linear(tape, &format!("blocks.{block}.attn.qkv"), y, Activation::Identity)?;
        let [q, k, v] = ops::split_qkv(tape, &packed)?;
        let attention = AttentionConfig {
            batch,
            heads: config.heads,
            queries: config.tokens(),
            keys: config.tokens(),
            head_dim: config.width / config.heads,
            ..AttentionConfig::default()
        };
        let attended = ops::attention(tape, &AttentionOperands::new(&q, &k, &v), &attention)?.o;
        p.linear(tape, &format!("blocks.{block}.attn.proj"), &attended, Activation::Identity)
    }

    /// The first token of each image, `[batch, width]`.
    fn class_tokens(&self, tape: &mut Tape, x: &Variable, batch: u32) -> Result<Variable> {
        let tokens = self.config.tokens();
        let index: Vec<u32> = (0..batch).map(|b| b * tokens).collect();
        let place = |row: u32| if row.is_multiple_of(tokens) { row / tokens } else { u32::MAX };
        let inverse: Vec<u32> = (0..batch * tokens).map(place).collect();
        let index = self.context.create_storage_with("index", &index)?;
        let inverse = self.context.create_storage_with("inverse", &inverse)?;
        ops::gather_rows(tape, x, &index, &inverse, &[batch, self.config.width])
    }

    /// Records a whole training step for batches of this size: see [`VisionTrainer`].
    pub fn trainer(&self, batch: u32, update: &UpdateConfig) -> Result<VisionTrainer> {
        check_config(batch > 0, "batch", "at least 1", batch)?;
        let context = &self.context;
        let [height, width] = self.config.image;
        let image = Tensor::new(context, "image", &[batch, self.config.channels, height, width])?;
        let target = context.create_storage("target", u64::from(batch) * 4)?;
        let mut tape = Tape::new(context);
        let (logits, variables) = self.record(&mut tape, &image)?;
        let [loss, gradient] = ops::cross_entropy(&mut tape, &logits, Target::Classes(&target), 0.0)?;
        let gradients = tape.backward(&logits, &gradient)?;
        let mut all = Vec::new();
        for ((name, parameter), variable) in self.parameters.iter().zip(&variables) {
            // Decay shrinks matrices, not biases, norms, positions or the class token (as in timm).
            let decays = parameter.shape().len() > 1 && name != "pos_embed" && name != "cls_token";
            all.push(Updated { parameter, gradient: gradients.of(variable)?, decays });
        }
        let (update, rest) = Update::new(context, update, &all)?;
        let mut recording = gradients.recording.clone();
        recording.append(rest);
        Ok(VisionTrainer {
            context: context.clone(),
            image,
            target,
            classes: self.config.classes,
            logits: logits.tensor().clone(),
            loss,
            gradients,
            variables,
            update,
            recording,
            steps: 0,
        })
    }

    /// Logits `[batch, classes]` of images `[batch, channels, height, width]`.
    #[cfg(feature = "blocking")]
    pub fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
        let [height, width] = self.config.image;
        let one = count("image", &[self.config.channels, height, width])? as usize;
        let batch = images.len() / one;
        let whole = batch > 0 && images.len() == batch * one;
        check_shape(whole, "images", format!("a multiple of {one} elements"), images.len())?;
        let batch = u32::try_from(batch).unwrap_or(u32::MAX);
        let shape = [batch, self.config.channels, height, width];
        let image = Tensor::from_slice(&self.context, "image", &shape, images)?;
        let mut tape = Tape::new(&self.context);
        let (logits, _) = self.record(&mut tape, &image)?;
        self.context.run_blocking(&tape.into_recording())?;
        logits.tensor().read(&self.context)
    }

    /// Writes configuration and parameters as safetensors, whole or not at all.
    #[cfg(feature = "blocking")]
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut file = Checkpoint::new();
        for (name, tensor) in self.parameters.iter() {
            file.insert(name, tensor.shape(), tensor.read(&self.context)?);
        }
        let config = &self.config;
        file.set("model", "VisionTransformer");
        file.set("height", config.image[0]);
        file.set("width_of_image", config.image[1]);
        file.set("channels", config.channels);
        file.set("patch", config.patch);
        file.set("width", config.width);
        file.set("depth", config.depth);
        file.set("heads", config.heads);
        file.set("hidden", config.hidden);
        file.set("classes", config.classes);
        file.set("class_token", config.pool == Pool::ClassToken);
        file.set("learned_positions", config.positions == Positions::Learned);
        file.set("epsilon", config.epsilon);
        file.save(path)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(context: &Context, path: &Path) -> Result<Self> {
        let file = Checkpoint::load(path)?;
        let config = VisionTransformerConfig {
            image: [file.get(path, "height")?, file.get(path, "width_of_image")?],
            channels: file.get(path, "channels")?,
            patch: file.get(path, "patch")?,
            width: file.get(path, "width")?,
            depth: file.get(path, "depth")?,
            heads: file.get(path, "heads")?,
            hidden: file.get(path, "hidden")?,
            classes: file.get(path, "classes")?,
            pool: if file.get(path, "class_token")? { Pool::ClassToken } else { Pool::Mean },
            positions: if file.get(path, "learned_positions")? {
                Positions::Learned
            } else {
                Positions::SinCos
            },
            epsilon: file.get(path, "epsilon")?,
        };
        Self::from_tensors(context, config, &file, path)
    }

    /// With the tensors of a file that has the names of timm's checkpoints, for a configuration that the
    /// caller knows.
    pub fn from_tensors(
        context: &Context,
        config: VisionTransformerConfig,
        file: &Checkpoint,
        path: &Path,
    ) -> Result<Self> {
        config.check()?;
        // Before anything of the size that the configuration claims is allocated.
        for (name, shape, _) in config.parameters() {
            file.tensor(path, &name, &shape)?;
        }
        let model = Self::new(context, config, 0)?;
        for (name, tensor) in model.parameters.iter() {
            tensor.write(context, file.tensor(path, name, tensor.shape())?)?;
        }
        Ok(model)
    }
}

/// A recorded training step of a [`VisionTransformer`], whose parameters it updates in place.
#[derive(Debug)]
pub struct VisionTrainer {
    context: Context,
    image: Tensor,
    target: wgpu::Buffer,
    classes: u32,
    logits: Tensor,
    loss: Tensor,
    gradients: Gradients,
    variables: Vec<Variable>,
    update: Update,
    recording: Recording,
    steps: u64,
}

impl VisionTrainer {
    /// Writes the next batch and learning rate, through `Queue::write_buffer`, and gives the dispatches to
    /// encode: images `[batch, channels, height, width]`, classes `[batch]`.
    pub fn prepare(&mut self, images: &[f32], classes: &[u32], rate: f32) -> Result<&Recording> {
        let batch = self.logits.len() / self.classes;
        check_shape(classes.len() == batch as usize, "classes", format!("{batch} elements"), classes.len())?;
        let worst = classes.iter().copied().max().unwrap_or(0);
        check_config(worst < self.classes, "classes", "below those of the model", worst)?;
        self.image.write(&self.context, images)?;
        self.context.write(&self.target, 0, bytemuck::cast_slice(classes));
        self.steps += 1;
        self.update.set(&self.context, self.steps, rate);
        Ok(&self.recording)
    }

    /// One training step.
    #[cfg(feature = "blocking")]
    pub fn step(&mut self, images: &[f32], classes: &[u32], rate: f32) -> Result<()> {
        let context = self.context.clone();
        context.run_blocking(self.prepare(images, classes, rate)?)
    }

    /// The mean cross-entropy of the last batch, `[1]`, before its step.
    #[must_use]
    pub fn loss(&self) -> &Tensor {
        &self.loss
    }

    /// The gradients of the last batch, in the order of the model's parameters.
    pub fn gradients(&self) -> Result<Vec<&Tensor>> {
        self.variables.iter().map(|variable| self.gradients.of(variable)).collect()
    }

    /// Steps done.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }
}
