//! Vision transformers (Dosovitskiy et al. 2021) with patches down to single pixels.

mod config;
mod trainer;

use std::path::Path;

pub use config::{BlockAttention, Pool, Positions, Prune, Pruning, VisionTransformerConfig};
pub use trainer::{VisionTrainer, VisionTrainingConfig};

use super::sampler::mix;
use crate::attention::{
    AttentionBias, AttentionConfig, AttentionInputs, HeadLayout, HopfieldConfig, QueryPoolConfig,
    RotaryConfig, RotaryPairs, TokenOrder, TokenSelectConfig, gilbert_ranks, rotary_angles_2d, rotary_table,
    sin_cos_table,
};
use crate::dense::Activation;
use crate::dispatch::{BufferView, Context, Error, Result, check_config, check_shape, count};
use crate::train::ops::{self, AttentionOperands, Chosen, Norm};
use crate::train::{Checkpoint, Parameters, Tape, Tensor, Variable};
use config::Start;

/// The longest wave of [`rotary_angles_2d`] (Heo et al. 2024, section 3.2).
const ROTARY_BASE: f64 = 100.0;
/// The longest wave of a learned order is `2 pi` times this, in tokens (Vaswani et al. 2017).
const ORDER_BASE: f64 = 10_000.0;

/// A vision transformer with its parameters.
#[derive(Debug, Clone)]
pub struct VisionTransformer {
    context: Context,
    config: VisionTransformerConfig,
    parameters: Parameters,
    places: Places,
}

/// What is fixed about positions.
#[derive(Debug, Clone)]
enum Places {
    /// Nothing is.
    Free,
    /// `[tokens, width]`, added to the tokens.
    Added(Tensor),
    /// `[tokens, 2, head_dim]`, what queries and keys are turned by.
    Turned(Tensor),
    /// The rank of each patch on the curve, and the frequencies.
    Ordered { rank: Tensor, frequency: Tensor },
}

impl Places {
    fn new(context: &Context, config: &VisionTransformerConfig) -> Result<Self> {
        let (grid, width) = (config.grid(), config.width);
        Ok(match config.positions {
            Positions::None | Positions::Learned | Positions::Relative => Self::Free,
            Positions::SinCos => {
                let mut table = vec![0.0; (config.prefix() * width) as usize];
                table.extend(sin_cos_table(&grid, width)?);
                Self::Added(Tensor::from_slice(context, "positions", &[config.tokens(), width], &table)?)
            }
            Positions::Rotary => {
                let dim = config.head_dim();
                let angles = rotary_angles_2d(grid, config.prefix(), dim / 2, ROTARY_BASE)?;
                let table = rotary_table(&angles, dim, RotaryPairs::Interleaved);
                Self::Turned(Tensor::from_slice(context, "positions", &[config.tokens(), 2, dim], &table)?)
            }
            Positions::LearnedOrder => {
                let [height, columns] = grid;
                let rank: Vec<f32> =
                    gilbert_ranks(height, columns)?.into_iter().map(|rank| rank as f32).collect();
                let half = width / 2;
                let wave = |i: u32| ORDER_BASE.powf(-f64::from(i) / f64::from(half)) as f32;
                let frequency: Vec<f32> = (0..half).map(wave).collect();
                Self::Ordered {
                    rank: Tensor::from_slice(context, "order", &[height * columns], &rank)?,
                    frequency: Tensor::from_slice(context, "frequencies", &[half], &frequency)?,
                }
            }
        })
    }
}

/// Parameters on a tape, by name.
struct Recorded<'a> {
    names: Vec<&'a str>,
    variables: Vec<Variable>,
}

impl Recorded<'_> {
    fn find(&self, name: &str) -> Option<&Variable> {
        let at = self.names.iter().position(|&n| n == name);
        at.and_then(|at| self.variables.get(at))
    }

    fn get(&self, name: &str) -> Result<&Variable> {
        self.find(name).ok_or_else(|| Error::Shape {
            what: "parameters",
            need: format!("one named {name}"),
            got: format!("{} others", self.names.len()),
        })
    }

    fn norm(&self, name: &str, epsilon: f32) -> Result<Norm<'_>> {
        let weight = self.get(&format!("{name}.weight"))?;
        Ok(Norm { weight, bias: self.get(&format!("{name}.bias"))?, epsilon })
    }

    /// With a bias, if there is one.
    fn linear(&self, tape: &mut Tape, name: &str, x: &Variable, activation: Activation) -> Result<Variable> {
        let weight = self.get(&format!("{name}.weight"))?;
        ops::linear(tape, x, weight, self.find(&format!("{name}.bias")), activation)
    }

    /// A linear layer whose outputs are multiplied by a vector, if there is one (LayerScale). The matrix is
    /// multiplied instead: it has fewer rows than there are tokens.
    fn scaled(&self, tape: &mut Tape, name: &str, scale: &str, x: &Variable) -> Result<Variable> {
        let Some(gamma) = self.find(&format!("{scale}.gamma")) else {
            return self.linear(tape, name, x, Activation::Identity);
        };
        let weight = ops::weigh_rows(tape, self.get(&format!("{name}.weight"))?, gamma)?;
        let bias = ops::weigh_rows(tape, self.get(&format!("{name}.bias"))?, gamma)?;
        ops::linear(tape, x, &weight, Some(&bias), Activation::Identity)
    }
}

