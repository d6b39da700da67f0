//! Pictures that are larger than a buffer may be: fields are placed, fitted and rendered in parts, and come
//! out as on a device that has room; what has no room anywhere is refused with the bytes that it would take.
//!
//! Limits are made small for the gate. `PATCHFIELD_LONG_TESTS=1` adds 16 megapixels on a device with
//! WebGPU's default limits.

use std::ops::ControlFlow;
use std::time::Instant;

use kernels_tests::harness::adapter::small_context;
use patchfield::models::{FitConfig, Picture, RadialField, RadialFieldConfig, Region};
use patchfield::train::Schedule;
use patchfield::{Context, Error};

/// A gradient, a disc and stripes that become finer to the right.
fn picture(width: u32, height: u32) -> Picture {
    let data = (0..height)
        .flat_map(|j| {
            (0..width).flat_map(move |i| {
                let (x, y) = (i as f32 / width as f32, j as f32 / height as f32);
                let disc = if (x - 0.5).hypot(y - 0.4) < 0.3 { 0.9 } else { 0.2 };
                [x, 0.5 + 0.5 * (200.0 * x * x + 9.0 * y).sin(), disc]
            })
        })
        .collect();
    Picture::new(width, height, 3, data).unwrap()
}

fn fit(steps: u64, batch: u32) -> FitConfig {
    FitConfig {
        steps,
        batch,
        learning_rate: 1e-2,
        schedule: Schedule::Constant,
        seed: 3,
        report_every: steps,
        checkpoint: None,
        resume: false,
    }
}

/// Places and fits a field and renders it whole; the losses come before.
fn run(
    context: &Context,
    config: RadialFieldConfig,
    picture: &Picture,
    fit: &FitConfig,
) -> (Vec<f64>, Picture) {
    let clock = Instant::now();
    let mut field = RadialField::for_picture(context, config, picture, 7).unwrap();
    eprintln!("{} parameters, placed after {:.1?}", field.parameter_count(), clock.elapsed());
    let mut losses = Vec::new();
    let report = &mut |p: &patchfield::models::Progress| {
        losses.push(p.loss);
        ControlFlow::Continue(())
    };
    field.fit(picture, fit, report).unwrap();
    eprintln!("fitted after {:.1?}", clock.elapsed());
    let rendered = field.render(picture.width, picture.height, Region::WHOLE).unwrap();
    eprintln!("rendered after {:.1?}, {:.2} dB", clock.elapsed(), picture.psnr(&rendered));
    (losses, rendered)
}

#[test]
fn a_picture_beyond_a_binding_comes_out_as_on_a_device_with_room() {
    // A pixel has 8 bytes of position: just a binding. Its three values are half as much again.
    let (width, height) = (512, 256);
    let (Some(small), Some(large)) = (small_context(1 << 20), small_context(1 << 27)) else { return };
    let picture = picture(width, height);
    assert!(picture.data.len() * 4 > 1 << 20);
    let grid = RadialFieldConfig::for_picture(width, height, 3).with_table(8, 12);
    let radial = RadialFieldConfig::hybrid_for_picture(width, height, 3, 10).unwrap();
    for config in [grid, radial] {
        let fit = fit(4, 512);
        let (losses, rendered) = run(&small, config, &picture, &fit);
        let (expected_losses, expected) = run(&large, config, &picture, &fit);
        assert!(losses.iter().all(|loss| loss.is_finite()));
        assert_eq!(losses, expected_losses);
        assert!(rendered == expected, "the rendered pictures differ");
    }
    // What has no room says who wants how much.
    let config = RadialFieldConfig::for_picture(width, height, 3).with_table(16, 20);
    let error = RadialField::new(&small, config, 1).err().unwrap();
    assert!(matches!(error, Error::LimitExceeded { have: 1_048_576, .. }), "{error:?}");
    let (width, height) = (512, 257);
    let radial = RadialFieldConfig::hybrid_for_picture(width, height, 3, 10).unwrap();
    let error = RadialField::for_picture(&small, radial, &self::picture(width, height), 1).err().unwrap();
    assert!(error.to_string().contains("1052672, but the device has 1048576"), "{error}");
}

#[test]
fn forty_thousand_by_forty_thousand_is_refused_with_its_bytes() {
    let error = Picture::new(40_000, 40_000, 3, Vec::new()).unwrap_err().to_string();
    assert!(error.contains("`picture`") && error.contains("19200000000 bytes"), "{error}");
    let Some(context) = small_context(1 << 27) else { return };
    let config = RadialFieldConfig::for_picture(40_000, 40_000, 3).with_table(4, 8);
    let field = RadialField::new(&context, config, 1).unwrap();
    let error = field.render(40_000, 40_000, Region::WHOLE).unwrap_err().to_string();
    assert!(error.contains("19200000000 bytes"), "{error}");
    // A part of it at its full resolution is no more than that part.
    let corner = Region::of_pixels((39_000, 20_000), (40, 30), (40_000, 40_000));
    assert_eq!(field.render(40, 30, corner).unwrap().data.len(), 40 * 30 * 3);
}

#[test]
fn sixteen_megapixels_on_the_default_limits_of_webgpu() {
    if std::env::var("PATCHFIELD_LONG_TESTS").as_deref() != Ok("1") {
        eprintln!("only with PATCHFIELD_LONG_TESTS=1");
        return;
    }
    let Some(context) = small_context(1 << 27) else { return };
    let picture = picture(4096, 4096);
    let grid = RadialFieldConfig::for_picture(4096, 4096, 3).with_table(16, 19);
    let radial = RadialFieldConfig::hybrid_for_picture(4096, 4096, 3, 12).unwrap();
    for config in [grid, radial] {
        let (losses, rendered) = run(&context, config, &picture, &fit(20, 4096));
        assert!(losses.iter().all(|loss| loss.is_finite()));
        assert!(picture.psnr(&rendered) > 8.0, "{} dB", picture.psnr(&rendered));
    }
}
