//! References and cases of `attention::patch`.

use patchfield::Kernel;
use patchfield::attention::patch::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "attention/patch";

/// For each element of the tokens, in their order: where it lies in the images, and in which patch.
pub fn places(config: &PatchConfig) -> Vec<(usize, usize)> {
    let wide = |n: [u32; 3]| n.map(|n| n as usize);
    let ([depth, height, width], [pd, ph, pw]) = (wide(config.size), wide(config.patch));
    let channels = config.channels as usize;
    let at = |b: usize, c: usize, z: usize, y: usize, x: usize| match config.image {
        ImageLayout::Planar => (((b * channels + c) * depth + z) * height + y) * width + x,
        ImageLayout::Interleaved => (((b * depth + z) * height + y) * width + x) * channels + c,
    };
    let mut out = Vec::new();
    let mut patch = 0;
    for b in 0..config.batch as usize {
        for gz in (0..depth).step_by(pd) {
            for gy in (0..height).step_by(ph) {
                for gx in (0..width).step_by(pw) {
                    let mut inside = Vec::new();
                    for z in gz..gz + pd {
                        for y in gy..gy + ph {
                            for x in gx..gx + pw {
                                inside.extend((0..channels).map(|c| (c, at(b, c, z, y, x))));
                            }
                        }
                    }
                    if config.token == PatchLayout::ChannelsFirst {
                        inside.sort_by_key(|&(c, _)| c);
                    }
                    out.extend(inside.into_iter().map(|(_, at)| (at, patch)));
                    patch += 1;
                }
            }
        }
    }
    out
}

fn case(config: PatchConfig, random: &mut Random) -> Case {
    let places = places(&config);
    // Any bits: NaN and denormals must come through.
    let image = random.u32s(places.len());
    let tokens_in = random.u32s(places.len());
    let tokens = places.iter().map(|&(at, _)| image[at]).collect();
    let mut image_out = vec![0; places.len()];
    places.iter().zip(&tokens_in).for_each(|(&(at, _), &v)| image_out[at] = v);
    Case::new(KERNEL, format!("{config:?}"), move |context, b| {
        let cut = PatchArgs { image: b["image"], tokens: b["tokens"] };
        let mut recording = Patchify::new(context, config)?.prepare(&cut)?;
        let join = PatchArgs { image: b["image_out"], tokens: b["tokens_in"] };
        recording.append(Unpatchify::new(context, config)?.prepare(&join)?);
        Ok(recording)
    })
    .read("image", Data::U32(image))
    .read("tokens_in", Data::U32(tokens_in))
    .output("tokens", Expected::Exact(tokens))
    .output("image_out", Expected::Exact(image_out))
}

/// Partners that include the image itself and one out of range.
fn partners(batch: u32, random: &mut Random) -> Vec<u32> {
    (0..batch)
        .map(|b| if b % 4 == 3 { [batch, u32::MAX][b as usize / 4 % 2] } else { random.below(batch) })
        .collect()
}

fn mix_case(patch: PatchConfig, replaced: u32, random: &mut Random) -> Case {
    let config = PatchMixConfig { patch, replaced };
    let (batch, tokens) = (patch.batch, patch.tokens());
    let places = places(&patch);
    let image = random.u32s(places.len());
    let partner = partners(batch, random);
    // Ranks in any order, each once an image.
    let mut rank = Vec::new();
    for _ in 0..batch {
        let mut own: Vec<u32> = (0..tokens).collect();
        (1..tokens).rev().for_each(|i| own.swap(i as usize, random.below(i + 1) as usize));
        rank.extend(own);
    }
    let size = places.len() / batch as usize;
    let mut y = image.clone();
    for &(at, patch) in &places {
        let b = at / size;
        if rank[patch] < replaced && partner[b] < batch {
            y[at] = image[partner[b] as usize * size + at % size];
        }
    }
    Case::new(KERNEL, format!("mix {config:?}"), move |context, b| {
        PatchMix::new(context, config)?.prepare(&PatchMixArgs {
            image: b["image"],
            partner: b["partner"],
            rank: b["rank"],
            y: b["y"],
        })
    })
    .read("image", Data::U32(image))
    .read("partner", Data::U32(partner))
    .read("rank", Data::U32(rank))
    .output("y", Expected::Exact(y))
}

