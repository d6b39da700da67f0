use patchfield::dense::Distribution;
use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::{BufferView, Kernel, Result};

use crate::harness::Bench;

/// The pixels of a picture of noise and the centres nearest to them: a step of k-means, and the shapes.
pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let side = b.size(512, 2048);
    let (points, clusters) = (side * side, side * side / 24);
    let extent = side as f32 / 128.0;
    let view = BufferView::new;
    let positions = b.zeros(2 * points)?;
    let pixels = PixelPositions::new(&context, PixelGrid { width: side, height: side })?;
    context.run_blocking(&pixels.prepare(&PixelPositionsArgs { positions: view(&positions) })?)?;
    // Uniform in the square.
    let places: Vec<f32> = (0..clusters)
        .flat_map(|i| {
            let golden = (f64::from(i) * 0.618_033_988_749_895).fract();
            [golden, (f64::from(i) + 0.5) / f64::from(clusters)].map(|t| (2.0 * t as f32 - 1.0) * extent)
        })
        .collect();
    let centres = b.upload(bytemuck::cast_slice(&places))?;
    let (weights, labels) = (b.random(points, Distribution::Uniform)?, b.zeros(points)?);
    let config = NearestConfig { dims: 2, points, centres: clusters, k: 1, distances: false, variant: None };
    let nearest = NearestNeighbours::new(&context, config)?;
    let scratch = nearest.create_scratch()?;
    context.run_blocking(&nearest.prepare(&NearestArgs {
        points: view(&positions),
        centres: view(&centres),
        indices: view(&labels),
        distances: None,
        scratch: &scratch,
    })?)?;

    let shape = format!("[{points}, 2] {clusters} clusters");
    let config = ClusterConfig { dims: 2, points, clusters };
    let means = ClusterMeans::new(&context, config)?;
    let scratch = means.create_scratch()?;
    let args = ClusterMeansArgs {
        positions: view(&positions),
        weights: view(&weights),
        labels: view(&labels),
        centres: view(&centres),
        scratch: &scratch,
    };
    b.row(&means, "means", &shape, &args)?;

    let config = ClusterShapesConfig::with_clips(config, [2.0 * extent, 2.0 * extent, 1.0], [side, side, 1]);
    let kernel = ClusterShapes::new(&context, config)?;
    let scratch = kernel.create_scratch()?;
    let (shapes, report) = (b.zeros(3 * clusters)?, b.zeros(8)?);
    let args = ClusterShapesArgs {
        positions: view(&positions),
        weights: view(&weights),
        labels: view(&labels),
        centres: view(&centres),
        shapes: view(&shapes),
        report: view(&report),
        scratch: &scratch,
    };
    b.row(&kernel, "shapes", &shape, &args)
}
