//! Draws what attention looks at in a picture: rollout maps, a table of the heads, and a dependency tree.
//!
//! `cargo run --release --example attention_map -- [IMAGE] [OPTIONS]`. With `--checkpoint FILE` the attention is
//! that of a vision transformer; with `--train STEPS` of a small one that is trained now, on computed pictures;
//! otherwise patches attend to patches that look alike, which needs no training. No matrix of weights is ever
//! stored for maps and table; the tree alone needs one.

mod discs;
mod draw;
mod features;
mod maps;
#[path = "../shared/mod.rs"]
mod shared;

use std::path::PathBuf;

use clap::Parser;
use image::RgbImage;
use patchfield::Context;
use patchfield::attention::{AttentionLse, AttentionLseArgs, PatchGrid, dependency_tree};
use patchfield::dispatch::describe;
use patchfield::models::{Pool, VisionTransformer};
use patchfield::train::{Tape, Tensor};
use patchfield::{Kernel as _, Planned as _};

use maps::{Head, Layer};

/// Draws what attention looks at in a picture.
#[derive(Debug, Parser)]
struct Options {
    /// PNG or JPEG; none: a computed test picture.
    image: Option<PathBuf>,
    /// Where the results go.
    #[arg(long, default_value = "target/attention")]
    out: PathBuf,
    /// A checkpoint of `VisionTransformer`, whose attention is drawn.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Train a small vision transformer for so many steps on computed pictures, and draw its attention in four.
    #[arg(long, conflicts_with_all = ["image", "checkpoint"])]
    train: Option<u64>,
    /// Without a model: the longer side that the picture is reduced to.
    #[arg(long, default_value_t = 512, conflicts_with_all = ["checkpoint", "train"], value_parser = clap::value_parser!(u32).range(16..=2048))]
    size: u32,
    /// Without a model: the side of a patch, in pixels of the reduced picture.
    #[arg(long, default_value_t = 16, conflicts_with_all = ["checkpoint", "train"], value_parser = clap::value_parser!(u32).range(4..=128))]
    patch: u32,
    /// Without a model: a spot whose attention is drawn, as shares of width and height; may be given again
    /// [default: three in the middle row, or what the test picture shows].
    #[arg(long, value_name = "X,Y", conflicts_with_all = ["checkpoint", "train"], value_parser = spot)]
    at: Vec<[f32; 2]>,
    /// Without a model: layers of the rollout.
    #[arg(long, default_value_t = 3, conflicts_with_all = ["checkpoint", "train"], value_parser = clap::value_parser!(u32).range(1..=64))]
    layers: u32,
    /// Share of attention in each layer of the rollout; the rest stays in its place.
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    share: f32,
    /// An adapter by a part of its name or driver, as `inspect_adapter` lists them [default: the best].
    #[arg(long)]
    adapter: Option<String>,
}

fn share(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    number.ok_or_else(|| "a number from 0 to 1".into())
}

fn spot(text: &str) -> Result<[f32; 2], String> {
    let numbers: Option<Vec<f32>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[x, y]) if (0.0..1.0).contains(&x) && (0.0..1.0).contains(&y) => Ok([x, y]),
        _ => Err("two numbers from 0 to below 1, as in 0.25,0.5".into()),
    }
}

