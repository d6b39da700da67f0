//! A bounding volume hierarchy over triangles, built on the host: what
//! [`MeshDistance`](super::MeshDistance) walks through.

use crate::dispatch::{Context, Error, Result, check_shape, count};

/// The most triangles of a leaf.
const LEAF: usize = 4;

/// The largest coordinate whose products of four stay in the range of f32.
const LARGEST: f32 = 1e9;

/// The smallest extent of a mesh for which such products do not vanish.
const SMALLEST: f32 = 1e-8;

/// Box of a node, as the shader reads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct BvhBox {
    /// Smallest coordinates; the fourth is not used.
    pub low: [f32; 4],
    /// Largest coordinates; the fourth is not used.
    pub high: [f32; 4],
}

/// What a node looks like from afar (Barill et al. 2018), as the shader reads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct BvhDipole {
    /// The centre of the area.
    pub centre: [f32; 3],
    /// Distance from the centre to the farthest corner of a triangle.
    pub radius: f32,
    /// Sum of the triangles' areas times their unit normals; the fourth is not used.
    pub normal: [f32; 4],
}

/// A complete binary tree over the triangles of a mesh, split at the median of their centres along
/// the longest axis.
///
/// Node 1 is the root, `2 k` and `2 k + 1` are the children of `k`; entry 0 is not used. The nodes from
/// `leaves` on share the triangles out in order, one to four each. Building takes O(n log n); a
/// million triangles take about a second.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshBvh {
    leaves: u32,
    boxes: Vec<BvhBox>,
    dipoles: Vec<BvhDipole>,
    corners: Vec<[[u32; 4]; 3]>,
}

/// The buffers of a [`MeshBvh`] on a device.
#[derive(Debug, Clone)]
pub struct MeshBuffers {
    /// `[triangles, 3]` times four words: the bits of x, y and z, and in the first corner the triangle's index.
    pub corners: wgpu::Buffer,
    /// `[2 leaves]` [`BvhBox`]es.
    pub boxes: wgpu::Buffer,
    /// `[2 leaves]` [`BvhDipole`]s.
    pub dipoles: wgpu::Buffer,
}

/// The first triangle of each leaf, and their number at the end.
fn leaf_start(leaf: usize, leaves: usize, triangles: usize) -> usize {
    leaf * (triangles / leaves) + leaf.min(triangles % leaves)
}

impl MeshBvh {
    /// Of triangles given as three indices each into `vertices`. Triangles without area are welcome.
    ///
    /// Refused, with its number: a vertex that is not finite or beyond 1e9, a triangle with an
    /// index that is no vertex. Refused too: no triangle at all, and a mesh that is less than 1e-8 wide and more than a
    /// point.
    pub fn build(vertices: &[[f32; 3]], triangles: &[[u32; 3]]) -> Result<Self> {
        check_mesh(vertices, triangles)?;
        let total = u32::try_from(triangles.len()).unwrap_or(u32::MAX);
        // Words of the corners.
        count("triangles", &[total, 12])?;
        let corners: Vec<[[f32; 3]; 3]> =
            triangles.iter().map(|t| t.map(|index| vertices[index as usize])).collect();

        let leaves = triangles.len().div_ceil(LEAF).next_power_of_two();
        let mut order: Vec<u32> = (0..total).collect();
        split(&corners, &mut order, leaves);
        let mut boxes = vec![BvhBox::default(); 2 * leaves];
        let mut dipoles = vec![BvhDipole::default(); 2 * leaves];
        for node in 1..2 * leaves {
            let range = node_range(node, leaves, triangles.len());
            let own = &order[range];
            boxes[node] = bounds(&corners, own);
            dipoles[node] = dipole(&corners, own);
        }
        let BvhBox { low, high } = boxes[1];
        let extent = (0..3).map(|d| high[d] - low[d]).fold(0.0, f32::max);
        let wide = extent == 0.0 || extent >= SMALLEST;
        check_shape(wide, "vertices", "at least 1e-8 apart along an axis, or a point", extent)?;
        let corners = order
            .iter()
            .map(|&index| {
                let bits = corners[index as usize].map(|corner| corner.map(f32::to_bits));
                let mut word = index;
                bits.map(|[x, y, z]| [x, y, z, std::mem::take(&mut word)])
            })
            .collect();
        Ok(Self { leaves: leaves as u32, boxes, dipoles, corners })
    }

    /// Triangles.
    #[must_use]
    pub fn triangles(&self) -> u32 {
        self.corners.len() as u32
    }

    /// Leaves, a power of two.
    #[must_use]
    pub fn leaves(&self) -> u32 {
        self.leaves
    }

