//! Fits a neural field to a picture and writes what became of it.
//!
//! `cargo xtask demo [IMAGE]`, or `cargo run --release --example fit_image -- [IMAGE] [OPTIONS]`.
//! Without a picture it computes one of its own.

mod picture;
mod plot;
#[path = "../shared/mod.rs"]
mod shared;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use patchfield::Error;
use patchfield::dispatch::describe;
use patchfield::models::{FitConfig, Picture, RadialField, RadialFieldConfig, Region};
use patchfield::radial::RadialFunction;
use patchfield::train::Schedule;
use picture::Colour;

/// What stands between the position and the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Field {
    /// A multiresolution grid.
    Grid,
    /// A small grid, and radial bases placed by the picture (NeuRBF).
    Radial,
}

/// Fits a neural field (multiresolution grid, with or without radial bases, and a small MLP) to a picture.
#[derive(Debug, Parser)]
struct Options {
    /// PNG or JPEG, 8 or 16 bits, grey, RGB or with alpha; none: a computed test picture.
    image: Option<PathBuf>,
    /// Where the results go.
    #[arg(long, default_value = "target/demo")]
    out: PathBuf,
    /// Training steps [default: 750 on a CPU (about a minute on two cores), 4000 on a GPU].
    #[arg(long)]
    steps: Option<u64>,
    /// Pixels of each step [default: 16384 on a CPU, 262144 on a GPU].
    #[arg(long)]
    batch: Option<u32>,
    /// Fit the stored values, or linear light.
    #[arg(long, value_enum, default_value = "srgb")]
    colour: Colour,
    /// What stands between the position and the network.
    #[arg(long, value_enum, default_value = "grid")]
    field: Field,
    /// Trained parameters of a radial field, its number of centres [default: the published rule].
    #[arg(long)]
    params: Option<u64>,
    /// Kernel function of a radial field: `inverse-quadratic`, `gaussian`, ... [default: the published one].
    #[arg(long, value_parser = radial_function)]
    function: Option<RadialFunction>,
    /// Centres of a radial field anywhere, not where the picture has most detail.
    #[arg(long)]
    random_centres: bool,
    /// A radial field without sinusoids: what they give.
    #[arg(long)]
    no_sinusoids: bool,
    /// Levels of the grid of a field without radial bases [default: 16].
    #[arg(long)]
    levels: Option<u32>,
    /// Logarithm of the entries of a level's table.
    #[arg(long, default_value_t = 15, conflicts_with = "params")]
    log2_table: u32,
    /// Learning rate of Adam.
    #[arg(long, default_value_t = 1e-2)]
    learning_rate: f64,
    /// Seed of the initial values and of the order of pixels.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// An adapter by a part of its name or driver, as `inspect_adapter` lists them [default: the best].
    #[arg(long)]
    adapter: Option<String>,
    /// Steps between two checkpoints.
    #[arg(long, default_value_t = 200)]
    checkpoint_every: u64,
    /// Go on from the checkpoint in the output folder.
    #[arg(long)]
    resume: bool,
}

/// A kernel function by its name.
fn radial_function(name: &str) -> Result<RadialFunction, String> {
    let plain = |text: &str| text.replace('-', "").to_lowercase();
    let found = RadialFunction::ALL.into_iter().find(|f| plain(&format!("{f:?}")) == plain(name));
    found.ok_or_else(|| format!("one of {:?}", RadialFunction::ALL))
}

