//! What the kernels around attention refuse, by name: sizes in their plans, which need no device, and
//! buffers that are not as configured.

use kernels_tests::harness::adapter::best_context;
use patchfield::attention::*;
use patchfield::dense::*;
use patchfield::dispatch::{Capabilities, Plan};
use patchfield::{BufferView, Error, Kernel, Result};

/// `plan` of each configuration must fail with a message that holds the text.
fn refused<C: Copy>(plan: fn(&C, &Capabilities) -> Result<Plan>, rows: &[(C, &str)]) {
    for (config, says) in rows {
        let error = plan(config, &Capabilities::baseline()).map(drop).expect_err(says);
        assert!(error.to_string().contains(says), "{error}, but not {says}");
    }
}

const BIG: u32 = 1 << 16;

#[test]
fn sizes() {
    let norm = LayerNormConfig { rows: 4, width: 4, ..Default::default() };
    let rows = [
        (LayerNormConfig { rows: 0, ..norm }, "`rows` = 0"),
        (LayerNormConfig { width: 0, ..norm }, "`width` = 0"),
        (LayerNormConfig { epsilon: f32::NAN, ..norm }, "`epsilon` = NaN"),
        (LayerNormConfig { epsilon: -1.0, ..norm }, "`epsilon`"),
        (LayerNormConfig { rows: BIG, width: BIG, ..norm }, "4294967296 elements"),
    ];
    refused(LayerNormForward::plan, &rows);
    refused(LayerNormBackward::plan, &rows);

    let patch = PatchConfig::square(2, 3, 8, 4);
    let rows = [
        (PatchConfig { batch: 0, ..patch }, "`batch` = 0"),
        (PatchConfig { channels: 0, ..patch }, "`channels` = 0"),
        (PatchConfig { size: [1, 8, 0], ..patch }, "`size`"),
        (PatchConfig { patch: [1, 4, 3], ..patch }, "`patch`"),
        (PatchConfig { patch: [0, 4, 4], ..patch }, "`patch`"),
        (PatchConfig { size: [1, BIG, BIG], ..patch }, "elements"),
    ];
    refused(Patchify::plan, &rows);
    refused(Unpatchify::plan, &rows);
    let mixed = rows.map(|(patch, says)| (PatchMixConfig { patch, replaced: 0 }, says));
    refused(PatchMix::plan, &mixed);
    refused(PatchMix::plan, &[(PatchMixConfig { patch, replaced: 5 }, "`replaced` = 5")]);
    let embedded = rows.map(|(patch, says)| (PatchEmbeddingConfig { patch, width: 8, bias: true }, says));
    refused(PatchEmbeddingForward::plan, &embedded);
    refused(PatchEmbeddingBackward::plan, &embedded);
    let labels = MixLabelsConfig { batch: 2, classes: 3, share: 0.5 };
    refused(
        MixLabels::plan,
        &[
            (MixLabelsConfig { classes: 0, ..labels }, "`classes` = 0"),
            (MixLabelsConfig { share: f32::NAN, ..labels }, "`share` = NaN"),
            (MixLabelsConfig { share: 1.5, ..labels }, "`share` = 1.5"),
        ],
    );

    let select = TokenSelectConfig { batch: 2, tokens: 7, keep: 3, order: TokenOrder::Score };
    refused(
        TokenSelect::plan,
        &[
            (TokenSelectConfig { batch: 0, ..select }, "`batch` = 0"),
            (TokenSelectConfig { keep: 0, ..select }, "`keep` = 0"),
            (TokenSelectConfig { keep: 8, ..select }, "`keep` = 8"),
            (TokenSelectConfig { tokens: 0, ..select }, "`keep`"),
            (TokenSelectConfig { batch: BIG, tokens: BIG, ..select }, "elements"),
        ],
    );

    let position = AddPositionConfig { batch: 2, tokens: 5, width: 3, prefix: 1 };
    let rows = [
        (AddPositionConfig { batch: 0, ..position }, "`batch` = 0"),
        (AddPositionConfig { width: 0, ..position }, "`width` = 0"),
        (AddPositionConfig { prefix: 5, ..position }, "`tokens` = 5"),
        (AddPositionConfig { batch: BIG, tokens: BIG, ..position }, "elements"),
    ];
    refused(AddPosition::plan, &rows);
    refused(AddPositionBackward::plan, &rows);

    let rotary = RotaryConfig {
        batch: 1,
        tokens: 4,
        heads: 2,
        rotated: 2,
        dim: 8,
        rotary: 8,
        pairs: RotaryPairs::Interleaved,
        layout: HeadLayout::TokensFirst,
        inverse: false,
    };
    refused(
        Rotary::plan,
        &[
            (RotaryConfig { dim: 0, ..rotary }, "`dim` = 0"),
            (RotaryConfig { rotary: 3, ..rotary }, "`rotary` = 3"),
            (RotaryConfig { rotary: 10, ..rotary }, "`rotary` = 10"),
            (RotaryConfig { rotary: 0, ..rotary }, "`rotary` = 0"),
            (RotaryConfig { rotated: 3, ..rotary }, "`rotated` = 3"),
            (RotaryConfig { batch: BIG, tokens: BIG, ..rotary }, "elements"),
        ],
    );

    let selector = HeadSelectorConfig { rows: 3, heads: 4, temperature: 0.1 };
    let rows = [
        (HeadSelectorConfig { rows: 0, ..selector }, "`rows` = 0"),
        (HeadSelectorConfig { heads: 0, ..selector }, "`heads` = 0"),
        (HeadSelectorConfig { temperature: 0.0, ..selector }, "`temperature`"),
        (HeadSelectorConfig { temperature: f32::NAN, ..selector }, "`temperature`"),
        (HeadSelectorConfig { temperature: 1e-45, ..selector }, "`temperature`"),
    ];
    refused(HeadSelectorForward::plan, &rows);
    refused(HeadSelectorBackward::plan, &rows);

    let order = LearnedOrderConfig { batch: 1, tokens: 4, frequencies: 4, lanes: None };
    let rows = [
        (LearnedOrderConfig { frequencies: 0, ..order }, "`frequencies` = 0"),
        (LearnedOrderConfig { batch: BIG, tokens: BIG, ..order }, "elements"),
    ];
    refused(LearnedOrderForward::plan, &rows);
    refused(LearnedOrderBackward::plan, &rows);
    refused(LearnedOrderBackward::plan, &[(LearnedOrderConfig { lanes: Some(3), ..order }, "`lanes` = 3")]);

    let qkv = QkvConfig { rows: 2, width: 3 };
    let rows = [
        (QkvConfig { rows: 0, ..qkv }, "`rows` = 0"),
        (QkvConfig { width: 0, ..qkv }, "`width` = 0"),
        (QkvConfig { rows: BIG, width: BIG }, "elements"),
    ];
    refused(SplitQkv::plan, &rows);
    refused(JoinQkv::plan, &rows);
}

