//! Triangle meshes in host memory, and distances to them.

use std::collections::HashMap;

use crate::dispatch::Result;
#[cfg(feature = "blocking")]
use crate::dispatch::{BufferView, Context, Kernel, Planned, Recording, check_shape, count};
use crate::radial::mesh_bvh;
#[cfg(feature = "blocking")]
use crate::radial::{
    MeshBuffers, MeshBvh, MeshDistance, MeshDistanceArgs, MeshDistanceConfig, MeshSample, MeshSampleArgs,
    MeshSampleConfig, MeshSign,
};
#[cfg(feature = "blocking")]
use crate::train::Tensor;

/// Vertices, and triangles of three indices each, counter-clockwise seen from outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Mesh {
    /// Positions.
    pub vertices: Vec<[f32; 3]>,
    /// Indices into `vertices`.
    pub triangles: Vec<[u32; 3]>,
}

/// A function of position, asked for many points at a time: it returns as many values, here distances.
pub type FieldFunction<'a> = dyn FnMut(&[[f32; 3]]) -> Result<Vec<f32>> + 'a;

/// The cube that a field lives in: `centre +- half`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cube {
    /// The middle.
    pub centre: [f32; 3],
    /// Half an edge.
    pub half: f32,
}

impl Cube {
    /// From `[0, 1]^3` into the cube.
    #[must_use]
    pub fn place(&self, unit: [f32; 3]) -> [f32; 3] {
        std::array::from_fn(|d| self.centre[d] + self.half * (2.0 * unit[d] - 1.0))
    }

    /// From the cube to `[0, 1]^3`.
    #[must_use]
    pub fn unit(&self, point: [f32; 3]) -> [f32; 3] {
        std::array::from_fn(|d| 0.5 + 0.5 * ((point[d] - self.centre[d]) / self.half))
    }
}

impl Mesh {
    /// Refuses, with its number, a vertex that is not finite or beyond 1e9 and an index that is no
    /// vertex; and a mesh without triangles.
    pub fn new(vertices: Vec<[f32; 3]>, triangles: Vec<[u32; 3]>) -> Result<Self> {
        mesh_bvh::check_mesh(&vertices, &triangles)?;
        Ok(Self { vertices, triangles })
    }

    /// A torus around the z axis in `[-1, 1]^3`, of `rings` times `sides` squares (at least 3 each), halved.
    #[must_use]
    pub fn torus(rings: u32, sides: u32) -> Self {
        let (rings, sides) = (rings.max(3), sides.max(3));
        let angle = |i: u32, n: u32| std::f64::consts::TAU * f64::from(i) / f64::from(n);
        let at = |r: u32, s: u32| {
            let (u, v) = (angle(r, rings), angle(s, sides));
            let radius = 0.65 + 0.3 * v.cos();
            [radius * u.cos(), radius * u.sin(), 0.3 * v.sin()].map(|x| x as f32)
        };
        let vertices = (0..rings).flat_map(|r| (0..sides).map(move |s| at(r, s))).collect();
        let index = |r: u32, s: u32| r % rings * sides + s % sides;
        let square = |r, s| {
            let [a, b, c, d] = [index(r, s), index(r + 1, s), index(r + 1, s + 1), index(r, s + 1)];
            [[a, b, c], [a, c, d]]
        };
        let triangles = (0..rings).flat_map(|r| (0..sides).flat_map(move |s| square(r, s))).collect();
        Self { vertices, triangles }
    }

    /// The smallest and the largest coordinates of the vertices.
    #[must_use]
    pub fn bounds(&self) -> ([f32; 3], [f32; 3]) {
        let (mut low, mut high) = ([f32::MAX; 3], [f32::MIN; 3]);
        for v in &self.vertices {
            for d in 0..3 {
                low[d] = low[d].min(v[d]);
                high[d] = high[d].max(v[d]);
            }
        }
        (low, high)
    }

    /// The cube around the bounding box's middle in which the farthest vertex is at 0.99 of half an
    /// edge, as published for distance fields.
    #[must_use]
    pub fn cube(&self) -> Cube {
        let (low, high) = self.bounds();
        let centre: [f32; 3] = std::array::from_fn(|d| 0.5 * low[d] + 0.5 * high[d]);
        let radius = |v: &[f32; 3]| {
            (0..3).map(|d| (f64::from(v[d]) - f64::from(centre[d])).powi(2)).sum::<f64>().sqrt()
        };
        let farthest = self.vertices.iter().map(radius).fold(0.0, f64::max);
        // A single point has no size.
        let half = if farthest > 0.0 { (farthest / 0.99) as f32 } else { 1.0 };
        Cube { centre, half }
    }

    /// The mesh in `[0, 1]^3`, its `cube` being all of that.
    #[cfg(feature = "blocking")]
    pub(super) fn in_unit(&self, cube: &Cube) -> Self {
        let vertices = self.vertices.iter().map(|&v| cube.unit(v)).collect();
        Self { vertices, triangles: self.triangles.clone() }
    }

