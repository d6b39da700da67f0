//! The PSNR curve as an SVG.

use std::path::Path;

use plotters::prelude::*;

/// Draws PSNR in dB over steps; an error of 0, which has none, is left out.
pub fn psnr_curve(points: &[(u64, f64)], path: &Path) -> Result<(), String> {
    let points: Vec<_> = points.iter().copied().filter(|(_, psnr)| psnr.is_finite()).collect();
    draw(&points, path).map_err(|e| format!("{}: {e}", path.display()))
}

fn draw(points: &[(u64, f64)], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let last = points.last().map_or(1, |p| p.0.max(1));
    let low = points.iter().map(|p| p.1).fold(f64::MAX, f64::min).min(1e3).floor();
    let high = points.iter().map(|p| p.1).fold(low + 1.0, f64::max).ceil();
    let root = SVGBackend::new(path, (800, 450)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("PSNR of the batches", ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0..last, low..high)?;
    chart.configure_mesh().x_desc("step").y_desc("dB").draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), BLUE.stroke_width(2)))?;
    root.present()?;
    Ok(())
}
