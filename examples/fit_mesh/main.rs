//! Fits a field to the signed distances of a mesh, or to its inside, and writes what became of it.
//!
//! `cargo run --release --example fit_mesh -- [MESH] [OPTIONS]`. Without a mesh it computes a torus.

mod files;
#[allow(dead_code)]
#[path = "../fit_image/picture.rs"]
mod picture;
#[path = "../shared/mod.rs"]
mod shared;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use patchfield::dispatch::describe;
use patchfield::models::{
    FitConfig, MarchingCubesConfig, Mesh, MeshSearch, Picture, SurfaceField, SurfaceFieldConfig,
    SurfaceTarget, View, marching_cubes, overlap, sphere_trace, surface_errors,
};
use patchfield::radial::{Interpolation, MeshSign};
use patchfield::train::Schedule;
use patchfield::{Context, Error};

/// What stands between the position and the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Field {
    /// A multiresolution grid.
    Grid,
    /// A grid of 16 levels and one feature, and radial bases placed by the mesh (NeuRBF).
    Radial,
}

/// What the field is fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// The signed distance.
    Distance,
    /// Whether a place is inside.
    Occupancy,
}

/// Fits a field (multiresolution grid, with or without radial bases, and a small MLP) to a mesh.
#[derive(Debug, Parser)]
struct Options {
    /// OBJ or PLY; none: a torus.
    mesh: Option<PathBuf>,
    /// Where the results go.
    #[arg(long, default_value = "target/demo-mesh")]
    out: PathBuf,
    /// What stands between the position and the network.
    #[arg(long, value_enum, default_value = "grid")]
    field: Field,
    /// What the field is fitted to.
    #[arg(long, value_enum, default_value = "distance")]
    target: Target,
    /// Training steps [default: 4000 on a CPU (about four minutes on two cores), 20000 on a GPU].
    #[arg(long)]
    steps: Option<u64>,
    /// Points of each step, for distances a multiple of 4 [default: 4096 on a CPU, 262144 on a GPU].
    #[arg(long)]
    batch: Option<u32>,
    /// Levels of the grid of a field without radial bases [default: 8 on a CPU, 16 on a GPU].
    #[arg(long)]
    levels: Option<u32>,
    /// Features of an entry of such a grid: 1, 2, 4 or 8 [default: 2 on a CPU, 1 on a GPU].
    #[arg(long)]
    features: Option<u32>,
    /// Cells along an edge on the finest level of such a grid [default: 256 on a CPU, where steps are few; 2048 on a
    /// GPU].
    #[arg(long)]
    finest: Option<u32>,
    /// Cells of such a grid as smoothsteps: the slope of the field has no jumps where cells meet.
    #[arg(long)]
    smoothstep: bool,
    /// Logarithm of the entries of a level's table [default: 15; 14 with radial bases, of which the published
    /// rule gives 12280 then, 448489 parameters in all].
    #[arg(long)]
    log2_table: Option<u32>,
    /// Learning rate of Adam [default: 1e-2 on a CPU, where steps are few (2e-3 with radial bases); 1e-3 on a
    /// GPU].
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Weight of the error of slopes beside that of distances [default: 0.25]; 0: distances alone, as published. Not for
    /// occupancies.
    #[arg(long)]
    slopes: Option<f32>,
    /// Cells along an edge of the cube in which the surface is looked for.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    cells: u32,
    /// Look for the surface of the mesh's own distances too, with the same cells: what no field could do better.
    #[arg(long)]
    bound: bool,
    /// Random points for each figure of the comparison.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    points: u32,
    /// Pixels along an edge of the picture.
    #[arg(long, default_value_t = 640, value_parser = clap::value_parser!(u32).range(1..=8192))]
    size: u32,
    /// Seed of the initial values and of the points.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// An adapter by a part of its name or driver, as `inspect_adapter` lists them [default: the best].
    #[arg(long)]
    adapter: Option<String>,
    /// Steps between two checkpoints.
    #[arg(long, default_value_t = 500)]
    checkpoint_every: u64,
    /// Go on from the checkpoint in the output folder.
    #[arg(long)]
    resume: bool,
}