fn labels_case(batch: u32, classes: u32, share: f32, random: &mut Random) -> Case {
    let config = MixLabelsConfig { batch, classes, share };
    let label = random.vec((batch * classes) as usize, 0.0, 1.0);
    let partner = partners(batch, random);
    let (n, s) = (classes as usize, f64::from(share));
    let mix = |i: usize| {
        let (b, c) = (i / n, i % n);
        let other = if partner[b] < batch { partner[b] as usize * n + c } else { i };
        let v = (1.0 - s) * f64::from(label[i]) + s * f64::from(label[other]);
        (v, v)
    };
    let y: Vec<_> = (0..label.len()).map(mix).collect();
    Case::new(KERNEL, format!("labels [{batch}, {classes}], {share}"), move |context, b| {
        let args = MixLabelsArgs { label: b["label"], partner: b["partner"], y: b["y"] };
        MixLabels::new(context, config)?.prepare(&args)
    })
    .input("label", &label)
    .read("partner", Data::U32(partner.clone()))
    // A difference, a product and a sum.
    .output("y", Expected::near(&y, 3.0, 0.0))
}

/// An embedding and its gradients, with that of the images.
fn embedding_case(patch: PatchConfig, width: u32, random: &mut Random) -> Case {
    let config = PatchEmbeddingConfig { patch, width, bias: true };
    let places = places(&patch);
    let (p, w) = (patch.token_width() as usize, width as usize);
    let image = random.vec(places.len(), -1.0, 1.0);
    let weight = random.vec(p * w, -1.0, 1.0);
    let bias = random.vec(w, -1.0, 1.0);
    let rows = places.len() / p;
    let dy = random.vec(rows * w, -1.0, 1.0);
    let zeros = |n| vec![(0.0, 0.0); n];
    let (mut y, mut dimage, mut dweight, mut dbias) =
        (zeros(rows * w), zeros(places.len()), zeros(p * w), zeros(w));
    let add = |sum: &mut (f64, f64), v: f64| *sum = (sum.0 + v, sum.1 + v.abs());
    for row in 0..rows {
        for o in 0..w {
            let g = f64::from(dy[row * w + o]);
            add(&mut y[row * w + o], bias[o].into());
            add(&mut dbias[o], g);
            for i in 0..p {
                let at = places[row * p + i].0;
                let (x, k) = (f64::from(image[at]), f64::from(weight[o * p + i]));
                add(&mut y[row * w + o], x * k);
                add(&mut dimage[at], g * k);
                add(&mut dweight[o * p + i], g * x);
            }
        }
    }
    Case::new(KERNEL, format!("embedding {config:?}"), move |context, b| {
        let forward = PatchEmbeddingForward::new(context, config)?;
        let patches = context.create_storage("patches", (rows * p) as u64 * 4)?;
        let dpatches = context.create_storage("dpatches", (rows * p) as u64 * 4)?;
        let mut recording = forward.prepare(&PatchEmbeddingForwardArgs {
            image: b["image"],
            weight: b["weight"],
            bias: Some(b["bias"]),
            patches: (&patches).into(),
            y: b["y"],
            scratch: &b.scratch(&forward)?,
        })?;
        let backward = PatchEmbeddingBackward::new(context, config)?;
        recording.append(backward.prepare(&PatchEmbeddingBackwardArgs {
            patches: (&patches).into(),
            weight: b["weight"],
            dy: b["dy"],
            dweight: b["dweight"],
            dbias: Some(b["dbias"]),
            dimage: Some([b["dimage"], (&dpatches).into()]),
            scratch: &b.scratch(&backward)?,
        })?);
        Ok(recording)
    })
    .input("image", &image)
    .input("weight", &weight)
    .input("bias", &bias)
    .input("dy", &dy)
    // One rounding a term.
    .output("y", Expected::near(&y, (p + 1) as f64, 0.0))
    .output("dimage", Expected::near(&dimage, f64::from(width), 0.0))
    .output("dweight", Expected::near(&dweight, rows as f64, 0.0))
    .output("dbias", Expected::near(&dbias, rows as f64, 0.0))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "rows of the grid counted by its height",
        kernel: KERNEL,
        shader: "attention/patch::patchify",
        find: "let rows = n / params.grid_width;",
        replace: "let rows = n / params.grid_height;",
    },
    Canary {
        bug: "the last images of a batch left out",
        kernel: KERNEL,
        shader: "attention/patch::unpatchify",
        find: "min(first + params.images, params.batch)",
        replace: "min(first + params.images, params.batch - params.batch % 2u)",
    },
    Canary {
        bug: "the ranks of the first image for all",
        kernel: KERNEL,
        shader: "attention/patch::mix",
        find: "rank[b * params.patches + patch_index]",
        replace: "rank[patch_index]",
    },
];

