//! The surface where a field is 0, as a closed mesh (Lorensen and Cline 1987).
//!
//! No table is given: the polygons of a cell follow from a rule on each of its faces. Walk around a face,
//! counter-clockwise seen from outside the cell. Where the way leaves the inside (value below 0) a line
//! ends. It began where the way last came in; or, where two opposite corners are inside and joined across
//! the face, where it next comes in. Each edge that is cut is left by one of its two faces and entered by
//! the other, so that the lines close to loops. Whether opposite corners are joined is read from the sign
//! of the bilinear interpolant at its saddle (Nielson and Hamann 1991): from the values of the face alone,
//! so that both cells at a face draw the same lines and the surface has no gaps.

use std::collections::HashMap;

use super::mesh::{Cube, FieldFunction, Mesh};
use crate::dispatch::{Result, check_config, check_shape};

/// A corner has the bits x, y, z. Each face: its corners counter-clockwise seen from outside.
const FACES: [[usize; 4]; 6] =
    [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]];

/// Edges by their lower corner and axis: `3 corner + axis`.
const EDGES: usize = 24;

fn edge(a: usize, b: usize) -> usize {
    3 * a.min(b) + (a ^ b).ilog2() as usize
}

/// The loops of a cell whose corners are `inside`, each a list of edges; `joined` has a bit for each face
/// where opposite inside corners are joined.
fn loops(inside: u8, joined: u8) -> Vec<Vec<usize>> {
    let is_inside = |corner: usize| inside >> corner & 1 == 1;
    let mut next = [None; EDGES];
    for (f, face) in FACES.iter().enumerate() {
        for k in 0..4 {
            let at = |k: usize| face[k % 4];
            if !is_inside(at(k)) || is_inside(at(k + 1)) {
                continue;
            }
            // Out between k and k + 1.
            let enters = |k: usize| !is_inside(at(k)) && is_inside(at(k + 1));
            let steps = if joined >> f & 1 == 1 { [1, 2, 3] } else { [3, 2, 1] };
            if let Some(step) = steps.into_iter().find(|step| enters(k + step)) {
                next[edge(at(k + step), at(k + step + 1))] = Some(edge(at(k), at(k + 1)));
            }
        }
    }
    let mut all = Vec::new();
    for first in 0..EDGES {
        let mut ring = Vec::new();
        let mut at = first;
        while let Some(following) = next[at].take() {
            ring.push(at);
            at = following;
        }
        if !ring.is_empty() {
            all.push(ring);
        }
    }
    all
}

/// For each face whether opposite corners that are inside are joined across it.
fn joined(values: &[f32; 8]) -> u8 {
    let mut bits = 0;
    for (f, face) in FACES.iter().enumerate() {
        let [a, b, c, d] = face.map(|corner| values[corner]);
        let ambiguous = (a < 0.0) == (c < 0.0) && (b < 0.0) == (d < 0.0) && (a < 0.0) != (b < 0.0);
        // The saddle has the sign of the pair with the larger product; commutative, so that the neighbour finds
        // the same bits.
        let (inner, outer) = if a < 0.0 { (a * c, b * d) } else { (b * d, a * c) };
        if ambiguous && inner > outer {
            bits |= 1 << f;
        }
    }
    bits
}

/// How finely, and where, a surface is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MarchingCubesConfig {
    /// Cells along an edge of the cube, 1 to 4,096.
    pub cells: u32,
    /// The cube.
    pub cube: Cube,
    /// Where the field is a distance, or nearly: blocks of cells whose centre is farther from the surface than
    /// `slack` times their half diagonal are skipped, unless the surface leads there from a block that is not. 1 is
    /// safe for exact distances, 2 for fitted ones; infinity looks everywhere.
    pub slack: f32,
}

/// Cells along the edge of a block.
const BLOCK: u32 = 16;