    /// The boxes of the nodes, `[2 leaves]`.
    #[must_use]
    pub fn boxes(&self) -> &[BvhBox] {
        &self.boxes
    }

    /// The dipoles of the nodes, `[2 leaves]`.
    #[must_use]
    pub fn dipoles(&self) -> &[BvhDipole] {
        &self.dipoles
    }

    /// The corners in the order of the leaves, as [`MeshBuffers::corners`] holds them.
    #[must_use]
    pub fn corners(&self) -> &[[[u32; 4]; 3]] {
        &self.corners
    }

    /// For choosing triangles by their area: where each begins (in the order of the leaves) when 2^32 is shared out.
    /// Triangle `t` is chosen by the words from its start on and below the next one's.
    ///
    /// `Err` if no triangle has an area.
    pub fn area_starts(&self) -> Result<Vec<u32>> {
        let areas: Vec<f64> = self
            .corners
            .iter()
            .map(|corners| {
                let at = corners.map(|[x, y, z, _]| [x, y, z].map(f32::from_bits));
                length(half_normal(at.map(|corner| corner.map(f64::from))))
            })
            .collect();
        let total: f64 = areas.iter().sum();
        check_shape(total > 0.0, "triangles", "one with an area", "none")?;
        let mut before = 0.0;
        let start = |area: f64| {
            // Saturates where nothing but triangles without area follows.
            let start = (before / total * 4_294_967_296.0) as u32;
            before += area;
            start
        };
        Ok(areas.into_iter().map(start).collect())
    }

    /// Copies the tree to the device.
    pub fn upload(&self, context: &Context) -> Result<MeshBuffers> {
        Ok(MeshBuffers {
            corners: context.create_storage_with("corners", &self.corners)?,
            boxes: context.create_storage_with("boxes", &self.boxes)?,
            dipoles: context.create_storage_with("dipoles", &self.dipoles)?,
        })
    }
}

/// `Err` names the first vertex that is not finite or too far away, or the first index that is no vertex.
pub(crate) fn check_mesh(vertices: &[[f32; 3]], triangles: &[[u32; 3]]) -> Result<()> {
    check_shape(!triangles.is_empty(), "triangles", "at least one", triangles.len())?;
    let refuse = |what, need: String, got| Err(Error::Shape { what, need, got });
    for (i, v) in vertices.iter().enumerate() {
        if v.iter().any(|x| x.is_nan() || x.abs() > LARGEST) {
            let need = "finite coordinates within +-1e9".into();
            return refuse("vertices", need, format!("{v:?} in vertex {i}"));
        }
    }
    for (i, t) in triangles.iter().enumerate() {
        if let Some(index) = t.iter().find(|&&index| index as usize >= vertices.len()) {
            let need = format!("indices below the number of vertices, {}", vertices.len());
            return refuse("triangles", need, format!("{index} in triangle {i}"));
        }
    }
    Ok(())
}

fn node_range(node: usize, leaves: usize, triangles: usize) -> std::ops::Range<usize> {
    let below = leaves >> node.ilog2();
    let first = node * below - leaves;
    leaf_start(first, leaves, triangles)..leaf_start(first + below, leaves, triangles)
}

/// Puts the triangles into the order of the leaves.
fn split(corners: &[[[f32; 3]; 3]], order: &mut [u32], leaves: usize) {
    let centres: Vec<[f32; 3]> = corners
        .iter()
        .map(|[a, b, c]| std::array::from_fn(|d| a[d] / 3.0 + b[d] / 3.0 + c[d] / 3.0))
        .collect();
    let triangles = order.len();
    for node in 1..leaves {
        let range = node_range(node, leaves, triangles);
        let middle = node_range(2 * node, leaves, triangles).end - range.start;
        let own = &mut order[range];
        let extent = |d: usize| {
            let each = own.iter().map(|&i| centres[i as usize][d]);
            let (low, high) = each.fold((f32::MAX, f32::MIN), |(l, h), x| (l.min(x), h.max(x)));
            high - low
        };
        let sizes = [extent(0), extent(1), extent(2)];
        let axis = if sizes[0] >= sizes[1] && sizes[0] >= sizes[2] {
            0
        } else if sizes[1] >= sizes[2] {
            1
        } else {
            2
        };
        if middle < own.len() {
            own.select_nth_unstable_by(middle, |&i, &j| {
                let key = |i: u32| centres[i as usize][axis];
                key(i).total_cmp(&key(j)).then(i.cmp(&j))
            });
        }
    }
}

