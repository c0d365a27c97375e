"""Rankings, heads@1pp and shares of heads of tiny random models; published lists; the rows are those R2, R6 and R7 are judged from."""

import numpy as np
import pandas as pd
import pytest
import torch

from tests.experiments.redundant import folder
from tsfm_lib import claims, interpret
from tsfm_lib.experiments.redundancies import published, ranks, subjects

SUITE, COUNT = "embedded", 2
FEW = {"timesfm-nano": "timesfm", "timesfm-nano-1": "timesfm", "chronos-bolt-nano": "chronos-bolt"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("tiny"), FEW)


@pytest.fixture(scope="module")
def table(tiny):
    cells = [(name, "trained") for name in FEW] + [("timesfm-nano", "untrained")]
    return pd.concat([pd.DataFrame(ranks.heads(name, state, tiny, "", SUITE, COUNT)).assign(variant=name) for name, state in cells])


def made(rho, layers=8, heads=8, seed=0):
    """Heads whose costs go with their stable rank so much."""
    rng, rows = np.random.default_rng(seed), []
    for layer in range(layers):
        raw = rng.standard_normal(heads)
        cost = rho * raw + np.sqrt(1 - rho**2) * rng.standard_normal(heads)
        extra = {column: rng.standard_normal(heads) for column in ranks.RANKINGS.values() if column != "raw"}
        one = pd.DataFrame({"raw": raw, "test_cost": cost, "head": range(heads), **extra})
        rows.append(one.assign(site=f"decoder.{layer}.self", variant="m", state="trained"))
    return pd.concat(rows, ignore_index=True)


# ---- R2 ----------------------------------------------------------------------------------------------------------------------------------


def test_a_head_without_a_choice_has_no_rank(table, tiny):
    assert "decoder.0.self" not in set(table[table["variant"] == "chronos-bolt-nano"]["site"])
    assert {"encoder.0.self", "decoder.0.cross"} <= set(table[table["variant"] == "chronos-bolt-nano"]["site"])


def test_the_cost_of_a_head_is_that_of_its_ablation(table, tiny):
    model, given = subjects.load("timesfm-nano", tiny), subjects.windows(SUITE, COUNT, "test")
    run, loss = subjects.medians(model), lambda y: subjects.mase(y, given.target)
    intact = loss(run(given.x))
    with interpret.ablate(model, heads={"decoder.1.self": [1]}):
        without = loss(run(given.x))
    expected = subjects.shares(torch.stack([intact, without]), given.dataset)[1].mean().item() - 100
    row = table.query("variant == 'timesfm-nano' and state == 'trained' and site == 'decoder.1.self' and head == 1")
    assert row["test_cost"].item() == pytest.approx(expected, abs=1e-3)


def test_calibration_and_test_costs_differ(table):
    assert not np.allclose(table["cost"], table["test_cost"])


@pytest.mark.parametrize("rho, verdict", [(-0.95, "direction holds"), (0.95, "refuted here")])
def test_a_rank_that_tells_is_seen_either_way(rho, verdict):
    found = ranks.correlations(made(rho)).assign(profile="laptop")
    assert claims.judge("R2", found).verdict == verdict


def test_the_rank_of_untrained_models_is_a_control(table):
    rows = ranks.correlations(table)
    assert set(rows[rows["experiment"] == "rank_cost"]["state"]) == {"trained"}
    control = rows[rows["experiment"] == "rank_cost_controls"]
    assert set(control["baseline"]) == set(ranks.RANKINGS) and set(control["state"]) == {"untrained"}
    assert set(rows[rows["experiment"] == "rank_cost_baselines"]["state"]) == {"trained"}


def test_pooled_intervals_resample_layers():
    rows = made(-0.9)
    found, alone = (ranks.pooled(some, "raw", "test_cost", draws=100) for some in (rows, rows.query("site < 'decoder.2'")))
    assert found.low < found.estimate < found.high < 0 and found.n == 8 and alone.n == 2


# ---- R6 ----------------------------------------------------------------------------------------------------------------------------------


