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
            "patchtst-mini", "patchtst",
            {"context": 512, "horizon": 96, "width": 192, "heads": 6, "layers": 6, "hidden": 768, "dropout": 0.0, "patch": 32,
             "stride": 16},
            steps=20_000, batch=1024, matrix_rate=5e-3, warmup=500, ema=0.999, precision="bf16", pool=1_000_000,
            notes="The same for a GPU: larger batches, bf16, a longer average.",
        ),
    )
}  # fmt: skip