fn main() {
    if let Err(message) = run(&Options::parse()) {
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}

fn text(error: Error) -> String {
    error.to_string()
}

fn run(options: &Options) -> Result<(), String> {
    let (mesh, input) = match &options.mesh {
        Some(path) => (files::load(path)?, path.display().to_string()),
        None => (Mesh::torus(96, 48), "a computed torus".into()),
    };
    println!("input    {input}: {} vertices, {} triangles", mesh.vertices.len(), mesh.triangles.len());
    let (context, info) = shared::device(options.adapter.as_deref())?;
    let adapter = describe(&info);
    println!("adapter  {adapter}");
    std::fs::create_dir_all(&options.out).map_err(|e| format!("{}: {e}", options.out.display()))?;
    describe_mesh(&context, &mesh)?;

    let of_the_grid = [options.levels, options.features, options.finest];
    if options.field == Field::Radial && (options.smoothstep || of_the_grid.iter().any(Option::is_some)) {
        return Err(
            "--levels, --features, --finest and --smoothstep are of --field grid: beside radial bases it is as \
             published"
                .into(),
        );
    }
    if options.target == Target::Occupancy && options.slopes.is_some() {
        return Err("--slopes is of --target distance: an occupancy has none".into());
    }
    let cpu = context.capabilities().cpu;
    let steps = options.steps.unwrap_or(if cpu { 4000 } else { 20_000 });
    let batch = options.batch.unwrap_or(if cpu { 1 << 12 } else { 1 << 18 });
    let (mut config, rate) = match options.field {
        Field::Radial => {
            let config = SurfaceFieldConfig::hybrid(options.log2_table.unwrap_or(14)).map_err(text)?;
            (config, if cpu { 2e-3 } else { 1e-3 })
        }
        Field::Grid => {
            let mut config = SurfaceFieldConfig::default();
            config.grid.levels = options.levels.unwrap_or(if cpu { 8 } else { 16 });
            config.grid.features = options.features.unwrap_or(if cpu { 2 } else { 1 });
            config.grid.log2_table_size = options.log2_table.unwrap_or(15);
            if options.smoothstep {
                config.grid.interpolation = Interpolation::Smoothstep;
            }
            let finest = options.finest.unwrap_or(if cpu { 256 } else { 2048 });
            (config.with_finest(finest), if cpu { 1e-2 } else { 1e-3 })
        }
    };
    config.target = match options.target {
        Target::Distance => SurfaceTarget::Distance,
        Target::Occupancy => SurfaceTarget::Occupancy,
    };
    config.slope_weight = options.slopes.unwrap_or(config.slope_weight);
    let started = Instant::now();
    let mut field = SurfaceField::for_mesh(&context, config, &mesh, options.seed).map_err(text)?;
    let placed = config.radial.map_or(String::new(), |radial| {
        format!(", {} centres placed in {:.1} s", radial.centres, started.elapsed().as_secs_f64())
    });
    println!("field    {} parameters{placed}", field.parameter_count());
    let fit = FitConfig {
        steps,
        batch,
        learning_rate: options.learning_rate.unwrap_or(rate),
        // Every step of Adam moves all of the surface a little, as far as the last rates are large: they end near 0.
        schedule: Schedule::Cosine { steps, floor: 1e-4 },
        seed: options.seed,
        report_every: 10,
        checkpoint: Some((options.out.join("checkpoint.safetensors"), options.checkpoint_every)),
        resume: options.resume,
    };
    let started = Instant::now();
    fit_with_bar(&mut field, &mesh, &fit)?;
    let seconds = started.elapsed().as_secs_f64();
    let report = Report { input, adapter, seconds, steps };
    write_results(&context, &field, &mesh, options, &report)
}

/// Whether the mesh has an inside, and how sure that is.
fn describe_mesh(context: &Context, mesh: &Mesh) -> Result<(), String> {
    let open = mesh.open_edges();
    let search = MeshSearch::new(context, mesh).map_err(text)?;
    let cube = mesh.cube();
    let side = 24;
    let lattice: Vec<[f32; 3]> = (0..side * side * side)
        .map(|i| {
            cube.place([i % side, i / side % side, i / side / side].map(|x| (x as f32 + 0.5) / side as f32))
        })
        .collect();
    let found = search.distances(&lattice, MeshSign::Approximate { beta: 4.0 }).map_err(text)?;
    let (doubtful, all) = (found.doubtful(0.25), lattice.len());
    let twice = found.winding.iter().filter(|w| w.abs() > 1.5).count();
    match open {
        0 => println!("mesh     closed"),
        _ => println!("mesh     open: {open} edges; its inside is where the winding number is above 1/2"),
    }
    if doubtful > 0 {
        println!("         the sign is doubtful at {doubtful} of {all} points of a lattice");
    }
    if twice > 0 {
        println!("         it is wound around {twice} of {all} points more than once: it cuts itself");
    }
    Ok(())
}

/// Ctrl-C stops the fit after a last checkpoint.
fn fit_with_bar(field: &mut SurfaceField, mesh: &Mesh, fit: &FitConfig) -> Result<(), String> {
    let stop = shared::stop_on_ctrl_c()?;
    let bar = ProgressBar::new(fit.steps);
    if let Ok(style) = ProgressStyle::with_template("{bar:36} {pos}/{len}  {msg}  {eta} left") {
        bar.set_style(style);
    }
    let target = field.config().target;
    let result = field.fit(mesh, fit, &mut |progress| {
        bar.set_position(progress.step);
        let error = match target {
            SurfaceTarget::Distance => format!("error {:.4}", progress.loss),
            SurfaceTarget::Occupancy => format!("cross-entropy {:.4}", progress.loss),
        };
        bar.set_message(format!("{error}  {:.1} steps/s", progress.steps_per_second));
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish();
    stop.store(true, Ordering::Relaxed);
    match result {
        Err(error @ Error::Cancelled { .. }) => {
            let path =
                fit.checkpoint.as_ref().map(|(path, _)| path.display().to_string()).unwrap_or_default();
            Err(format!("{error}; everything up to there is in {path}: go on with --resume"))
        }
        other => other.map_err(text),
    }
}

struct Report {
    input: String,
    adapter: String,
    seconds: f64,
    steps: u64,
}

fn write_results(
    context: &Context,
    field: &SurfaceField,
    mesh: &Mesh,
    options: &Options,
    report: &Report,
) -> Result<(), String> {
    let path = |name: &str| options.out.join(name);
    // First, as what follows takes its time.
    let model = path("model.safetensors");
    field.save(&model).map_err(text)?;
    let bytes = std::fs::metadata(&model).map_err(|e| e.to_string())?.len();
    let cube = field.cube();
    let mut implicit = |points: &[[f32; 3]]| field.implicit(points);
    let is_distance = field.config().target == SurfaceTarget::Distance;
    let slack = if is_distance { 2.0 } else { f32::INFINITY };
    let config = MarchingCubesConfig { cells: options.cells, cube, slack };
    let started = Instant::now();
    let surface = marching_cubes(&config, &mut implicit).map_err(text)?;
    println!(
        "surface  {} vertices, {} triangles, {} open edges, {} cells an edge, {:.0} s",
        surface.vertices.len(),
        surface.triangles.len(),
        surface.open_edges(),
        options.cells,
        started.elapsed().as_secs_f64()
    );
    files::save(&surface, &path("surface.ply"))?;
    files::save(&surface, &path("surface.obj"))?;

    let shared = overlap(context, mesh, &mut implicit, options.points, options.seed).map_err(text)?;
    let errors = surface_errors(context, mesh, &surface, options.points, options.seed).map_err(text)?;
    let distances_to = |mesh: &Mesh| -> Result<_, String> {
        let search = MeshSearch::new(context, mesh).map_err(text)?;
        let sign = MeshSign::Approximate { beta: 2.0 };
        Ok(move |points: &[[f32; 3]]| search.distances(points, sign).map(|found| found.distance))
    };
    let mut truth = distances_to(mesh)?;
    let best = match options.bound {
        true => {
            let config = MarchingCubesConfig { slack: 1.0, ..config };
            let own = marching_cubes(&config, &mut truth).map_err(text)?;
            let own = surface_errors(context, mesh, &own, options.points, options.seed).map_err(text)?;
            Some(own.normal_angle)
        }
        false => None,
    };
    // Where half an edge of the cube is 1, as published.
    let [chamfer, largest] = [errors.chamfer, errors.largest].map(|d| d / f64::from(cube.half));
    println!("results  {}", options.out.display());
    println!("         surface.ply, surface.obj, model.safetensors");
    println!(
        "         {bytes} bytes, IoU {:.4}, normal angle error {:.2} degrees, {} steps in {:.0} s",
        shared.iou, errors.normal_angle, report.steps, report.seconds
    );
    if let Some(best) = best {
        println!(
            "         of it {best:.2} degrees come from the {} cells of the surface alone",
            options.cells
        );
    }
    println!("         Chamfer {chamfer:.2e}, largest distance {largest:.2e}, of half an edge of the cube");
    if shared.doubtful > 0 {
        println!("         the mesh's sign was doubtful at {} of {} points", shared.doubtful, options.points);
    }
    let json = serde_json::json!({
        "example": "fit_mesh",
        "input": report.input,
        "adapter": report.adapter,
        "target": if is_distance { "distance" } else { "occupancy" },
        "iou": shared.iou,
        "chamfer": chamfer,
        "normal_angle_degrees": errors.normal_angle,
        "normal_angle_degrees_of_the_cells": best,
        "seconds": report.seconds,
        "steps": report.steps,
        "parameters": field.parameter_count(),
    });
    let file = Path::new("target/report/demo.json");
    std::fs::create_dir_all("target/report")
        .and_then(|()| std::fs::write(file, format!("{json:#}\n")))
        .map_err(|e| format!("{}: {e}", file.display()))?;

    // Last: a surface may have more triangles than can be traced.
    let view = View { size: [options.size; 2], ..View::default() };
    let fitted = match is_distance {
        true => sphere_trace(&cube, &view, &mut implicit),
        // Spheres need distances: those to the surface that was found.
        false => sphere_trace(&cube, &view, &mut distances_to(&surface)?),
    };
    let fitted = fitted.map_err(text)?;
    let wanted = sphere_trace(&cube, &view, &mut truth).map_err(text)?;
    let beside: Picture = picture::beside(&fitted, &wanted);
    picture::save(&beside, picture::Colour::Srgb, &path("picture.png"))?;
    println!("         picture.png (field | mesh)");
    Ok(())
}
