//! What a vision transformer is made of: its configuration, its parameters, and both in a file.

use std::path::Path;

use crate::attention::{PatchConfig, WindowAttentionConfig, pruned_tokens};
use crate::dispatch::{Error, Result, check_config, count};
use crate::train::Checkpoint;

/// What the head sees of the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pool {
    /// A learned token put before the patches.
    #[default]
    ClassToken,
    /// The mean of the patches.
    Mean,
    /// So many averages of the patches under learned queries, each projected to its share of the width:
    /// efficient probing (arXiv 2506.10178; 32 queries there). A divisor of the width.
    Queries(u32),
}

/// How tokens know where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Positions {
    /// They don't.
    None,
    /// A learned vector for each place.
    #[default]
    Learned,
    /// Fixed sines and cosines of x and y ([`sin_cos_table`](crate::attention::sin_cos_table)); zeros for the
    /// class token. The width is a multiple of 4.
    SinCos,
    /// Queries and keys turned by x and y (axial, base 100: Heo et al. 2024, section 3.2); the class token is
    /// not. The width of a head is a multiple of 4.
    Rotary,
    /// A learned bias of the scores for each displacement and head (Liu et al. 2021, section 3.2).
    Relative,
    /// Sines and cosines of the place on a Gilbert curve, which each patch shifts by a linear function of what
    /// it shows (LOOPE, arXiv 2504.14386). The width is even.
    LearnedOrder,
}

/// How the tokens of a block attend to each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BlockAttention {
    /// Each to all (Vaswani et al. 2017).
    Standard {
        /// A learned value divides the scores of a block: smoother attention above 1 (arXiv 2111.10659).
        temperature: bool,
        /// A learned value multiplies the scores of each head.
        head_scale: bool,
        /// A learned value multiplies the output of each head; its gradient is the head's importance
        /// (Michel et al. 2019).
        gate: bool,
    },
    /// Within windows of `window x window` patches, in every second block shifted by `shift` (Swin, Liu et
    /// al. 2021: windows of 7, shift 3).
    Windowed {
        /// Patches along a side.
        window: u32,
        /// Patches, below `window`.
        shift: u32,
    },
    /// Each token gives to those that it attends to (DependencyViT, arXiv 2304.03282), through the heads
    /// that it selects, as loudly as all layers so far let it.
    Reversed {
        /// Of the softmax over heads, above 0; the paper's is 0.1.
        temperature: f32,
    },
    /// Each to all, the queries replaced by what they retrieve before the values are (Ramsauer et al. 2021,
    /// arXiv 2008.02217), with a learned inverse temperature of each head. For few tokens: memory grows
    /// with their pairs.
    Hopfield {
        /// Updates of the queries, at most 64; 0 is standard attention.
        updates: u32,
    },
}

impl Default for BlockAttention {
    /// Standard, with nothing learned beside the matrices.
    fn default() -> Self {
        Self::Standard { temperature: false, head_scale: false, gate: false }
    }
}

/// Which tokens pruning keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prune {
    /// Those that the block's attention gives most to.
    #[default]
    Received,
    /// Those with the loudest messages: for reversed attention.
    Sent,
}

/// Tokens left out on the way through the blocks. The default is DependencyViT's lite form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pruning {
    /// Share of the first number of tokens that each pruning takes away.
    pub ratio: f64,
    /// Blocks from one to the next; the first is after so many.
    pub every: u32,
    /// Which tokens are kept.
    pub keep: Prune,
}

impl Default for Pruning {
    fn default() -> Self {
        Self { ratio: 0.16, every: 3, keep: Prune::Received }
    }
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
    /// What the head sees. With windowed and reversed attention and pruning there is no class token.
    pub pool: Pool,
    /// How tokens know where they are.
    pub positions: Positions,
    /// How they attend to each other.
    pub attention: BlockAttention,
    /// Tokens left out on the way; not with positions that need all tokens (rotary, relative), nor windows.
    pub pruning: Option<Pruning>,
    /// Queries, keys and values have biases.
    pub qkv_bias: bool,
    /// What a block adds is multiplied by a learned vector that begins with this value (LayerScale, Touvron
    /// et al. 2021b).
    pub layer_scale: Option<f32>,
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
            attention: BlockAttention::default(),
            pruning: None,
            qkv_bias: true,
            layer_scale: None,
            epsilon: 1e-6,
        }
    }
}

