//! Patches of images and volumes (`shaders/attention/patch.wgsl`): cut, put together, embedded, mixed.

use crate::dense::{
    Activation, LinearBackward, LinearBackwardArgs, LinearConfig, LinearForward, LinearForwardArgs,
};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Scratch, Shader,
    check_apart, check_config, count, kernel, read, shader, write,
};

/// The order of the axes of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageLayout {
    /// `[batch, channels, depth, height, width]`.
    #[default]
    Planar,
    /// `[batch, depth, height, width, channels]`.
    Interleaved,
}

/// The order of the elements of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PatchLayout {
    /// Channel, then z, y, x: as the weights of a convolution are stored.
    #[default]
    ChannelsFirst,
    /// z, y, x, then channel: as in MAE (He et al. 2022).
    ChannelsLast,
}

/// Images or volumes cut into patches that tile them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchConfig {
    /// Images, at least 1.
    pub batch: u32,
    /// Channels, at least 1.
    pub channels: u32,
    /// Depth (1 for an image), height and width.
    pub size: [u32; 3],
    /// The same of a patch; each divides that of the image.
    pub patch: [u32; 3],
    /// The order of the image's axes.
    pub image: ImageLayout,
    /// The order of a token's elements.
    pub token: PatchLayout,
}

impl Default for PatchConfig {
    /// One RGB image of ImageNet in patches of 16.
    fn default() -> Self {
        Self::square(1, 3, 224, 16)
    }
}

impl PatchConfig {
    /// Planar images of `size x size` pixels in patches of `patch x patch`.
    #[must_use]
    pub fn square(batch: u32, channels: u32, size: u32, patch: u32) -> Self {
        Self {
            batch,
            channels,
            size: [1, size, size],
            patch: [1, patch, patch],
            image: ImageLayout::Planar,
            token: PatchLayout::ChannelsFirst,
        }
    }

    fn check(&self) -> Result<u32> {
        check_config(self.batch > 0, "batch", "at least 1", self.batch)?;
        check_config(self.channels > 0, "channels", "at least 1", self.channels)?;
        check_config(self.size.iter().all(|&n| n > 0), "size", "at least 1 each", self.size)?;
        let divides = self.size.iter().zip(&self.patch).all(|(&n, &p)| p > 0 && n.is_multiple_of(p));
        check_config(divides, "patch", "a divisor of each side", (self.size, self.patch))?;
        let [depth, height, width] = self.size;
        count("image", &[self.batch, self.channels, depth, height, width])
    }

    /// Patches in depth, height and width. Zeros where the patch is wrong.
    #[must_use]
    pub fn grid(&self) -> [u32; 3] {
        [0, 1, 2].map(|i| self.size[i].checked_div(self.patch[i]).unwrap_or(0))
    }

    /// Tokens of an image (saturated at `u32::MAX`).
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.grid().into_iter().fold(1, u32::saturating_mul)
    }

    /// Elements of a token (saturated at `u32::MAX`).
    #[must_use]
    pub fn token_width(&self) -> u32 {
        self.patch.into_iter().fold(self.channels, u32::saturating_mul)
    }

    fn elements(&self) -> u64 {
        [self.channels].iter().chain(&self.size).fold(self.batch.into(), |n, &d| n * u64::from(d))
    }

    /// Index of the shaders, and the parameters of all of them.
    fn params(&self, caps: &Capabilities) -> (usize, Params) {
        let [_, height, width] = self.size;
        let [mut channels, mut patch_width] = [self.channels, self.patch[2]];
        // Strides of channel, depth, height and width in elements.
        let interleaved = self.image == ImageLayout::Interleaved;
        let mut strides = if interleaved {
            [1, height * width * channels, width * channels, channels]
        } else {
            [self.size[0] * height * width, height * width, width, 1]
        };
        let last = self.token == PatchLayout::ChannelsLast;
        if interleaved && last {
            // Both have the channel next to the column: together they are one axis.
            patch_width *= channels;
            channels = 1;
            strides[3] = 1;
        }
        let (kind, lanes) =
            if interleaved == last && patch_width.is_multiple_of(4) { (1, 4) } else { (0, 1) };
        if lanes == 4 {
            patch_width /= 4;
            strides = [strides[0] / 4, strides[1] / 4, strides[2] / 4, 1];
        }
        let [_, grid_height, grid_width] = self.grid();
        let token = self.token_width() / lanes;
        let items = self.tokens() * token;
        // Enough invocations to keep a device busy.
        let busy = if caps.cpu { 1 << 10 } else { 1 << 16 };
        let images = (u64::from(items) * u64::from(self.batch) / busy).clamp(1, 16) as u32;
        let params = Params {
            items,
            batch: self.batch,
            images: images.min(self.batch),
            channels,
            channel_stride: strides[0],
            depth_stride: strides[1],
            height_stride: strides[2],
            width_stride: strides[3],
            patch_depth: self.patch[0],
            patch_height: self.patch[1],
            patch_width,
            grid_height,
            grid_width,
            token,
            patches: self.tokens(),
            replaced: 0,
            share: 0.0,
        };
        (kind, params)
    }

    fn constants(&self) -> Constants {
        let last = self.token == PatchLayout::ChannelsLast;
        Constants::new().u32("WORKGROUP", WORKGROUP).bool("CHANNELS_LAST", last)
    }

    /// One launch; `replaced` patches of an image come from another.
    fn plan(&self, shaders: &'static [Shader; 2], replaced: u32, caps: &Capabilities) -> Result<Plan> {
        self.check()?;
        let (kind, params) = self.params(caps);
        let params = Params { replaced, ..params };
        let invocations = u64::from(params.items) * u64::from(self.batch.div_ceil(params.images));
        check_config(
            invocations <= u64::from(u32::MAX - WORKGROUP),
            "image",
            "below 2^32 - 64 items in the batch",
            invocations,
        )?;
        let cost = Cost::new(0, 8 * self.elements());
        let groups = invocations.div_ceil(WORKGROUP.into());
        let launch = Launch::new(&shaders[kind], self.constants(), &params, groups, caps, cost)?;
        Ok(Plan::single(if kind == 1 { "vec4" } else { "scalar" }, launch))
    }
}