/// The surface where `field` is 0 within the cube, closed but where it meets the cube's sides. The same
/// values give the same mesh; vertices are shared.
///
/// Refuses a value that is not finite. A surface that is nowhere is a mesh without triangles, hence refused.
pub fn marching_cubes(config: &MarchingCubesConfig, field: &mut FieldFunction<'_>) -> Result<Mesh> {
    let cells = config.cells;
    check_config((1..=4096).contains(&cells), "cells", "1 to 4,096", cells)?;
    check_config(config.slack > 0.0, "slack", "above 0", config.slack)?;
    let place = |i: u32| i as f32 / cells as f32;
    let mut values = |points: Vec<[f32; 3]>| -> Result<Vec<f32>> {
        let points: Vec<_> = points.into_iter().map(|unit| config.cube.place(unit)).collect();
        let values = field(&points)?;
        check_shape(values.len() == points.len(), "field", "a value for each point", values.len())?;
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(i) => {
                let got = format!("{} at {:?}", values[i], points[i]);
                check_shape(false, "field", "finite values", got).map(|()| values)
            }
        }
    };

    let across = cells.div_ceil(BLOCK);
    let place_of = |b: u32| [b % across, b / across % across, b / across / across];
    let corner_of = |b: u32| place_of(b).map(|x| x * BLOCK);
    // Of a block that the cube cuts off, a place on its side at most.
    let middle = |b: u32| corner_of(b).map(|x| ((x as f32 + 0.5 * BLOCK as f32) / cells as f32).min(1.0));
    let reach = config.slack * 3.0f32.sqrt() * config.cube.half * BLOCK as f32 / cells as f32;
    let blocks: Vec<u32> = (0..across * across * across).collect();
    let mut queue = Vec::new();
    for chunk in blocks.chunks(1 << 16) {
        let distances = values(chunk.iter().map(|&b| middle(b)).collect())?;
        queue.extend(chunk.iter().zip(distances).filter(|(_, d)| d.abs() <= reach).map(|(&b, _)| b));
    }

    let mut surface = Surface::default();
    let mut seen = vec![false; blocks.len()];
    queue.iter().for_each(|&b| seen[b as usize] = true);
    while !queue.is_empty() {
        let mut skipped = Vec::new();
        // A block has 17^3 corners; 12 blocks fill a dispatch.
        for chunk in queue.chunks(12) {
            let side = |low: u32| BLOCK.min(cells - low) + 1;
            let mut points = Vec::new();
            for &b in chunk {
                let [x, y, z] = corner_of(b);
                for k in 0..side(z) {
                    for j in 0..side(y) {
                        points.extend((0..side(x)).map(|i| [place(x + i), place(y + j), place(z + k)]));
                    }
                }
            }
            let all = values(points)?;
            let mut rest = &all[..];
            for &b in chunk {
                let low = corner_of(b);
                let sides = low.map(side);
                let (own, later) = rest.split_at(sides.iter().product::<u32>() as usize);
                rest = later;
                surface.block(low, sides, own, cells);
                // Where the surface leaves the block it is followed.
                for axis in 0..3 {
                    let (at, step) = (place_of(b)[axis], across.pow(axis as u32));
                    let below = (at > 0).then(|| (0, b - step));
                    let above = (at + 1 < across).then(|| (sides[axis] - 1, b + step));
                    for (plane, other) in below.into_iter().chain(above) {
                        if !seen[other as usize] && is_cut(sides, own, axis, plane) {
                            seen[other as usize] = true;
                            skipped.push(other);
                        }
                    }
                }
            }
        }
        queue = skipped;
    }
    let vertices = surface.vertices.into_iter().map(|unit| config.cube.place(unit)).collect();
    Mesh::new(vertices, surface.triangles)
}

/// Whether the values of a block on one of its planes across `axis` have both signs.
fn is_cut(sides: [u32; 3], values: &[f32], axis: usize, plane: u32) -> bool {
    let stride = [1, sides[0], sides[0] * sides[1]];
    let [u, v] = [(axis + 1) % 3, (axis + 2) % 3];
    let first = plane * stride[axis];
    let at = |i: u32, j: u32| values[(first + i * stride[u] + j * stride[v]) as usize] < 0.0;
    (0..sides[u]).any(|i| (0..sides[v]).any(|j| at(i, j) != at(0, 0)))
}

#[derive(Default)]
struct Surface {
    vertices: Vec<[f32; 3]>,
    triangles: Vec<[u32; 3]>,
    /// By lower corner and axis.
    known: HashMap<u64, u32>,
    /// By corners inside and faces joined.
    polygons: HashMap<(u8, u8), Vec<Vec<usize>>>,
}

impl Surface {
    fn block(&mut self, low: [u32; 3], sides: [u32; 3], values: &[f32], cells: u32) {
        let at = |p: [u32; 3]| values[((p[2] * sides[1] + p[1]) * sides[0] + p[0]) as usize];
        for z in 0..sides[2] - 1 {
            for y in 0..sides[1] - 1 {
                for x in 0..sides[0] - 1 {
                    let corner =
                        |c: usize| [x + (c as u32 & 1), y + (c as u32 >> 1 & 1), z + (c as u32 >> 2)];
                    let own: [f32; 8] = std::array::from_fn(|c| at(corner(c)));
                    let inside = (0..8).fold(0, |bits, c| bits | u8::from(own[c] < 0.0) << c);
                    if inside == 0 || inside == 255 {
                        continue;
                    }
                    let key = (inside, joined(&own));
                    let rings = self.polygons.entry(key).or_insert_with(|| loops(key.0, key.1)).clone();
                    for ring in rings {
                        let ring: Vec<u32> = ring
                            .into_iter()
                            .map(|e| {
                                let (from, axis) = (e / 3, e % 3);
                                let [a, b] = [own[from], own[from | 1 << axis]];
                                let p = corner(from);
                                self.vertex(std::array::from_fn(|d| low[d] + p[d]), axis, a / (a - b), cells)
                            })
                            .collect();
                        let fan = (2..ring.len()).map(|k| [ring[0], ring[k - 1], ring[k]]);
                        self.triangles.extend(fan);
                    }
                }
            }
        }
    }

