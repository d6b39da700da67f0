//! Pooling by learned queries, of matrix products (`dense::matmul`) and a softmax (`dense::softmax`).
//!
//! A few queries look over many patches and each takes an average of them. It is efficient probing
//! (arXiv 2506.10178), attentive pooling, Hopfield pooling (Ramsauer et al. 2021, one step), and the
//! readout of a few queries by cross-attention:
//!
//! ```text
//! A = softmax_n(scale U K^T + mask)      U: [Q, D], K: [B, N, D], A: [B, Q, N]
//! Z = A X                                X: [B, N, C], Z: [B, Q, C]
//! y_q = W_p Z_q,  p = q % P              W: [P, O, C], y: [B, Q, O]
//! ```
//!
//! The order matters: published code projects all N patches and averages then, `Z_q = A_q (X W^T)`. To
//! average first gives the same `y` with Q projected vectors in place of N, and `X W^T` is never stored.
//!
//! The keys are the patches themselves, or given. Keys `X W_k^T` need not be given: `U W_k` as queries
//! has the same scores. Several heads are rows of queries too: query `q` of head `h` is row `q H + h` with
//! `W_k` of its head folded in, and `P = H` projections.

use super::compose::{Product, given};
use crate::dense::{
    Matmul, MatmulConfig, ReduceConfig, ReduceForward, ReduceForwardArgs, Reduction, SoftmaxBackward,
    SoftmaxBackwardArgs, SoftmaxBias, SoftmaxConfig, SoftmaxForward, SoftmaxForwardArgs, SwapAxes,
    SwapAxesArgs, SwapAxesConfig,
};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Kernel, Plan, Planned, Recording, Result, Scratch, check_apart,
    check_config, count, kernel,
};

/// Shapes of a pooling. The default is efficient probing of a ViT-B: 196 patches, 768 channels, 32 queries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueryPoolConfig {
    /// Images B, at least 1.
    pub batch: u32,
    /// Patches N of an image, at least 1.
    pub patches: u32,
    /// Channels C of a patch, at least 1.
    pub channels: u32,
    /// Queries Q (times heads), at least 1.
    pub queries: u32,
    /// Width D of keys that are given; `None`: the keys are the patches.
    pub keys: Option<u32>,
    /// Projections P, which divides Q: query q takes projection `q % P`. 0: the averages are the output.
    pub projections: u32,
    /// Channels O that a projection gives, at least 1 if there are any.
    pub outputs: u32,
    /// Factor of the scores.
    pub scale: f32,
    /// There is a bias of the scores for each image and patch; `-1e30` or less masks the patch.
    pub mask: bool,
}

impl Default for QueryPoolConfig {
    fn default() -> Self {
        Self {
            batch: 1,
            patches: 196,
            channels: 768,
            queries: 32,
            keys: None,
            projections: 32,
            outputs: 24,
            scale: 1.0 / 768f32.sqrt(),
            mask: false,
        }
    }
}

impl QueryPoolConfig {
    /// Efficient probing: one head, the patches as keys, and of the `channels / reduction` channels of
    /// the result each query gives its share, so `queries` must divide them.
    pub fn efficient_probing(
        batch: u32,
        patches: u32,
        channels: u32,
        queries: u32,
        reduction: u32,
    ) -> Result<Self> {
        let counts = [channels, queries, reduction];
        check_config(!counts.contains(&0), "channels, queries, reduction", "at least 1", counts)?;
        let width = channels / reduction;
        let divides = channels.is_multiple_of(reduction) && width.is_multiple_of(queries);
        check_config(divides, "queries", "a divisor of channels / reduction", queries)?;
        let scale = 1.0 / (channels as f32).sqrt();
        let outputs = width / queries;
        let default = Self::default();
        Ok(Self { batch, patches, channels, queries, projections: queries, outputs, scale, ..default })
    }