/// What a block's attention gives beside its output.
struct Attended {
    /// `[batch, tokens, width]`, before the projection.
    o: Variable,
    /// The messages so far, `[batch, tokens, 1]`, of reversed attention.
    message: Option<Variable>,
    /// What the block's tokens are pruned by, `[batch, tokens]`, if they are.
    score: Option<Tensor>,
    /// What it weighs by; not of windows.
    scores: Option<BlockScores>,
}

/// What a block's attention weighs by, for [statistics](crate::attention::attention_statistics) of its weights.
#[derive(Debug, Clone)]
pub struct BlockScores {
    /// Of the scores.
    pub attention: AttentionConfig,
    /// Queries, `[batch, tokens, heads * head_dim]`.
    pub q: Tensor,
    /// Keys, likewise.
    pub k: Tensor,
    /// The log-sum-exp of each query's scores, `[batch, heads, tokens]`.
    pub lse: Tensor,
    bias: Option<Tensor>,
    temperature: Option<Tensor>,
    head_scale: Option<Tensor>,
}

impl BlockScores {
    /// Queries and keys, with what changes their scores. The keys stand for the values.
    #[must_use]
    pub fn inputs(&self) -> AttentionInputs<'_> {
        AttentionInputs {
            bias: self.bias.as_ref().map(Tensor::view),
            temperature: self.temperature.as_ref().map(Tensor::view),
            head_scale: self.head_scale.as_ref().map(Tensor::view),
            ..AttentionInputs::new(self.q.view(), self.k.view(), self.k.view())
        }
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
        let places = Places::new(context, &config)?;
        Ok(Self { context: context.clone(), config, parameters, places })
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
        self.record_some(tape, image, None, &mut Vec::new())
    }

    /// The same, and what each block's attention weighs by. Windows have no such scores, and of pruned tokens
    /// the place is not known.
    pub fn record_scores(&self, tape: &mut Tape, image: &Tensor) -> Result<(Variable, Vec<BlockScores>)> {
        check_config(self.config.pruning.is_none(), "pruning", "none", self.config.pruning)?;
        let mut scores = Vec::new();
        let (logits, _) = self.record_some(tape, image, None, &mut scores)?;
        let whole = scores.len() == self.config.depth as usize;
        check_config(whole, "attention", "standard or reversed", self.config.attention)?;
        Ok((logits, scores))
    }

    /// With so many of the tokens alone, chosen by ranks `[batch, tokens]` in a buffer.
    fn record_some(
        &self,
        tape: &mut Tape,
        image: &Tensor,
        some: Option<(u32, BufferView<'_>)>,
        scores: &mut Vec<BlockScores>,
    ) -> Result<(Variable, Vec<Variable>)> {
        let config = &self.config;
        let batch = image.shape().first().copied().unwrap_or(0);
        let [height, width] = config.image;
        let need = [batch, config.channels, height, width];
        check_shape(image.shape() == need, "image", format!("{need:?}"), image.shape())?;
        let (names, variables) =
            self.parameters.iter().map(|(name, tensor)| (name, tape.variable(tensor))).unzip();
        let p = Recorded { names, variables };

        let mut x = self.embed(tape, &p, image)?;
        if let Some((keep, rank)) = some {
            let order = TokenOrder::Rank;
            let select = TokenSelectConfig { batch, tokens: config.tokens(), keep, order };
            let chosen = ops::choose_tokens(tape, rank, select)?;
            x = gathered(tape, &x, &chosen, keep)?;
        }
        let tokens = config.tokens_of_blocks(some.map_or(config.tokens(), |(keep, _)| keep))?;
        let norm = |name: String| p.norm(&name, config.epsilon);
        let mut message = None;
        let mut y = ops::layer_norm(tape, &x, norm("blocks.0.norm1".into())?)?;
        for (i, around) in (0..config.depth).zip(tokens.windows(2)) {
            let &[before, after] = around else { continue };
            let attended = self.attend(tape, &p, i, [batch, before], &y, message.as_ref(), after < before)?;
            message = attended.message;
            scores.extend(attended.scores);
            let name = format!("blocks.{i}.attn.proj");
            let changed = p.scaled(tape, &name, &format!("blocks.{i}.ls1"), &attended.o)?;
            [x, y] = ops::add_layer_norm(tape, &changed, &x, norm(format!("blocks.{i}.norm2"))?)?;
            let hidden = p.linear(tape, &format!("blocks.{i}.mlp.fc1"), &y, Activation::Gelu)?;
            let name = format!("blocks.{i}.mlp.fc2");
            let changed = p.scaled(tape, &name, &format!("blocks.{i}.ls2"), &hidden)?;
            let next = format!("blocks.{}.norm1", i + 1);
            if i + 1 < config.depth && attended.score.is_none() {
                [x, y] = ops::add_layer_norm(tape, &changed, &x, norm(next)?)?;
                continue;
            }
            x = ops::add(tape, &changed, &x)?;
            if let Some(score) = &attended.score {
                let select =
                    TokenSelectConfig { batch, tokens: before, keep: after, order: TokenOrder::Score };
                let chosen = ops::choose_tokens(tape, score.view(), select)?;
                x = gathered(tape, &x, &chosen, after)?;
                message = message.map(|m| gathered(tape, &m, &chosen, after)).transpose()?;
            }
            if i + 1 < config.depth {
                y = ops::layer_norm(tape, &x, norm(next)?)?;
            }
        }
        let last = norm(config.last_norm().into())?;
        let pooled = match (config.pool, &message) {
            // The norm is one of each token: it may follow the pooling of one.
            (Pool::ClassToken, _) => {
                let class = self.class_tokens(tape, &x)?;
                ops::layer_norm(tape, &class, last)?
            }
            (Pool::Mean, None) => {
                let mean = ops::mean_tokens(tape, &x)?;
                ops::layer_norm(tape, &mean, last)?
            }
            (pool, message) => {
                let mut x = ops::layer_norm(tape, &x, last)?;
                if let Some(message) = message {
                    // Quiet tokens count little.
                    x = ops::weigh_rows(tape, &x, message)?;
                }
                match pool {
                    Pool::Queries(queries) => self.probe(tape, &p, &x, queries)?,
                    _ => ops::mean_tokens(tape, &x)?,
                }
            }
        };
        let logits = p.linear(tape, "head", &pooled, Activation::Identity)?;
        Ok((logits, p.variables))
    }

    /// Patches as tokens `[batch, tokens, width]`, with what is added for their positions.
    fn embed(&self, tape: &mut Tape, p: &Recorded<'_>, image: &Tensor) -> Result<Variable> {
        let config = &self.config;
        let patches = config.patches(image.shape().first().copied().unwrap_or(0));
        let weight = p.get("patch_embed.proj.weight")?;
        let bias = p.get("patch_embed.proj.bias")?;
        let mut x = ops::patch_embedding(tape, image, weight, Some(bias), patches)?;
        if let Places::Ordered { rank, frequency } = &self.places {
            let frequency = tape.variable(frequency);
            let shift = p.linear(tape, "pos_order", &x, Activation::Identity)?;
            let e = ops::learned_order(tape, rank, &shift, &frequency)?;
            x = ops::add(tape, &x, &e)?;
        }
        let class = if config.prefix() > 0 { Some(p.get("cls_token")?) } else { None };
        let table = match (&self.places, config.positions) {
            (Places::Added(table), _) => tape.variable(table),
            (_, Positions::Learned) => p.get("pos_embed")?.clone(),
            _ if class.is_none() => return Ok(x),
            _ => {
                // The class token is put before, and nothing is added.
                let shape = [config.tokens(), config.width];
                let zeros = vec![0.0; count("positions", &shape)? as usize];
                tape.variable(&Tensor::from_slice(&self.context, "positions", &shape, &zeros)?)
            }
        };
        ops::add_position(tape, &x, class, &table)
    }

    /// The attention of a block over normalised tokens. `prunes` asks for what they are pruned by.
    #[allow(clippy::too_many_arguments)]
    fn attend(
        &self,
        tape: &mut Tape,
        p: &Recorded<'_>,
        block: u32,
        [batch, tokens]: [u32; 2],
        y: &Variable,
        message: Option<&Variable>,
        prunes: bool,
    ) -> Result<Attended> {
        let config = &self.config;
        let name = format!("blocks.{block}.attn");
        let table = p.find(&format!("{name}.relative_position_bias_table"));
        if let Some(windows) = config.windows(batch, block) {
            let o = self.attend_in_windows(tape, p, &name, y, table, windows)?;
            return Ok(Attended { o, message: None, score: None, scores: None });
        }
        let packed = p.linear(tape, &format!("{name}.qkv"), y, Activation::Identity)?;
        let [q, k, v] = self.queries_keys_values(tape, &packed, batch)?;
        let [height, width] = config.grid();
        let bias = match table {
            Some(_) => AttentionBias::Table { prefix: config.prefix(), height, width },
            None => AttentionBias::None,
        };
        let attention = AttentionConfig {
            batch,
            heads: config.heads,
            queries: tokens,
            keys: tokens,
            head_dim: config.head_dim(),
            bias,
            ..AttentionConfig::default()
        };
        let operands = AttentionOperands {
            bias: table,
            temperature: p.find(&format!("{name}.temperature")),
            head_scale: p.find(&format!("{name}.head_scale")),
            gate: p.find(&format!("{name}.gate")),
            ..AttentionOperands::new(&q, &k, &v)
        };
        if let BlockAttention::Hopfield { updates } = config.attention {
            let [q, k, v] = [&q, &k, &v].map(|x| ops::heads_first(tape, x, config.heads));
            let beta = p.get(&format!("{name}.beta"))?;
            let retrieval = HopfieldConfig {
                batch,
                heads: config.heads,
                states: tokens,
                patterns: tokens,
                width: config.head_dim(),
                values: Some(config.head_dim()),
                update_steps_max: Some(updates),
                // All updates are made: a batch's pictures do not meet in when each other stops.
                epsilon: 0.0,
                ..Default::default()
            };
            let retrieved = ops::hopfield(tape, [&q?, &k?, &v?], beta, retrieval)?;
            let o = ops::heads_last(tape, &retrieved)?;
            return Ok(Attended { o, message: None, score: None, scores: None });
        }
        let tensor = |operand: Option<&Variable>| operand.map(|v| v.tensor().clone());
        let scores = |lse: &Tensor| BlockScores {
            attention: AttentionConfig {
                temperature: operands.temperature.is_some(),
                head_scale: operands.head_scale.is_some(),
                ..attention
            },
            q: q.tensor().clone(),
            k: k.tensor().clone(),
            lse: lse.clone(),
            bias: tensor(operands.bias),
            temperature: tensor(operands.temperature),
            head_scale: tensor(operands.head_scale),
        };
        let keep = config.pruning.map(|pruning| pruning.keep).filter(|_| prunes);
        let BlockAttention::Reversed { temperature } = config.attention else {
            let attended = ops::attention(tape, &operands, &attention)?;
            let mass = |tape| ops::received_mass(tape, &operands, &attended.lse, None, &attention);
            let score = keep.map(|_| mass(tape)).transpose()?;
            let scores = Some(scores(&attended.lse));
            return Ok(Attended { o: attended.o, message: None, score, scores });
        };
        let selector = p.linear(tape, &format!("{name}.head_selector"), y, Activation::Identity)?;
        let hidden = p.linear(tape, &format!("{name}.message_controller.fc1"), y, Activation::Gelu)?;
        let z = p.linear(tape, &format!("{name}.message_controller.fc2"), &hidden, Activation::Identity)?;
        let [m, w] = ops::head_selector(tape, &selector, &z, message, temperature)?;
        let weights = ops::heads_first(tape, &w, config.heads)?;
        let attended = ops::reversed_attention(tape, &operands, &weights, &attention)?;
        let score = match keep {
            None => None,
            // Over heads and tokens, what a token gives adds up to its message.
            Some(Prune::Sent) => Some(m.tensor().clone()),
            Some(Prune::Received) => {
                let weights = Some(weights.tensor());
                Some(ops::received_mass(tape, &operands, &attended.lse, weights, &attention)?)
            }
        };
        let scores = Some(scores(&attended.lse));
        Ok(Attended { o: attended.o, message: Some(m), score, scores })
    }

    /// Apart, and turned where positions are.
    fn queries_keys_values(&self, tape: &mut Tape, packed: &Variable, batch: u32) -> Result<[Variable; 3]> {
        let config = &self.config;
        let Places::Turned(table) = &self.places else { return ops::split_qkv(tape, packed) };
        let dim = config.head_dim();
        let rotary = RotaryConfig {
            batch,
            tokens: config.tokens(),
            heads: 3 * config.heads,
            rotated: 2 * config.heads,
            dim,
            rotary: dim,
            pairs: RotaryPairs::Interleaved,
            layout: HeadLayout::TokensFirst,
            inverse: false,
        };
        let turned = ops::rotary(tape, packed, table, rotary)?;
        ops::split_qkv(tape, &turned)
    }

    fn attend_in_windows(
        &self,
        tape: &mut Tape,
        p: &Recorded<'_>,
        name: &str,
        y: &Variable,
        table: Option<&Variable>,
        windows: crate::attention::WindowAttentionConfig,
    ) -> Result<Variable> {
        let shape = y.tensor().shape().to_vec();
        let mut y = y.clone();
        if windows.is_padded() {
            // One row of zeros more, whose projection stands for all padding.
            let tokens = y.tensor().len() / self.config.width;
            let all: Vec<u32> = (0..tokens).collect();
            let inverse = self.context.create_storage_with("inverse", &all)?;
            let index = self.context.create_storage_with("index", &[&all[..], &[u32::MAX]].concat())?;
            y = ops::gather_rows(tape, &y, &index, &inverse, &[tokens + 1, self.config.width])?;
        }
        let packed = p.linear(tape, &format!("{name}.qkv"), &y, Activation::Identity)?;
        let [q, k, v] = self.queries_keys_values(tape, &packed, windows.batch)?;
        ops::window_attention(tape, [&q, &k, &v], table, windows, &shape)
    }

    /// Averages of the tokens under learned queries, `[batch, width]`.
    fn probe(&self, tape: &mut Tape, p: &Recorded<'_>, x: &Variable, queries: u32) -> Result<Variable> {
        let width = self.config.width;
        let patches = x.tensor().shape().get(1).copied().unwrap_or(0);
        let batch = x.tensor().shape().first().copied().unwrap_or(0);
        let pool = QueryPoolConfig::efficient_probing(batch, patches, width, queries, 1)?;
        ops::query_pool(tape, x, p.get("pool.queries")?, Some(p.get("pool.value.weight")?), pool)
    }

    /// The first token of each image, `[batch, width]`.
    fn class_tokens(&self, tape: &mut Tape, x: &Variable) -> Result<Variable> {
        let &[batch, tokens, width] = x.tensor().shape() else {
            return Err(Error::Shape {
                what: "x",
                need: "[batch, tokens, width]".into(),
                got: format!("{:?}", x.tensor().shape()),
            });
        };
        let index: Vec<u32> = (0..batch).map(|b| b * tokens).collect();
        let place = |row: u32| if row.is_multiple_of(tokens) { row / tokens } else { u32::MAX };
        let inverse: Vec<u32> = (0..batch * tokens).map(place).collect();
        let index = self.context.create_storage_with("index", &index)?;
        let inverse = self.context.create_storage_with("inverse", &inverse)?;
        ops::gather_rows(tape, x, &index, &inverse, &[batch, width])
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

    /// Configuration and parameters.
    #[cfg(feature = "blocking")]
    fn contents(&self) -> Result<Checkpoint> {
        let mut file = Checkpoint::new();
        for (name, tensor) in self.parameters.iter() {
            file.insert(name, tensor.shape(), tensor.read(&self.context)?);
        }
        self.config.write(&mut file);
        Ok(file)
    }

    /// Writes configuration and parameters as safetensors, whole or not at all.
    #[cfg(feature = "blocking")]
    pub fn save(&self, path: &Path) -> Result<()> {
        self.contents()?.save(path)
    }

    /// Reads what [`save`](Self::save) wrote, or a checkpoint of a fit.
    pub fn load(context: &Context, path: &Path) -> Result<Self> {
        let file = Checkpoint::load(path)?;
        Self::from_tensors(context, VisionTransformerConfig::read(&file, path)?, &file, path)
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

/// The chosen ones of tokens `[batch, tokens, width]`.
fn gathered(tape: &mut Tape, x: &Variable, chosen: &Chosen, keep: u32) -> Result<Variable> {
    let mut shape = x.tensor().shape().to_vec();
    if let [_, tokens, _] = &mut shape[..] {
        *tokens = keep;
    }
    ops::gather_rows(tape, x, &chosen.index, &chosen.inverse, &shape)
}
