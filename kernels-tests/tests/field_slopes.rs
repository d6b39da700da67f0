//! Values and slopes of fields against the same field written down in f64, from the tensors of its file: grids
//! and hybrids, of pictures and of distances. Slopes are compared with central differences in f64.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use kernels_tests::harness::Random;
use kernels_tests::harness::adapter::best_context;
use kernels_tests::radial::grid_encoding::cell_corners;
use patchfield::models::{
    FitConfig, Mesh, Picture, RadialBasesConfig, RadialField, RadialFieldConfig, SurfaceField,
    SurfaceFieldConfig, SurfaceTarget,
};
use patchfield::radial::{FusedMlpConfig, GridEncodingConfig, RadialFunction, log_spaced};
use patchfield::train::{Checkpoint, Schedule};

/// Step of the differences. Values around 1 are rounded to 1e-16 in f64: slopes to 1e-9.
const STEP: f64 = 1e-7;

/// A field has no slope where a neuron, a hat or a cell begins or the set of neighbours changes. Points that
/// are so near to such a place are left out: what decides there is rounded to about 1e-5 in f32, and the points of a
/// difference lie less than that apart in it.
const MARGIN: f64 = 1e-4;

/// A field in f64.
struct Reference {
    grid: GridEncodingConfig,
    network: FusedMlpConfig,
    radial: Option<Radial>,
    table: Vec<f32>,
    weights: Vec<f32>,
}

struct Radial {
    config: RadialBasesConfig,
    centres: Vec<f32>,
    shapes: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    first_weight: Vec<f32>,
    first_bias: Vec<f32>,
}

impl Reference {
    fn load(path: &Path, parts: (GridEncodingConfig, u32, u32, Option<RadialBasesConfig>, u32)) -> Self {
        let (grid, width, layers, radial, outputs) = parts;
        let file = Checkpoint::load(path).unwrap();
        let read = |name: &str, shape: &[u32]| file.tensor(path, name, shape).unwrap().to_vec();
        let (inputs, layers) = if radial.is_some() { (width, layers - 1) } else { (grid.outputs(), layers) };
        let network = FusedMlpConfig { inputs, width, layers, outputs, ..FusedMlpConfig::default() };
        let radial = radial.map(|config| {
            let joined = grid.outputs() + config.features;
            Radial {
                config,
                centres: read("radial.centres", &[config.centres, grid.dims]),
                shapes: read("radial.shapes", &[config.centres, config.shape.size(grid.dims)]),
                weights: read("radial.weights", &[config.centres, config.features]),
                bias: read("radial.bias", &[joined]),
                first_weight: read("first.weight", &[width, joined]),
                first_bias: read("first.bias", &[width]),
            }
        });
        let table = read("grid.table", &[grid.parameter_count().unwrap()]);
        let weights = read("network.weights", &[network.weight_count()]);
        Self { grid, network, radial, table, weights }
    }

    /// The outputs at a point of the unit square or cube, and how near it is to a place without a slope.
    fn eval(&self, x: &[f64]) -> (Vec<f64>, f64) {
        let mut margin = f64::MAX;
        let mut hidden = self.encoded(x, &mut margin);
        if let Some(radial) = &self.radial {
            hidden = radial.first_layer(x, hidden, &mut margin);
        }
        let layers = self.network.layer_table();
        for (l, layer) in layers.iter().enumerate() {
            let w = |o: u32, i: u32| f64::from(self.weights[(layer.first + o * layer.stride() + i) as usize]);
            hidden = (0..layer.outputs)
                .map(|o| hidden.iter().zip(0..).map(|(h, i)| w(o, i) * h).sum::<f64>() + w(o, layer.bias))
                .map(|z| if l + 1 < layers.len() { relu(z, &mut margin) } else { z })
                .collect();
        }
        (hidden, margin)
    }