    /// Learned parameters: the queries and the projections (saturated at `u64::MAX`, as all counts here).
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let [q, d, p, o, c] =
            [self.queries, self.key_width(), self.projections, self.outputs, self.channels].map(u64::from);
        (q * d).saturating_add((p * o).saturating_mul(c))
    }

    /// The same with a linear head on the whole result.
    #[must_use]
    pub fn parameters_with_head(&self, classes: u32) -> u64 {
        let inputs = u64::from(self.queries) * u64::from(self.width());
        self.parameters().saturating_add(u64::from(classes).saturating_mul(inputs + 1))
    }

    /// Multiply-adds of one image's forward pass: average, then project.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        let [q, n, c, d, o] =
            [self.queries, self.patches, self.channels, self.key_width(), self.outputs].map(u64::from);
        let projected = if self.projections > 0 { (q * o).saturating_mul(c) } else { 0 };
        (q * n).saturating_mul(d + c).saturating_add(projected)
    }

    /// The same in the published order: project every patch, then average.
    #[must_use]
    pub fn multiply_adds_projected_first(&self) -> u64 {
        let [q, n, c, d, o, p] =
            [self.queries, self.patches, self.channels, self.key_width(), self.outputs, self.projections]
                .map(u64::from);
        if p == 0 {
            return self.multiply_adds();
        }
        let projections = (n * c).saturating_mul(p).saturating_mul(o);
        (q * n).saturating_mul(d + o).saturating_add(projections)
    }

    fn key_width(&self) -> u32 {
        self.keys.unwrap_or(self.channels)
    }

    /// Channels of one query's output.
    fn width(&self) -> u32 {
        if self.projections > 0 { self.outputs } else { self.channels }
    }

    fn check(&self) -> Result<()> {
        for (what, value) in [
            ("batch", self.batch),
            ("patches", self.patches),
            ("channels", self.channels),
            ("queries", self.queries),
            ("keys", self.key_width()),
            ("outputs", self.width()),
        ] {
            check_config(value > 0, what, "at least 1", value)?;
        }
        let divides = self.projections == 0 || self.queries.is_multiple_of(self.projections);
        check_config(divides, "projections", "a divisor of the queries", self.projections)?;
        count("attention", &[self.batch, self.queries, self.patches])?;
        count("rows", &[self.batch, self.queries])?;
        Ok(())
    }

    /// `m x n` of sums of `k` for each image.
    fn product(&self, m: u32, n: u32, k: u32) -> MatmulConfig {
        MatmulConfig { m, n, k, batch: self.batch, ..Default::default() }
    }

    /// `U K^T`.
    fn scores(&self) -> MatmulConfig {
        let product = self.product(self.queries, self.patches, self.key_width());
        MatmulConfig { transpose_b: true, share_a: true, ..product }
    }

    fn softmax(&self) -> SoftmaxConfig {
        let bias = SoftmaxBias { rows: self.batch, repeat: self.queries };
        SoftmaxConfig {
            rows: self.batch * self.queries,
            n: self.patches,
            scale: self.scale,
            bias: self.mask.then_some(bias),
            ..Default::default()
        }
    }

    /// `Z = A X`.
    fn pool(&self) -> MatmulConfig {
        self.product(self.queries, self.channels, self.patches)
    }

    /// `dA = dZ X^T`.
    fn pool_backward(&self) -> MatmulConfig {
        MatmulConfig { transpose_b: true, ..self.product(self.queries, self.patches, self.channels) }
    }

    /// `dU = dS K` of each image.
    fn query_gradient(&self) -> MatmulConfig {
        self.product(self.queries, self.key_width(), self.patches)
    }

    /// The sum of these over the images; nothing for one.
    fn query_sum(&self) -> Option<ReduceConfig> {
        (self.batch > 1).then_some(ReduceConfig {
            reduction: Reduction::Sum,
            outer: 1,
            n: self.batch,
            inner: self.queries * self.key_width(),
            variant: None,
            part: None,
        })
    }

    /// `A^T dZ`, to the patches.
    fn value_gradient(&self) -> MatmulConfig {
        let product = self.product(self.patches, self.channels, self.queries);
        MatmulConfig { transpose_a: true, ..product }
    }

    /// `dS^T U`, to the keys; added to the former where the keys are the patches.
    fn key_gradient(&self) -> MatmulConfig {
        let product = self.product(self.patches, self.key_width(), self.queries);
        MatmulConfig { transpose_a: true, share_b: true, accumulate: self.keys.is_none(), ..product }
    }

    /// How many rows `[B, Q]` share a projection.
    fn rows(&self) -> u32 {
        self.batch * self.queries / self.projections.max(1)
    }

    /// The axes of `[rows, P, width]` swapped, so that a projection's rows lie together; nothing where
    /// they do anyway.
    fn swap(&self, width: u32) -> Option<SwapAxesConfig> {
        (self.projections > 1 && self.rows() > 1).then(|| SwapAxesConfig {
            a: self.rows(),
            b: self.projections,
            width,
        })
    }

    /// `y = Z W^T` of each projection.
    fn project(&self) -> MatmulConfig {
        let (m, n, k, batch) = (self.rows(), self.outputs, self.channels, self.projections);
        MatmulConfig { m, n, k, batch, transpose_b: true, ..Default::default() }
    }

    /// `dZ = dy W`.
    fn project_backward(&self) -> MatmulConfig {
        let (m, n, k, batch) = (self.rows(), self.channels, self.outputs, self.projections);
        MatmulConfig { m, n, k, batch, ..Default::default() }
    }

    /// `dW = dy^T Z`.
    fn weight_gradient(&self) -> MatmulConfig {
        let (m, n, k, batch) = (self.outputs, self.channels, self.rows(), self.projections);
        MatmulConfig { m, n, k, batch, transpose_a: true, ..Default::default() }
    }
}