fn main() {
    if let Err(message) = run(&Options::parse()) {
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}

/// A row vector that a rollout begins with, and the patch that it stands on, if it is one.
struct Start {
    row: Vec<f32>,
    patch: Option<usize>,
}

/// What is drawn of one picture.
struct Drawn {
    panels: Vec<RgbImage>,
    tree: RgbImage,
    heads: Vec<(String, Head)>,
}

fn run(options: &Options) -> Result<(), String> {
    let name = options.image.as_ref().map_or("a computed test picture".into(), |p| p.display().to_string());
    let picture = options.image.as_deref().map(draw::load).transpose()?;
    let (context, info) = shared::device(options.adapter.as_deref())?;
    println!("adapter    {}", describe(&info));
    std::fs::create_dir_all(&options.out).map_err(|e| format!("{}: {e}", options.out.display()))?;

    let text = |e: patchfield::Error| e.to_string();
    let mut all = Vec::new();
    let from;
    if options.train.is_some() || options.checkpoint.is_some() {
        let model = match (&options.checkpoint, options.train) {
            (Some(path), _) => VisionTransformer::load(&context, path).map_err(text)?,
            (None, steps) => {
                let path = options.out.join("discs.safetensors");
                let stop = shared::stop_on_ctrl_c()?;
                let model = discs::train(&context, steps.unwrap_or(0), &stop).map_err(text)?;
                model.save(&path).map_err(text)?;
                println!("wrote      {}", path.display());
                model
            }
        };
        let pictures = match picture {
            Some(picture) => vec![picture],
            None => (0..4).map(discs::picture).collect(),
        };
        let config = *model.config();
        draw::check_patches(config.image[1] / config.patch, config.image[0] / config.patch)?;
        println!("attention  of a vision transformer, {} blocks of {} heads", config.depth, config.heads);
        from = match config.pool {
            Pool::ClassToken => "what the class token's output is made of",
            Pool::Mean | Pool::Queries(_) => "what the mean of all tokens is made of",
        };
        for picture in pictures {
            let picture = draw::fit(&picture, config.image);
            all.push(of_model(&context, &model, &picture, options).map_err(text)?);
        }
    } else {
        let spots = match (&options.at[..], &picture) {
            ([], Some(_)) => [[0.25, 0.5], [0.5, 0.5], [0.75, 0.5]].to_vec(),
            // The sun, its reflection, and the hills.
            ([], None) => [[0.64, 0.34], [0.64, 0.85], [0.2, 0.57]].to_vec(),
            (spots, _) => spots.to_vec(),
        };
        let picture = picture.unwrap_or_else(draw::test_picture);
        println!("picture    {name}, {} x {}", picture.width(), picture.height());
        println!("attention  of patches to patches that look alike, without a model; each layer is the same");
        from = "what the framed patch takes up from where";
        let picture = draw::reduce(&picture, options.size, options.patch)?;
        all.push(of_features(&context, &picture, &spots, options).map_err(text)?);
    }

    print_heads(&all[0].heads);
    let panels: Vec<RgbImage> = all.iter().flat_map(|drawn| drawn.panels.clone()).collect();
    let trees: Vec<RgbImage> = all.into_iter().map(|drawn| drawn.tree).collect();
    let save = |file: &str, picture: RgbImage, what: &str| {
        let path = options.out.join(file);
        picture.save(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("wrote      {}: {what}", path.display());
        Ok::<(), String>(())
    };
    save("rollout.png", draw::beside(&panels), &format!("the picture, and {from} after all layers"))?;
    let what = "each patch hangs on the one that it attends to most, without circles; colours are parts";
    save("tree.png", draw::beside(&trees), what)
}

/// Entropy in nats; distances in patches.
fn print_heads(heads: &[(String, Head)]) {
    println!("\nhead            entropy  patches seen  mean distance  on itself  on neighbours");
    for (name, head) in heads {
        println!(
            "{name:<15} {:7.2} {:13.1} {:14.2} {:9.1}% {:13.1}%",
            head.entropy,
            head.entropy.exp(),
            head.distance,
            100.0 * head.itself,
            100.0 * head.neighbours
        );
    }
    println!();
}

fn of_features(
    context: &Context,
    picture: &RgbImage,
    spots: &[[f32; 2]],
    options: &Options,
) -> patchfield::Result<Drawn> {
    let patches = features::Patches::new(picture, options.patch);
    let grid = patches.grid();
    let n = (grid.height * grid.width) as usize;
    let attention = patches.attention();
    let [q, k] = patches.queries_and_keys();
    let [q, k] = [q, k].map(|values| Tensor::from_slice(context, "patches", &[values.len() as u32], &values));
    let (q, k) = (q?, k?);
    let lse = Tensor::new(context, "log-sum-exp", &[attention.lse_count() as u32])?;
    let inputs = patchfield::attention::AttentionInputs::new(q.view(), k.view(), k.view());
    let kernel = AttentionLse::new(context, attention)?;
    let scratch = kernel.create_scratch()?;
    let args = AttentionLseArgs { inputs, lse: lse.view(), scratch: &scratch };
    context.run_blocking(&kernel.prepare(&args)?)?;
    let layer = Layer { attention, inputs, lse: lse.view() };
    let start = |&[x, y]: &[f32; 2]| {
        let patch =
            (y * grid.height as f32) as usize * grid.width as usize + (x * grid.width as f32) as usize;
        let mut row = vec![0.0; n];
        row[patch] = 1.0;
        Start { row, patch: Some(patch) }
    };
    let starts: Vec<Start> = spots.iter().map(start).collect();
    let layers = vec![layer; options.layers as usize];
    let heads = features::HEADS.iter().map(|name| (*name).to_owned());
    let heads = heads.zip(maps::heads(context, &layer, grid)?).collect();
    drawn(context, picture, grid, options, &layers, &starts, heads)
}

fn of_model(
    context: &Context,
    model: &VisionTransformer,
    picture: &RgbImage,
    options: &Options,
) -> patchfield::Result<Drawn> {
    let config = model.config();
    let image = draw::planes(picture, config.channels);
    let [height, width] = config.image;
    let image = Tensor::from_slice(context, "image", &[1, config.channels, height, width], &image)?;
    let mut tape = Tape::new(context);
    let (_, scores) = model.record_scores(&mut tape, &image)?;
    context.run_blocking(&tape.into_recording())?;
    let layers: Vec<Layer<'_>> = scores
        .iter()
        .map(|block| Layer { attention: block.attention, inputs: block.inputs(), lse: block.lse.view() })
        .collect();
    let prefix = u32::from(config.pool == Pool::ClassToken);
    let grid = PatchGrid { prefix, height: height / config.patch, width: width / config.patch };
    let n = (prefix + grid.height * grid.width) as usize;
    let row = match config.pool {
        Pool::ClassToken => (0..n).map(|i| f32::from(u8::from(i == 0))).collect(),
        Pool::Mean | Pool::Queries(_) => vec![1.0 / n as f32; n],
    };
    let starts = [Start { row, patch: None }];
    let mut heads = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let of_block = maps::heads(context, layer, grid)?;
        heads.extend(of_block.into_iter().enumerate().map(|(h, head)| (format!("block {i} head {h}"), head)));
    }
    drawn(context, picture, grid, options, &layers, &starts, heads)
}

fn drawn(
    context: &Context,
    picture: &RgbImage,
    grid: PatchGrid,
    options: &Options,
    layers: &[Layer<'_>],
    starts: &[Start],
    heads: Vec<(String, Head)>,
) -> patchfield::Result<Drawn> {
    let picture = draw::enlarge(picture);
    let mut panels = vec![picture.clone()];
    for start in starts {
        let row = maps::rollout(context, layers, &start.row, options.share)?;
        panels.push(draw::overlay(&picture, grid, &row[grid.prefix as usize..], start.patch));
    }
    let mask = maps::mask(context, layers, grid)?;
    let tree = dependency_tree(&mask, (grid.height * grid.width) as usize, None)?;
    Ok(Drawn { panels, tree: draw::tree(&picture, grid, &tree, &mask), heads })
}
