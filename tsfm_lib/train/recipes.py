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
            "patchtst-mini", "patchtst",
            {"context": 512, "horizon": 96, "width": 192, "heads": 6, "layers": 6, "hidden": 768, "dropout": 0.0, "patch": 32,
             "stride": 16},
            steps=20_000, batch=1024, matrix_rate=5e-3, warmup=500, ema=0.999, precision="bf16", pool=1_000_000,
            notes="The same for a GPU: larger batches, bf16, a longer average.",
        ),
    )
}  # fmt: skip
