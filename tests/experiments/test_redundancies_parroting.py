"""Gaps, seasons and shares of heads of tiny random models; the rows are those that R4 and R10 are judged from."""

import numpy as np
import pandas as pd
import pytest
import torch

from tests.experiments.redundant import folder
from tsfm_lib import claims, interpret
from tsfm_lib.experiments.redundancies import parroting, subjects

SUITE, COUNT, N = "embedded", 2, 4
FEW = {"timesfm-nano": "timesfm", "chronos-bolt-nano": "chronos-bolt"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("tiny"), FEW)


def rows_of(experiment, tiny, *rest, names=FEW):
    return pd.concat([pd.DataFrame(experiment(name, tiny, "", SUITE, COUNT, N, 0, *rest)) for name in names], ignore_index=True)


def test_a_parrot_trusts_the_copy_and_a_flat_line_trusts_nobody():
    rows = pd.DataFrame(parroting.intact("parrot", "", "", "embedded", 2, 16, 0)).set_index("series")
    assert rows.loc["motif of 32, broken", "gap"] > 0.8 and abs(rows.loc["motif of 32, goes on", "gap"]) < 0.1
    made = parroting.planted_motifs(16, 0)
    assert abs(interpret.parrot_gap(np.zeros((16, subjects.HORIZON)), made).gap.mean()) < 0.1


def test_the_season_of_the_truth_is_worth_one():
    made = parroting.planted_seasons(64, 0)
    assert interpret.seasonal_power(made.series[:, made.context :], [parroting.PERIOD]).mean() == pytest.approx(1, abs=0.1)


def test_plans_are_measured_as_ablated_one_by_one(tiny):
    model, plan = subjects.load("timesfm-nano", tiny), interpret.Plan(heads={"decoder.1.self": [0]})
    found = parroting.measured(model, [interpret.Plan(), plan], N, 0, subjects.windows(SUITE, COUNT, "test"))
    made = parroting.planted_motifs(N, 0)
    with interpret.ablate(model, plan):
        y = subjects.medians(model)(torch.from_numpy(made.series[:, None, : made.context]))[:, 0]
    np.testing.assert_allclose(found.gap[1], interpret.parrot_gap(y, made).gap, atol=1e-4)
    assert found.mase[0].mean() == pytest.approx(100) and (found.moved[0] < 1e-6).all()


def test_tokens_of_one_size_have_induction_scores(tiny):
    for name in FEW:
        found = parroting.inductions(subjects.load(name, tiny), N, 0)
        assert found and all((v >= 0).all() and (v <= 1).all() for v in found.values())
    from tsfm_lib import front

    if "kairos-nano" in front.shipped():
        assert parroting.inductions(subjects.load("kairos-nano"), N, 0) is None


def test_random_draws_of_the_same_damage_are_the_nearest():
    assert set(parroting.matched(np.array([5.0, 50.0, 11.0, 9.0]), 10.0, 2)) == {2, 3}


def test_r4_can_be_judged_from_these_rows(tiny):
    heads = rows_of(parroting.sharp_heads, tiny, 3)
    found = parroting.judged(pd.concat([heads, rows_of(parroting.parrot_sites, tiny).assign(experiment="parrot_sites")]))
    verdict = claims.judge("R4", found.assign(profile="laptop"))
    assert len(verdict.parts) == 4 and not any("no recorded rows" in part.why or "no column" in part.why for part in verdict.parts)
    assert set(heads[heads["experiment"] == "sharp_heads"]["removed"]) == {"sharp", "random", "random, same damage"}
    intact = heads[(heads["experiment"] == "diffuse_heads") & (heads["removed"] == "intact")]
    assert intact["unit"].str.startswith(tuple(FEW)).all() and intact["MASE"].mean() == pytest.approx(100, rel=0.2)


def test_kinds_of_sites_are_those_of_the_last_stack(tiny):
    rows = rows_of(parroting.parrot_sites, tiny)
    assert set(rows[rows["model"] == "timesfm-nano"]["removed"]) == {"self-attention", "mlp"}
    assert set(rows[rows["model"] == "chronos-bolt-nano"]["removed"]) == {
        "cross-attention", "self-attention", "mlp", "encoder self-attention", "encoder mlp"}  # fmt: skip


def test_all_orders_start_with_the_intact_model_and_every_head_has_a_row(tiny):
    rows = rows_of(parroting.sequential, tiny, 2)
    assert (rows[rows["share"] == 0]["increase"].abs() < 1e-6).all() and (rows[rows["share"] == 0]["moved"] < 1e-6).all()
    assert {"sharp first", "diffuse first", "copying first", "copying last", "shuffled"} == set(rows["order"])
    single = rows_of(parroting.heads, tiny, names=("timesfm-nano",))
    assert len(single) == 6 and single["induction"].notna().all()


