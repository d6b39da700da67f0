use patchfield::dense::RandomState;
use patchfield::models::Mesh;
use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let points = b.size(1 << 18, 1 << 20);
    let mesh = Mesh::torus(256, 128);
    let bvh = MeshBvh::build(&mesh.vertices, &mesh.triangles)?;
    let triangles = bvh.triangles();
    let corners = bvh.upload(&context)?.corners;
    let starts = context.create_storage_with("starts", &bvh.area_starts()?)?;
    let state = b.upload(RandomState::new(7, 0).bytes())?;
    let positions = b.zeros(points * 3)?;
    let config = MeshSampleConfig {
        triangles,
        counts: [points / 2, points / 8 * 3, points / 8],
        sigma: 0.01,
        surface_sigma: 0.0,
        pair_sigma: 0.0,
        cube: [-1.0, 2.0],
        stream: 0,
        stratified: false,
    };
    let [state, corners, starts, positions] = [&state, &corners, &starts, &positions].map(BufferView::new);
    let args = MeshSampleArgs { state, corners, starts, positions };
    let pairs = MeshSampleConfig { pair_sigma: 0.001, ..config };
    for (name, config) in [("4 : 3 : 1", config), ("4 : 3 : 1, pairs", pairs)] {
        let shape = format!("[{points}] {triangles} triangles");
        b.row(&MeshSample::new(&context, config)?, name, shape, &args)?;
    }
    Ok(())
}