    /// Edges that are not passed as often in one direction as in the other: 0 for a closed mesh with
    /// one orientation. Vertices in one place count as one.
    #[must_use]
    pub fn open_edges(&self) -> usize {
        let mut known = HashMap::new();
        let places: Vec<u32> = self
            .vertices
            .iter()
            .map(|v| {
                let next = known.len() as u32;
                // 0 and -0 are one place.
                *known.entry(v.map(|x| (x + 0.0).to_bits())).or_insert(next)
            })
            .collect();
        let mut balance: HashMap<(u32, u32), i64> = HashMap::new();
        for t in &self.triangles {
            let [a, b, c] = t.map(|i| places.get(i as usize).copied().unwrap_or(u32::MAX));
            for (from, to) in [(a, b), (b, c), (c, a)] {
                let sign = i64::from(from < to) - i64::from(to < from);
                *balance.entry((from.min(to), from.max(to))).or_default() += sign;
            }
        }
        balance.values().filter(|&&n| n != 0).count()
    }

    /// The unit normal of a triangle; 0 if it has no area, or is not there.
    #[must_use]
    pub fn normal(&self, triangle: u32) -> [f32; 3] {
        let Some(t) = self.triangles.get(triangle as usize) else { return [0.0; 3] };
        let corner = |i: u32| self.vertices.get(i as usize).map_or([0.0; 3], |v| v.map(f64::from));
        let n = mesh_bvh::half_normal(t.map(corner));
        let length = mesh_bvh::length(n);
        if length > 0.0 { n.map(|x| (x / length) as f32) } else { [0.0; 3] }
    }
}

/// Points of one dispatch.
#[cfg(feature = "blocking")]
pub(super) const TILE: u32 = 1 << 16;

/// A mesh on the device, ready to be searched.
#[derive(Debug, Clone)]
#[cfg(feature = "blocking")]
pub struct MeshSearch {
    context: Context,
    bvh: MeshBvh,
    buffers: MeshBuffers,
}

/// What a search tells of its points.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg(feature = "blocking")]
pub struct MeshDistances {
    /// Distances, negative inside where a sign was asked for.
    pub distance: Vec<f32>,
    /// Their gradients.
    pub gradient: Vec<[f32; 3]>,
    /// The nearest triangles.
    pub nearest: Vec<u32>,
    /// The winding numbers; empty without a sign.
    pub winding: Vec<f32>,
}

#[cfg(feature = "blocking")]
impl MeshDistances {
    /// Points whose winding number is nearer than `threshold` to 1/2 (or -1/2): whether they are inside is doubtful.
    /// Where a mesh is closed and does not cut itself, these are points on the surface only.
    #[must_use]
    pub fn doubtful(&self, threshold: f32) -> usize {
        self.winding.iter().filter(|w| (w.abs() - 0.5).abs() < threshold).count()
    }
}

/// What a search writes besides the distances.
#[cfg(feature = "blocking")]
pub(super) struct SearchOutputs {
    winding: Tensor,
    gradient: Tensor,
    nearest: wgpu::Buffer,
}

#[cfg(feature = "blocking")]
impl SearchOutputs {
    pub fn new(context: &Context, points: u32) -> Result<Self> {
        Ok(Self {
            winding: Tensor::new(context, "winding", &[points])?,
            gradient: Tensor::new(context, "gradient", &[points, 3])?,
            nearest: context.create_storage("nearest", u64::from(points) * 4)?,
        })
    }
}

/// The elements of a tensor from `first` on.
#[cfg(feature = "blocking")]
fn from(tensor: &Tensor, first: u32) -> BufferView<'_> {
    let offset = u64::from(first) * 4;
    BufferView::range(tensor.buffer(), offset, u64::from(tensor.len()) * 4 - offset)
}

#[cfg(feature = "blocking")]
impl MeshSearch {
    /// Builds the tree and copies it to the device.
    pub fn new(context: &Context, mesh: &Mesh) -> Result<Self> {
        Self::of_triangles(context, &mesh.vertices, &mesh.triangles)
    }