fn main() {
    if let Err(message) = run(&Options::parse()) {
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}

fn run(options: &Options) -> Result<(), String> {
    let (target, input, kind) = match &options.image {
        Some(path) => {
            let (target, kind) = picture::load(path, options.colour)?;
            (target, path.display().to_string(), kind)
        }
        None => (picture::test_picture(), "a computed test picture".into(), "Rgb32F".into()),
    };
    let space = match options.colour {
        Colour::Srgb => "as stored (sRGB)",
        Colour::Linear => "decoded to linear light",
    };
    println!("input    {input}: {} x {}, {kind}, {space}", target.width, target.height);
    let (context, info) = shared::device(options.adapter.as_deref())?;
    let adapter = describe(&info);
    println!("adapter  {adapter}");
    std::fs::create_dir_all(&options.out).map_err(|e| format!("{}: {e}", options.out.display()))?;

    let cpu = context.capabilities().cpu;
    let steps = options.steps.unwrap_or(if cpu { 750 } else { 4000 });
    let batch = options.batch.unwrap_or(if cpu { 1 << 14 } else { 1 << 18 });
    let (width, height, channels) = (target.width, target.height, target.channels);
    let mut config = match (options.field, options.params) {
        (Field::Grid, None) => Ok(RadialFieldConfig::for_picture(width, height, channels)
            .with_table(options.levels.unwrap_or(16), options.log2_table)),
        (Field::Grid, Some(_)) => return Err("--params needs --field radial".into()),
        (Field::Radial, _) if options.levels.is_some() => {
            return Err("--levels is of --field grid: beside radial bases stand 2, as published".into());
        }
        (Field::Radial, None) => {
            RadialFieldConfig::hybrid_for_picture(width, height, channels, options.log2_table)
        }
        (Field::Radial, Some(n)) => RadialFieldConfig::hybrid_with_parameters(width, height, channels, n),
    }
    .map_err(|e| e.to_string())?;
    let changed = options.function.is_some() || options.random_centres || options.no_sinusoids;
    match &mut config.radial {
        Some(radial) => {
            radial.function = options.function.unwrap_or(radial.function);
            if options.no_sinusoids {
                (radial.frequencies, radial.hidden_frequencies) = (None, None);
            }
        }
        None if changed => {
            return Err("--function, --random-centres and --no-sinusoids need --field radial".into());
        }
        None => {}
    }
    let mut field = match options.random_centres {
        true => RadialField::with_random_centres(&context, config, &target, options.seed),
        false => RadialField::for_picture(&context, config, &target, options.seed),
    }
    .map_err(|e| e.to_string())?;
    let centres = config.radial.map_or(String::new(), |radial| format!(", {} centres", radial.centres));
    println!("field    {} parameters{centres}", field.parameter_count());
    let fit = FitConfig {
        steps,
        batch,
        learning_rate: options.learning_rate,
        schedule: Schedule::Cosine { steps, floor: 0.01 },
        seed: options.seed,
        report_every: 10,
        checkpoint: Some((options.out.join("checkpoint.safetensors"), options.checkpoint_every)),
        resume: options.resume,
    };
    let started = Instant::now();
    let curve = fit_with_bar(&mut field, &target, &fit)?;
    let seconds = started.elapsed().as_secs_f64();
    let report = Report { input, adapter, seconds, steps, curve };
    write_results(&field, &target, options, &report).map_err(|e| format!("writing the results: {e}"))
}

/// The curve of (step, PSNR). Ctrl-C stops the fit after a last checkpoint.
fn fit_with_bar(
    field: &mut RadialField,
    target: &Picture,
    fit: &FitConfig,
) -> Result<Vec<(u64, f64)>, String> {
    let stop = shared::stop_on_ctrl_c()?;
    let bar = ProgressBar::new(fit.steps);
    if let Ok(style) = ProgressStyle::with_template("{bar:36} {pos}/{len}  {msg}  {eta} left") {
        bar.set_style(style);
    }
    let mut curve = Vec::new();
    let result = field.fit(target, fit, &mut |progress| {
        curve.push((progress.step, progress.psnr));
        bar.set_position(progress.step);
        bar.set_message(format!("{:.2} dB  {:.1} steps/s", progress.psnr, progress.steps_per_second));
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish();
    stop.store(true, Ordering::Relaxed);
    match result {
        Ok(()) => Ok(curve),
        Err(error @ Error::Cancelled { .. }) => {
            let path =
                fit.checkpoint.as_ref().map(|(path, _)| path.display().to_string()).unwrap_or_default();
            Err(format!("{error}; everything up to there is in {path}: go on with --resume"))
        }
        Err(error) => Err(error.to_string()),
    }
}

struct Report {
    input: String,
    adapter: String,
    seconds: f64,
    steps: u64,
    curve: Vec<(u64, f64)>,
}

fn write_results(
    field: &RadialField,
    target: &Picture,
    options: &Options,
    report: &Report,
) -> Result<(), String> {
    let path = |name: &str| options.out.join(name);
    let text = |e: Error| e.to_string();
    let (width, height) = (target.width, target.height);
    // First: whatever happens to the pictures, the fit is kept.
    let model = path("model.safetensors");
    field.save(&model).map_err(text)?;
    let fitted = field.render(width, height, Region::WHOLE).map_err(text)?;
    picture::save(&fitted, options.colour, &path("fitted.png"))?;
    picture::save(&picture::error_map(target, &fitted), Colour::Srgb, &path("error.png"))?;

    // The place with most detail, four times as large: the field beside bicubic interpolation.
    let side = 96.min(width).min(height);
    let corner = picture::most_detail(target, side);
    let region = Region::of_pixels(corner, (side, side), (width, height));
    let zoomed = field.render(side * 4, side * 4, region).map_err(text)?;
    let bicubic = picture::bicubic(target, corner, (side, side), 4);
    picture::save(&picture::beside(&zoomed, &bicubic), options.colour, &path("zoom.png"))?;

    // A fit that was already done has no curve.
    if !report.curve.is_empty() {
        plot::psnr_curve(&report.curve, &path("psnr.svg"))?;
    }
    let bytes = std::fs::metadata(&model).map_err(|e| e.to_string())?.len();
    let bits_per_pixel = bytes as f64 * 8.0 / (f64::from(width) * f64::from(height));
    let psnr = target.psnr(&fitted);
    println!("results  {}", options.out.display());
    let plot = if report.curve.is_empty() { "" } else { "psnr.svg, " };
    println!("         fitted.png, error.png (10 x), zoom.png (field | bicubic), {plot}model.safetensors");
    println!(
        "         {bytes} bytes, {bits_per_pixel:.2} bits per pixel (f32), {psnr:.2} dB, {} steps in {:.0} s",
        report.steps, report.seconds
    );
    let json = serde_json::json!({
        "example": "fit_image",
        "input": report.input,
        "adapter": report.adapter,
        "psnr_db": psnr,
        "seconds": report.seconds,
        "steps": report.steps,
        "parameters": field.parameter_count(),
        "bits_per_pixel": bits_per_pixel,
    });
    let file = Path::new("target/report/demo.json");
    std::fs::create_dir_all("target/report")
        .and_then(|()| std::fs::write(file, format!("{json:#}\n")))
        .map_err(|e| format!("{}: {e}", file.display()))
}