const WORKGROUP: u32 = 64;

/// Of items of one element, and of four.
static PATCHIFY: [Shader; 2] = [
    shader!("attention/patch", "patchify", [index, scalars], [read("image"), write("tokens")]),
    shader!("attention/patch", "patchify", [index, vectors], [read("image").vec4(), write("tokens").vec4()]),
];
static UNPATCHIFY: [Shader; 2] = [
    shader!("attention/patch", "unpatchify", [index, scalars], [read("tokens_in"), write("image_out")]),
    shader!(
        "attention/patch",
        "unpatchify",
        [index, vectors],
        [read("tokens_in").vec4(), write("image_out").vec4()]
    ),
];
static MIX: [Shader; 2] = [
    shader!(
        "attention/patch",
        "mix",
        [index, scalars],
        [read("image"), write("image_out"), read("partner"), read("rank")]
    ),
    shader!(
        "attention/patch",
        "mix",
        [index, vectors],
        [read("image").vec4(), write("image_out").vec4(), read("partner"), read("rank")]
    ),
];
static MIX_LABELS: Shader = shader!(
    "attention/patch",
    "mix_labels",
    [index, scalars],
    [read("label"), write("label_out"), read("partner")]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    items: u32,
    batch: u32,
    images: u32,
    channels: u32,
    channel_stride: u32,
    depth_stride: u32,
    height_stride: u32,
    width_stride: u32,
    patch_depth: u32,
    patch_height: u32,
    patch_width: u32,
    grid_height: u32,
    grid_width: u32,
    token: u32,
    patches: u32,
    replaced: u32,
    share: f32,
}

kernel! {
    /// Images to tokens. Any 32-bit elements; the gradient is [`Unpatchify`].
    Patchify, PatchConfig
}

/// Buffers of [`Patchify`] and [`Unpatchify`].
#[derive(Debug, Clone, Copy)]
pub struct PatchArgs<'a> {
    /// Images, as their layout says.
    pub image: BufferView<'a>,
    /// Tokens, `[batch, tokens, token_width]`.
    pub tokens: BufferView<'a>,
}

impl Patchify {
    /// An invocation an item of a token, of several images.
    pub fn plan(config: &PatchConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&PATCHIFY, 0, caps)
    }
}

impl Kernel for Patchify {
    type Args<'a> = PatchArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let n = self.config.elements();
        let list = [Arg::words("image", args.image, n), Arg::words("tokens", args.tokens, n)];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}

kernel! {
    /// Tokens to images. Any 32-bit elements; the gradient is [`Patchify`].
    Unpatchify, PatchConfig
}

impl Unpatchify {
    /// An invocation an item of a token, of several images.
    pub fn plan(config: &PatchConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&UNPATCHIFY, 0, caps)
    }
}

impl Kernel for Unpatchify {
    type Args<'a> = PatchArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let n = self.config.elements();
        let list = [Arg::words("tokens", args.tokens, n), Arg::words("image", args.image, n)];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}

/// Patches of each image replaced by those of another (Lee et al. 2023, arXiv 2306.17848).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchMixConfig {
    /// The images and their patches; the order of a token's elements is of no consequence.
    pub patch: PatchConfig,
    /// Patches of an image that are replaced, 0 to all.
    pub replaced: u32,
}

