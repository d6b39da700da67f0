//! Meshes as a whole: searched, fitted, found again and compared. On computed meshes only.

use std::ops::ControlFlow;
use std::path::PathBuf;

use kernels_tests::harness::adapter::{best_context, small_context};
use patchfield::Error;
use patchfield::models::{
    Cube, FitConfig, MarchingCubesConfig, Mesh, MeshSearch, RadialBasesConfig, SurfaceField,
    SurfaceFieldConfig, SurfaceTarget, marching_cubes, overlap, surface_errors,
};
use patchfield::radial::MeshSign;
use patchfield::train::{Checkpoint, Schedule};

const BETA: MeshSign = MeshSign::Approximate { beta: 2.0 };

/// The exact distance to the torus that [`Mesh::torus`] approximates.
fn torus([x, y, z]: [f32; 3]) -> f32 {
    (x.hypot(y) - 0.65).hypot(z) - 0.3
}

fn lattice(side: u32, half: f32) -> Vec<[f32; 3]> {
    let at = |i: u32| ((i as f32 + 0.5) / side as f32 * 2.0 - 1.0) * half;
    (0..side * side * side).map(|i| [at(i % side), at(i / side % side), at(i / side / side)]).collect()
}

#[test]
fn a_million_triangles() {
    let Some(context) = best_context() else { return };
    let mesh = Mesh::torus(1000, 500);
    assert_eq!(mesh.triangles.len(), 1_000_000);
    let points = lattice(8, 1.0);
    let found = MeshSearch::new(&context, &mesh).unwrap().distances(&points, BETA).unwrap();
    for (i, &p) in points.iter().enumerate() {
        let exact = torus(p);
        // The facets' sagitta is 2e-5.
        assert!(
            (found.distance[i] - exact).abs() < 5e-5,
            "{} instead of {exact} at {p:?}",
            found.distance[i]
        );
        let inside = if exact < 0.0 { 1.0 } else { 0.0 };
        assert!((found.winding[i].abs() - inside).abs() < 0.1, "{} at {p:?}", found.winding[i]);
    }
}

/// A part that is missing leaves a sign that is doubtful near the hole only; what is wound around twice is inside.
#[test]
fn open_and_crossing_meshes() {
    let Some(context) = best_context() else { return };
    let points = lattice(12, 1.0);
    let closed = Mesh::torus(48, 24);
    let mut open = closed.clone();
    open.triangles.truncate(open.triangles.len() - 48);
    assert!(open.open_edges() > 0);
    let find = |mesh: &Mesh| MeshSearch::new(&context, mesh).unwrap().distances(&points, BETA).unwrap();
    let (whole, part) = (find(&closed), find(&open));
    assert_eq!(whole.doubtful(0.25), 0);
    let doubtful = part.doubtful(0.25);
    assert!(doubtful > 0 && doubtful < points.len() / 10, "{doubtful} of {}", points.len());
    let differ = |a: &f32, b: &f32| (*a < 0.0) != (*b < 0.0);
    let changed = whole.distance.iter().zip(&part.distance).filter(|(a, b)| differ(a, b)).count();
    assert!(changed <= doubtful + 10, "{changed} signs changed");

    // Two tori through each other.
    let mut both = closed.clone();
    let n = both.vertices.len() as u32;
    both.vertices.extend(closed.vertices.iter().map(|v| [v[0] + 0.2, v[1], v[2]]));
    both.triangles.extend(closed.triangles.iter().map(|t| t.map(|i| i + n)));
    let crossed = find(&both);
    assert!(crossed.winding.iter().any(|w| w.abs() > 1.9));
    for (i, &p) in points.iter().enumerate() {
        let exact = torus(p).min(torus([p[0] - 0.2, p[1], p[2]]));
        assert!(exact.abs() < 0.02 || (exact < 0.0) == (crossed.distance[i] < 0.0), "{p:?}");
    }
}

