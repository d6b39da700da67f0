//! Training as a whole: it learns, two runs give the same bits, and so does a run that is stopped
//! and resumed. A loss that is not finite ends it with an error and the last good checkpoint.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use kernels_tests::harness::adapter::best_context;
use patchfield::models::{FitConfig, Picture, RadialBasesConfig, RadialField, RadialFieldConfig, Region};
use patchfield::radial::{GridKind, Interpolation, RadialFunction};
use patchfield::train::{Checkpoint, Schedule};
use patchfield::{Context, Error};

fn picture() -> Picture {
    let (width, height) = (48u32, 32u32);
    let data = (0..width * height)
        .flat_map(|i| {
            let (x, y) = ((i % width) as f32 / 47.0, (i / width) as f32 / 31.0);
            [x, 0.5 + 0.5 * (20.0 * x * y).sin(), if (x - 0.5).hypot(y - 0.5) < 0.3 { 1.0 } else { 0.2 }]
        })
        .collect();
    Picture::new(width, height, 3, data).unwrap()
}

fn field(context: &Context) -> RadialField {
    let mut config = RadialFieldConfig::for_picture(48, 32, 3).with_table(4, 10);
    config.width = 16;
    RadialField::new(context, config, 5).unwrap()
}

fn fit(name: &str, steps: u64) -> FitConfig {
    let path = std::env::temp_dir().join(format!("patchfield-{}-{name}.safetensors", std::process::id()));
    FitConfig {
        steps,
        batch: 512,
        learning_rate: 1e-2,
        // One schedule for all lengths: a resumed run must see the rates of the whole run.
        schedule: Schedule::Cosine { steps: 60, floor: 0.01 },
        seed: 9,
        report_every: 5,
        checkpoint: Some((path, 1000)),
        resume: false,
    }
}

fn path(fit: &FitConfig) -> PathBuf {
    fit.checkpoint.as_ref().unwrap().0.clone()
}

fn quiet() -> impl FnMut(&patchfield::models::Progress) -> ControlFlow<()> {
    |_| ControlFlow::Continue(())
}