    /// The vertex at `t` between a corner of the grid and the next one along an axis.
    fn vertex(&mut self, corner: [u32; 3], axis: usize, t: f32, cells: u32) -> u32 {
        let [x, y, z] = corner.map(u64::from);
        let side = u64::from(cells) + 1;
        let key = ((z * side + y) * side + x) * 3 + axis as u64;
        *self.known.entry(key).or_insert_with(|| {
            let place = |d: usize| (corner[d] as f32 + if d == axis { t } else { 0.0 }) / cells as f32;
            self.vertices.push([place(0), place(1), place(2)]);
            self.vertices.len() as u32 - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every cut edge is on one loop, once; a loop has at least three edges.
    #[test]
    fn every_case_closes() {
        for inside in 0..=255u8 {
            for joined in 0..64u8 {
                let mut seen = [0; EDGES];
                for ring in loops(inside, joined) {
                    assert!(ring.len() >= 3, "{inside:08b} {joined:06b}");
                    ring.iter().for_each(|&e| seen[e] += 1);
                }
                for corner in 0..8usize {
                    for axis in (0..3).filter(|axis| corner >> axis & 1 == 0) {
                        let ends = [corner, corner | 1 << axis].map(|c| inside >> c & 1);
                        assert_eq!(seen[3 * corner + axis], i32::from(ends[0] != ends[1]));
                    }
                }
            }
        }
    }

    fn surface(cells: u32, slack: f32, field: impl Fn([f32; 3]) -> f32) -> Result<Mesh> {
        let cube = Cube { centre: [0.0; 3], half: 1.0 };
        let config = MarchingCubesConfig { cells, cube, slack };
        marching_cubes(&config, &mut |points| Ok(points.iter().map(|&p| field(p)).collect()))
    }

    fn length(p: [f32; 3]) -> f32 {
        p.iter().map(|x| x * x).sum::<f32>().sqrt()
    }

    /// Five times as steep where z is above 0: most blocks there seem to be far away.
    #[test]
    fn a_surface_is_followed_into_skipped_blocks() {
        let steep = |p: [f32; 3]| (length(p) - 0.7) * if p[2] > 0.0 { 5.0 } else { 1.0 };
        let all = surface(70, f32::INFINITY, steep).unwrap();
        let some = surface(70, 1.0, steep).unwrap();
        assert_eq!(some.open_edges(), 0);
        assert_eq!(some.triangles.len(), all.triangles.len());
    }

    #[test]
    fn a_sphere_is_closed_and_turned_outward() {
        let all = surface(40, f32::INFINITY, |p| length(p) - 0.7).unwrap();
        assert_eq!(all.open_edges(), 0);
        // Euler: V - E + F = 2, with E = 3 F / 2.
        assert_eq!(2 * all.vertices.len() as i64 - all.triangles.len() as i64, 4);
        let volume: f64 = all
            .triangles
            .iter()
            .map(|t| {
                let [a, b, c] = t.map(|i| all.vertices[i as usize].map(f64::from));
                (a[0] * (b[1] * c[2] - b[2] * c[1])
                    + a[1] * (b[2] * c[0] - b[0] * c[2])
                    + a[2] * (b[0] * c[1] - b[1] * c[0]))
                    / 6.0
            })
            .sum();
        assert!((volume / (4.0 / 3.0 * std::f64::consts::PI * 0.343) - 1.0).abs() < 0.01, "{volume}");
        assert!(all.vertices.iter().all(|&v| (length(v) - 0.7).abs() < 1e-3));
        // Skipping what is far away changes nothing.
        assert_eq!(surface(40, 1.0, |p| length(p) - 0.7).unwrap(), all);
    }

    /// Noise has every case; surrounded by outside it must be closed.
    #[test]
    fn noise_is_closed() {
        let noise = |p: [f32; 3]| {
            if p.iter().any(|x| x.abs() > 0.99) {
                return 1.0;
            }
            let n = p.map(|x| ((x + 2.0) * 1000.0) as u64);
            let hash = super::super::sampler::mix(n[0] ^ n[1] << 20 ^ n[2] << 40);
            (hash >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let mesh = surface(35, f32::INFINITY, noise).unwrap();
        assert!(mesh.triangles.len() > 10_000);
        assert_eq!(mesh.open_edges(), 0);
    }

    #[test]
    fn nothing_and_nan_are_refused() {
        assert!(surface(8, f32::INFINITY, |_| 1.0).unwrap_err().to_string().contains("at least one"));
        let error = surface(8, f32::INFINITY, |p| if p[0] > 0.5 { f32::NAN } else { p[0] }).unwrap_err();
        assert!(error.to_string().contains("finite"), "{error}");
        assert!(surface(0, 1.0, length).is_err());
    }
}
