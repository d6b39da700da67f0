//! Reference and cases of `dense::sort`.

use patchfield::Kernel;
use patchfield::dense::sort::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "dense/sort";

/// The argsort, by the standard library's stable sort.
pub fn reference(keys: &[u32], key: SortKey, descending: bool, bits: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..keys.len() as u32).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (keys[a as usize], keys[b as usize]);
        let low = |x: u32| x & (u32::MAX >> (32 - bits));
        let ordering = match key {
            SortKey::U32 => low(a).cmp(&low(b)),
            SortKey::I32 => (a as i32).cmp(&(b as i32)),
            SortKey::F32 => f32::from_bits(a).total_cmp(&f32::from_bits(b)),
        };
        if descending { ordering.reverse() } else { ordering }
    });
    order
}

#[derive(Debug, Clone, Copy)]
enum Keys {
    /// All bits.
    Any,
    /// Five different ones.
    Few,
    /// One and the same.
    Equal,
    /// In order already.
    Rising,
    /// Floats, with both zeros, both infinities, NaNs of both signs and denormals.
    Special,
}

fn keys(kind: Keys, n: u32, random: &mut Random) -> Vec<u32> {
    let special = [
        0.0f32.to_bits(),
        (-0.0f32).to_bits(),
        f32::INFINITY.to_bits(),
        f32::NEG_INFINITY.to_bits(),
        0x7fc0_0000,
        0xffc0_0000,
        0x7f80_0001,
        0xffff_ffff,
        1,
        0x8000_0001,
        1.0f32.to_bits(),
        (-1.0f32).to_bits(),
    ];
    (0..n)
        .map(|i| match kind {
            Keys::Any => random.u32(),
            Keys::Few => 0x8000_0003u32.wrapping_mul(random.below(5) + 3),
            Keys::Equal => 0x1234_5678,
            Keys::Rising => i * 3,
            Keys::Special if random.below(3) > 0 => special[random.below(12) as usize],
            Keys::Special => random.uniform(-10.0, 10.0).to_bits(),
        })
        .collect()
}

fn case(config: SortConfig, kind: Keys, random: &mut Random) -> Case {
    let SortConfig { key, count, payload, descending, bits, variant } = config;
    let input = keys(kind, count, random);
    let order = reference(&input, key, descending, bits);
    let pick = |from: &[u32]| order.iter().map(|&i| from[i as usize]).collect::<Vec<_>>();
    let sorted = pick(&input);
    let name =
        format!("{key:?}, {count}, {kind:?}, {payload:?}, descending {descending}, {bits} bits, {variant:?}");
    let case = Case::new(KERNEL, name, move |context, b| {
        let kernel = Sort::new(context, config)?;
        let scratch = b.scratch(&kernel)?;
        kernel.prepare(&SortArgs {
            keys: b["keys"],
            keys_out: b["keys_out"],
            values: (payload == SortPayload::Values).then(|| b["values"]),
            values_out: (payload != SortPayload::None).then(|| b["values_out"]),
            scratch: &scratch,
        })
    })
    .read("keys", Data::U32(input))
    .output("keys_out", Expected::Exact(sorted));
    match payload {
        SortPayload::None => case,
        SortPayload::Indices => case.output("values_out", Expected::Exact(order)),
        SortPayload::Values => {
            let values = random.u32s(count as usize);
            let moved = pick(&values);
            case.read("values", Data::U32(values)).output("values_out", Expected::Exact(moved))
        }
    }
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "equal keys in the wrong order",
        kernel: "dense/sort",
        shader: "dense/sort::scatter_indices",
        find: "let value = i;",
        replace: "let value = select(i, i ^ 1u, keys[i] == keys[min(i ^ 1u, params.count - 1u)]);",
    },
    Canary {
        bug: "a missed barrier between writers and readers",
        kernel: "dense/sort",
        shader: "dense/sort::scatter_values",
        find: "        workgroupBarrier();\n        for (var j",
        replace: "        for (var j",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(7);
    let mut cases = Vec::new();
    let payloads = [SortPayload::None, SortPayload::Values, SortPayload::Indices];
    let all = [SortKey::U32, SortKey::I32, SortKey::F32];
    // A block is 1,024 keys staged and 4,096 direct. 33,793 keys are the first whose table of digits
    // takes two levels to scan if staged; direct 8,193 (512 entries fill a level, blocks have 256).
    let staged = [1, 2, 15, 16, 17, 63, 64, 65, 1023, 1024, 1025, 2049, 33_793];
    let direct = [1, 2, 511, 512, 513, 1025, 4095, 4096, 4097, 8193, 33_793];
    for (variant, sizes) in [(SortVariant::Staged, &staged[..]), (SortVariant::Direct, &direct[..])] {
        let variant = Some(variant);
        for (i, &count) in sizes.iter().enumerate() {
            for (j, key) in all.into_iter().enumerate() {
                for descending in [false, true] {
                    let payload = payloads[(i + j + usize::from(descending)) % 3];
                    let config = SortConfig { key, count, payload, descending, bits: 32, variant };
                    let kind = if key == SortKey::F32 { Keys::Special } else { Keys::Any };
                    cases.push(case(config, kind, &mut random));
                }
            }
        }
        for kind in [Keys::Few, Keys::Equal, Keys::Rising] {
            for key in all {
                for (payload, descending) in [(payloads[2], false), (payloads[1], true)] {
                    let config = SortConfig { key, count: 3001, payload, descending, bits: 32, variant };
                    cases.push(case(config, kind, &mut random));
                }
            }
        }
        // One, two, three passes and more; a last digit of each width.
        for bits in [1, 2, 3, 4, 5, 8, 9, 17, 31] {
            for (payload, descending) in payloads.into_iter().zip([false, true, false]) {
                let config =
                    SortConfig { key: SortKey::U32, count: 2500, payload, descending, bits, variant };
                cases.push(case(config, Keys::Any, &mut random));
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_and_nans_are_in_total_order() {
        let keys = [f32::NAN, 0.0, -0.0, -1.0, f32::INFINITY, -f32::NAN].map(f32::to_bits);
        assert_eq!(reference(&keys, SortKey::F32, false, 32), [5, 3, 2, 1, 4, 0]);
    }
}