pub fn cases() -> Vec<Case> {
    use ImageLayout::{Interleaved, Planar};
    use PatchLayout::{ChannelsFirst, ChannelsLast};
    let mut random = Random::new(91);
    let mut cases = Vec::new();
    // batch, channels, size, patch
    let shapes = [
        (1, 1, [1, 1, 1], [1, 1, 1]),
        (3, 3, [1, 6, 10], [1, 2, 5]),
        (2, 4, [1, 8, 12], [1, 4, 4]),
        (5, 3, [1, 16, 8], [1, 1, 1]),
        (1, 2, [4, 6, 9], [2, 3, 3]),
        (3, 1, [8, 8, 8], [4, 4, 4]),
        (2, 3, [1, 32, 64], [1, 32, 32]),
        (17, 3, [1, 16, 24], [1, 8, 8]),
        (2, 1, [1, 7, 13], [1, 7, 13]),
    ];
    for (batch, channels, size, patch) in shapes {
        for (image, token) in [
            (Planar, ChannelsFirst),
            (Planar, ChannelsLast),
            (Interleaved, ChannelsFirst),
            (Interleaved, ChannelsLast),
        ] {
            let config = PatchConfig { batch, channels, size, patch, image, token };
            cases.push(case(config, &mut random));
        }
    }
    // Every patch size from 1 to 32.
    for p in 1..=32 {
        cases.push(case(PatchConfig::square(1, 2, 2 * p, p), &mut random));
    }
    for (replaced, image) in [(0, Planar), (5, Planar), (5, Interleaved), (12, Planar)] {
        let patch = PatchConfig {
            batch: 9,
            channels: 3,
            size: [1, 12, 16],
            patch: [1, 4, 4],
            image,
            token: ChannelsFirst,
        };
        cases.push(mix_case(patch, replaced, &mut random));
    }
    for (batch, classes, share) in [(1, 1, 0.0), (9, 10, 0.3), (6, 65, 1.0)] {
        cases.push(labels_case(batch, classes, share, &mut random));
    }
    cases.push(embedding_case(PatchConfig::square(2, 3, 8, 4), 12, &mut random));
    cases.push(embedding_case(PatchConfig::square(3, 3, 5, 1), 7, &mut random));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_a_permutation_in_the_orders_that_the_names_say() {
        let config = PatchConfig {
            batch: 1,
            channels: 2,
            size: [1, 2, 4],
            patch: [1, 2, 2],
            image: ImageLayout::Planar,
            token: PatchLayout::ChannelsFirst,
        };
        let at = |config| places(config).into_iter().map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(at(&config)[..8], [0, 1, 4, 5, 8, 9, 12, 13]);
        let last = PatchConfig { token: PatchLayout::ChannelsLast, ..config };
        assert_eq!(at(&last)[..8], [0, 8, 1, 9, 4, 12, 5, 13]);
        let mut all = at(&PatchConfig { image: ImageLayout::Interleaved, ..last });
        assert_eq!(all[..4], [0, 1, 2, 3]);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..16));
    }
}