/// How a parameter begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// Normal, with this standard deviation.
    Normal(f64),
    /// Uniform within `sqrt(6 / (inputs + outputs))` (Glorot and Bengio 2010).
    Uniform { inputs: u32, outputs: u32 },
    /// All the same.
    Constant(f32),
}

/// Parameters as they are listed.
struct List(Vec<(String, Vec<u32>, Start)>);

impl List {
    fn add(&mut self, name: impl Into<String>, shape: &[u32], start: Start) {
        self.0.push((name.into(), shape.to_vec(), start));
    }

    fn norm(&mut self, name: &str, width: u32) {
        self.add(format!("{name}.weight"), &[width], Start::Constant(1.0));
        self.add(format!("{name}.bias"), &[width], Start::Constant(0.0));
    }

    /// A matrix as `parts` matrices of their own.
    fn linear(&mut self, name: &str, [outputs, inputs]: [u32; 2], parts: u32, bias: bool) {
        let start = Start::Uniform { inputs, outputs: outputs / parts };
        self.add(format!("{name}.weight"), &[outputs, inputs], start);
        if bias {
            self.add(format!("{name}.bias"), &[outputs], Start::Constant(0.0));
        }
    }
}

impl VisionTransformerConfig {
    /// DependencyViT-Tiny (arXiv 2304.03282): reversed attention of 12 heads of 16. Its lite form has
    /// `pruning: Some(Pruning::default())`.
    #[must_use]
    pub fn dependency_tiny() -> Self {
        Self {
            heads: 12,
            pool: Pool::Mean,
            attention: BlockAttention::Reversed { temperature: 0.1 },
            qkv_bias: false,
            layer_scale: Some(1e-6),
            ..Self::default()
        }
    }

    pub(super) fn patches(&self, batch: u32) -> PatchConfig {
        let [height, width] = self.image;
        PatchConfig {
            size: [1, height, width],
            patch: [1, self.patch, self.patch],
            ..PatchConfig::square(batch, self.channels, 1, 1)
        }
    }

    /// Patches along height and width.
    pub(super) fn grid(&self) -> [u32; 2] {
        let [_, height, width] = self.patches(1).grid();
        [height, width]
    }

    /// Tokens put before the patches.
    pub(super) fn prefix(&self) -> u32 {
        u32::from(self.pool == Pool::ClassToken)
    }

    pub(super) fn head_dim(&self) -> u32 {
        self.width / self.heads.max(1)
    }