kernel! {
    /// Mixes images; data for training, with no gradient.
    PatchMix, PatchMixConfig
}

/// Buffers of [`PatchMix`].
#[derive(Debug, Clone, Copy)]
pub struct PatchMixArgs<'a> {
    /// Images, as their layout says.
    pub image: BufferView<'a>,
    /// The image that each takes patches from, u32 `[batch]`; itself if it is not below the batch.
    pub partner: BufferView<'a>,
    /// A permutation of the patches of each image, u32 `[batch, tokens]`
    /// ([`RandomPermutation`](crate::dense::RandomPermutation)): those with values below `replaced`
    /// are replaced.
    pub rank: BufferView<'a>,
    /// Output, as the image.
    pub y: BufferView<'a>,
}

impl PatchMix {
    /// An invocation an item of a token, of several images.
    pub fn plan(config: &PatchMixConfig, caps: &Capabilities) -> Result<Plan> {
        config.patch.check()?;
        let all = config.patch.tokens();
        check_config(config.replaced <= all, "replaced", "at most all patches", config.replaced)?;
        config.patch.plan(&MIX, config.replaced, caps)
    }
}

impl Kernel for PatchMix {
    type Args<'a> = PatchMixArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let patch = &self.config.patch;
        let (n, batch) = (patch.elements(), u64::from(patch.batch));
        let list = [
            Arg::words("image", args.image, n),
            Arg::words("y", args.y, n),
            Arg::words("partner", args.partner, batch),
            Arg::words("rank", args.rank, batch * u64::from(patch.tokens())),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}

/// Labels mixed as the images were.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixLabelsConfig {
    /// Images, at least 1.
    pub batch: u32,
    /// Classes, at least 1.
    pub classes: u32,
    /// Part of the image's area that was replaced, 0 to 1: `replaced / tokens`.
    pub share: f32,
}

kernel! {
    /// `(1 - share) label + share label of the partner`; data for training, with no gradient.
    MixLabels, MixLabelsConfig
}

/// Buffers of [`MixLabels`].
#[derive(Debug, Clone, Copy)]
pub struct MixLabelsArgs<'a> {
    /// Label distributions, `[batch, classes]`.
    pub label: BufferView<'a>,
    /// As for [`PatchMix`], u32 `[batch]`.
    pub partner: BufferView<'a>,
    /// Output, `[batch, classes]`.
    pub y: BufferView<'a>,
}

impl MixLabels {
    /// An invocation an element.
    pub fn plan(config: &MixLabelsConfig, caps: &Capabilities) -> Result<Plan> {
        let MixLabelsConfig { batch, classes, share } = *config;
        check_config(batch > 0, "batch", "at least 1", batch)?;
        check_config(classes > 0, "classes", "at least 1", classes)?;
        check_config((0.0..=1.0).contains(&share), "share", "0 to 1", share)?;
        let items = count("label", &[batch, classes])?;
        let none = PatchConfig { batch: 1, channels: 1, size: [1; 3], patch: [1; 3], ..Default::default() };
        let params = Params { items, batch, token: classes, share, ..none.params(caps).1 };
        let cost = Cost::new(3 * u64::from(items), 8 * u64::from(items));
        let groups = items.div_ceil(WORKGROUP).into();
        let launch = Launch::new(&MIX_LABELS, none.constants(), &params, groups, caps, cost)?;
        Ok(Plan::single("scalar", launch))
    }
}

impl Kernel for MixLabels {
    type Args<'a> = MixLabelsArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let batch = u64::from(self.config.batch);
        let n = batch * u64::from(self.config.classes);
        let list = [
            Arg::words("label", args.label, n),
            Arg::words("y", args.y, n),
            Arg::words("partner", args.partner, batch),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}

/// Patches as vectors of `width` elements: [`Patchify`], then a linear layer. That is a convolution whose
/// stride is its size, and with patches of one pixel a linear layer over pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchEmbeddingConfig {
    /// The images and their patches.
    pub patch: PatchConfig,
    /// Elements of an embedded patch, at least 1.
    pub width: u32,
    /// There is a bias.
    pub bias: bool,
}

impl PatchEmbeddingConfig {
    /// The linear layer.
    fn linear(&self) -> Result<LinearConfig> {
        self.patch.check()?;
        Ok(LinearConfig {
            rows: count("tokens", &[self.patch.batch, self.patch.tokens()])?,
            inputs: self.patch.token_width(),
            outputs: self.width,
            bias: self.bias,
            activation: Activation::Identity,
            keep: false,
            variant: None,
        })
    }
}

kernel! {
    /// Embeds patches.
    PatchEmbeddingForward, PatchEmbeddingConfig
}