    fn encoded(&self, x: &[f64], margin: &mut f64) -> Vec<f64> {
        let offset = if self.grid.align_corners { 0.0 } else { 0.5 };
        let mut all = Vec::new();
        for level in self.grid.level_table().unwrap() {
            let p: Vec<f64> = x.iter().map(|x| f64::from(level.scale) * x + offset).collect();
            let cell: Vec<u32> = p.iter().map(|p| *p as u32).collect();
            let f: Vec<f64> = p.iter().map(|p| p.fract()).collect();
            f.iter().for_each(|f| *margin = margin.min(*f).min(1.0 - f));
            let corners = cell_corners(&self.grid, &level, &cell, &f, &f);
            all.extend((0..self.grid.features as usize).map(|c| {
                let value = |entry: usize| f64::from(self.table[entry * self.grid.features as usize + c]);
                corners.iter().map(|corner| corner.weight * value(corner.entry)).sum::<f64>()
            }));
        }
        all
    }
}

fn relu(z: f64, margin: &mut f64) -> f64 {
    *margin = margin.min(z.abs());
    z.max(0.0)
}

impl Radial {
    fn first_layer(&self, x: &[f64], mut joined: Vec<f64>, margin: &mut f64) -> Vec<f64> {
        let (dims, features) = (x.len(), self.config.features);
        let place: Vec<f64> = match dims {
            2 => x.iter().zip(self.config.extent).map(|(x, extent)| (2.0 * x - 1.0) * extent).collect(),
            _ => x.to_vec(),
        };
        let offset = |i: usize| -> Vec<f64> {
            (0..dims).map(|d| place[d] - f64::from(self.centres[i * dims + d])).collect()
        };
        let squared = |i: &usize| offset(*i).iter().map(|u| u * u).sum::<f64>();
        let mut order: Vec<usize> = (0..self.config.centres as usize).collect();
        order.sort_by(|i, j| squared(i).total_cmp(&squared(j)));
        let k = self.config.neighbours as usize;
        *margin = margin.min(squared(&order[k]) / squared(&order[k - 1]) - 1.0);
        order.truncate(k);
        let kernels: Vec<f64> = order.iter().map(|&i| self.kernel(i, &offset(i), margin)).collect();
        let sum = kernels.iter().sum::<f64>() + 1e-8;
        let frequency = |range: Option<[f64; 2]>, n, f: usize| {
            range.map(|[low, high]| f64::from(log_spaced(low, high, n)[f]))
        };
        joined.extend((0..features as usize).map(|f| {
            let m = frequency(self.config.frequencies, features, f);
            let psi = |phi: f64| m.map_or(phi, |m| (m * phi).sin());
            let weight = |i: usize| f64::from(self.weights[i * features as usize + f]);
            order.iter().zip(&kernels).map(|(&i, kernel)| weight(i) * psi(kernel / sum)).sum::<f64>()
        }));
        joined.iter_mut().zip(&self.bias).for_each(|(h, bias)| *h += f64::from(*bias));
        let width = self.first_bias.len();
        let row = |o: usize| &self.first_weight[o * joined.len()..][..joined.len()];
        (0..width)
            .map(|o| {
                let products = row(o).iter().zip(&joined).map(|(w, h)| f64::from(*w) * h);
                let z = f64::from(self.first_bias[o]) + products.sum::<f64>();
                match frequency(self.config.hidden_frequencies, width as u32, o) {
                    Some(m) => z + (m * z).sin(),
                    None => relu(z, margin),
                }
            })
            .collect()
    }

    /// The two functions that the published fields have.
    fn kernel(&self, i: usize, u: &[f64], margin: &mut f64) -> f64 {
        match self.config.function {
            RadialFunction::InverseQuadratic => {
                let [xx, xy, yy] = std::array::from_fn(|s| f64::from(self.shapes[3 * i + s]));
                1.0 / (1.0 + xx * u[0] * u[0] + 2.0 * xy * u[0] * u[1] + yy * u[1] * u[1])
            }
            RadialFunction::Hat => {
                let hat = |u: f64| {
                    let v = (f64::from(self.shapes[i]) * u).abs();
                    *margin = margin.min(v).min((1.0 - v).abs());
                    (1.0 - v).max(0.0)
                };
                u.iter().copied().map(hat).product()
            }
            other => panic!("{other:?} is not written down here"),
        }
    }
}

