//! SIREN: it learns a picture, two runs give the same bits, and networks side by side are what
//! they would be alone.

use std::ops::ControlFlow;

use kernels_tests::harness::adapter::best_context;
use patchfield::models::{FitConfig, Picture, Region, SirenField, SirenFieldConfig};
use patchfield::train::Schedule;
use patchfield::{Context, Error};

fn picture(turn: f32) -> Picture {
    let (width, height) = (32u32, 24u32);
    let data = (0..width * height)
        .flat_map(|i| {
            let (x, y) = ((i % width) as f32 / 31.0, (i / width) as f32 / 23.0);
            let disc = if (x - 0.5).hypot(y - 0.4) < 0.3 { 0.9 } else { 0.2 };
            [x, 0.5 + 0.5 * (12.0 * x * y + turn).sin(), disc]
        })
        .collect();
    Picture::new(width, height, 3, data).unwrap()
}

const FIT: FitConfig = FitConfig {
    steps: 200,
    batch: 32 * 24,
    learning_rate: 2e-3,
    schedule: Schedule::Cosine { steps: 200, floor: 0.05 },
    seed: 3,
    report_every: 20,
    checkpoint: None,
    resume: false,
};

fn values(field: &SirenField, context: &Context) -> Vec<Vec<u32>> {
    let bits = |data: Vec<f32>| data.into_iter().map(f32::to_bits).collect();
    field.parameters().unwrap().iter().map(|(_, tensor)| bits(tensor.read(context).unwrap())).collect()
}

