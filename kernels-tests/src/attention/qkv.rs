//! Cases of `attention::qkv`.

use patchfield::Kernel;
use patchfield::attention::qkv::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "attention/qkv";

fn case(rows: u32, width: u32, random: &mut Random) -> Case {
    let config = QkvConfig { rows, width };
    let n = width as usize;
    // Any bits: NaN and denormals must come through.
    let x = random.u32s(rows as usize * 3 * n);
    let part = |i: usize| x.chunks(n).skip(i).step_by(3).flatten().copied().collect::<Vec<_>>();
    let [q, k, v] = [part(0), part(1), part(2)];
    Case::new(KERNEL, format!("[{rows}, 3, {width}]"), move |context, b| {
        let split = QkvArgs { x: b["x"], q: b["q"], k: b["k"], v: b["v"] };
        let mut recording = SplitQkv::new(context, config)?.prepare(&split)?;
        let join = QkvArgs { x: b["joined"], ..split };
        recording.append(JoinQkv::new(context, config)?.prepare(&join)?);
        Ok(recording)
    })
    .read("x", Data::U32(x.clone()))
    .output("q", Expected::Exact(q))
    .output("k", Expected::Exact(k))
    .output("v", Expected::Exact(v))
    .output("joined", Expected::Exact(x))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "values for keys",
        kernel: KERNEL,
        shader: "attention/qkv::split",
        find: "k[i] = x[at + params.width];",
        replace: "k[i] = x[at + 2u * params.width];",
    },
    Canary {
        bug: "rows counted from the wrong width",
        kernel: KERNEL,
        shader: "attention/qkv::join",
        find: "let at = i + i / params.width * 2u * params.width;",
        replace: "let at = i + i / (params.width + 1u) * 2u * params.width;",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(121);
    let shapes = [(1, 1), (3, 7), (65, 4), (5, 64), (17, 12), (2, 257), (64, 1)];
    shapes.into_iter().map(|(rows, width)| case(rows, width, &mut random)).collect()
}