#[test]
fn it_learns_and_repeats_and_resumes_bit_by_bit() {
    let Some(context) = best_context() else { return };
    let target = picture();
    let whole = fit("whole", 60);
    let mut first = field(&context);
    let mut losses = Vec::new();
    first
        .fit(&target, &whole, &mut |p| {
            losses.push(p.loss);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(losses.len(), 12);
    assert!(losses[11] < losses[0] / 10.0, "{losses:?}");
    let rendered = first.render(48, 32, Region::WHOLE).unwrap();
    assert!(target.psnr(&rendered) > 22.0, "{} dB", target.psnr(&rendered));

    let again = fit("again", 60);
    field(&context).fit(&target, &again, &mut quiet()).unwrap();
    let want = Checkpoint::load(&path(&whole)).unwrap();
    assert!(want == Checkpoint::load(&path(&again)).unwrap(), "two runs differ");

    // Cancelled at step 25 by the callback, resumed by a field that knows nothing.
    let mut parts = fit("parts", 60);
    let stopped = field(&context).fit(&target, &parts, &mut |p| {
        if p.step == 25 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped, Err(Error::Cancelled { step: 25 }));
    parts.resume = true;
    field(&context).fit(&target, &parts, &mut quiet()).unwrap();
    assert!(want == Checkpoint::load(&path(&parts)).unwrap(), "a resumed run differs");

    // A resume that could not give the same bits is refused.
    let other = FitConfig { seed: 10, ..parts.clone() };
    assert!(matches!(field(&context).fit(&target, &other, &mut quiet()), Err(Error::Checkpoint { .. })));

    // A saved model renders the same bits; a crop is part of the whole.
    let model = path(&fit("model", 0));
    first.save(&model).unwrap();
    let loaded = RadialField::load(&context, &model).unwrap();
    assert!(loaded.render(48, 32, Region::WHOLE).unwrap() == rendered);
    let crop = loaded.render(8, 4, Region::of_pixels((16, 8), (8, 4), (48, 32))).unwrap();
    for y in 0..4 {
        for x in 0..8 {
            let at = ((y + 8) * 48 + x + 16) * 3;
            let (a, b) = (crop.data[(y * 8 + x) * 3], rendered.data[at]);
            assert!((a - b).abs() < 1e-3, "({x}, {y}): {a} {b}");
        }
    }
    for fit in [&whole, &again, &parts] {
        std::fs::remove_file(path(fit)).unwrap();
    }
    std::fs::remove_file(model).unwrap();
}

/// What a checkpoint's file says beside its tensors, without `names`: as written before it said them.
fn forget(path: &Path, names: &[&str]) {
    let bytes = std::fs::read(path).unwrap();
    let (length, rest) = bytes.split_at(8);
    let (header, tensors) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    for name in names {
        header["__metadata__"].as_object_mut().unwrap().remove(*name).unwrap();
    }
    let header = serde_json::to_vec(&header).unwrap();
    std::fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_slice(), tensors].concat())
        .unwrap();
}

#[test]
fn a_fit_goes_on_from_files_that_say_less() {
    let Some(context) = best_context() else { return };
    let mut options = fit("older", 60);
    let mut whole = field(&context);
    whole.fit(&picture(), &options, &mut quiet()).unwrap();
    let want = Checkpoint::load(&path(&options)).unwrap();
    let stop = |options: &FitConfig| {
        let fresh = FitConfig { resume: false, ..options.clone() };
        let stopped = field(&context).fit(&picture(), &fresh, &mut |p| {
            if p.step == 25 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(stopped, Err(Error::Cancelled { step: 25 }));
    };
    options.resume = true;
    stop(&options);
    forget(&path(&options), &["interpolation", "kind", "align_corners", "data"]);
    field(&context).fit(&picture(), &options, &mut quiet()).unwrap();
    assert!(want == Checkpoint::load(&path(&options)).unwrap(), "a resumed run differs");

    // What such a file does not say of its grid is what grids were then.
    stop(&options);
    forget(&path(&options), &["interpolation"]);
    let mut config = *whole.config();
    config.grid.interpolation = Interpolation::Smoothstep;
    let other = RadialField::new(&context, config, 5).unwrap().fit(&picture(), &options, &mut quiet());
    let text = other.unwrap_err().to_string();
    assert!(text.contains("was made with interpolation linear, not smoothstep"), "{text}");
    std::fs::remove_file(path(&options)).unwrap();
}

/// A hybrid with few centres, of a picture's own number of parameters.
fn hybrid(context: &Context, target: &Picture) -> RadialField {
    let mut config = RadialFieldConfig::hybrid_with_parameters(48, 32, 3, 9000).unwrap();
    config.width = 16;
    // The published frequencies are for thousands of steps, not for sixty.
    let radial = config.radial.as_mut().unwrap();
    (radial.frequencies, radial.hidden_frequencies) = (Some([0.125, 8.0]), Some([1.0, 10.0]));
    RadialField::for_picture(context, config, target, 3).unwrap()
}

#[test]
fn a_hybrid_learns_and_repeats_and_resumes_bit_by_bit() {
    let Some(context) = best_context() else { return };
    let target = picture();
    // All pixels at once, their neighbours found once; and a part of them, new in each step.
    for batch in [2048, 512] {
        let fit = |name: &str| FitConfig { batch, ..fit(&format!("hybrid-{batch}-{name}"), 60) };
        let whole = fit("whole");
        let mut first = hybrid(&context, &target);
        let before = target.psnr(&first.render(48, 32, Region::WHOLE).unwrap());
        first.fit(&target, &whole, &mut quiet()).unwrap();
        let rendered = first.render(48, 32, Region::WHOLE).unwrap();
        let after = target.psnr(&rendered);
        assert!(after > before + 8.0, "{before} dB, then {after} dB with {batch}");

        let mut parts = fit("parts");
        let stopped = hybrid(&context, &target).fit(&target, &parts, &mut |p| {
            if p.step == 25 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(stopped, Err(Error::Cancelled { step: 25 }));
        parts.resume = true;
        // Centres come from the checkpoint too.
        let mut other = RadialField::new(&context, *first.config(), 8).unwrap();
        other.fit(&target, &parts, &mut quiet()).unwrap();
        let want = Checkpoint::load(&path(&whole)).unwrap();
        assert!(want == Checkpoint::load(&path(&parts)).unwrap(), "a resumed run differs");

        let model = path(&fit("model"));
        first.save(&model).unwrap();
        let loaded = RadialField::load(&context, &model).unwrap();
        assert_eq!(loaded.config(), first.config());
        assert!(loaded.render(48, 32, Region::WHOLE).unwrap() == rendered);
        for file in [path(&whole), path(&parts), model] {
            std::fs::remove_file(file).unwrap();
        }
    }
}

#[test]
fn a_hybrid_of_a_difficult_picture_is_fitted_or_refused() {
    let Some(context) = best_context() else { return };
    let fit = FitConfig { checkpoint: None, ..fit("difficult", 5) };
    // One colour: no pixel matters more than another. Few pixels: many centres on each.
    for (width, height) in [(16, 9), (1, 1), (1, 40), (3, 2)] {
        let flat = Picture::new(width, height, 1, vec![0.25; (width * height) as usize]).unwrap();
        let mut config = RadialFieldConfig::hybrid_with_parameters(width, height, 1, 8000).unwrap();
        config.width = 16;
        let mut field = RadialField::for_picture(&context, config, &flat, 0).unwrap();
        field.fit(&flat, &fit, &mut quiet()).unwrap();
        assert!(field.render(width, height, Region::WHOLE).unwrap().data.iter().all(|v| v.is_finite()));
    }
    // Fewer centres than neighbours, one layer, another shape.
    let good = RadialFieldConfig::hybrid_with_parameters(48, 32, 3, 8000).unwrap();
    let with = |change: fn(&mut RadialFieldConfig)| {
        let mut config = good;
        change(&mut config);
        RadialField::new(&context, config, 0).unwrap_err().to_string()
    };
    let few = with(|c| c.radial.as_mut().unwrap().centres = 3);
    assert!(few.contains("`centres` = 3") && few.contains("4 neighbours"), "{few}");
    assert!(with(|c| c.layers = 1).contains("`layers`"));
    assert!(with(|c| c.radial.as_mut().unwrap().extent[0] = f64::NAN).contains("`extent`"));
}

#[test]
fn a_loss_that_is_not_finite_ends_the_fit_and_keeps_the_checkpoint() {
    let Some(context) = best_context() else { return };
    let good = fit("finite", 10);
    let mut field = field(&context);
    field.fit(&picture(), &good, &mut quiet()).unwrap();
    let kept = Checkpoint::load(&path(&good)).unwrap();
    let more = FitConfig { steps: 40, resume: true, ..good.clone() };
    let error = field.fit(&picture(), &FitConfig { learning_rate: 1e30, ..more.clone() }, &mut quiet());
    let error = error.unwrap_err();
    assert!(matches!(error, Error::NonFinite { what: "loss", .. }), "{error}");
    assert!(error.to_string().contains("last good checkpoint"), "{error}");
    assert!(kept == Checkpoint::load(&path(&good)).unwrap());
    // A run that has not written its checkpoint yet does not point to one.
    let fresh = FitConfig { learning_rate: 1e30, ..fit("fresh", 10) };
    let error = self::field(&context).fit(&picture(), &fresh, &mut quiet()).unwrap_err().to_string();
    assert!(!error.contains("checkpoint"), "{error}");
    assert!(!path(&fresh).exists());
    // The same field, now full of NaN, goes on from the checkpoint, as one that saw no NaN does.
    field.fit(&picture(), &more, &mut quiet()).unwrap();
    let whole = fit("no-nan", 40);
    self::field(&context).fit(&picture(), &whole, &mut quiet()).unwrap();
    assert!(Checkpoint::load(&path(&whole)).unwrap() == Checkpoint::load(&path(&good)).unwrap());
    std::fs::remove_file(path(&good)).unwrap();
    std::fs::remove_file(path(&whole)).unwrap();
}

#[test]
fn a_device_lost_during_a_fit_leaves_a_checkpoint_for_the_next() {
    let (Some(context), Some(lost)) = (best_context(), best_context()) else { return };
    let mut first = fit("lost", 40);
    first.checkpoint = Some((path(&first), 10));
    // Nobody tells the context: it finds out by itself.
    let result = field(&lost).fit(&picture(), &first, &mut |p| {
        if p.step == 25 {
            lost.device().destroy();
        }
        ControlFlow::Continue(())
    });
    assert_eq!(result, Err(Error::DeviceLost));
    let step: u64 = Checkpoint::load(&path(&first)).unwrap().get(&path(&first), "step").unwrap();
    assert_eq!(step, 20);
    let more = FitConfig { resume: true, ..first.clone() };
    field(&context).fit(&picture(), &more, &mut quiet()).unwrap();
    let whole = fit("never-lost", 40);
    field(&context).fit(&picture(), &whole, &mut quiet()).unwrap();
    assert!(Checkpoint::load(&path(&whole)).unwrap() == Checkpoint::load(&path(&first)).unwrap());
    std::fs::remove_file(path(&first)).unwrap();
    std::fs::remove_file(path(&whole)).unwrap();
}

#[test]
fn a_checkpoint_of_something_else_is_not_gone_on_with() {
    let Some(context) = best_context() else { return };
    let first = fit("something-else", 10);
    let config = RadialFieldConfig::hybrid_with_parameters(48, 32, 3, 8000).unwrap();
    let new = |config| RadialField::new(&context, config, 5).unwrap();
    new(config).fit(&picture(), &first, &mut quiet()).unwrap();
    let more = FitConfig { steps: 20, resume: true, ..first.clone() };
    let refused = |config: RadialFieldConfig, picture: &Picture, fit: &FitConfig, what: &str| {
        let error = new(config).fit(picture, fit, &mut quiet()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    // All tensors have the same shapes.
    let with = |change: fn(&mut RadialBasesConfig)| {
        let mut config = config;
        change(config.radial.as_mut().unwrap());
        config
    };
    let gaussian = with(|radial| radial.function = RadialFunction::Gaussian);
    refused(gaussian, &picture(), &more, "was made with function");
    refused(with(|radial| radial.frequencies = None), &picture(), &more, "frequencies.0 0.125, not none");
    let mut other = picture();
    other.data[7] += 0.25;
    refused(config, &other, &more, "other data");
    refused(config, &picture(), &FitConfig { steps: 5, ..more.clone() }, "step 10 of a fit, of which only 5");
    refused(config, &picture(), &FitConfig { seed: 1, ..more.clone() }, "seed 9, not 1");
    refused(config, &picture(), &FitConfig { checkpoint: None, ..more.clone() }, "`resume`");
    let never = FitConfig { checkpoint: Some((path(&first), 0)), ..more.clone() };
    refused(config, &picture(), &never, "`checkpoint` = 0");
    // What is not finite is named by its place.
    other.data[3 * 48 + 7] = f32::NAN;
    refused(config, &other, &more, "NaN in row 1, column 2");
    // The file is as it was, and goes on.
    new(config).fit(&picture(), &more, &mut quiet()).unwrap();
    std::fs::remove_file(path(&first)).unwrap();
}

/// Each of these changes what a table means, not its size.
#[test]
fn a_file_says_how_its_grid_is_read() {
    let Some(context) = best_context() else { return };
    let path = path(&fit("grid", 1));
    let mut config = RadialFieldConfig::for_picture(48, 32, 3).with_table(3, 12);
    config.grid.interpolation = Interpolation::Smoothstep;
    config.grid.kind = GridKind::Dense;
    config.grid.align_corners = true;
    let field = RadialField::new(&context, config, 5).unwrap();
    field.save(&path).unwrap();
    let loaded = RadialField::load(&context, &path).unwrap();
    assert_eq!(loaded.config(), field.config());
    let render = |field: &RadialField| field.render(24, 16, Region::WHOLE).unwrap();
    assert_eq!(render(&loaded), render(&field));
    let mut file = Checkpoint::load(&path).unwrap();
    file.set("interpolation", "cubic");
    file.save(&path).unwrap();
    let error = RadialField::load(&context, &path).unwrap_err().to_string();
    assert!(
        error.contains("`interpolation` = \"cubic\"") && error.contains("linear or smoothstep"),
        "{error}"
    );
    std::fs::remove_file(path).unwrap();
}

#[test]
fn bad_input_is_refused_by_name() {
    let Some(context) = best_context() else { return };
    let good = FitConfig { checkpoint: None, ..fit("none", 1) };
    let mut field = field(&context);
    let mut refused = |fit: FitConfig, picture: &Picture, what: &str| {
        let error = field.fit(picture, &fit, &mut quiet()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    refused(FitConfig { batch: 0, ..good.clone() }, &picture(), "`batch`");
    refused(FitConfig { report_every: 0, ..good.clone() }, &picture(), "`report_every`");
    refused(FitConfig { learning_rate: f64::NAN, ..good.clone() }, &picture(), "`learning_rate`");
    refused(good.clone(), &Picture::new(1, 1, 1, vec![0.5]).unwrap(), "`channels`");
    assert!(Picture::new(0, 5, 3, vec![]).is_err());
    assert!(Picture::new(u32::MAX, u32::MAX, 3, vec![]).is_err());
    assert!(Picture::new(2, 2, 3, vec![0.0; 11]).is_err());
    // One pixel is a picture.
    let mut tiny = RadialField::new(&context, RadialFieldConfig::for_picture(1, 1, 1), 0).unwrap();
    tiny.fit(&Picture::new(1, 1, 1, vec![0.5]).unwrap(), &good, &mut quiet()).unwrap();
}
