//! Reference and cases of `dense::copy`.

use half::f16;
use patchfield::Kernel;
use patchfield::dense::copy::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "dense/copy";
const VEC4: Option<CopyVariant> = Some(CopyVariant::Vec4);
const SCALAR: Option<CopyVariant> = Some(CopyVariant::Scalar);

/// Two halves to a word, the first in the low one.
fn pack(halves: &[f16]) -> Vec<u32> {
    halves
        .chunks(2)
        .map(|pair| u32::from(pair[0].to_bits()) | pair.get(1).map_or(0, |h| u32::from(h.to_bits()) << 16))
        .collect()
}

/// `(a x + b y, |a x| + |b y|)`; `y` is not looked at where b = 0.
pub fn add(a: f32, x: f32, b: f32, y: f32) -> (f64, f64) {
    let first = f64::from(a) * f64::from(x);
    let second = if b == 0.0 { 0.0 } else { f64::from(b) * f64::from(y) };
    (first + second, first.abs() + second.abs())
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the halves of a word swapped",
        kernel: KERNEL,
        shader: "dense/copy::narrow_vec4",
        find: "pack(v.x, v.y)",
        replace: "pack(v.y, v.x)",
    },
    Canary {
        bug: "an odd count's last half left out",
        kernel: KERNEL,
        shader: "dense/copy::widen",
        find: "y[2u * i] = half_to_float_bits(word & 0xffffu);",
        replace: "if 2u * i + 1u < params.count { y[2u * i] = half_to_float_bits(word & 0xffffu); }",
    },
    Canary {
        bug: "0 times what was there, which may be NaN",
        kernel: KERNEL,
        shader: "dense/copy::add",
        find: "if params.b != 0.0 {
            sum += params.b * total[i];
        }",
        replace: "sum += params.b * total[i];",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(3);
    let mut cases = Vec::new();
    for n in [1, 2, 63, 64, 65, 127, 128, 129, 1000, 1020, 1021, 1024, 1028] {
        cases.extend(row(n, None, &mut random));
    }
    cases.extend(row(256, VEC4, &mut random));
    cases.extend(row(1028, SCALAR, &mut random));
    // One workgroup more than one row of the grid holds.
    cases.push(fill(65_535 * 64 + 1, SCALAR));
    cases.extend(specials());
    cases
}

fn fill(n: u32, variant: Option<CopyVariant>) -> Case {
    let config = FillConfig { count: n, value: 0x7fc0_1234, variant };
    Case::new(KERNEL, format!("fill, {n}, {variant:?}"), move |context, b| {
        Fill::new(context, config)?.prepare(&FillArgs { y: b["y"] })
    })
    .output("y", Expected::Exact(vec![config.value; n as usize]))
}

fn convert(name: &str, x: Data, y: Vec<u32>, config: ConvertConfig) -> Case {
    let name = format!("{:?} {name}, {}, {:?}", config.conversion, config.count, config.variant);
    Case::new(KERNEL, name, move |context, b| {
        Convert::new(context, config)?.prepare(&ConvertArgs { x: b["x"], y: b["y"] })
    })
    .read("x", x)
    .output("y", Expected::Exact(y))
}

/// Both directions, exact to the bit.
fn conversions(name: &str, x: Vec<f32>, h: Vec<f16>, variant: Option<CopyVariant>) -> [Case; 2] {
    let config = |count, conversion| ConvertConfig { count, conversion, variant };
    let narrow: Vec<_> = x.iter().map(|&x| f16::from_f32(x)).collect();
    let wide = h.iter().map(|h| h.to_f32().to_bits()).collect();
    [
        convert(name, Data::F32(x.clone()), pack(&narrow), config(x.len() as u32, Conversion::Narrow)),
        convert(name, Data::F16(h.clone()), wide, config(h.len() as u32, Conversion::Widen)),
    ]
}

fn row(n: u32, variant: Option<CopyVariant>, random: &mut Random) -> Vec<Case> {
    let size = n as usize;
    let mut cases = vec![fill(n, variant)];
    let words = random.u32s(size);
    let config = CopyConfig { count: n, variant };
    cases.push(
        Case::new(KERNEL, format!("copy, {n}, {variant:?}"), move |context, b| {
            CopyWords::new(context, config)?.prepare(&CopyArgs { x: b["x"], y: b["y"] })
        })
        .read("x", Data::U32(words.clone()))
        .output("y", Expected::Exact(words)),
    );
    let x: Vec<_> =
        (0..n).map(|_| random.uniform(-1.0, 1.0) * 2f32.powi(random.below(44) as i32 - 27)).collect();
    let h =
        (0..n).map(|_| f16::from_f32(random.uniform(-1.0, 1.0) * 2f32.powi(random.below(40) as i32 - 24)));
    cases.extend(conversions("random", x.clone(), h.collect(), variant));
    for (a, b) in [(1.0, 1.0), (-0.7, 0.3), (2.5, 0.0)] {
        let config = AddConfig { count: n, a, b, variant };
        let mut y = random.vec(size, -5.0, 5.0);
        if b == 0.0 {
            y.fill(f32::NAN);
        }
        let expected: Vec<_> = x.iter().zip(&y).map(|(&x, &y)| add(a, x, b, y)).collect();
        // Two products and a sum, each rounded once: 2 units of the terms, and the second order.
        cases.push(
            Case::new(KERNEL, format!("add {a} {b}, {n}, {variant:?}"), move |context, buffers| {
                Add::new(context, config)?.prepare(&AddArgs { x: buffers["x"], y: buffers["y"] })
            })
            .input("x", &x)
            .update("y", Data::F32(y), Expected::near(&expected, 2.1, 3e-38)),
        );
    }
    cases
}

/// Every f16, and the f32 around every edge of the narrowing.
fn specials() -> Vec<Case> {
    // Quiet NaNs only: a host may quieten a signalling one when it moves it.
    let halves: Vec<_> =
        (0..=u16::MAX).map(f16::from_bits).filter(|h| !h.is_nan() || h.to_bits() & 0x200 != 0).collect();
    let mut x =
        vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX, 65_504.0, 65_519.996, 65_520.0];
    for h in halves.iter().filter(|h| h.is_finite()).step_by(37) {
        let here = h.to_f32();
        let next = f16::from_bits((h.to_bits() & 0x7fff) + 1).to_f32();
        let middle = if next.is_finite() { (here.abs() + next) / 2.0 } else { 65_520.0 };
        for bits in [middle.to_bits() - 1, middle.to_bits(), middle.to_bits() + 1] {
            x.push(f32::from_bits(bits).copysign(here));
        }
    }
    conversions("edges", x, halves, None).into()
}
