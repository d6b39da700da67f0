//! Pictures of distance fields by sphere tracing (Hart 1996).

use glam::Vec3;

use super::mesh::{Cube, FieldFunction};
use super::picture::Picture;
use crate::dispatch::{Result, check_config, check_shape};

/// A view of a cube from outside, with light from above the camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Pixels in a row and rows.
    pub size: [u32; 2],
    /// Where the camera stands: degrees around the y axis from +z towards +x, and above the horizon.
    pub angles: [f32; 2],
    /// Steps of a ray, at most.
    pub steps: u32,
}

impl Default for View {
    fn default() -> Self {
        Self { size: [512, 512], angles: [25.0, 20.0], steps: 96 }
    }
}

/// A ray, and how far along it has come.
struct Ray {
    pixel: usize,
    direction: Vec3,
    at: f32,
    end: f32,
}

/// Renders the surface where `field` is 0: RGB in `[0, 1]`, on white. `field` is given many points at a time and
/// returns as many distances, which may be a little too large.
pub fn sphere_trace(cube: &Cube, view: &View, field: &mut FieldFunction<'_>) -> Result<Picture> {
    let [width, height] = view.size;
    check_config(width > 0 && height > 0, "size", "at least one pixel", view.size)?;
    let pixels = crate::dispatch::count("picture", &[width, height, 3])? / 3;
    // In the frame of the cube, where half an edge is 1.
    let mut distances = |points: &[Vec3]| -> Result<Vec<f32>> {
        let placed: Vec<[f32; 3]> = points.iter().map(|p| cube.place((0.5 + 0.5 * *p).to_array())).collect();
        let values = field(&placed)?;
        check_shape(values.len() == points.len(), "field", "a value for each point", values.len())?;
        Ok(values.into_iter().map(|d| d / cube.half).collect())
    };
    let [around, above] = view.angles.map(f32::to_radians);
    let back = Vec3::new(around.sin() * above.cos(), above.sin(), around.cos() * above.cos());
    let eye = 3.2 * back;
    let right = Vec3::Y.cross(back).try_normalize().unwrap_or(Vec3::X);
    let up = back.cross(right);
    let scale = 0.36 / width.min(height) as f32;
    let mut rays: Vec<Ray> = (0..pixels as usize)
        .filter_map(|pixel| {
            let (x, y) = (pixel as u32 % width, pixel as u32 / width);
            let u = (2.0 * x as f32 + 1.0 - width as f32) * scale;
            let v = (height as f32 - 2.0 * y as f32 - 1.0) * scale;
            let direction = (u * right + v * up - back).normalize();
            // The surface lies in the unit ball.
            let (middle, squared) = (-eye.dot(direction), eye.length_squared());
            let reach = 1.0 - (squared - middle * middle);
            (reach > 0.0).then(|| Ray {
                pixel,
                direction,
                at: middle - reach.sqrt(),
                end: middle + reach.sqrt(),
            })
        })
        .collect();

    let mut hits: Vec<(usize, Vec3)> = Vec::new();
    // About a third of a pixel.
    let near = 0.3 * scale * 2.0 * 3.0;
    for _ in 0..view.steps {
        if rays.is_empty() {
            break;
        }
        let points: Vec<Vec3> = rays.iter().map(|ray| eye + ray.at * ray.direction).collect();
        let values = distances(&points)?;
        let mut left = Vec::with_capacity(rays.len());
        for (mut ray, (point, d)) in rays.into_iter().zip(points.into_iter().zip(values)) {
            // Fitted distances may be too large: nine tenths of the way.
            ray.at += 0.9 * d;
            if d.abs() < near {
                hits.push((ray.pixel, point + d * ray.direction));
            } else if ray.at < ray.end {
                left.push(ray);
            }
        }
        rays = left;
    }

    // Normals by central differences, along the four directions of a tetrahedron.
    let around = [(1.0, -1.0, -1.0), (-1.0, -1.0, 1.0), (-1.0, 1.0, -1.0), (1.0, 1.0, 1.0)];
    let around = around.map(|(x, y, z)| Vec3::new(x, y, z));
    let probes: Vec<Vec3> =
        hits.iter().flat_map(|&(_, p)| around.map(|direction| p + 2e-3 * direction)).collect();
    let slopes = if probes.is_empty() { Vec::new() } else { distances(&probes)? };
    let lights = [
        ((0.5 * right + 0.9 * up + 0.8 * back).normalize(), Vec3::new(0.62, 0.59, 0.53)),
        ((-0.9 * right + 0.1 * up + 0.4 * back).normalize(), Vec3::new(0.12, 0.15, 0.22)),
    ];
    let mut data = vec![1.0; pixels as usize * 3];
    for ((pixel, _), slope) in hits.iter().zip(slopes.chunks(4)) {
        let sum: Vec3 = around.iter().zip(slope).map(|(&direction, &d)| d * direction).sum();
        let normal = sum.try_normalize().unwrap_or(back);
        let mut colour = Vec3::splat(0.10) + 0.08 * Vec3::splat(normal.dot(up).max(0.0));
        for (light, shade) in lights {
            colour += shade * normal.dot(light).max(0.0);
        }
        // Stored values are sRGB; a power of 2.2 comes near.
        let stored = colour.clamp(Vec3::ZERO, Vec3::ONE).to_array().map(|c| c.powf(1.0 / 2.2));
        data[3 * pixel..3 * pixel + 3].copy_from_slice(&stored);
    }
    Picture::new(width, height, 3, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ball_is_a_disc_and_brightest_towards_the_light() {
        let cube = Cube { centre: [5.0, 0.0, -2.0], half: 10.0 };
        let view = View { size: [60, 40], ..View::default() };
        let mut ball = |points: &[[f32; 3]]| {
            let distance =
                |p: &[f32; 3]| (0..3).map(|d| (p[d] - cube.centre[d]).powi(2)).sum::<f32>().sqrt() - 5.0;
            Ok(points.iter().map(distance).collect())
        };
        let picture = sphere_trace(&cube, &view, &mut ball).unwrap();
        let at = |x: usize, y: usize| picture.data[(y * 60 + x) * 3 + 1];
        assert!(at(0, 0) == 1.0 && at(59, 39) == 1.0);
        // Seen from 3.2 radii of the cube: sin a = 0.5 / 3.2, half the height is tan a = 0.36. A ray that passes by
        // at less than a third of a pixel counts as a hit.
        let covered = (0..2400).filter(|i| picture.data[3 * i + 1] < 1.0).count() as f64;
        let radius = 20.0 * 0.1582 / 0.36 + 0.3;
        assert!((covered / (std::f64::consts::PI * radius * radius) - 1.0).abs() < 0.05, "{covered}");
        assert!(at(32, 16) > at(27, 26), "{} {}", at(32, 16), at(27, 26));
        // Nothing to see is white.
        let empty = sphere_trace(&cube, &view, &mut |points| Ok(vec![100.0; points.len()])).unwrap();
        assert!(empty.data.iter().all(|&v| v == 1.0));
    }
}