def test_biases_are_told_for_seasons_that_go_on_change_end_or_never_were(tiny):
    rows = rows_of(parroting.seasonal_bias, tiny, names=("timesfm-nano",))
    assert len(rows) == len(parroting.CASES) * 3 * len(parroting.COMMON) and np.isfinite(rows["bias"]).all()


def test_motifs_break_only_if_they_shall():
    goes, breaks = (parroting.motif_batch(8, 272, 0, 0, breaking) for breaking in (False, True))
    assert goes.shape == breaks.shape == (8, 272) and not np.array_equal(goes, breaks)
    assert np.array_equal(goes[2:4, :136], breaks[2:4, :136])  # the second quarter goes on in both


def test_r10_can_be_judged_from_these_rows():
    rows = [{"variant": v, "seed": 0, **parroting.parrot_training(v, 1, 0, 16)} for v in ("standard", "motif-breaking")]
    found = claims.judge("R10", pd.DataFrame(rows).assign(experiment="parrot_training", profile="laptop"))
    assert len(found.parts) == 3 and all("at least 5 needed" in part.why for part in found.parts)
    assert [part.words.split()[0] for part in found.parts if part.beside] == ["copy_error"]  # the price is told and not judged
    changed = parroting.changes(pd.DataFrame(rows)).set_index("metric")
    assert list(changed.index) == ["parrot_gap", "broken_error", "copy_error", "MASE"]
    assert changed.loc["MASE", "difference"] == pytest.approx(rows[1]["MASE"] - rows[0]["MASE"])


def test_who_is_no_better_than_a_flat_line_cannot_copy():
    rows = pd.DataFrame({"variant": ["copies", "seasonal-naive", "flat"], "series": "motif of 32, goes on", "to_truth": [0.4, 0.06, 0.84]})
    assert parroting.cannot_copy(rows) == ["flat"] and parroting.REPEATS in set(parroting.named(rows)["variant"])


def costs(of):
    """Rows of `sharp_heads`: model -> (cost of the sharp heads, of random ones, of those nearest to it), four series each."""
    names = ("sharp", "random", "random, same damage")
    return pd.DataFrame([
        {"model": model, "unit": f"{model}/{i}", "removed": what, "MASE_increase": paid, "parrot_drop": paid + i, "seasonal_drop": 0.0}
        for model, paid_by in of.items() for what, paid in zip(names, paid_by) for i in range(4)
    ])  # fmt: skip


def test_damage_is_the_same_only_where_both_costs_are_near():
    rows = costs({"near": (10.0, 2.0, 9.0), "far": (100.0, 10.0, 26.0), "less": (8.0, 20.0, 12.0), "nothing": (0.0, 1.0, 0.0)})
    assert parroting.damage(rows)["same"].to_dict() == {"near": True, "far": False, "less": False, "nothing": False}
    seen = parroting.against_random(rows, "parrot_drop")
    assert len(seen) == 8 and seen["near, same damage"].estimate == pytest.approx(1) and "far, unmatched 100 : 26 %" in seen


def test_an_interval_over_models_is_wider_than_one_over_their_series():
    rows = costs({"a": (10.0, 2.0, 9.0), "b": (1.0, 2.0, 2.0), "c": (9.0, 2.0, 2.0)})
    found = parroting.over_models({"drop": parroting.gains(rows, "parrot_drop", "sharp", "random")}).loc["drop"]
    assert (found["models"], found["other sign"]) == (3, "b")
    assert parroting.by_model(parroting.gains(rows, "parrot_drop", "sharp", "random"))["b"].estimate == pytest.approx(-1)
    assert found["over series"].split(" ")[0] == found["over models"].split(" ")[0] and found["over series"] != found["over models"]
    twice = parroting.gains(rows.assign(MASE=rows["MASE_increase"]), "MASE", "sharp", "random", percent=True)
    assert twice.loc["a"].eq(400).all()
    few = {"none": parroting.gains(rows[:0], "parrot_drop", "sharp", "random"), "one": twice.loc[["a"]]}
    assert parroting.over_models(few)["over models"].tolist() == ["-", "-"]  # no interval, and no error


def test_diffuse_heads_are_compared_with_every_draw_at_the_same_dose():
    rows = pd.DataFrame({"variant": "m", "share": 10, "order": ["diffuse first", "shuffled", "shuffled"], "draw": [0, 0, 1],
                         "increase": [3.0, 2.0, 6.0]})  # fmt: skip
    assert parroting.diffuse_cost(rows).loc["m"].tolist() == [3.0, 4.0, 50.0]