    /// Tokens of an image, the class token included.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.patches(1).tokens().saturating_add(self.prefix())
    }

    /// Tokens that each block sees, and at the end those that the head sees, of so many at the beginning
    /// (see [`tokens`](Self::tokens)).
    pub fn tokens_of_blocks(&self, tokens: u32) -> Result<Vec<u32>> {
        let Some(Pruning { ratio, every, .. }) = self.pruning else {
            return Ok(vec![tokens; self.depth as usize + 1]);
        };
        check_config(every > 0, "pruning.every", "at least 1", every)?;
        let left = pruned_tokens(tokens, ratio, self.depth / every)?;
        let after = |block: u32| (block / every).checked_sub(1).and_then(|k| left.get(k as usize).copied());
        Ok((0..=self.depth).map(|block| after(block).unwrap_or(tokens)).collect())
    }

    /// The windows of a block, if it has any.
    pub(super) fn windows(&self, batch: u32, block: u32) -> Option<WindowAttentionConfig> {
        let BlockAttention::Windowed { window, shift } = self.attention else { return None };
        let [height, width] = self.grid();
        let shift = if block.is_multiple_of(2) { 0 } else { shift };
        Some(WindowAttentionConfig {
            batch,
            grid: [1, height, width],
            window: [1, window, window],
            shift: [0, shift, shift],
            heads: self.heads,
            head_dim: self.head_dim(),
            table: self.positions == Positions::Relative,
            ..Default::default()
        })
    }

    /// Whether every token must be there in its place.
    pub(super) fn needs_all_tokens(&self) -> bool {
        matches!(self.positions, Positions::Rotary | Positions::Relative)
            || matches!(self.attention, BlockAttention::Windowed { .. })
    }

    pub(super) fn check(&self) -> Result<()> {
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
        check_config(
            divides && height > 0 && width > 0,
            "patch",
            &format!("a divisor of {height} and {width}"),
            self.patch,
        )?;
        check_config(
            self.width.is_multiple_of(self.heads),
            "width",
            &format!("a multiple of the {} heads", self.heads),
            self.width,
        )?;
        check_config(self.head_dim() <= 256, "heads", "of at most 256 elements each", self.heads)?;
        check_config(self.depth <= 1024, "depth", "at most 1,024", self.depth)?;
        let scale = self.layer_scale.unwrap_or(1.0);
        check_config(scale.is_finite(), "layer_scale", "finite", scale)?;
        match self.positions {
            Positions::Rotary => {
                let whole = self.head_dim().is_multiple_of(4);
                check_config(
                    whole,
                    "heads",
                    "of a multiple of 4 elements each for rotary positions",
                    self.heads,
                )?;
            }
            Positions::LearnedOrder => {
                check_config(self.width.is_multiple_of(2), "width", "even for a learned order", self.width)?;
            }
            Positions::None | Positions::Learned | Positions::SinCos | Positions::Relative => {}
        }
        match self.attention {
            BlockAttention::Standard { .. } => {}
            BlockAttention::Windowed { window, shift } => {
                check_config((1..=22).contains(&window), "attention.window", "1 to 22", window)?;
                check_config(shift < window, "attention.shift", "below `window`", shift)?;
                self.check_no_class_token("windowed attention")?;
                let padded = self.windows(1, 0).is_some_and(|windows| windows.is_padded());
                let turned = self.positions == Positions::Rotary && padded;
                check_config(!turned, "positions", "not rotary where windows are padded", self.positions)?;
            }
            BlockAttention::Hopfield { updates } => {
                check_config(updates <= 64, "attention.updates", "at most 64", updates)?;
                let free = self.positions != Positions::Relative;
                check_config(
                    free,
                    "positions",
                    "not relative for retrieval, which has no bias",
                    self.positions,
                )?;
            }
            BlockAttention::Reversed { temperature } => {
                let fits = temperature > 0.0 && temperature.is_finite() && temperature.recip().is_finite();
                check_config(
                    fits,
                    "attention.temperature",
                    "above 0 and finite, as is its inverse",
                    temperature,
                )?;
                self.check_no_class_token("reversed attention")?;
            }
        }
        if let Pool::Queries(queries) = self.pool {
            let divides = queries > 0 && self.width.is_multiple_of(queries);
            check_config(divides, "pool", "a divisor of `width` as queries", queries)?;
        }
        if let Some(pruning) = self.pruning {
            self.check_no_class_token("pruning")?;
            let kinds =
                matches!(self.attention, BlockAttention::Standard { .. } | BlockAttention::Reversed { .. });
            check_config(kinds, "pruning", "none but for standard and reversed attention", pruning)?;
            check_config(
                !self.needs_all_tokens(),
                "positions",
                "neither rotary nor relative where tokens are pruned",
                self.positions,
            )?;
            let speaks = matches!(self.attention, BlockAttention::Reversed { .. });
            let fits = pruning.keep == Prune::Received || speaks;
            check_config(fits, "pruning.keep", "`Received` but for reversed attention", pruning.keep)?;
        }
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
        if self.positions == Positions::Relative {
            let [entries, heads] = self.table();
            count("relative_position_bias_table", &[entries, heads])?;
        }
        self.tokens_of_blocks(self.tokens()).map(drop)
    }

    fn check_no_class_token(&self, what: &str) -> Result<()> {
        check_config(self.pool != Pool::ClassToken, "pool", &format!("no class token for {what}"), self.pool)
    }

    /// Shape of a table of relative biases.
    fn table(&self) -> [u32; 2] {
        let entries = match self.windows(1, 0) {
            Some(windows) => windows.table_entries(),
            None => {
                let side = |n: u32| n.saturating_mul(2).saturating_sub(1);
                let [height, width] = self.grid();
                side(height).saturating_mul(side(width))
            }
        };
        [entries, self.heads]
    }

    /// Names (those of timm's checkpoints, where it has such parameters), shapes and first values of all
    /// parameters.
    pub(super) fn parameters(&self) -> Vec<(String, Vec<u32>, Start)> {
        let (width, hidden, heads) = (self.width, self.hidden, self.heads);
        let mut all = List(Vec::new());
        if self.pool == Pool::ClassToken {
            all.add("cls_token", &[1, 1, width], Start::Normal(0.02));
        }
        if self.positions == Positions::Learned {
            all.add("pos_embed", &[1, self.tokens(), width], Start::Normal(0.02));
        }
        let inputs = self.patches(1).token_width();
        let kernel = [width, self.channels, self.patch, self.patch];
        all.add("patch_embed.proj.weight", &kernel, Start::Uniform { inputs, outputs: width });
        all.add("patch_embed.proj.bias", &[width], Start::Constant(0.0));
        if self.positions == Positions::LearnedOrder {
            // The order begins as that of the curve.
            all.add("pos_order.weight", &[1, width], Start::Constant(0.0));
            all.add("pos_order.bias", &[1], Start::Constant(0.0));
        }
        for i in 0..self.depth {
            let attn = format!("blocks.{i}.attn");
            all.norm(&format!("blocks.{i}.norm1"), width);
            all.linear(&format!("{attn}.qkv"), [3 * width, width], 3, self.qkv_bias);
            if self.positions == Positions::Relative {
                let name = format!("{attn}.relative_position_bias_table");
                all.add(name, &self.table(), Start::Normal(0.02));
            }
            match self.attention {
                BlockAttention::Standard { temperature, head_scale, gate } => {
                    let own = [
                        ("temperature", temperature, 1),
                        ("head_scale", head_scale, heads),
                        ("gate", gate, heads),
                    ];
                    for (name, _, n) in own.into_iter().filter(|(_, wanted, _)| *wanted) {
                        all.add(format!("{attn}.{name}"), &[n], Start::Constant(1.0));
                    }
                }
                BlockAttention::Windowed { .. } => {}
                BlockAttention::Hopfield { .. } => {
                    let beta = 1.0 / (self.head_dim() as f32).sqrt();
                    all.add(format!("{attn}.beta"), &[heads], Start::Constant(beta));
                }
                BlockAttention::Reversed { .. } => {
                    let half = (width / 2).max(1);
                    all.linear(&format!("{attn}.head_selector"), [heads, width], 1, false);
                    all.linear(&format!("{attn}.message_controller.fc1"), [half, width], 1, false);
                    all.linear(&format!("{attn}.message_controller.fc2"), [1, half], 1, false);
                }
            }
            all.linear(&format!("{attn}.proj"), [width, width], 1, true);
            let scale = |all: &mut List, name: &str| {
                if let Some(scale) = self.layer_scale {
                    all.add(format!("blocks.{i}.{name}.gamma"), &[width], Start::Constant(scale));
                }
            };
            scale(&mut all, "ls1");
            all.norm(&format!("blocks.{i}.norm2"), width);
            all.linear(&format!("blocks.{i}.mlp.fc1"), [hidden, width], 1, true);
            all.linear(&format!("blocks.{i}.mlp.fc2"), [width, hidden], 1, true);
            scale(&mut all, "ls2");
        }
        all.norm(self.last_norm(), width);
        if let Pool::Queries(queries) = self.pool {
            let outputs = width / queries.max(1);
            all.add("pool.queries", &[queries, width], Start::Normal(0.02));
            let start = Start::Uniform { inputs: width, outputs: width };
            all.add("pool.value.weight", &[queries, outputs, width], start);
        }
        all.linear("head", [self.classes, width], 1, true);
        all.0
    }

    /// The norm before the head. After the mean it has another name, as in timm.
    pub(super) fn last_norm(&self) -> &'static str {
        match (self.pool, self.attention) {
            // Messages weigh, and queries average, normalised tokens.
            (Pool::ClassToken | Pool::Queries(_), _) | (_, BlockAttention::Reversed { .. }) => "norm",
            (Pool::Mean, _) => "fc_norm",
        }
    }

    #[cfg(feature = "blocking")]
    pub(super) fn write(&self, file: &mut Checkpoint) {
        file.set("model", "VisionTransformer");
        file.set("height", self.image[0]);
        file.set("width_of_image", self.image[1]);
        for (name, value) in [
            ("channels", self.channels),
            ("patch", self.patch),
            ("width", self.width),
            ("depth", self.depth),
            ("heads", self.heads),
            ("hidden", self.hidden),
            ("classes", self.classes),
        ] {
            file.set(name, value);
        }
        match self.pool {
            Pool::ClassToken => file.set("pool", "ClassToken"),
            Pool::Mean => file.set("pool", "Mean"),
            Pool::Queries(queries) => {
                file.set("pool", "Queries");
                file.set("pool.queries", queries);
            }
        }
        file.set("positions", format!("{:?}", self.positions));
        match self.attention {
            BlockAttention::Standard { temperature, head_scale, gate } => {
                file.set("attention", "Standard");
                file.set("attention.temperature", temperature);
                file.set("attention.head_scale", head_scale);
                file.set("attention.gate", gate);
            }
            BlockAttention::Windowed { window, shift } => {
                file.set("attention", "Windowed");
                file.set("attention.window", window);
                file.set("attention.shift", shift);
            }
            BlockAttention::Reversed { temperature } => {
                file.set("attention", "Reversed");
                file.set("attention.temperature", temperature);
            }
            BlockAttention::Hopfield { updates } => {
                file.set("attention", "Hopfield");
                file.set("attention.updates", updates);
            }
        }
        file.set("pruned", self.pruning.is_some());
        if let Some(Pruning { ratio, every, keep }) = self.pruning {
            file.set("pruning.ratio", ratio);
            file.set("pruning.every", every);
            file.set("pruning.sent", keep == Prune::Sent);
        }
        file.set("qkv_bias", self.qkv_bias);
        file.set("layer_scaled", self.layer_scale.is_some());
        if let Some(scale) = self.layer_scale {
            file.set("layer_scale", scale);
        }
        file.set("epsilon", self.epsilon);
    }

    pub(super) fn read(file: &Checkpoint, path: &Path) -> Result<Self> {
        let unknown = |what: &str, got: String| Error::Checkpoint {
            path: path.into(),
            message: format!("`{what}` = {got:?} in the metadata is not known"),
        };
        use Positions::{Learned, LearnedOrder, None as Nowhere, Relative, Rotary, SinCos};
        let name: String = file.get(path, "pool")?;
        let pool = match name.as_str() {
            "ClassToken" => Pool::ClassToken,
            "Mean" => Pool::Mean,
            "Queries" => Pool::Queries(file.get(path, "pool.queries")?),
            _ => return Err(unknown("pool", name)),
        };
        let name: String = file.get(path, "positions")?;
        let positions = [Nowhere, Learned, SinCos, Rotary, Relative, LearnedOrder]
            .into_iter()
            .find(|positions| format!("{positions:?}") == name)
            .ok_or_else(|| unknown("positions", name))?;
        let name: String = file.get(path, "attention")?;
        let attention = match name.as_str() {
            "Standard" => BlockAttention::Standard {
                temperature: file.get(path, "attention.temperature")?,
                head_scale: file.get(path, "attention.head_scale")?,
                gate: file.get(path, "attention.gate")?,
            },
            "Windowed" => BlockAttention::Windowed {
                window: file.get(path, "attention.window")?,
                shift: file.get(path, "attention.shift")?,
            },
            "Reversed" => BlockAttention::Reversed { temperature: file.get(path, "attention.temperature")? },
            "Hopfield" => BlockAttention::Hopfield { updates: file.get(path, "attention.updates")? },
            _ => return Err(unknown("attention", name)),
        };
        let mut pruning = None;
        if file.get(path, "pruned")? {
            let keep = if file.get(path, "pruning.sent")? { Prune::Sent } else { Prune::Received };
            pruning = Some(Pruning {
                ratio: file.get(path, "pruning.ratio")?,
                every: file.get(path, "pruning.every")?,
                keep,
            });
        }
        let scaled: bool = file.get(path, "layer_scaled")?;
        Ok(Self {
            image: [file.get(path, "height")?, file.get(path, "width_of_image")?],
            channels: file.get(path, "channels")?,
            patch: file.get(path, "patch")?,
            width: file.get(path, "width")?,
            depth: file.get(path, "depth")?,
            heads: file.get(path, "heads")?,
            hidden: file.get(path, "hidden")?,
            classes: file.get(path, "classes")?,
            pool,
            positions,
            attention,
            pruning,
            qkv_bias: file.get(path, "qkv_bias")?,
            layer_scale: scaled.then(|| file.get(path, "layer_scale")).transpose()?,
            epsilon: file.get(path, "epsilon")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependency_vit_lite_leaves_the_published_numbers_of_tokens() {
        let lite = VisionTransformerConfig {
            pruning: Some(Pruning::default()),
            ..VisionTransformerConfig::dependency_tiny()
        };
        lite.check().unwrap();
        let tokens = lite.tokens_of_blocks(lite.tokens()).unwrap();
        assert_eq!(tokens, [196, 196, 196, 164, 164, 164, 132, 132, 132, 100, 100, 100, 69]);
        let whole = VisionTransformerConfig::dependency_tiny();
        assert_eq!(whole.tokens_of_blocks(whole.tokens()).unwrap(), [196; 13]);
    }

    #[test]
    fn a_configuration_is_read_as_it_was_written() {
        let path = Path::new("nowhere");
        let base = VisionTransformerConfig { pool: Pool::Mean, ..Default::default() };
        let pruned = Pruning { ratio: 0.1, every: 2, keep: Prune::Sent };
        for config in [
            VisionTransformerConfig::default(),
            VisionTransformerConfig { pruning: Some(pruned), ..VisionTransformerConfig::dependency_tiny() },
            VisionTransformerConfig {
                positions: Positions::Relative,
                attention: BlockAttention::Windowed { window: 7, shift: 3 },
                ..base
            },
            VisionTransformerConfig {
                positions: Positions::LearnedOrder,
                attention: BlockAttention::Standard { temperature: true, head_scale: false, gate: true },
                ..base
            },
            VisionTransformerConfig {
                pool: Pool::Queries(32),
                attention: BlockAttention::Hopfield { updates: 3 },
                ..base
            },
        ] {
            let mut file = Checkpoint::new();
            config.write(&mut file);
            assert_eq!(VisionTransformerConfig::read(&file, path).unwrap(), config);
            config.check().unwrap();
        }
        let mut file = Checkpoint::new();
        base.write(&mut file);
        file.set("attention", "Sideways");
        assert!(VisionTransformerConfig::read(&file, path).unwrap_err().to_string().contains("Sideways"));
    }
}
