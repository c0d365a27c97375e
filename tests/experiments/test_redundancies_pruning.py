"""Doses, middles and clocks on tiny random models; the rows are those that R3 and R8 are judged from."""

import pandas as pd
import pytest
import torch

from tests.experiments.redundant import folder
from tsfm_lib import claims, interpret
from tsfm_lib.experiments.redundancies import pruning, ranks, subjects

SUITE, COUNT = "embedded", 2
FEW = {"timesfm-nano": "timesfm", "timesfm-nano-1": "timesfm", "chronos-bolt-nano": "chronos-bolt"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("tiny"), FEW)


@pytest.fixture(scope="module")
def grid(tiny):
    return pd.concat([pd.DataFrame(pruning.dose(name, tiny, "", SUITE, COUNT, 2, (0, 28), (0, 2, 4))).assign(variant=name) for name in FEW])


def test_orders_take_the_same_mlps_and_nothing_costs_nothing(grid):
    none = grid[(grid["heads"] == 0) & (grid["mlps"] == 0)]
    assert (none["increase"].abs() < 1e-9).all()
    only_mlps = grid[(grid["heads"] == 0) & (grid["mlps"] == 2)]
    assert only_mlps.groupby("variant")["MASE"].nunique().max() == 1
    assert set(grid[grid["variant"] == "timesfm-nano"]["mlps"]) == {0, 2}  # it has three


def test_a_dose_costs_what_its_ablation_does(tiny, grid):
    model = subjects.load("timesfm-nano", tiny)
    known, unseen = (subjects.windows(SUITE, COUNT, part) for part in ("calibration", "test"))
    plan = pruning.by_orders(model, ranks.scores(model, known), 28, 1, 0)["oracle"][0] | pruning.middle_mlps(model, 2)
    with interpret.ablate(model, plan):
        losses = subjects.mase(subjects.medians(model)(unseen.x), unseen.target)
    row = grid.query("variant == 'timesfm-nano' and order == 'oracle' and heads == 28 and mlps == 2")
    assert row["MASE"].item() == pytest.approx(subjects.score(losses[None], unseen.dataset)[0], rel=1e-4)


def test_fresh_weights_take_the_same_doses(tiny, grid):
    fresh = pd.DataFrame(pruning.dose("timesfm-nano", tiny, "", SUITE, COUNT, 2, (0, 28), (0, 2), "untrained"))
    learnt = grid[(grid["variant"] == "timesfm-nano") & grid["mlps"].isin([0, 2])]
    both = fresh.merge(learnt, on=["order", "draw", "heads", "mlps"], suffixes=(" fresh", " learnt"))
    assert len(both) == len(fresh) == len(learnt) and (both["MASE fresh"] != both["MASE learnt"]).all()


def test_r3_can_be_judged_from_these_rows(grid):
    found = claims.judge("R3", pruning.judged(grid).assign(profile="laptop"))
    missing = [part.words for part in found.parts if "no recorded rows" in part.why]
    assert len(found.parts) == 5 and len(missing) == 1 and "needs official weights" in {part.verdict for part in found.parts}


def test_the_middle_is_the_middle_third(tiny):
    rows = pd.DataFrame(pruning.middle("timesfm-nano", tiny, "", SUITE, COUNT, 2))
    assert set(rows["order"]) == {*pruning.ORDERS, "random"} and (rows["removed"] == round(0.3 * 2)).all()
    assert pruning.middle("chronos-bolt-nano", tiny, "", SUITE, COUNT, 2) == []  # a single layer is early


def test_r8_can_be_judged_and_the_pruned_model_says_the_same(tiny):
    rows = pd.DataFrame(pruning.latency("timesfm-nano", tiny, "", 2, 5))
    size = rows.groupby("what")["parameters"].first()
    assert rows["same"].max() < 1e-4 and size["pruned"] < size["ablated"] == size["intact"]
    found = claims.judge("R8", rows.assign(variant=rows["what"], experiment="latency", profile="laptop"))
    assert all(part.interval is not None and part.interval.n == 5 for part in found.parts)


def test_runs_take_turns():
    said = []
    rows = pruning.timed({"a": lambda: said.append("a"), "b": lambda: said.append("b")}, 2)
    assert said == ["a", "b", "a", "b", "b", "a"] and len(rows) == 4


def test_beside_the_end_stands_the_naive_forecast_of_each_season(tiny):
    ends = pd.DataFrame(pruning.to_the_end("timesfm-nano", tiny, "", SUITE, COUNT, (50, 100)))
    assert ends["share"].tolist() == [50, 100] and ends["naive"].nunique() == 1 and set(ends["order"]) <= set(pruning.ORDERS)
    given = subjects.windows(SUITE, COUNT, "test")
    naive = subjects.seasonal_naive(given)
    assert len(set(given.season)) > 1
    for i, m in enumerate(given.season):
        seen = given.x[i, 0, -m:]
        if seen.isfinite().all():
            assert torch.equal(naive[i, 0], seen.repeat(-(-subjects.HORIZON // m))[: subjects.HORIZON])


def test_heads_without_a_choice_are_not_removed(tiny):
    model = subjects.load("chronos-bolt-nano", tiny)
    found = ranks.scores(model, subjects.windows(SUITE, COUNT, "calibration"), oracle=False) | {"cost": interpret.stable_rank(model)}
    gone = ranks.trivial(found)
    assert gone and all(site.startswith("decoder") and site.endswith("self") for site in gone)
    taken = {site for plans in ranks.plans_for(model, found, 100, 1).values() for plan in plans for site in plan.heads}
    assert taken and not taken & set(gone)


def test_time_is_paired_by_round_and_a_model_has_one_number():
    rows = pd.DataFrame(pruning.timed({"intact": lambda: None, "pruned": lambda: None}, 4)).assign(model="m", batch=1)
    rows = rows.assign(variant=rows["what"], seconds=rows["what"].map({"intact": 2.0, "pruned": 1.0}))
    assert pruning.time_left(rows, "pruned")["pruned"].tolist() == ["50 [50, 50]"]
    assert pruning.saved_by_model(rows, "pruned").round(9).tolist() == [50.0] and pruning.saved_by_model(rows, "heads pruned").empty


def test_amdahl_has_a_time_for_every_share(tiny):
    rows = pd.DataFrame(pruning.amdahl("timesfm-nano", tiny, "", 2, 3, (0, 50, 100)))
    assert pruning.line(rows)["measured"].iloc[0] == 100 and rows.groupby("share").size().to_dict() == {0: 3, 50: 3, 100: 3}
