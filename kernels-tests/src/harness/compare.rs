//! Acceptance of a result: element by element, then as a whole, with NaN only where it belongs.

use super::case::{Data, Expected};

/// `Err` says what is wrong and where it is worst.
pub fn compare(got: &Data, expected: &Expected) -> Result<(), String> {
    match expected {
        Expected::Any => Ok(()),
        Expected::Exact(want) => exact(got, want),
        Expected::Near { value, magnitude, ulps, absolute } => {
            let (got, rounding): (Vec<f64>, f64) = match got {
                Data::F32(v) => (v.iter().map(|&x| x.into()).collect(), 0.0),
                Data::F16(v) => (v.iter().map(|&x| x.to_f64()).collect(), 1.0 / 2048.0),
                Data::U32(_) => return Err("expected floats, got u32".into()),
            };
            near(&got, value, magnitude, *ulps, *absolute, rounding)
        }
    }
}

fn exact(got: &Data, want: &[u32]) -> Result<(), String> {
    let bytes = got.bytes();
    let got: Vec<u32> = bytemuck::pod_collect_to_vec(bytes);
    if got.len() != want.len() {
        return Err(format!("{} elements instead of {}", got.len(), want.len()));
    }
    let wrong = got.iter().zip(want).filter(|(g, w)| g != w).count();
    match got.iter().zip(want).position(|(g, w)| g != w) {
        None => Ok(()),
        Some(i) => Err(format!(
            "{wrong} of {} elements differ, the first at [{i}]: {:#010x} instead of {:#010x}",
            want.len(),
            got[i],
            want[i]
        )),
    }
}

fn near(
    got: &[f64],
    value: &[f64],
    magnitude: &[f64],
    ulps: f64,
    absolute: f64,
    rounding: f64,
) -> Result<(), String> {
    const UNIT: f64 = 1.0 / 16_777_216.0;
    if got.len() != value.len() || value.len() != magnitude.len() {
        return Err(format!("{} elements instead of {}", got.len(), value.len()));
    }
    let (mut worst, mut at, mut wrong) = (0.0, 0, 0);
    let (mut error, mut scale) = (0.0, 0.0);
    for (i, ((&g, &v), &m)) in got.iter().zip(value).zip(magnitude).enumerate() {
        if v.is_nan() != g.is_nan() || (v.is_infinite() || g.is_infinite()) && v != g {
            return Err(format!("[{i}]: {g:e} instead of {v:e}"));
        }
        if !v.is_finite() {
            continue;
        }
        if !m.is_finite() || m < v.abs() * 0.999 {
            return Err(format!("[{i}]: the reference's magnitude {m:e} is below its value {v:e}"));
        }
        // An f16 result is rounded once more, and is denormal below 2^-14.
        let round = rounding * v.abs() + if rounding > 0.0 { 6e-8 } else { 0.0 };
        let bound = absolute + ulps * UNIT * m + round;
        let off = (g - v).abs();
        wrong += usize::from(off > bound);
        let ratio = if bound > 0.0 {
            off / bound
        } else if off > 0.0 {
            f64::INFINITY
        } else {
            0.0
        };
        if ratio > worst {
            (worst, at) = (ratio, i);
        }
        error += off * off;
        scale += bound * bound;
    }
    if wrong > 0 {
        return Err(format!(
            "{wrong} of {} elements off, the worst at [{at}]: {:e} instead of {:e} ({worst:.2} times the bound; magnitude {:e})",
            value.len(),
            got[at],
            value[at],
            magnitude[at]
        ));
    }
    // Rounding errors scatter: over many elements they stay well below the bound of each.
    if value.len() >= 64 && error > 0.36 * scale {
        return Err(format!(
            "no element is off, but the errors are too large together: {:.2} of the bound",
            (error / scale).sqrt()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(value: Vec<f64>) -> Expected {
        let magnitude = value.iter().map(|v: &f64| if v.is_nan() { 0.0 } else { v.abs() }).collect();
        Expected::Near { value, magnitude, ulps: 4.0, absolute: 0.0 }
    }

    #[test]
    fn nan_must_sit_where_the_reference_has_it() {
        let nan = f32::NAN;
        assert!(compare(&Data::F32(vec![1.0, nan]), &expected(vec![1.0, f64::NAN])).is_ok());
        assert!(compare(&Data::F32(vec![nan, 1.0]), &expected(vec![1.0, f64::NAN])).is_err());
        assert!(compare(&Data::F32(vec![1.0, nan]), &expected(vec![1.0, 1.0])).is_err());
        assert!(compare(&Data::F32(vec![1.0, 1.0]), &expected(vec![1.0, f64::NAN])).is_err());
    }

    #[test]
    fn one_wrong_element_in_many_is_found() {
        let mut got = vec![1.0f32; 100_000];
        got[77_777] = 1.000_01;
        assert!(compare(&Data::F32(got), &expected(vec![1.0; 100_000])).is_err());
    }
}