/// The plan of a swap and the scratch it writes to; empty where there is none.
fn swap_plan(config: Option<SwapAxesConfig>, caps: &Capabilities) -> Result<Plan> {
    let Some(config) = config else { return Ok(Plan::default()) };
    let elements = count("rows", &[config.a, config.b, config.width])?;
    Ok(Plan::join("", [Plan::words(elements), SwapAxes::plan(&config, caps)?]))
}

fn back(config: Option<SwapAxesConfig>) -> Option<SwapAxesConfig> {
    config.map(|c| SwapAxesConfig { a: c.b, b: c.a, width: c.width })
}

kernel! {
    /// Averages of the patches under the attention of learned queries, projected.
    QueryPoolForward, QueryPoolConfig
}

/// Buffers of [`QueryPoolForward`].
#[derive(Debug, Clone, Copy)]
pub struct QueryPoolForwardArgs<'a> {
    /// Patches, `[B, N, C]`.
    pub x: BufferView<'a>,
    /// Keys, `[B, N, D]`; given exactly if configured.
    pub keys: Option<BufferView<'a>>,
    /// Queries, `[Q, D]`, for all images.
    pub queries: BufferView<'a>,
    /// Projections, `[P, O, C]`; given exactly if there are any. Of efficient probing they are the rows of
    /// the published linear layer, in order.
    pub weight: Option<BufferView<'a>>,
    /// Bias of the scores, `[B, N]`; given exactly if configured.
    pub mask: Option<BufferView<'a>>,
    /// The attention, `[B, Q, N]`: overwritten, and needed by the backward pass.
    pub attention: BufferView<'a>,
    /// The averages Z, `[B, Q, C]`: overwritten, and needed by the backward pass. An image whose patches
    /// are all masked gives zeros.
    pub pooled: BufferView<'a>,
    /// The projected averages, `[B, Q, O]`; given exactly if there are projections.
    pub y: Option<BufferView<'a>>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl QueryPoolForward {
    /// Scores, softmax, averages, projection.
    pub fn plan(config: &QueryPoolConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let scores = Matmul::plan(&config.scores(), caps)?;
        let variant = scores.variant;
        let mut parts = vec![
            Plan::words(count("scores", &[config.batch, config.queries, config.patches])?),
            scores,
            SoftmaxForward::plan(&config.softmax(), caps)?,
            Matmul::plan(&config.pool(), caps)?,
        ];
        if config.projections > 0 {
            parts.push(swap_plan(config.swap(config.channels), caps)?);
            parts.push(Matmul::plan(&config.project(), caps)?);
            parts.push(swap_plan(back(config.swap(config.outputs)), caps)?);
        }
        Ok(Plan::join(variant, parts))
    }
}