#[test]
fn bad_meshes_are_refused_by_name() {
    let says = |error: Error, word: &str| assert!(error.to_string().contains(word), "{error}");
    let good = Mesh::torus(3, 3);
    says(Mesh::new(vec![], vec![]).unwrap_err(), "`triangles`");
    says(Mesh::new(good.vertices.clone(), vec![[0, 1, 9]]).unwrap_err(), "9 in triangle 0");
    let mut vertices = good.vertices.clone();
    vertices[4][2] = f32::NAN;
    says(Mesh::new(vertices, good.triangles.clone()).unwrap_err(), "vertex 4");
    let Some(context) = best_context() else { return };
    // Fields are public: what was broken afterwards is found too.
    let mut broken = good.clone();
    broken.vertices[2][0] = f32::INFINITY;
    says(MeshSearch::new(&context, &broken).unwrap_err(), "vertex 2");
    let flat = Mesh::new(good.vertices.clone(), vec![[0, 0, 1]]).unwrap();
    says(MeshSearch::new(&context, &flat).unwrap().surface_points(5, 0).unwrap_err(), "an area");
    let empty = Cube { centre: [0.0; 3], half: 0.0 };
    says(SurfaceField::new(&context, SurfaceFieldConfig::default(), empty, 0).unwrap_err(), "`cube`");
}

#[test]
fn a_mesh_agrees_with_itself_and_not_with_another() {
    let Some(context) = best_context() else { return };
    let mesh = Mesh::torus(48, 24);
    let same = surface_errors(&context, &mesh, &mesh, 2000, 1).unwrap();
    assert!(same.largest < 1e-6 && same.normal_angle < 0.1, "{same:?}");
    // Moved by 0.01: the distances are 0.01 |cosine| of the normal with the shift, one half on average.
    let mut moved = mesh.clone();
    moved.vertices.iter_mut().for_each(|v| v[2] += 0.01);
    let other = surface_errors(&context, &mesh, &moved, 4000, 1).unwrap();
    assert!((other.chamfer / 0.0064 - 1.0).abs() < 0.1 && other.largest < 0.0101, "{other:?}");
    let mut exact = |points: &[[f32; 3]]| Ok(points.iter().map(|&p| torus(p)).collect());
    let shared = overlap(&context, &mesh, &mut exact, 20_000, 1).unwrap();
    assert!(shared.iou > 0.98 && shared.iou < 1.0 && shared.doubtful == 0, "{shared:?}");
    let cube = Cube { centre: [0.0; 3], half: 1.0 };
    let found = marching_cubes(&MarchingCubesConfig { cells: 64, cube, slack: 1.0 }, &mut exact).unwrap();
    let near = surface_errors(&context, &Mesh::torus(400, 200), &found, 4000, 1).unwrap();
    assert_eq!(found.open_edges(), 0);
    // The diagonal of a cell is 0.054 and the smaller radius 0.3: a sagitta of at most 1.2e-3.
    assert!(near.largest < 1.3e-3 && near.normal_angle < 2.0, "{near:?}");
}

/// 65,536 bytes are 1,365 triangles. What lies far away is nine tenths of the area, and the last part has none.
#[test]
fn meshes_larger_than_a_binding_are_compared_in_parts() {
    let (Some(large), Some(small)) = (best_context(), small_context(65_536)) else { return };
    let near = Mesh::torus(24, 12);
    let mut far = Mesh::torus(96, 48);
    let first = far.vertices.len() as u32;
    far.vertices
        .extend(Mesh::torus(48, 24).vertices.iter().map(|v| [3.0 * v[0] + 9.0, 3.0 * v[1], 3.0 * v[2]]));
    far.triangles.extend(Mesh::torus(48, 24).triangles.iter().map(|t| t.map(|i| first + i)));
    far.triangles.extend(vec![[0, 0, 1]; 2000]);
    let [whole, parts] =
        [&large, &small].map(|context| surface_errors(context, &near, &far, 4000, 1).unwrap());
    // Distances of 5 to 12, nine tenths of one half.
    assert!((3.0..5.0).contains(&whole.chamfer), "{whole:?}");
    assert!((whole.chamfer / parts.chamfer - 1.0).abs() < 0.02, "{whole:?} {parts:?}");
    assert!((whole.normal_angle / parts.normal_angle - 1.0).abs() < 0.05, "{whole:?} {parts:?}");
    assert!((whole.largest / parts.largest - 1.0).abs() < 0.02, "{whole:?} {parts:?}");
    let error = surface_errors(&large, &near, &far, 0, 1).unwrap_err().to_string();
    assert!(error.contains("`points`"), "{error}");
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("patchfield-mesh-{}-{name}.safetensors", std::process::id()))
}

