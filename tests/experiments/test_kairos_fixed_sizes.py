"""Fixed and chosen patch sizes are compared fairly, and their rows are those that the claims are judged from."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tsfm_lib import claims
from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate.comparison import paired_t
from tsfm_lib.experiments.kairos import fixed_sizes
from tsfm_lib.models.kairos import Kairos
from tsfm_lib.train.streams import rng_for

TINY = replace(fixed_sizes.MODELS["small"], context=64, horizon=8, width=16, heads=2, head_width=8, hidden=32, spectral_bins=16)
BUDGET = {"model": "tiny", "density": 0.35, "seed": 0, "steps": 3, "windows": 32, "batch": 16}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(fixed_sizes.MODELS, "tiny", TINY)


def one(variant, seed=0):
    return Kairos(fixed_sizes.variants("tiny")[variant]), fixed_sizes.series(32, "tiny", 0.35, "aligned", rng_for(seed, 0))


def test_variants_differ_in_their_patches_alone():
    free = {"patch_lengths", "null_experts", "active_experts", "target_shares"}
    for config in fixed_sizes.variants("tiny").values():
        differing = {name for name in vars(config) if getattr(config, name) != getattr(TINY, name)}
        assert differing <= free


def test_rows_can_be_judged_and_come_again():
    columns = ["experiment", "variant", "seed", "density", "WQL", "MASE", "tokens", "padded_tokens"]
    made = lambda seed: [BUDGET | {"seed": seed} | row for row in fixed_sizes.equal_steps(**BUDGET | {"seed": seed})]
    rows = pd.DataFrame([row for seed in (0, 1) for row in made(seed)])
    ends = rows[rows["experiment"] == "mosdp_vs_fixed"]
    assert ends.groupby("seed")["variant"].agg(list).tolist() == [list(fixed_sizes.variants("tiny"))] * 2
    parts = claims.judge("K1", ends.assign(profile="quick")).parts
    assert [part.interval is not None for part in parts if "density 0.35" in part.words] == [True] * 5
    assert claims.judge("K8", ends.assign(experiment="tokens")).parts[3].interval is not None  # seconds are there
    again = pd.DataFrame(made(0))
    assert again[columns].equals(rows[rows["seed"] == 0][columns].reset_index(drop=True))
    curves = rows[rows["experiment"] == "learning_curves"]
    assert curves.groupby(["variant", "seed"])["step"].max().eq(BUDGET["steps"]).all()


def test_tokens_are_counted_with_and_without_padding():
    for variant, tokens in (("fixed-small", 8), ("fixed-middle", 4), ("fixed-large", 2), ("all-sizes", 8)):
        used = fixed_sizes.usage(*one(variant), 16)
        assert used["tokens"] == used["padded_tokens"] == tokens  # 64 steps
    used = fixed_sizes.usage(*one("adaptive"), 16)
    assert 2 <= used["tokens"] < used["padded_tokens"] <= 8
    assert np.isclose(sum(used[name] for name in used if name.startswith("load_")), 1)


def test_bursts_lie_where_the_condition_says():
    rng = lambda: rng_for(0, 0)
    aligned, shifted = (fixed_sizes.series(400, "tiny", 0.35, condition, rng()) for condition in ("aligned", "shifted"))
    rough = lambda x: np.abs(np.diff(x, 2)).reshape(-1, x.shape[1] - 2)

    def borders(x):  # steps at which roughness changes from one half block to the next, averaged over series
        halves = np.stack([half[:, 1:-1].mean(1) for half in np.split(rough(x[:, :66]), 4, axis=1)], axis=1)
        return np.abs(np.diff(halves)).mean(0)

    on, off = borders(aligned), borders(shifted)
    assert on[1] > 2 * max(on[0], on[2]) and min(off[0], off[2]) > 2 * off[1]
    noise = fixed_sizes.series(400, "tiny", 0.35, "white noise", rng())
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.02
    with pytest.raises(TsfmError, match="aligned, shifted"):
        fixed_sizes.series(4, "tiny", 0.35, "upside down", rng())


def test_other_experts_fusion_and_patch_lengths_are_what_is_trained():
    budget = BUDGET | {"steps": 1}
    alone = fixed_sizes.changed(**budget, null_experts=0, active_experts=1)
    assert alone["load_null"] == 0 and 2 <= alone["tokens"] <= 8
    adaptive = fixed_sizes.one_variant(variant="adaptive", **budget)["WQL"]
    assert fixed_sizes.changed(**budget, fusion="finest")["WQL"] != adaptive
    places = {how: fixed_sizes.positioned(variant="adaptive", positions=how, **budget)["WQL"] for how in ("index", "size")}
    assert places["index"] == adaptive != places["size"]
    pair = fixed_sizes.patch_set(sizes="32 16", **budget)
    assert pair["tokens"] <= 4 and {"load_32", "load_16"} < set(pair) and "load_8" not in pair


def test_the_number_of_seeds_is_the_one_at_which_the_promise_holds():
    rng, spread, effect = np.random.default_rng(0), 2.0, 1.5
    needed = fixed_sizes.seeds_to_show(effect, spread)
    draws = [rng.normal(effect, spread, n) for n in (needed, needed // 2) for _ in range(2000)]
    found = np.array([paired_t(draw).low > 0 for draw in draws]).reshape(2, -1).mean(1)
    assert 0.77 < found[0] < 0.85 and found[1] < 0.6
    needed = fixed_sizes.seeds_to_equate(effect, spread)
    inside = np.mean([paired_t(rng.normal(0, spread, needed), level=0.9).within(effect) for _ in range(2000)])
    assert 0.75 < inside < 0.88
    with pytest.raises(TsfmError, match="too small for the spread"):
        fixed_sizes.seeds_to_show(1e-5, 1.0)