fn bounds(corners: &[[[f32; 3]; 3]], own: &[u32]) -> BvhBox {
    let (mut low, mut high) = ([f32::MAX; 3], [f32::MIN; 3]);
    for corner in own.iter().flat_map(|&i| corners[i as usize]) {
        for d in 0..3 {
            low[d] = low[d].min(corner[d]);
            high[d] = high[d].max(corner[d]);
        }
    }
    BvhBox { low: [low[0], low[1], low[2], 0.0], high: [high[0], high[1], high[2], 0.0] }
}

/// The normal of a triangle, as long as its area.
pub(crate) fn half_normal([a, b, c]: [[f64; 3]; 3]) -> [f64; 3] {
    let u = [b[0] - a[0], b[1] - a[1], b[2] - a[2]];
    let v = [c[0] - a[0], c[1] - a[1], c[2] - a[2]];
    [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]].map(|x| 0.5 * x)
}

pub(crate) fn length(v: [f64; 3]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn dipole(corners: &[[[f32; 3]; 3]], own: &[u32]) -> BvhDipole {
    let (mut normal, mut centre, mut area) = ([0.0; 3], [0.0; 3], 0.0);
    // Where there is no area, the mean of the corners.
    let mut mean = [0.0; 3];
    for &i in own {
        let [a, b, c] = corners[i as usize].map(|corner| corner.map(f64::from));
        let half = half_normal([a, b, c]);
        let size = length(half);
        area += size;
        for d in 0..3 {
            let third = (a[d] + b[d] + c[d]) / 3.0;
            normal[d] += half[d];
            centre[d] += size * third;
            mean[d] += third / own.len() as f64;
        }
    }
    let centre = if area > 0.0 { centre.map(|x| x / area) } else { mean };
    let centre = centre.map(|x| x as f32);
    let farthest = own
        .iter()
        .flat_map(|&i| corners[i as usize])
        .map(|corner| (0..3).map(|d| (f64::from(corner[d]) - f64::from(centre[d])).powi(2)).sum::<f64>())
        .fold(0.0, f64::max);
    let [x, y, z] = normal.map(|x| x as f32);
    BvhDipole { centre, radius: farthest.sqrt() as f32, normal: [x, y, z, 0.0] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Triangles strewn in space, some without area.
    fn soup(n: u32) -> (Vec<[f32; 3]>, Vec<[u32; 3]>) {
        let at = |i: u32| {
            [0.754_877_7, 0.569_840_3, 0.327_191_9].map(|step: f64| (f64::from(i) * step).fract() as f32)
        };
        let vertices: Vec<_> = (0..n + 2).map(at).collect();
        let triangles = (0..n).map(|i| [i, i + 1, if i % 7 == 0 { i } else { i + 2 }]).collect();
        (vertices, triangles)
    }

    #[test]
    fn leaves_share_all_triangles_and_boxes_hold_them() {
        for n in [1, 2, 4, 5, 7, 8, 9, 33, 1000] {
            let (vertices, triangles) = soup(n);
            let bvh = MeshBvh::build(&vertices, &triangles).unwrap();
            let leaves = bvh.leaves as usize;
            let mut seen: Vec<u32> = bvh.corners.iter().map(|corner| corner[0][3]).collect();
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..n), "{n}");
            for node in 1..2 * leaves {
                let range = node_range(node, leaves, n as usize);
                assert!(!range.is_empty(), "{n}: node {node} is empty");
                assert!(node < leaves || range.len() <= LEAF);
                for corner in bvh.corners[range].iter().flatten() {
                    let mut squared = 0.0;
                    for (d, &bits) in corner[..3].iter().enumerate() {
                        let x = f32::from_bits(bits);
                        assert!(bvh.boxes[node].low[d] <= x && x <= bvh.boxes[node].high[d]);
                        squared += (x - bvh.dipoles[node].centre[d]).powi(2);
                    }
                    assert!(squared.sqrt() <= bvh.dipoles[node].radius * 1.00001);
                }
            }
        }
    }

    #[test]
    fn bad_meshes_are_refused_by_number() {
        let (mut vertices, triangles) = soup(5);
        let says = |error: Error, word: &str| assert!(error.to_string().contains(word), "{error}");
        says(MeshBvh::build(&vertices, &[]).unwrap_err(), "at least one");
        says(MeshBvh::build(&vertices, &[[0, 1, 7]]).unwrap_err(), "7 in triangle 0");
        let tiny: Vec<_> = vertices.iter().map(|v| v.map(|x| 1e-9 * x)).collect();
        says(MeshBvh::build(&tiny, &triangles).unwrap_err(), "at least 1e-8");
        vertices[3][1] = f32::NAN;
        says(MeshBvh::build(&vertices, &triangles).unwrap_err(), "vertex 3");
        vertices[3][1] = 1e30;
        says(MeshBvh::build(&vertices, &triangles).unwrap_err(), "vertex 3");
    }
}