/// So coarse that a few hundred steps reach every entry often.
fn coarse_grid() -> SurfaceFieldConfig {
    let mut config = SurfaceFieldConfig { width: 16, ..SurfaceFieldConfig::default() };
    config.grid.levels = 3;
    config.grid.base_resolution = 4;
    config.grid.features = 2;
    config.grid.log2_table_size = 12;
    config.with_finest(16)
}

/// The published hybrid, with few centres beside that grid, and slower sinusoids for a short fit.
fn coarse_hybrid() -> SurfaceFieldConfig {
    let published = SurfaceFieldConfig::hybrid(12).unwrap().radial.unwrap();
    SurfaceFieldConfig {
        radial: Some(RadialBasesConfig {
            centres: 150,
            features: 8,
            hidden_frequencies: Some([1.0, 10.0]),
            ..published
        }),
        ..coarse_grid()
    }
}

fn fit(steps: u64, rate: f64) -> FitConfig {
    FitConfig {
        steps,
        batch: 2048,
        learning_rate: rate,
        schedule: Schedule::Cosine { steps, floor: 0.01 },
        seed: 4,
        report_every: 10,
        checkpoint: None,
        resume: false,
    }
}

fn learns_repeats_and_resumes(name: &str, config: SurfaceFieldConfig, rate: f64, least: f64) {
    let Some(context) = best_context() else { return };
    let mesh = Mesh::torus(48, 24);
    let field = || SurfaceField::for_mesh(&context, config, &mesh, 3).unwrap();
    let path = |part: &str| path(&format!("{name}-{part}"));
    let fit = |part: &str| FitConfig { checkpoint: Some((path(part), 1000)), ..fit(120, rate) };
    let mut losses = Vec::new();
    let mut first = field();
    first
        .fit(&mesh, &fit("whole"), &mut |p| {
            losses.push(p.loss);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(losses[11] < least && losses[11] < losses[0], "{losses:?}");
    let mut parts = fit("parts");
    let stopped = field().fit(&mesh, &parts, &mut |p| {
        // In the middle of a pool of batches.
        if p.step == 50 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped, Err(Error::Cancelled { step: 50 }));
    parts.resume = true;
    field().fit(&mesh, &parts, &mut |_| ControlFlow::Continue(())).unwrap();
    let load = |part| Checkpoint::load(&path(part)).unwrap();
    assert!(load("whole") == load("parts"), "a resumed run differs");

    first.save(&path("model")).unwrap();
    let loaded = SurfaceField::load(&context, &path("model")).unwrap();
    assert_eq!(loaded.cube(), mesh.cube());
    assert_eq!(loaded.config().radial, config.radial);
    assert_eq!(loaded.config().target, config.target);
    assert_eq!(loaded.config().slope_weight, config.slope_weight);
    let points = lattice(5, 0.9);
    assert_eq!(loaded.implicit(&points).unwrap(), first.implicit(&points).unwrap());
    for part in ["whole", "parts", "model"] {
        std::fs::remove_file(path(part)).unwrap();
    }
}

/// A field of zeros has 0.3, the mean of |t| / (|t| + 0.01) over the points; with slopes 0.1 more, 0.25 times half the
/// mean of a normal number's magnitude.
#[test]
fn a_grid_learns_repeats_and_resumes_bit_by_bit() {
    learns_repeats_and_resumes("grid", coarse_grid(), 1e-2, 0.2);
}

#[test]
fn a_hybrid_learns_repeats_and_resumes_bit_by_bit() {
    let config = SurfaceFieldConfig { slope_weight: 0.0, ..coarse_hybrid() };
    learns_repeats_and_resumes("hybrid", config, 5e-3, 0.255);
}

/// The volume between two surfaces that are `e` apart on average is `e` times the area: the overlap follows from the
/// loss. Half of the points lie beside the surface with a standard deviation of 0.001, where half an edge of the cube
/// is 1: few are farther than 0.003, where an error is the loss times 0.013 at most. The mean loss of that half
/// is at most twice that of all. The facets of the mesh are a sagitta off at the most.
#[test]
fn a_fitted_torus_has_its_inside_inside() {
    let Some(context) = best_context() else { return };
    let mesh = Mesh::torus(96, 48);
    // Without slopes, so that the loss is the relative error.
    let config = SurfaceFieldConfig { slope_weight: 0.0, ..coarse_grid() }.with_finest(32);
    let mut field = SurfaceField::for_mesh(&context, config, &mesh, 3).unwrap();
    let mut last = Vec::new();
    field
        .fit(&mesh, &fit(400, 1e-2), &mut |p| {
            last.push(p.loss);
            ControlFlow::Continue(())
        })
        .unwrap();
    // Of the last batches, which differ by chance.
    let loss = last[last.len() - 5..].iter().fold(0.0, |most: f64, &loss| most.max(loss));
    assert!(loss < 0.08, "{last:?}");
    let off = 2.0 * loss * 0.013 * f64::from(field.cube().half);
    let angle = std::f64::consts::PI / 48.0;
    let sagitta = 0.3 * (1.0 - angle.cos()) + 0.95 * (1.0 - (0.5 * angle).cos());
    // Area and volume of a torus: 4 pi^2 R r and 2 pi^2 R r^2.
    let bound = 1.0 - (off + sagitta) * 2.0 / 0.3;
    let points = lattice(64, 1.0);
    let found = field.implicit(&points).unwrap();
    let (mut both, mut either) = (0u32, 0u32);
    for (&p, &f) in points.iter().zip(&found) {
        let exact = torus(p);
        both += u32::from(exact < 0.0 && f < 0.0);
        either += u32::from(exact < 0.0 || f < 0.0);
        assert!(exact.abs() < 0.05 || (exact < 0.0) == (f < 0.0), "{f} instead of {exact} at {p:?}");
    }
    let iou = f64::from(both) / f64::from(either);
    assert!(iou > bound && bound > 0.97, "{iou} is not above {bound}, loss {loss}");
}

/// Mean angle in degrees between the field's slope and the normal of the torus.
fn normal_error(field: &SurfaceField, mesh: &Mesh) -> f64 {
    let context = best_context().unwrap();
    let points = MeshSearch::new(&context, mesh).unwrap().surface_points(4000, 1).unwrap();
    let angles = points.iter().zip(field.gradient(&points).unwrap()).map(|(&p, g)| {
        // Away from the middle of the tube.
        let around = f64::from(p[0]).hypot(p[1].into());
        let toward = 1.0 - 0.65 / around;
        let n = [f64::from(p[0]) * toward, f64::from(p[1]) * toward, p[2].into()];
        let dot = |a: [f64; 3], b: [f64; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
        let g = g.map(f64::from);
        (dot(n, g) / (dot(n, n) * dot(g, g)).sqrt()).clamp(-1.0, 1.0).acos().to_degrees()
    });
    angles.sum::<f64>() / 4000.0
}

/// On the finest level more entries are wanted than there are by far: what is left of one place at another is noise,
/// which distances hardly tell of.
#[test]
fn pairs_of_points_better_the_normals() {
    let Some(context) = best_context() else { return };
    let mesh = Mesh::torus(400, 200);
    let error = |slope_weight| {
        let config = SurfaceFieldConfig { slope_weight, ..coarse_grid() }.with_finest(128);
        let mut field = SurfaceField::for_mesh(&context, config, &mesh, 3).unwrap();
        field.fit(&mesh, &fit(400, 1e-2), &mut |_| ControlFlow::Continue(())).unwrap();
        normal_error(&field, &mesh)
    };
    let (without, with) = (error(0.0), error(coarse_grid().slope_weight));
    println!("{without} degrees without, {with} with slopes");
    assert!(with < 0.85 * without, "{without} degrees without, {with} with slopes");
}

fn coarse_occupancy() -> SurfaceFieldConfig {
    SurfaceFieldConfig { target: SurfaceTarget::Occupancy, ..coarse_grid() }
}

/// A field of zeros has ln 2 = 0.693.
#[test]
fn an_occupancy_learns_repeats_and_resumes_bit_by_bit() {
    learns_repeats_and_resumes("occupancy", coarse_occupancy(), 1e-2, 0.4);
}

#[test]
fn a_checkpoint_of_distances_is_not_gone_on_with_for_an_occupancy() {
    let Some(context) = best_context() else { return };
    let mesh = Mesh::torus(12, 6);
    let path = path("targets");
    let mut fit = FitConfig { checkpoint: Some((path.clone(), 1000)), ..fit(5, 1e-2) };
    let mut go_on = |_: &patchfield::models::Progress| ControlFlow::Continue(());
    let mut distances = SurfaceField::for_mesh(&context, coarse_grid(), &mesh, 3).unwrap();
    distances.fit(&mesh, &fit, &mut go_on).unwrap();
    fit.resume = true;
    let mut occupancy = SurfaceField::for_mesh(&context, coarse_occupancy(), &mesh, 3).unwrap();
    let error = occupancy.fit(&mesh, &fit, &mut go_on).unwrap_err().to_string();
    assert!(error.contains("target distance, not occupancy"), "{error}");
    let config = SurfaceFieldConfig { slope_weight: 0.5, ..coarse_grid() };
    let mut steeper = SurfaceField::for_mesh(&context, config, &mesh, 3).unwrap();
    let error = steeper.fit(&mesh, &fit, &mut go_on).unwrap_err().to_string();
    assert!(error.contains("slope_weight 0.25, not 0.5"), "{error}");
    // Of one cube, but another mesh.
    let error = distances.fit(&Mesh::torus(14, 6), &fit, &mut go_on).unwrap_err().to_string();
    assert!(error.contains("other data"), "{error}");
    std::fs::remove_file(path).unwrap();
}

/// Six seeds gave overlaps of 0.9948 to 0.9955. A logit is no distance: from corner to corner of a cell of marching cubes
/// it is not linear, and the surface comes out up to a third of a cell of 0.03 beside its place (0.0055 to 0.011).
#[test]
fn a_fitted_occupancy_has_the_inside_and_the_surface() {
    let Some(context) = best_context() else { return };
    let mesh = Mesh::torus(96, 48);
    let config = coarse_occupancy().with_finest(32);
    let mut field = SurfaceField::for_mesh(&context, config, &mesh, 3).unwrap();
    field.fit(&mesh, &fit(400, 1e-2), &mut |_| ControlFlow::Continue(())).unwrap();
    let mut implicit = |points: &[[f32; 3]]| field.implicit(points);
    let shared = overlap(&context, &mesh, &mut implicit, 100_000, 1).unwrap();
    assert!(shared.iou > 0.992, "{shared:?}");
    let cells = MarchingCubesConfig { cells: 64, cube: field.cube(), slack: f32::INFINITY };
    let found = marching_cubes(&cells, &mut implicit).unwrap();
    let errors = surface_errors(&context, &mesh, &found, 4000, 1).unwrap();
    assert!(found.open_edges() == 0 && errors.largest < 0.015 && errors.normal_angle < 10.0, "{errors:?}");
    // Occupancies say the same as the implicit function.
    let points = lattice(16, 0.95);
    let (occupancy, logits) = (field.eval(&points).unwrap(), field.implicit(&points).unwrap());
    for ((&p, o), l) in points.iter().zip(&occupancy).zip(&logits) {
        let exact = torus(p);
        assert!((0.0..=1.0).contains(o) && (*o > 0.5) == (*l < 0.0), "{o} and {l}");
        assert!(exact.abs() < 0.05 || (exact < 0.0) == (*o > 0.5), "{o} at {p:?}, {exact} from the surface");
    }
}