/// `values` and `slopes` at `points`, `[points, outputs]` and `[points, outputs, dims]`. `fastest`: the highest
/// frequency of a sinusoid.
fn compare(field: &Reference, points: &[Vec<f64>], values: &[f32], slopes: &[f32], fastest: f64) {
    let (outputs, dims) = (field.network.outputs as usize, field.grid.dims as usize);
    assert!(values.iter().chain(slopes).all(|v| v.is_finite()));
    let (mut kept, mut value, mut slope, mut off) = (0, 0.0f64, 0.0f64, [0.0f64; 2]);
    for (n, x) in points.iter().enumerate() {
        let (here, margin) = field.eval(x);
        if margin < MARGIN {
            continue;
        }
        kept += 1;
        for axis in 0..dims {
            let at = |step: f64| {
                let moved: Vec<f64> = (0..dims).map(|d| x[d] + if d == axis { step } else { 0.0 }).collect();
                field.eval(&moved).0
            };
            for (o, (above, below)) in at(STEP).iter().zip(at(-STEP)).enumerate() {
                let i = n * outputs + o;
                let difference = (above - below) / (2.0 * STEP);
                value = value.max(here[o].abs());
                slope = slope.max(difference.abs());
                off[0] = off[0].max((here[o] - f64::from(values[i])).abs());
                off[1] = off[1].max((difference - f64::from(slopes[i * dims + axis])).abs());
            }
        }
    }
    assert!(2 * kept > points.len(), "{kept} of {} points were kept", points.len());
    // Sums of up to 64 terms in at most seven steps, each rounded to 2^-24 of the terms; the argument of
    // a sine is off by as much times the frequency, forward and backward.
    let bound = 0.5f64.powi(24) * (7.0 * 64.0 + 8.0 * fastest);
    eprintln!("off {:e} and {:e} of the largest; bound {bound:e}", off[0] / value, off[1] / slope);
    assert!(off[0] < bound * value && off[1] < bound * slope, "{off:?} beside {value} and {slope}");
}

fn fit(steps: u64, rate: f64) -> FitConfig {
    FitConfig {
        steps,
        batch: 512,
        learning_rate: rate,
        schedule: Schedule::Cosine { steps, floor: 0.01 },
        seed: 4,
        report_every: 1000,
        checkpoint: None,
        resume: false,
    }
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("patchfield-slopes-{}-{name}.safetensors", std::process::id()))
}

/// Places in the unit square or cube.
fn places<const D: usize>(n: usize) -> Vec<[f32; D]> {
    let mut random = Random::new(31);
    (0..n).map(|_| std::array::from_fn(|_| random.uniform(0.001, 0.999))).collect()
}

fn of_picture(name: &str, config: RadialFieldConfig) {
    let Some(context) = best_context() else { return };
    let colour = |i: u32| {
        let (x, y) = ((i % 48) as f32 / 47.0, (i / 48) as f32 / 31.0);
        [x, 0.5 + 0.5 * (20.0 * x * y).sin(), 0.2 + 0.5 * x * y]
    };
    let picture = Picture::new(48, 32, 3, (0..48 * 32).flat_map(colour).collect()).unwrap();
    let mut field = RadialField::for_picture(&context, config, &picture, 3).unwrap();
    field.fit(&picture, &fit(20, 1e-2), &mut |_| ControlFlow::Continue(())).unwrap();
    let path = path(name);
    field.save(&path).unwrap();
    let RadialFieldConfig { grid, width, layers, channels, radial } = config;
    let reference = Reference::load(&path, (grid, width, layers, radial, channels));
    std::fs::remove_file(&path).unwrap();
    let points = places::<2>(500);
    let exact: Vec<Vec<f64>> = points.iter().map(|p| p.map(f64::from).to_vec()).collect();
    let (values, slopes) = (field.eval(&points).unwrap(), field.gradient(&points).unwrap());
    compare(&reference, &exact, &values, &slopes, fastest(radial));
    assert!(field.eval(&[]).unwrap().is_empty() && field.gradient(&[]).unwrap().is_empty());
}

