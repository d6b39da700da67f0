//! How near a surface comes to a mesh.

use super::mesh::{FieldFunction, Mesh, MeshSearch};
use crate::dispatch::{Context, Result, check_config};
use crate::radial::MeshSign;

/// Two surfaces compared; of points on both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SurfaceErrors {
    /// Mean distance of points on one surface from the other, averaged over both directions.
    pub chamfer: f64,
    /// Largest distance that was found.
    pub largest: f64,
    /// Mean angle in degrees between the normals of the triangles at a point and at its nearest point
    /// of the other surface, averaged over both directions.
    pub normal_angle: f64,
}

/// Compares two meshes at `points` random points on each, uniform over the area.
pub fn surface_errors(
    context: &Context,
    a: &Mesh,
    b: &Mesh,
    points: u32,
    seed: u64,
) -> Result<SurfaceErrors> {
    let searches = [MeshSearch::new(context, a)?, MeshSearch::new(context, b)?];
    let mut out = SurfaceErrors { chamfer: 0.0, largest: 0.0, normal_angle: 0.0 };
    for (from, to) in [(0, 1), (1, 0)] {
        let meshes = [a, b];
        let at = searches[from].surface_points(points, seed + from as u64)?;
        let own = searches[from].distances(&at, MeshSign::None)?;
        let other = searches[to].distances(&at, MeshSign::None)?;
        let n = 2.0 * f64::from(points);
        for ((&here, &there), &distance) in own.nearest.iter().zip(&other.nearest).zip(&other.distance) {
            let (u, v) = (meshes[from].normal(here), meshes[to].normal(there));
            let cosine: f64 = (0..3).map(|d| f64::from(u[d]) * f64::from(v[d])).sum();
            out.normal_angle += cosine.clamp(-1.0, 1.0).acos().to_degrees() / n;
            out.chamfer += f64::from(distance) / n;
            out.largest = out.largest.max(distance.into());
        }
    }
    Ok(out)
}

/// Intersection over union of the inside of a mesh and that of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overlap {
    /// Intersection over union; 1 if both are empty.
    pub iou: f64,
    /// Points inside the mesh.
    pub inside: u64,
    /// Points whose winding number is within 0.1 of 1/2: the mesh does not say whether they are inside.
    pub doubtful: u64,
}

/// The overlap at `points` random points, uniform in the mesh's bounding box widened by a tenth. `field`
/// is negative inside.
pub fn overlap(
    context: &Context,
    mesh: &Mesh,
    field: &mut FieldFunction<'_>,
    points: u32,
    seed: u64,
) -> Result<Overlap> {
    check_config(points > 0, "points", "at least 1", points)?;
    let search = MeshSearch::new(context, mesh)?;
    let (low, high) = mesh.bounds();
    let mut state = seed;
    let mut coordinate = |d: usize| {
        state = super::sampler::mix(state);
        let t = (state >> 40) as f32 / (1u64 << 24) as f32;
        low[d] + (1.1 * t - 0.05) * (high[d] - low[d])
    };
    let (mut both, mut either, mut inside, mut doubtful, mut left) = (0u64, 0u64, 0u64, 0, points);
    while left > 0 {
        let n = left.min(1 << 18);
        left -= n;
        let at: Vec<[f32; 3]> = (0..n).map(|_| [coordinate(0), coordinate(1), coordinate(2)]).collect();
        let truth = search.distances(&at, MeshSign::Approximate { beta: 4.0 })?;
        doubtful += truth.doubtful(0.1) as u64;
        for (t, f) in truth.distance.iter().zip(field(&at)?) {
            inside += u64::from(*t < 0.0);
            both += u64::from(*t < 0.0 && f < 0.0);
            either += u64::from(*t < 0.0 || f < 0.0);
        }
    }
    let iou = if either > 0 { both as f64 / either as f64 } else { 1.0 };
    Ok(Overlap { iou, inside, doubtful })
}