def test_heads_at_1pp_is_chosen_on_calibration_and_scored_on_the_test(tiny):
    rows = pd.concat([pd.DataFrame(ranks.heads_at(name, tiny, "", SUITE, COUNT, draws=2)) for name in FEW]).assign(profile="laptop")
    main, orders = (rows[rows["experiment"] == name] for name in ("heads_at_1pp", "heads_at_1pp_orders"))
    assert len(main) == 3 + 3 + 2 and set(main["order"]) <= {"stable-rank", "stable-rank reversed"}
    assert set(orders["order"]) == {*ranks.AT_ORDERS, "random 0", "random 1"}
    fresh = pd.DataFrame(ranks.heads_at("timesfm-nano", tiny, "", SUITE, COUNT, state="untrained"))
    assert set(fresh["experiment"]) == {"heads_at_1pp_controls"} and len(fresh) == 3
    assert (orders["increase"] <= 1 + 1e-9).all() and (orders["published_rule"] >= orders["removable"]).all()
    assert ((orders["low"] <= orders["removable"] + 1e-9) & (orders["removable"] <= orders["high"] + 1e-9)).mean() > 0.9
    found = claims.judge("R6", rows)
    assert len(found.parts) == 2 and not any("no recorded rows" in part.why for part in found.parts)


def test_levels_that_orders_share_are_run_once_and_told_to_each(tiny):
    rows = pd.DataFrame(ranks.heads_at("timesfm-nano", tiny, "", SUITE, COUNT)).query("experiment == 'heads_at_1pp_orders'")
    model, known = subjects.load("timesfm-nano", tiny), subjects.windows(SUITE, COUNT, "calibration")
    site = "decoder.1.self"
    order = interpret.order({site: interpret.stable_rank(model)[site]}, highest=True)
    losses = interpret.removal(model, subjects.medians(model), known.x, known.target, subjects.mase, order)
    row = rows[(rows["layer"] == f"timesfm-nano/{site}") & (rows["order"] == "stable-rank")]
    assert row["mean_score"].item() == pytest.approx(subjects.shares(losses, known.dataset).mean().item(), rel=1e-5)


# ---- R7 ----------------------------------------------------------------------------------------------------------------------------------


def test_r7_can_be_judged_and_random_draws_take_as_many_heads_of_each_layer(tiny):
    rows = pd.concat([pd.DataFrame(ranks.rankings(name, tiny, "", SUITE, COUNT, 2, (28,))).assign(variant=name) for name in FEW])
    kept = ranks.judged(rows).assign(profile="laptop")
    assert set(kept["model"]) == {"timesfm-nano", "timesfm-nano-1"} and {"attention-svd", "oracle", "random"} <= set(kept["variant"])
    found = claims.judge("R7", kept)
    assert not any("no recorded rows" in part.why for part in found.parts)
    model = subjects.load("timesfm-nano", tiny)
    plans = ranks.plans_for(model, ranks.scores(model, subjects.windows(SUITE, COUNT, "calibration"), oracle=True), 50, 3)
    counts = lambda plan: {site: len(heads) for site, heads in plan.heads.items()}
    assert all(counts(plan) == counts(plans["stable-rank"][0]) for plan in plans["random"]) and len(plans["random"]) == 3


# ---- published lists ---------------------------------------------------------------------------------------------------------------------


def test_the_published_lists_say_what_was_read_off_them():
    found = published.by_model().astype(float)
    assert found["removed %"].round().to_dict() == {"Chronos-Bolt": 61, "Chronos-2": 88, "Moirai 1.1": 58, "TimesFM 2.5": 55, "Toto": 62}
    assert found["rho middle"].round(1).to_dict() == {
        "Chronos-Bolt": 0.2, "Chronos-2": 0.2, "Moirai 1.1": 0.1, "TimesFM 2.5": 0.8, "Toto": -0.7}  # fmt: skip
    assert found.index[found["p middle"] < 0.05].tolist() == ["TimesFM 2.5", "Toto"]
    assert found.index[found["p rank"] < 0.05].tolist() == ["TimesFM 2.5"] and abs(published.pooled()[0]) < 0.05
    assert published.direction()[:2] == (30, 33) and sum(len(one.kept) - 1 for one in published.LISTED.values()) == 63


def test_heads_cut_the_wrong_way_have_other_ranks():
    weight = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    right, wrong = published.head_fastest(weight, 3), published.contiguous(weight, 3)
    assert right.shape == wrong.shape == (3, 4, 6)
    assert torch.equal(right[1, 2], weight[2 * 3 + 1]) and torch.equal(wrong[1, 2], weight[4 + 2])


def test_a_single_position_hides_the_mistake():
    z = torch.randn(2, 1, 6)
    right = z.clone()
    right[..., 2:4] = 0
    assert torch.equal(published.not_turned_back(z, 3, 1), right)
    many = torch.randn(2, 5, 6)
    right = many.clone()
    right[..., 2:4] = 0
    assert not torch.equal(published.not_turned_back(many, 3, 1), right)