impl Kernel for QueryPoolForward {
    type Args<'a> = QueryPoolForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (context, config) = (&self.context, &self.config);
        let projected = config.projections > 0;
        let keys = given("keys", config.keys.is_some(), args.keys)?.unwrap_or(args.x);
        let weight = given("weight", projected, args.weight)?;
        let y = given("y", projected, args.y)?;
        let bias = given("mask", config.mask, args.mask)?;
        // The parts check sizes.
        let whole = |what, view| Arg::words(what, view, 0);
        let mut outputs = vec![whole("attention", args.attention), whole("pooled", args.pooled)];
        outputs.extend(y.map(|view| whole("y", view)));
        check_apart(
            &outputs,
            &[
                Some(whole("x", args.x)),
                args.keys.map(|view| whole("keys", view)),
                Some(whole("queries", args.queries)),
                weight.map(|view| whole("weight", view)),
                bias.map(|view| whole("mask", view)),
            ],
        )?;
        let scores = Product::new(context, config.scores())?;
        let softmax = SoftmaxForward::new(context, config.softmax())?;
        let pool = Product::new(context, config.pool())?;
        let mut lengths = [1, scores.scratch, softmax.planned().scratch.len(), pool.scratch, 0];
        lengths[4] = args.scratch.0.len().saturating_sub(lengths.iter().sum());
        let [score, s0, s1, s2, tail] = args.scratch.split(lengths)?;
        let score = score.view(0)?;
        let mut recording = scores.prepare(args.queries, keys, score, &s0)?;
        let attention = args.attention;
        recording.append(softmax.prepare(&SoftmaxForwardArgs {
            x: score,
            bias,
            y: attention,
            scratch: &s1,
        })?);
        recording.append(pool.prepare(attention, args.x, args.pooled, &s2)?);
        let (Some(weight), Some(y)) = (weight, y) else { return Ok(recording) };
        let project = Product::new(context, config.project())?;
        let swap = config.swap(config.channels);
        let swaps = usize::from(swap.is_some());
        let [z, s3, outputs] = tail.split([swaps, project.scratch, swaps])?;
        match (swap, back(config.swap(config.outputs))) {
            (Some(swap), Some(swap_back)) => {
                let (z, outputs) = (z.view(0)?, outputs.view(0)?);
                recording
                    .append(SwapAxes::new(context, swap)?.prepare(&SwapAxesArgs { x: args.pooled, y: z })?);
                recording.append(project.prepare(z, weight, outputs, &s3)?);
                recording
                    .append(SwapAxes::new(context, swap_back)?.prepare(&SwapAxesArgs { x: outputs, y })?);
            }
            _ => recording.append(project.prepare(args.pooled, weight, y, &s3)?),
        }
        Ok(recording)
    }
}

kernel! {
    /// Gradients of queries and projections and, where wanted, of patches and keys. With a frozen backbone
    /// neither of the latter is, and they cost nothing.
    QueryPoolBackward, QueryPoolConfig
}