/// Buffers of [`PatchEmbeddingForward`].
#[derive(Debug, Clone, Copy)]
pub struct PatchEmbeddingForwardArgs<'a> {
    /// Images, as their layout says.
    pub image: BufferView<'a>,
    /// Weights, `[width, token_width]`.
    pub weight: BufferView<'a>,
    /// `[width]`, if the configuration has a bias.
    pub bias: Option<BufferView<'a>>,
    /// The patches, `[batch, tokens, token_width]`; kept for the backward pass.
    pub patches: BufferView<'a>,
    /// Output, `[batch, tokens, width]`.
    pub y: BufferView<'a>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl PatchEmbeddingForward {
    /// The patches, and one product.
    pub fn plan(config: &PatchEmbeddingConfig, caps: &Capabilities) -> Result<Plan> {
        let mut plan = LinearForward::plan(&config.linear()?, caps)?;
        plan.launches.splice(0..0, Patchify::plan(&config.patch, caps)?.launches);
        Ok(plan)
    }
}

impl Kernel for PatchEmbeddingForward {
    type Args<'a> = PatchEmbeddingForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let PatchEmbeddingForwardArgs { image, weight, bias, patches, y, scratch } = *args;
        // The parts check sizes.
        let whole = |what, view| Arg::words(what, view, 0);
        check_apart(
            &[whole("patches", patches), whole("y", y)],
            &[
                Some(whole("image", image)),
                Some(whole("weight", weight)),
                bias.map(|view| whole("bias", view)),
            ],
        )?;
        let cut = Patchify::new(&self.context, self.config.patch)?;
        let mut recording = cut.prepare(&PatchArgs { image, tokens: patches })?;
        let linear = LinearForward::new(&self.context, self.config.linear()?)?;
        let args = LinearForwardArgs { x: patches, weight, bias, y, kept: None, scratch };
        recording.append(linear.prepare(&args)?);
        Ok(recording)
    }
}

kernel! {
    /// Gradients of an embedding's weights and bias, and on request of the images.
    PatchEmbeddingBackward, PatchEmbeddingConfig
}

/// Buffers of [`PatchEmbeddingBackward`].
#[derive(Debug, Clone, Copy)]
pub struct PatchEmbeddingBackwardArgs<'a> {
    /// The forward pass's patches, `[batch, tokens, token_width]`.
    pub patches: BufferView<'a>,
    /// Weights, `[width, token_width]`.
    pub weight: BufferView<'a>,
    /// Gradient of the output, `[batch, tokens, width]`.
    pub dy: BufferView<'a>,
    /// Gradient of the weights, `[width, token_width]`; overwritten.
    pub dweight: BufferView<'a>,
    /// Gradient of the bias, `[width]`, if the configuration has one; overwritten.
    pub dbias: Option<BufferView<'a>>,
    /// Gradient of the images, and of the patches on the way to it (`[batch, tokens, token_width]`);
    /// overwritten. `None`: not wanted.
    pub dimage: Option<[BufferView<'a>; 2]>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl PatchEmbeddingBackward {
    /// Two products and a sum, and the images.
    pub fn plan(config: &PatchEmbeddingConfig, caps: &Capabilities) -> Result<Plan> {
        let mut plan = LinearBackward::plan(&config.linear()?, caps)?;
        plan.launches.extend(Unpatchify::plan(&config.patch, caps)?.launches);
        Ok(plan)
    }
}

impl Kernel for PatchEmbeddingBackward {
    type Args<'a> = PatchEmbeddingBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        // The parts check sizes.
        let whole = |what, view| Arg::words(what, view, 0);
        let mut outputs = vec![whole("dweight", args.dweight)];
        outputs.extend(args.dbias.map(|view| whole("dbias", view)));
        if let Some([image, tokens]) = args.dimage {
            outputs.extend([whole("dimage", image), whole("gradient of the patches", tokens)]);
        }
        let inputs = [whole("patches", args.patches), whole("weight", args.weight), whole("dy", args.dy)];
        check_apart(&outputs, &inputs.map(Some))?;
        let linear = LinearBackward::new(&self.context, self.config.linear()?)?;
        let mut recording = linear.prepare(&LinearBackwardArgs {
            x: args.patches,
            weight: args.weight,
            kept: None,
            dy: args.dy,
            dx: args.dimage.map(|[_, patches]| patches),
            dweight: args.dweight,
            dbias: args.dbias,
            scratch: args.scratch,
        })?;
        if let Some([image, tokens]) = args.dimage {
            let joined = Unpatchify::new(&self.context, self.config.patch)?;
            recording.append(joined.prepare(&PatchArgs { image, tokens })?);
        }
        Ok(recording)
    }
}
