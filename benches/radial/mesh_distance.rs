use patchfield::dispatch::Planned;
use patchfield::models::Mesh;
use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

/// Points anywhere in `[-1, 1]^3`, and points near the surface: what a fit asks for.
pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    for (rings, sides) in [(32, 16), (512, 256)] {
        let mesh = Mesh::torus(rings, sides);
        let bvh = MeshBvh::build(&mesh.vertices, &mesh.triangles)?;
        let (triangles, leaves) = (bvh.triangles(), bvh.leaves());
        let buffers = bvh.upload(&context)?;
        let [corners, boxes, dipoles] =
            [&buffers.corners, &buffers.boxes, &buffers.dipoles].map(BufferView::new);
        let beta = MeshSign::Approximate { beta: 2.0 };
        for (name, variant, sign) in [
            ("distance", MeshDistanceVariant::Bvh, MeshSign::None),
            ("distance and sign", MeshDistanceVariant::Bvh, beta),
            ("distance", MeshDistanceVariant::BruteForce, MeshSign::None),
            ("distance and sign", MeshDistanceVariant::BruteForce, MeshSign::Exact),
        ] {
            let brute = variant == MeshDistanceVariant::BruteForce;
            // A CPU adapter refuses so many triangles at once.
            if brute && triangles > 60_000 && context.capabilities().cpu {
                continue;
            }
            // So many points that all triangles for each of them take about a tenth of a second.
            let points =
                if brute { b.size(1 << 12, 1 << 18) / (triangles >> 10) } else { b.size(1 << 14, 1 << 20) };
            let positions = b.noise(points * 3)?;
            let [distance, winding, gradient, nearest] =
                [b.zeros(points)?, b.zeros(points)?, b.zeros(points * 3)?, b.zeros(points)?];
            let config = MeshDistanceConfig { points, triangles, leaves, sign, variant: Some(variant) };
            let kernel = MeshDistance::new(&context, config)?;
            let scratch = kernel.create_scratch()?;
            let args = MeshDistanceArgs {
                positions: BufferView::new(&positions),
                corners,
                boxes,
                dipoles,
                winding: Some(BufferView::new(&winding)),
                distance: BufferView::new(&distance),
                gradient: BufferView::new(&gradient),
                nearest: BufferView::new(&nearest),
                scratch: &scratch,
            };
            let shape = format!("[{points}] {triangles} triangles");
            b.row(&kernel, name, shape, &args)?;
        }
    }
    Ok(())
}