fn of_torus(name: &str, config: SurfaceFieldConfig) {
    let Some(context) = best_context() else { return };
    let mesh = Mesh::torus(48, 24);
    let mut field = SurfaceField::for_mesh(&context, config, &mesh, 3).unwrap();
    field.fit(&mesh, &fit(20, 1e-2), &mut |_| ControlFlow::Continue(())).unwrap();
    let path = path(name);
    field.save(&path).unwrap();
    let SurfaceFieldConfig { target, grid, width, layers, radial, .. } = config;
    let reference = Reference::load(&path, (grid, width, layers, radial, 1));
    std::fs::remove_file(&path).unwrap();
    // What the field rounds on the way to the unit cube is no part of its slope.
    let points: Vec<[f32; 3]> = places::<3>(500).into_iter().map(|p| field.cube().place(p)).collect();
    let exact: Vec<Vec<f64>> = points.iter().map(|&p| field.cube().unit(p).map(f64::from).to_vec()).collect();
    let (values, slopes) = (field.implicit(&points).unwrap(), field.gradient(&points).unwrap());
    // The outputs are 16 times the distance in edges of the cube, or logits.
    let edge = 2.0 * field.cube().half;
    let unit = if target == SurfaceTarget::Distance { edge / 16.0 } else { 1.0 };
    let values: Vec<f32> = values.iter().map(|d| d / unit).collect();
    let slopes: Vec<f32> = slopes.as_flattened().iter().map(|d| d * edge / unit).collect();
    compare(&reference, &exact, &values, &slopes, fastest(radial));
    assert!(field.implicit(&[]).unwrap().is_empty() && field.gradient(&[]).unwrap().is_empty());
}

fn fastest(radial: Option<RadialBasesConfig>) -> f64 {
    let ranges = radial.map_or([None; 2], |radial| [radial.frequencies, radial.hidden_frequencies]);
    ranges.into_iter().flatten().map(|range| range[1]).fold(0.0, f64::max)
}

#[test]
fn of_a_grid_for_a_picture() {
    let mut config = RadialFieldConfig::for_picture(48, 32, 3).with_table(4, 10);
    config.width = 16;
    of_picture("grid", config);
}

#[test]
fn of_hybrids_for_a_picture() {
    let published = RadialFieldConfig::hybrid_with_parameters(48, 32, 3, 9000).unwrap();
    let radial = published.radial.unwrap();
    // Both published ranges at once would multiply their errors: the argument of the second is then off by tenths.
    let fast = RadialBasesConfig { hidden_frequencies: Some([1.0, 10.0]), ..radial };
    let hidden_fast = RadialBasesConfig { frequencies: Some([0.125, 8.0]), ..radial };
    let plain = RadialBasesConfig { frequencies: None, hidden_frequencies: None, ..radial };
    for (name, radial) in [("fast", fast), ("hidden-fast", hidden_fast), ("plain", plain)] {
        of_picture(name, RadialFieldConfig { width: 16, radial: Some(radial), ..published });
    }
}

/// So coarse that a few steps reach every entry.
fn coarse(radial: Option<RadialBasesConfig>) -> SurfaceFieldConfig {
    let mut config = SurfaceFieldConfig { width: 16, radial, ..SurfaceFieldConfig::default() };
    config.grid.levels = 3;
    config.grid.base_resolution = 4;
    config.grid.features = 2;
    config.grid.log2_table_size = 12;
    config.with_finest(16)
}

#[test]
fn of_grids_for_a_torus() {
    of_torus("torus-grid", coarse(None));
    of_torus("occupancy", SurfaceFieldConfig { target: SurfaceTarget::Occupancy, ..coarse(None) });
}

#[test]
fn of_a_hybrid_for_a_torus() {
    let radial = SurfaceFieldConfig::hybrid(12).unwrap().radial.unwrap();
    of_torus("torus-hybrid", coarse(Some(RadialBasesConfig { centres: 150, features: 8, ..radial })));
}
