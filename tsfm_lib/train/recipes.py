"""The recipes by name: what `python -m tsfm_lib.train NAME` trains."""

from tsfm_lib.train.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "patchtst-nano", "patchtst",
            {"context": 512, "horizon": 96, "width": 64, "heads": 4, "layers": 4, "hidden": 256, "dropout": 0.0, "patch": 32, "stride": 32},
            minutes=10, pool=60_000,
            notes="PatchTST pretrained on generated series only. Patches of 32 that do not overlap: more series per second, and the "
                  "calendar periods fit into them. For one CPU core.",
        ),
        Recipe(
            "kairos-nano", "kairos",
            {"context": 512, "horizon": 48, "forecast_tokens": 2, "patch_lengths": [128, 64, 32], "width": 128, "heads": 4,
             "head_width": 32, "hidden": 512, "encoder_layers": 3, "decoder_layers": 2, "target_shares": [0.06, 0.1, 0.54, 0.15, 0.15],
             "spectral_bins": 64, "asinh": True, "positions": "size", "reg_token": False, "encoder": "causal", "cuts": 4,
             "own_rows": True, "begin": "last", "scaled_scores": True},
            steps=10_500, matrix_rate=4e-3, rate=2e-3, ema=0.999, pool=200_000, log_every=50,
            matrices=r"^(encoder|decoder)\.\d+\.((attend|cross)\.attention|mlp)\.",
            notes="45 minutes of one CPU core. An encoder-decoder learns slowly from one forecast per series, hence the causal encoder "
                  "with four forecasts per pass and forecast tokens that begin at the last state. Patches of 32 are made the rule, because "
                  "mixed sizes cost steps. The frequency networks of IARoPE go to AdamW.",
        ),
        Recipe(
            "kairos-nano-quiet", "kairos",
            {"context": 512, "horizon": 48, "forecast_tokens": 2, "patch_lengths": [64, 32], "width": 128, "heads": 4,
             "head_width": 32, "hidden": 512, "encoder_layers": 3, "decoder_layers": 2, "target_shares": [0.08, 0.64, 0.14, 0.14],
             "spectral_bins": 64, "asinh": True, "positions": "size", "reg_token": False, "encoder": "causal", "cuts": 8,
             "whole_prefix": 0.15, "prefix_lean": 1.0, "own_rows": True, "begin": "last", "scaled_scores": True, "quiet_start": 0.1},
            steps=12_000, matrix_rate=4e-3, rate=2e-3, ema=0.999, pool=200_000, log_every=50,
            matrices=r"^(encoder|decoder)\.\d+\.((attend|cross)\.attention|mlp)\.",
            notes="What short runs say should come next, not yet run to its end (notebook 14): layers that start quiet, borders every 64 "
                  "steps and so up to eight forecasts per pass. An hour of one CPU core, or more.",
        ),
        Recipe(
            "time-tracker-nano", "time-tracker",
            {"context": 528, "patch": 48, "horizon": 48, "width": 96, "heads": 6, "independent_layers": 3, "mixed_layers": 1,
             "hidden": 192, "private_experts": 8, "active_experts": 2, "rope_base": 100.0, "supervision": "prefix", "error": "absolute",
             "ends": "mlp", "asinh": True},
            steps=5_000, context=528, horizon=48, matrix_rate=4e-3, rate=2e-3, ema=0.999, pool=200_000, log_every=50,
            matrices=r"^layers\.\d+\.(attend\.attention|experts)\.",
            notes="The channel-independent stage, 20 minutes of one CPU core. F = P = 48, which most horizons of the suites are not far "
                  "above: one pass or two.",
        ),
        Recipe(
            "timesfm-nano", "timesfm",
            {"context": 512, "patch": 32, "horizon": 96, "spread_horizon": None, "width": 128, "heads": 8, "hidden": 256, "layers": 8,
             "head_hidden": 256, "mean": False, "rope_base": 100.0, "gaps": "mask", "scaling": "running", "asinh": True, "cuts": 8},
            steps=6_000, ema=0.999, pool=200_000, log_every=50,
            notes="Half an hour of one CPU core, so that five training seeds can be had. Eight layers with a narrow feed-forward rather "
                  "than six wide ones, for more heads to look at. A base of 100 for the rotation: there are 16 positions. No spread "
                  "head, as one pass is all that is asked for.",
        ),
        Recipe(
            "chronos-bolt-nano", "chronos-bolt",
            {"context": 512, "horizon": 96, "patch": 32, "width": 128, "heads": 8, "head_width": 16, "hidden": 256, "encoder_layers": 6,
             "decoder_layers": 6, "dropout": 0.0, "asinh": True, "cuts": 4, "scaled_scores": True, "quiet_start": 0.1},
            steps=6_000, batch=32, matrix_rate=4e-3, rate=2e-3, ema=0.999, pool=200_000, log_every=50,
            notes="For one CPU core. One forecast per pass of the decoder, so every series is cut at four places; layers start quiet.",
        ),
        Recipe(
            "chronos-t5-nano", "chronos-t5",
            {"context": 128, "horizon": 32, "tokens": 1024, "low": -8.0, "high": 8.0, "scaling": "std", "width": 96, "heads": 8,
             "head_width": 16, "hidden": 192, "encoder_layers": 6, "decoder_layers": 6, "dropout": 0.0, "scaled_scores": True,
             "quiet_start": 0.1, "smooth_start": True, "copy_start": True},
            steps=9_000, cycles=2, batch=32, matrix_rate=4e-3, rate=2e-3, context=128, horizon=32, ema=0.999, mixture="with repeats",
            pool=200_000, log_every=50,
            notes="For one CPU core. Every step of a series is a token, hence 128 steps of context and 32 of horizon. 1,024 bins have no "
                  "room for levels, hence z-scores. From a start by chance, 96,000 series did not teach it to copy a season; so it begins "
                  "ready to copy, and three series in eight are nothing but repeats. A second cycle of as many steps took 3 % off MASE. "
                  "On suite `local` WQL is .82 of the seasonal naive's and MASE 1.05; .99 without m4_hourly, some of whose series repeat "
                  "almost exactly.",
        ),
        Recipe(
            "toto-nano", "toto",
            {"context": 512, "patch": 32, "width": 128, "heads": 8, "layers": 6, "hidden": 384, "space_every": None, "components": 8,
             "rope_base": 100.0, "dropout": 0.0, "samples": 100},
            steps=6_000, ema=0.999, pool=200_000, log_every=50,
            notes="For one CPU core. Every patch of a series is forecast from those before it, the 96 steps behind the context included. "
                  "Generated series have one variate, so no layer looks across them: such a layer would be a linear map.",
        ),
        Recipe(
            "mantis-nano", "mantis",
            {"width": 64, "layers": 2, "heads": 4, "head_width": 16, "hidden": 128, "scalar_width": 16, "readout": "both",
             "crop": "series", "crop_shares": [0.0, 0.5], "warp": 0.3, "jitter": 0.5, "noise": 0.1, "symmetric": True,
             "head_hidden": 256, "dropout": 0.0},
            steps=400, batch=256, horizon=0, mixture="cauker", pool=65_536, rate=2e-3, betas=[0.9, 0.999], weight_decay=0.05, warmup=40,
            final_fraction=0.0, ema=0.0, matrices="(?!)",
            notes="Contrast between two views of CauKer series, five minutes of one CPU core. No dropout: a trial with the authors' 0.1 "
                  "gained less, but was half as long, so the two are not told apart. AdamW alone, as the authors have it. Reads out "
                  "the class token beside the mean of the patches.",
        ),
        Recipe(
            "moment-nano", "moment",
            {"width": 64, "layers": 3, "heads": 4, "head_width": 16, "hidden": 128, "positions": 64},
            steps=800, batch=128, horizon=0, mixture="cauker", pool=65_536, matrix_rate=3e-3, rate=2e-3, warmup=50, ema=0.99,
            matrices=r"^(layers|blocks)\.\d+\.",
            notes="Hidden patches of CauKer series, three minutes of one CPU core or more; errors in units of each series.",
        ),
        Recipe(
            "moirai-nano", "moirai",
            {"context": 512, "patch": 16, "patch_sizes": [16, 32, 64], "width": 96, "layers": 5, "head_width": 24,
             "least_horizon": 96},
            steps=7_000, ema=0.999, pool=200_000, coarse=0.3, log_every=50, matrices=r"^layers\.\d+\.(attention|mlp)\.",
            notes="For one CPU core. Patches of 16, 32 and 64, as one size is not for all; a quarter of the published width. It forecasts "
                  "with 16 unless asked otherwise, which leaves tokens at coarse scales, and does best on suite local. Coarse batches "
                  "because it is to be fine-tuned at several scales: what it cannot forecast there, fine-tuning cannot wake.",
        ),
        Recipe(
            "units-nano", "units",
            {"context": 512, "horizon": 96, "patch": 16, "width": 96, "layers": 4, "heads": 6, "prompts": 10, "hidden": 384,
             "head_hidden": 384, "tokens": 48, "dropout": 0.0, "scales": 4, "one_size": True},
            steps=7_000, ema=0.999, pool=200_000, coarse=0.3, log_every=50, matrices=r"^layers\.\d+\.(time|variate|mlp\.down)\.",
            notes="For one CPU core. The maps along the tokens are made for what a pass has, 32 of context, 6 of horizon and 10 prompts; "
                  "windows of a half, a quarter and an eighth teach it to stretch them, but only context and horizon together: alone, "
                  "it forecasts in one size.",
        ),
        Recipe(
            "patchtst-mini", "patchtst",
            {"context": 512, "horizon": 96, "width": 192, "heads": 6, "layers": 6, "hidden": 768, "dropout": 0.0, "patch": 32,
             "stride": 16},
            steps=20_000, batch=1024, matrix_rate=5e-3, warmup=500, ema=0.999, precision="bf16", pool=1_000_000,
            notes="The same for a GPU: larger batches, bf16, a longer average.",
        ),
    )
}  # fmt: skip