/// Buffers of [`QueryPoolBackward`].
#[derive(Debug, Clone, Copy)]
pub struct QueryPoolBackwardArgs<'a> {
    /// Patches, `[B, N, C]`.
    pub x: BufferView<'a>,
    /// Keys, `[B, N, D]`; given exactly if configured.
    pub keys: Option<BufferView<'a>>,
    /// Queries, `[Q, D]`.
    pub queries: BufferView<'a>,
    /// Projections, `[P, O, C]`; given exactly if there are any.
    pub weight: Option<BufferView<'a>>,
    /// The forward pass's attention, `[B, Q, N]`.
    pub attention: BufferView<'a>,
    /// The forward pass's averages, `[B, Q, C]`.
    pub pooled: BufferView<'a>,
    /// Gradient of the output: of `y`, `[B, Q, O]`, or without projections of `pooled`, `[B, Q, C]`.
    pub dy: BufferView<'a>,
    /// Gradient of the queries, `[Q, D]`; overwritten.
    pub dqueries: BufferView<'a>,
    /// Gradient of the projections, `[P, O, C]`; overwritten. Given exactly if there are any.
    pub dweight: Option<BufferView<'a>>,
    /// Gradient of the patches, `[B, N, C]`; overwritten. It holds that of the keys too, where the patches
    /// are the keys. `None`: not wanted.
    pub dx: Option<BufferView<'a>>,
    /// Gradient of given keys, `[B, N, D]`; overwritten. `None`: not wanted.
    pub dkeys: Option<BufferView<'a>>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl QueryPoolBackward {
    /// Products in the opposite order; those to patches and keys are planned in any case.
    pub fn plan(config: &QueryPoolConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let QueryPoolConfig { batch, patches, channels, queries, outputs, .. } = *config;
        let scores = count("scores", &[batch, queries, patches])?;
        let first = Matmul::plan(&config.pool_backward(), caps)?;
        let variant = first.variant;
        let mut parts = vec![
            Plan::words(scores),
            Plan::words(scores),
            first,
            SoftmaxBackward::plan(&config.softmax(), caps)?,
            Matmul::plan(&config.query_gradient(), caps)?,
        ];
        if let Some(sum) = config.query_sum() {
            parts.push(Plan::words(count("queries of all images", &[batch, queries, config.key_width()])?));
            parts.push(ReduceForward::plan(&sum, caps)?);
        }
        parts.push(Matmul::plan(&config.value_gradient(), caps)?);
        parts.push(Matmul::plan(&config.key_gradient(), caps)?);
        if config.projections > 0 {
            parts.push(Plan::words(count("pooled", &[batch, queries, channels])?));
            parts.push(swap_plan(config.swap(outputs), caps)?);
            parts.push(swap_plan(config.swap(channels), caps)?);
            parts.push(Matmul::plan(&config.weight_gradient(), caps)?);
            parts.push(Matmul::plan(&config.project_backward(), caps)?);
            parts.push(swap_plan(back(config.swap(channels)), caps)?);
        }
        Ok(Plan::join(variant, parts))
    }

    /// From `dy` to the gradients of the projections and of the averages, which go to `dpooled`.
    fn projections(
        &self,
        args: &QueryPoolBackwardArgs<'_>,
        dpooled: BufferView<'_>,
        scratch: &Scratch,
    ) -> Result<Recording> {
        let (context, config) = (&self.context, &self.config);
        let (Some(weight), Some(dweight)) =
            (given("weight", true, args.weight)?, given("dweight", true, args.dweight)?)
        else {
            return Ok(Recording::new());
        };
        let to_weight = Product::new(context, config.weight_gradient())?;
        let to_pooled = Product::new(context, config.project_backward())?;
        let (narrow, wide) = (config.swap(config.outputs), config.swap(config.channels));
        let swaps = usize::from(wide.is_some());
        let [dy, pooled, s0, s1, d] =
            scratch.split([swaps, swaps, to_weight.scratch, to_pooled.scratch, swaps])?;
        let mut recording = Recording::new();
        let (Some(narrow), Some(wide), Some(swap_back)) = (narrow, wide, back(wide)) else {
            recording.append(to_weight.prepare(args.dy, args.pooled, dweight, &s0)?);
            recording.append(to_pooled.prepare(args.dy, weight, dpooled, &s1)?);
            return Ok(recording);
        };
        let [dy, pooled, d] = [dy.view(0)?, pooled.view(0)?, d.view(0)?];
        recording.append(SwapAxes::new(context, narrow)?.prepare(&SwapAxesArgs { x: args.dy, y: dy })?);
        recording.append(SwapAxes::new(context, wide)?.prepare(&SwapAxesArgs { x: args.pooled, y: pooled })?);
        recording.append(to_weight.prepare(dy, pooled, dweight, &s0)?);
        recording.append(to_pooled.prepare(dy, weight, d, &s1)?);
        recording.append(SwapAxes::new(context, swap_back)?.prepare(&SwapAxesArgs { x: d, y: dpooled })?);
        Ok(recording)
    }
}

