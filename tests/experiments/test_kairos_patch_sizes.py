"""What the router of Kairos sees and what its bias holds: the measures measure what they say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tsfm_lib import checkpoints, claims
from tsfm_lib.errors import TsfmError
from tsfm_lib.experiments.kairos import patch_sizes
from tsfm_lib.models.kairos import KairosConfig

TINY = KairosConfig.tiny()


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    monkeypatch.setitem(patch_sizes.MODELS, "small", TINY)
    patch_sizes.learnt.cache_clear()
    yield
    patch_sizes.learnt.cache_clear()


def made(**changes):
    return checkpoints.build("kairos", replace(TINY, **changes), 0).eval()


def cell(seed=0, **changes):
    return patch_sizes.cell(seed, **{"steps": 6, "batch": 8} | changes)


def rough_is_small():
    """A router that reads |differences|: the shortest patch where they are large, the longest elsewhere."""
    model = made(router="energy")
    with torch.no_grad():
        model.router.score.weight.zero_()
        model.router.score.weight[2, TINY.patch_lengths[0] :] = 1.0
        model.router.bias.copy_(torch.tensor([3.0, -9.0, 0.0, 20.0, 20.0]))  # null experts always chosen: the best size decides
    return model


def test_sizes_are_those_the_encoder_uses():
    model, x = made(), patch_sizes.held_out(0, TINY, 16).series
    found = patch_sizes.sizes(model, x)
    z, seen, _ = model.normalise(model.fill(torch.from_numpy(x)))
    with torch.no_grad():
        encoded = model.encode(z, seen)
    lengths = torch.tensor(TINY.patch_lengths)
    assert found.finest.tolist() == lengths[encoded.routing.finest].tolist()
    assert len(np.unique(found.finest)) > 1
    assert np.allclose(found.mass.sum(-1), 1)
    assert found.mean.min() >= 4 and found.mean.max() <= 16 and (found.mean >= found.finest - 1e-4).all()


def test_a_router_that_follows_bursts_is_seen_to_follow_them():
    row = patch_sizes.follow(rough_is_small(), patch_sizes.held_out(0, TINY, 64))
    assert row["auc"] > 0.9 and row["bits"] > 0.5
    assert row["finest_burst"] < row["finest_calm"] and row["mean_size_burst"] < row["mean_size_calm"]
    assert row["flip_rate"] == 0  # |differences| know no sign


def test_the_paper_picture_is_a_negative_correlation_with_roughness():
    x = patch_sizes.held_out(0, TINY, 64).series
    assert patch_sizes.against_roughness(rough_is_small(), x)["correlation"] < -0.5


def test_calm_series_have_no_bursts_to_be_told_apart():
    row = patch_sizes.follow(made(), patch_sizes.held_out(0, TINY, 8, share=0.0))
    assert np.isnan(row["auc"]) and np.isnan(row["mean_size_burst"]) and row["bits"] == 0


def seen_of(router, patch):
    return torch.cat([patch, patch.diff(dim=-1).abs()], -1) if router == "energy" else patch


def test_linear_scores_are_odd_and_a_whole_period_of_a_burst_leaves_them_where_they_were():
    x, place = patch_sizes.probes(2.0, 6, 4, TINY, 0)
    calm, _ = patch_sizes.probes(0.0, 6, 4, TINY, 0)
    patch = lambda series: torch.from_numpy(series.reshape(6, 4, -1, 16)[:, :, place])
    for router, alike in (("linear", True), ("energy", False), ("mlp", False)):
        score = made(router=router).router.score
        with torch.no_grad():
            loud, negative, quiet = (score(seen_of(router, p)) for p in (patch(x), -patch(x), patch(calm)))
        assert torch.allclose(negative, -loud, atol=1e-5) == alike
        assert torch.allclose(loud.mean(0), quiet.mean(0), atol=1e-5) == alike


def test_a_silent_burst_slides_unnoticed():
    rows = pd.DataFrame(patch_sizes.seen_by(n=8, **cell()))
    assert rows["slide_rate"][0] == 0 and rows["slide_rate"].iloc[-1] > 0


def test_without_a_rate_the_bias_stays_and_with_one_a_collapsed_router_recovers():
    still = patch_sizes.shares_over_steps(points=6, **cell(eta=0.0, start="collapsed"))
    moved = patch_sizes.shares_over_steps(points=6, **cell(eta=2.0, start="collapsed"))
    biases = [c for c in still if c.startswith("bias_")]
    assert (still[biases].nunique() == 1).all() and still["modal"].iloc[0] > 0.9
    assert moved["share_distance"].iloc[-1] < still["share_distance"].iloc[-1] - 0.05
    assert still["step"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_tilted_target_is_what_the_distance_is_measured_to():
    row = patch_sizes.final_shares(**cell(target="tilted"))
    mass = np.array([row[f"mass_{name}"] for name in patch_sizes.experts(TINY)])
    assert row["share_distance"] == pytest.approx(np.abs(mass - patch_sizes.TARGETS["tilted"]).sum() / 2, abs=1e-6)
    assert mass.sum() == pytest.approx(1, abs=1e-5)


def test_rows_fit_the_rules_of_their_claims():
    cells = [cell(seed) for seed in (0, 1)]
    chosen = pd.DataFrame([c | row for c in cells for row in patch_sizes.chosen_sizes(**c) if row["test"] == "sine"])
    long = patch_sizes.by_block(chosen)
    assert sorted(long["block"].unique()) == ["burst", "calm"] and len(long) == 4
    frames = [long.assign(experiment="patch_size_maps"), chosen.assign(experiment="patch_size_auc"),
              chosen.assign(experiment="sign_flip")]  # fmt: skip
    verdict = claims.judge("K2", pd.concat(frames))
    assert [part.interval is not None for part in verdict.parts] == [True] * 3 and verdict.verdict == "not resolved"
    balance = pd.DataFrame([c | patch_sizes.final_shares(**c) for eta in (0.0, 1e-3, 1e-2) for c in (cell(0, eta=eta), cell(1, eta=eta))])
    assert all(part.interval for part in claims.judge("K5", balance.assign(experiment="router_balance")).parts)


def test_same_cell_same_rows():
    once = patch_sizes.chosen_sizes(**cell())
    patch_sizes.learnt.cache_clear()
    assert pd.DataFrame(once).equals(pd.DataFrame(patch_sizes.chosen_sizes(**cell())))


def test_sizes_along_a_series_cover_it_and_a_short_one_is_refused():
    found = patch_sizes.along(made(), np.sin(np.arange(200.0)))
    assert found["start"].tolist() == list(range(0, 192, 16))
    with pytest.raises(TsfmError, match="at least one context, 64 points, got 10"):
        patch_sizes.along(made(), np.zeros(10))
    with pytest.raises(TsfmError, match="'ruoter'"):
        patch_sizes.cell(0, ruoter="mlp")