#[test]
fn buffers_that_are_not_as_configured() {
    let Some(context) = best_context() else { return };
    let buffer = || context.create_storage("test", 64).unwrap();
    let [x, y, statistics, weight, bias] = [buffer(), buffer(), buffer(), buffer(), buffer()];
    let view = BufferView::new;
    let config = LayerNormConfig { rows: 2, width: 8, ..Default::default() };
    let good = LayerNormForwardArgs {
        x: view(&x),
        residual: None,
        weight: Some(view(&weight)),
        bias: Some(view(&bias)),
        hidden: None,
        y: view(&y),
        statistics: view(&statistics),
    };
    let kernel = LayerNormForward::new(&context, config).unwrap();
    kernel.prepare(&good).unwrap();
    for (bad, says) in [
        (LayerNormForwardArgs { weight: None, ..good }, "`weight`"),
        (LayerNormForwardArgs { residual: Some(view(&weight)), ..good }, "`residual`"),
        (LayerNormForwardArgs { y: view(&x), ..good }, "`y` and `x`"),
        (LayerNormForwardArgs { x: BufferView::range(&x, 0, 60), ..good }, "`x` holds 60 bytes"),
    ] {
        let error = kernel.prepare(&bad).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    // A prefix that is not configured.
    let config = AddPositionConfig { batch: 1, tokens: 2, width: 8, prefix: 0 };
    let (x, prefix, table, y) = (view(&x), Some(view(&weight)), view(&bias), view(&y));
    let error = AddPosition::new(&context, config)
        .unwrap()
        .prepare(&AddPositionArgs { x, prefix, table, y })
        .unwrap_err();
    assert!(matches!(error, Error::Shape { what: "prefix", .. }), "{error}");
}