    /// Of some of a mesh's triangles.
    pub(super) fn of_triangles(
        context: &Context,
        vertices: &[[f32; 3]],
        triangles: &[[u32; 3]],
    ) -> Result<Self> {
        let bvh = MeshBvh::build(vertices, triangles)?;
        let buffers = bvh.upload(context)?;
        Ok(Self { context: context.clone(), bvh, buffers })
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// The dispatches that search for the points from `first` on of `positions`, `[n, 3]`, and write the
    /// distances from `first` on. `first` is a multiple of 64.
    pub(super) fn search(
        &self,
        first: u32,
        positions: &Tensor,
        distance: &Tensor,
        rest: &SearchOutputs,
        sign: MeshSign,
    ) -> Result<Recording> {
        let config = MeshDistanceConfig {
            points: positions.len() / 3 - first,
            triangles: self.bvh.triangles(),
            leaves: self.bvh.leaves(),
            sign,
            variant: None,
        };
        let kernel = MeshDistance::new(&self.context, config)?;
        kernel.prepare(&MeshDistanceArgs {
            positions: from(positions, first * 3),
            corners: BufferView::new(&self.buffers.corners),
            boxes: BufferView::new(&self.buffers.boxes),
            dipoles: BufferView::new(&self.buffers.dipoles),
            winding: Some(rest.winding.view()),
            distance: from(distance, first),
            gradient: rest.gradient.view(),
            nearest: BufferView::new(&rest.nearest),
            scratch: &kernel.create_scratch()?,
        })
    }

    /// Searches for points.
    pub fn distances(&self, points: &[[f32; 3]], sign: MeshSign) -> Result<MeshDistances> {
        let mut all = MeshDistances::default();
        let tile = points.len().clamp(1, TILE as usize) as u32;
        let tensor = |what, shape: &[u32]| Tensor::new(&self.context, what, shape);
        let positions = tensor("positions", &[tile, 3])?;
        let distance = tensor("distance", &[tile])?;
        let rest = SearchOutputs::new(&self.context, tile)?;
        let recording = self.search(0, &positions, &distance, &rest, sign)?;
        for chunk in points.chunks(tile as usize) {
            self.context.write(positions.buffer(), 0, bytemuck::cast_slice(chunk))?;
            self.context.run_blocking(&recording)?;
            let n = chunk.len();
            all.distance.extend_from_slice(&distance.read(&self.context)?[..n]);
            let gradients: Vec<[f32; 3]> = self.context.read_blocking(rest.gradient.view())?;
            all.gradient.extend_from_slice(&gradients[..n]);
            let indices: Vec<u32> = self.context.read_blocking(BufferView::new(&rest.nearest))?;
            all.nearest.extend_from_slice(&indices[..n]);
            if sign != MeshSign::None {
                all.winding.extend_from_slice(&rest.winding.read(&self.context)?[..n]);
            }
        }
        Ok(all)
    }

    /// The dispatch that fills `positions`, `[sum of counts, 3]`, with random points on the mesh, near it and
    /// anywhere, `stratified` or not; where `pair_sigma` is above 0, in pairs. `state` is a
    /// [`RandomState`](crate::dense::RandomState). See [`MeshSampleConfig`].
    pub(super) fn sample(
        &self,
        state: &wgpu::Buffer,
        positions: &Tensor,
        counts: [u32; 3],
        [surface_sigma, sigma, pair_sigma]: [f32; 3],
        stratified: bool,
    ) -> Result<Recording> {
        let starts = self.context.create_storage_with("starts", &self.bvh.area_starts()?)?;
        let triangles = self.bvh.triangles();
        let config = MeshSampleConfig {
            triangles,
            counts,
            sigma,
            surface_sigma,
            pair_sigma,
            cube: [0.0, 1.0],
            stream: 0,
            stratified,
        };
        MeshSample::new(&self.context, config)?.prepare(&MeshSampleArgs {
            state: BufferView::new(state),
            corners: BufferView::new(&self.buffers.corners),
            starts: BufferView::new(&starts),
            positions: positions.view(),
        })
    }

    /// `n` random points on the surface, uniform over its area, neighbours beside each other.
    pub fn surface_points(&self, n: u32, seed: u64) -> Result<Vec<[f32; 3]>> {
        count("points", &[n, 3])?;
        check_shape(n > 0, "points", "at least one", n)?;
        let state = crate::dense::RandomState::new(seed, 0);
        let state = self.context.create_storage_with("state", &[state])?;
        let positions = Tensor::new(&self.context, "positions", &[n, 3])?;
        let recording = self.sample(&state, &positions, [n, 0, 0], [0.0; 3], n <= 1 << 24)?;
        self.context.run_blocking(&recording)?;
        self.context.read_blocking(positions.view())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torus_is_closed_until_a_triangle_is_missing() {
        let mut torus = Mesh::torus(9, 5);
        assert_eq!(torus.open_edges(), 0);
        // A seam of doubled vertices does not open it.
        let twin = torus.vertices[3];
        torus.vertices.push(twin);
        let last = torus.vertices.len() as u32 - 1;
        for t in torus.triangles.iter_mut().take(40) {
            for i in t.iter_mut().filter(|i| **i == 3) {
                *i = last;
            }
        }
        assert_eq!(torus.open_edges(), 0);
        torus.triangles.pop();
        assert_eq!(torus.open_edges(), 3);
    }

    #[test]
    fn the_cube_holds_the_mesh() {
        let mut mesh = Mesh::torus(32, 16);
        for v in &mut mesh.vertices {
            *v = [v[0] * 30.0 - 7.0, v[1] * 30.0, v[2] * 30.0 + 100.0];
        }
        let cube = mesh.cube();
        assert!((cube.half - 30.0 * 0.95 / 0.99).abs() < 1e-3, "{cube:?}");
        for v in mesh.in_unit(&cube).vertices {
            let squared: f32 = v.iter().map(|x| (2.0 * x - 1.0).powi(2)).sum();
            assert!(squared.sqrt() < 0.991);
        }
        let p = [0.3, 0.4, 0.9];
        let back = cube.unit(cube.place(p));
        assert!((0..3).all(|d| (back[d] - p[d]).abs() < 1e-5));
    }
}