#[test]
fn it_learns_a_picture_and_repeats_bit_by_bit() {
    let Some(context) = best_context() else { return };
    let config = SirenFieldConfig { width: 32, layers: 2, ..Default::default() };
    let mut field = SirenField::new(&context, config, 1).unwrap();
    assert_eq!(field.parameter_count(), 3 * 32 + 33 * 32 + 33 * 3);
    let mut rates = Vec::new();
    let target = [picture(0.0)];
    let mut report = |p: &patchfield::models::Progress| {
        rates.push(p.psnr);
        ControlFlow::Continue(())
    };
    field.fit(&target, &FIT, &mut report).unwrap();
    assert!(rates[9] > rates[0] + 6.0 && rates[9] > 22.0, "{rates:?}");
    let rendered = field.render(32, 24, Region::WHOLE).unwrap();
    assert!(target[0].psnr(&rendered[0]) > 22.0, "{} dB", target[0].psnr(&rendered[0]));

    let mut again = SirenField::new(&context, config, 1).unwrap();
    again.fit(&target, &FIT, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(values(&field, &context) == values(&again, &context), "two runs differ");

    let path = std::env::temp_dir().join(format!("patchfield-{}-siren.safetensors", std::process::id()));
    field.save(&path).unwrap();
    let loaded = SirenField::load(&context, &path).unwrap();
    assert!(loaded.render(32, 24, Region::WHOLE).unwrap() == rendered);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_fit_that_is_stopped_goes_on_with_the_same_bits() {
    let Some(context) = best_context() else { return };
    let config = SirenFieldConfig { instances: 2, width: 16, layers: 2, ..Default::default() };
    let pictures = [picture(0.0), picture(1.0)];
    // Fewer pixels than the pictures have: their order goes on too.
    let fit = FitConfig { steps: 30, batch: 100, report_every: 10, ..FIT };
    let mut whole = SirenField::new(&context, config, 5).unwrap();
    whole.fit(&pictures, &fit, &mut |_| ControlFlow::Continue(())).unwrap();

    let path = std::env::temp_dir().join(format!("patchfield-{}-siren-fit.safetensors", std::process::id()));
    let fit = FitConfig { checkpoint: Some((path.clone(), 1000)), ..fit };
    let mut stopped = SirenField::new(&context, config, 5).unwrap();
    let error = stopped.fit(&pictures, &fit, &mut |_| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(error, Error::Cancelled { step: 10 }), "{error:?}");
    assert!(values(&stopped, &context) != values(&whole, &context));
    // From the file alone: other initial values.
    let mut resumed = SirenField::new(&context, config, 6).unwrap();
    let fit = FitConfig { resume: true, ..fit };
    resumed.fit(&pictures, &fit, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(values(&resumed, &context) == values(&whole, &context), "a resumed fit differs");

    // Another seed would choose other pixels.
    let error = resumed.fit(&pictures, &FitConfig { seed: 4, ..fit }, &mut |_| ControlFlow::Continue(()));
    assert!(error.unwrap_err().to_string().contains("seed 3, not 4"));
    assert!(values(&SirenField::load(&context, &path).unwrap(), &context) == values(&whole, &context));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn networks_side_by_side_are_what_they_are_alone() {
    let Some(context) = best_context() else { return };
    let config = SirenFieldConfig { width: 16, layers: 2, frequency: 20.0, ..Default::default() };
    let pictures: Vec<Picture> = (0..5).map(|i| picture(i as f32)).collect();
    let many = SirenFieldConfig { instances: 5, ..config };
    let mut together = SirenField::new(&context, many, 7).unwrap();
    let start: Vec<Vec<f32>> =
        together.parameters().unwrap().iter().map(|(_, t)| t.read(&context).unwrap()).collect();
    let fit = FitConfig { steps: 10, ..FIT };
    together.fit(&pictures, &fit, &mut |_| ControlFlow::Continue(())).unwrap();
    let end: Vec<Vec<f32>> =
        together.parameters().unwrap().iter().map(|(_, t)| t.read(&context).unwrap()).collect();
    for (i, picture) in pictures.iter().enumerate() {
        let mut alone = SirenField::new(&context, config, 0).unwrap();
        for ((_, tensor), start) in alone.parameters().unwrap().iter().zip(&start) {
            let n = tensor.len() as usize;
            tensor.write(&context, &start[i * n..(i + 1) * n]).unwrap();
        }
        alone.fit(std::slice::from_ref(picture), &fit, &mut |_| ControlFlow::Continue(())).unwrap();
        for ((name, tensor), end) in alone.parameters().unwrap().iter().zip(&end) {
            let got = tensor.read(&context).unwrap();
            for (a, b) in got.iter().zip(&end[i * got.len()..]) {
                // Sums are cut differently, and Adam divides small gradients by small ones.
                assert!((a - b).abs() < 2e-4, "{name} of network {i}: {a} {b}");
            }
        }
    }
}

#[test]
fn bad_input_is_refused_by_name() {
    let Some(context) = best_context() else { return };
    let config = SirenFieldConfig { width: 8, layers: 1, ..Default::default() };
    for (bad, what) in [
        (SirenFieldConfig { instances: 0, ..config }, "`weights`"),
        (SirenFieldConfig { width: 0, ..config }, "`weights`"),
        (SirenFieldConfig { layers: 0, ..config }, "`layers`"),
        (SirenFieldConfig { layers: 1000, ..config }, "`layers`"),
        (SirenFieldConfig { channels: 0, ..config }, "`channels`"),
        (SirenFieldConfig { frequency: f32::NAN, ..config }, "`frequency`"),
        (SirenFieldConfig { width: u32::MAX, instances: u32::MAX, ..config }, "`weights`"),
    ] {
        let error = SirenField::new(&context, bad, 0).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    let mut field = SirenField::new(&context, config, 0).unwrap();
    let mut refused = |pictures: &[Picture], fit: FitConfig, what: &str| {
        let error = field.fit(pictures, &fit, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    refused(&[], FIT, "`pictures`");
    refused(&[picture(0.0), picture(1.0)], FIT, "`pictures`");
    refused(&[Picture::new(1, 1, 1, vec![0.5]).unwrap()], FIT, "`pictures`");
    refused(&[picture(0.0)], FitConfig { batch: 0, ..FIT }, "`batch`");
    refused(&[picture(0.0)], FitConfig { learning_rate: f64::INFINITY, ..FIT }, "`learning_rate`");
    let mut broken = picture(0.0);
    broken.data[5] = f32::NAN;
    refused(&[broken], FIT, "NaN in row 0");
    let error = field
        .fit(&[picture(0.0)], &FitConfig { learning_rate: 1e30, ..FIT }, &mut |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(error.to_string().contains("`loss` is not finite"), "{error}");
}