impl Kernel for QueryPoolBackward {
    type Args<'a> = QueryPoolBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (context, config) = (&self.context, &self.config);
        let keys = given("keys", config.keys.is_some(), args.keys)?.unwrap_or(args.x);
        let projected = config.projections > 0;
        given("weight", projected, args.weight)?;
        given("dweight", projected, args.dweight)?;
        if config.keys.is_none() {
            given("dkeys", false, args.dkeys)?;
        }
        // The parts check sizes.
        let whole = |what, view| Arg::words(what, view, 0);
        let outputs: Vec<_> = [
            Some(whole("dqueries", args.dqueries)),
            args.dweight.map(|view| whole("dweight", view)),
            args.dx.map(|view| whole("dx", view)),
            args.dkeys.map(|view| whole("dkeys", view)),
        ]
        .into_iter()
        .flatten()
        .collect();
        check_apart(
            &outputs,
            &[
                Some(whole("x", args.x)),
                args.keys.map(|view| whole("keys", view)),
                Some(whole("queries", args.queries)),
                args.weight.map(|view| whole("weight", view)),
                Some(whole("attention", args.attention)),
                Some(whole("pooled", args.pooled)),
                Some(whole("dy", args.dy)),
            ],
        )?;
        let to_attention = Product::new(context, config.pool_backward())?;
        let softmax = SoftmaxBackward::new(context, config.softmax())?;
        let to_queries = Product::new(context, config.query_gradient())?;
        let sum = config.query_sum().map(|sum| ReduceForward::new(context, sum)).transpose()?;
        let to_patches = Product::new(context, config.value_gradient())?;
        let to_keys = Product::new(context, config.key_gradient())?;
        let summed = sum.as_ref().map_or((0, 0), |sum| (1, sum.planned().scratch.len()));
        let mut lengths = [
            2,
            to_attention.scratch,
            softmax.planned().scratch.len(),
            to_queries.scratch,
            summed.0,
            summed.1,
            to_patches.scratch,
            to_keys.scratch,
            usize::from(projected),
            0,
        ];
        lengths[9] = args.scratch.0.len().saturating_sub(lengths.iter().sum());
        let [scores, s0, s1, s2, of_images, s3, s4, s5, dpooled, tail] = args.scratch.split(lengths)?;
        let mut recording = Recording::new();
        let dpooled = if projected {
            recording.append(self.projections(args, dpooled.view(0)?, &tail)?);
            dpooled.view(0)?
        } else {
            args.dy
        };
        let (da, ds) = (scores.view(0)?, scores.view(1)?);
        recording.append(to_attention.prepare(dpooled, args.x, da, &s0)?);
        let of_softmax = SoftmaxBackwardArgs { y: args.attention, dy: da, dx: ds, scratch: &s1 };
        recording.append(softmax.prepare(&of_softmax)?);
        match &sum {
            None => recording.append(to_queries.prepare(ds, keys, args.dqueries, &s2)?),
            Some(sum) => {
                let x = of_images.view(0)?;
                recording.append(to_queries.prepare(ds, keys, x, &s2)?);
                let to_sum = ReduceForwardArgs { x, y: args.dqueries, index: None, scratch: &s3 };
                recording.append(sum.prepare(&to_sum)?);
            }
        }
        if let Some(dx) = args.dx {
            recording.append(to_patches.prepare(args.attention, dpooled, dx, &s4)?);
        }
        if let Some(dkeys) = if config.keys.is_some() { args.dkeys } else { args.dx } {
            recording.append(to_keys.prepare(ds, args.queries, dkeys, &s5)?);
        }
        Ok(recording)
    }
}
