//! How near a surface comes to a mesh.

use super::bands::most_bytes;
use super::mesh::{FieldFunction, Mesh, MeshSearch};
use crate::dispatch::{Context, Result, check_config, check_shape};
use crate::radial::{MeshSign, mesh_bvh};

/// Of a triangle's corners, the largest buffer of a search.
const TRIANGLE_BYTES: u64 = 48;

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

/// Some of a mesh's triangles: as many as a binding holds.
struct Part {
    search: MeshSearch,
    /// The number of its first triangle in the mesh.
    first: u32,
    area: f64,
}

/// A mesh in as few parts as the device's bindings ask for.
struct Parts(Vec<Part>);

impl Parts {
    fn new(context: &Context, mesh: &Mesh, most: usize) -> Result<Self> {
        check_shape(!mesh.triangles.is_empty(), "triangles", "at least 1", 0)?;
        let part = |(i, triangles): (usize, &[[u32; 3]])| {
            let search = MeshSearch::of_triangles(context, &mesh.vertices, triangles)?;
            let corners = |t: &[u32; 3]| t.map(|i| mesh.vertices[i as usize].map(f64::from));
            let area = triangles.iter().map(|t| mesh_bvh::length(mesh_bvh::half_normal(corners(t)))).sum();
            Ok(Part { search, first: (i * most) as u32, area })
        };
        mesh.triangles.chunks(most).enumerate().map(part).collect::<Result<_>>().map(Self)
    }

    /// Random points, uniform over the area.
    fn surface_points(&self, points: u32, seed: u64) -> Result<Vec<[f32; 3]>> {
        let whole: f64 = self.0.iter().map(|part| part.area).sum();
        let (mut area, mut all) = (0.0, Vec::new());
        for (i, part) in self.0.iter().enumerate() {
            area += part.area;
            let until = if i + 1 == self.0.len() { 1.0 } else { area / whole };
            let own = (f64::from(points) * until).round() as u32 - all.len() as u32;
            if own > 0 {
                // Parts of one seed would have their points at the same places of their strata.
                all.extend(part.search.surface_points(own, seed.wrapping_add((i as u64) << 32))?);
            }
        }
        Ok(all)
    }

    /// The nearest triangles of the mesh, and how far they are.
    fn nearest(&self, at: &[[f32; 3]]) -> Result<(Vec<u32>, Vec<f32>)> {
        let (mut nearest, mut distance) = (vec![0; at.len()], vec![f32::INFINITY; at.len()]);
        for part in &self.0 {
            let found = part.search.distances(at, MeshSign::None)?;
            for (i, (&triangle, &d)) in found.nearest.iter().zip(&found.distance).enumerate() {
                if d < distance[i] {
                    (nearest[i], distance[i]) = (part.first + triangle, d);
                }
            }
        }
        Ok((nearest, distance))
    }
}

/// Compares two meshes at `points` random points on each, uniform over the area. A mesh of any size: it is searched in
/// parts where a binding does not hold all of its triangles.
pub fn surface_errors(
    context: &Context,
    a: &Mesh,
    b: &Mesh,
    points: u32,
    seed: u64,
) -> Result<SurfaceErrors> {
    check_config(points > 0, "points", "at least 1", points)?;
    let most = (most_bytes(context) / TRIANGLE_BYTES).max(1) as usize;
    let meshes = [a, b];
    let parts = [Parts::new(context, a, most)?, Parts::new(context, b, most)?];
    let mut out = SurfaceErrors { chamfer: 0.0, largest: 0.0, normal_angle: 0.0 };
    for (from, to) in [(0, 1), (1, 0)] {
        let at = parts[from].surface_points(points, seed.wrapping_add(from as u64))?;
        let (own, _) = parts[from].nearest(&at)?;
        let (other, distances) = parts[to].nearest(&at)?;
        let n = 2.0 * f64::from(points);
        for ((&here, &there), &distance) in own.iter().zip(&other).zip(&distances) {
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
        let values = field(&at)?;
        check_shape(
            values.len() == at.len(),
            "field",
            format!("a value for each of {} points", at.len()),
            values.len(),
        )?;
        if let Some(i) = values.iter().position(|v| v.is_nan()) {
            check_shape(false, "field", "numbers", format!("NaN at {:?}", at[i]))?;
        }
        for (t, f) in truth.distance.iter().zip(values) {
            inside += u64::from(*t < 0.0);
            both += u64::from(*t < 0.0 && f < 0.0);
            either += u64::from(*t < 0.0 || f < 0.0);
        }
    }
    let iou = if either > 0 { both as f64 / either as f64 } else { 1.0 };
    Ok(Overlap { iou, inside, doubtful })
}
