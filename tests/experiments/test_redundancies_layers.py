"""Whole layers, their parts, MLPs and lenses of tiny random models; and the rows are those that R1, R5 and R9 are judged from."""

import numpy as np
import pandas as pd
import pytest
import torch

from tests.experiments.redundant import folder
from tsfm_lib import claims, interpret, plotting
from tsfm_lib.errors import TsfmError
from tsfm_lib.experiments.redundancies import growing, layers, pictures, subjects

SUITE, COUNT = "embedded", 2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def curves(tiny):
    cells = [("timesfm-nano", "trained"), ("timesfm-nano", "untrained"), ("timesfm-nano-1", "trained")]
    cells += [("timesfm-nano-half", "half-trained")]
    frames = [pd.DataFrame(layers.layer_costs(name, state, tiny, "", SUITE, COUNT)).assign(variant=name) for name, state in cells]
    return pd.concat(frames, ignore_index=True)


# ---- who, and by which number ------------------------------------------------------------------------------------------------------------


def test_the_cast_of_a_folder_has_its_roles_and_a_stranger_joins_the_five(tiny):
    cast = subjects.cast(tiny)
    assert cast.five == subjects.SUBJECTS and cast.seeds == subjects.SEEDS[:2] and cast.half == subjects.HALF
    assert cast.lead == "timesfm-nano" and not cast.missing
    quick = subjects.cast(tiny, patient=False)
    assert quick.slow == ("chronos-t5-nano",) and "chronos-t5-nano" not in quick.everybody and "chronos-t5-nano" in str(quick)
    with pytest.raises(TsfmError, match="holds no models"):
        subjects.cast(tiny + "/timesfm-nano/nothing")


def test_what_does_not_ship_is_told_and_left_out():
    cast = subjects.cast()
    assert not set(cast.missing) & set(cast.everybody) and set(cast.missing) <= {*subjects.SUBJECTS, *subjects.SEEDS, *subjects.HALF}
    assert all(name in str(cast) for name in (*cast.everybody, *cast.missing))


@pytest.mark.parametrize("name", subjects.SUBJECTS)
def test_asked_twice_a_model_says_the_same_and_its_sites_are_passed_once_in_one_pass(tiny, name):
    model, x = subjects.load(name, tiny), subjects.windows(SUITE, COUNT, "test").x[:3]
    run, once = subjects.medians(model), subjects.one_pass(model)
    assert run(x).shape == (3, 1, subjects.HORIZON) and torch.equal(run(x), run(x))
    whole = subjects.told(model, x)
    with interpret.capture(model, "heads") as seen, torch.no_grad():
        once(whole)
    assert all(len(seen.calls("heads", site.name)) == 1 for site in model.sites() if hasattr(site, "n_heads"))


def test_kinds_are_read_off_the_sites(tiny):
    assert [subjects.kind(subjects.load(name, tiny)) for name in subjects.SUBJECTS] == [
        "encoder-decoder", "encoder-decoder", "decoder", "decoder", "encoder"]  # fmt: skip


def test_calibration_and_test_share_no_window():
    whole, known, unseen = (subjects.windows(SUITE, 6, part) for part in subjects.PARTS)
    assert len(whole) == len(known) + len(unseen)
    rows = [{tuple(row) for row in part.x.nan_to_num(-1e9).flatten(1).tolist()} for part in (known, unseen)]
    assert not rows[0] & rows[1]
    with pytest.raises(TsfmError, match="part of the windows"):
        subjects.windows(SUITE, 6, "training")


def test_mase_is_that_of_the_library():
    from tsfm_lib.evaluate import metrics

    given = subjects.windows(SUITE, COUNT, "all")
    forecast = given.target[..., 1:].nan_to_num(0.0) + torch.randn(given.target[..., 1:].shape, generator=torch.Generator().manual_seed(0))
    expected = metrics.mase(given.target[..., 1:].numpy(), forecast.numpy(), given.target[..., 0].numpy())
    np.testing.assert_allclose(subjects.mase(forecast, given.target), expected, rtol=1e-4)


# ---- R1 ----------------------------------------------------------------------------------------------------------------------------------


def test_a_layer_is_its_heads_and_its_mlp(tiny):
    model = subjects.load("chronos-bolt-nano", tiny)
    whole, heads, mlp = (layers.part_of(model, "decoder.0", part).resolve(model) for part in layers.PARTS)
    assert heads.heads == whole.heads and mlp.mlps == whole.mlps and not heads.mlps and not mlp.heads
    assert set(whole.heads) == {"decoder.0.self", "decoder.0.cross"}


def test_costs_are_those_of_an_ablation_one_by_one(tiny, curves):
    model, given = subjects.load("timesfm-nano", tiny), subjects.windows(SUITE, COUNT, "test")
    with interpret.ablate(model, mlps=["decoder.1"]):
        losses = subjects.mase(subjects.medians(model)(given.x), given.target)
    row = curves.query("variant == 'timesfm-nano' and state == 'trained' and part == 'mlp' and layer == 1").set_index("dataset")["MASE"]
    for name, value in row.items():
        assert value == pytest.approx(losses[given.dataset == name].double().mean().item(), rel=1e-4)


def test_every_layer_has_every_part_and_the_intact_model_costs_nothing(curves):
    one = curves[(curves["variant"] == "timesfm-nano") & (curves["state"] == "trained")]
    intact = one[one["part"] == "none"]
    assert (intact["increase"] == 0).all() and (intact["spearman"] < 1e-9)[intact["constants"] == 0].all()
    assert one.groupby(["layer", "part", "mode"]).ngroups == 3 * (len(layers.PARTS) + 1)
    assert set(one["third"].dropna()) == {"early", "middle", "late"}
    assert not np.allclose(one[one["mode"] == "mean"]["MASE"], one[(one["mode"] == "zero") & (one["part"] == "whole")]["MASE"])


def test_r1_can_be_judged_from_these_rows(curves):
    rows = pd.concat([layers.removed(curves), layers.removed(curves, "layers_half_trained", "half-trained")]).assign(profile="laptop")
    found = claims.judge("R1", rows)
    assert len(found.parts) == 4 and "at least 5 needed" in found.why and not any("no recorded rows" in part.why for part in found.parts)
    assert set(rows["variant"]) == {"intact", "early removed", "middle removed", "late removed"}


def test_a_cheap_middle_is_seen_as_one():
    common = {"state": "trained", "mode": "zero", "dataset": "a"}
    row = lambda third, seed, cost: common | {"variant": subjects.SEEDS[seed], "seed": seed, "part": "whole" if third else "none",
                                              "third": third or None, "MASE": 1 + cost / 100, "increase": cost}  # fmt: skip
    rng = np.random.default_rng(0)
    rows = [row(third, s, cost + rng.normal()) for s in range(5) for third, cost in (("early", 60), ("middle", 2), ("late", 40))]
    rows = pd.DataFrame(rows + [row("", s, 0.0) for s in range(5)])
    assert claims.judge("R1", layers.removed(rows).assign(profile="laptop")).verdict == "direction holds"


def test_one_set_can_make_a_mean_over_sets(curves):
    costs = {"a": (30.0, 2.0, 30.0), "b": (3.0, 2.0, 1.0), "c": (10.0, 200.0, 10.0)}
    row = lambda name, seed, third, cost: {"variant": f"{third} removed" if third else "intact", "model": subjects.SEEDS[seed],
                                           "seed": seed, "dataset": name, "third": third or None, "MASE": 1 + cost / 100, "increase": cost}
    rows = [row(name, s, third, cost) for name, each in costs.items() for s in range(2) for third, cost in zip(layers.THIRDS, each)]
    found = layers.over_sets(pd.DataFrame(rows + [row(name, s, "", 0.0) for name in costs for s in range(2)]))
    assert found.loc["mean over sets", "middle"].startswith("68.0 [") and found.loc["mean without c", "middle"] == "2.0 [2.0, 2.0]"
    assert found.loc["geometric mean over sets", "middle"].startswith("46.1 [") and found.loc["sets below 5 %", "middle"] == "2 of 3"
    assert found.loc["sets that read as R1 says in all three", "middle"] == "1 of 3"
    assert layers.over_sets(layers.removed(curves)).shape == (7, 3)


def test_the_seasonal_naive_is_judged_on_the_windows_of_the_models(curves):
    naive = pd.DataFrame(layers.seasonal_naive(SUITE, COUNT))
    given = subjects.windows(SUITE, COUNT, "test")
    assert naive.groupby("windows")["n"].sum().to_dict() == {"all": len(given), "every eighth": len(given[::8])}
    table = layers.something_to_lose(curves.assign(suite=SUITE), naive)
    assert table["ratio"].notna().all() and set(table["windows"]) == {"all"}
    assert layers.something_to_lose(curves.assign(suite="local"), naive)["ratio"].isna().all()


def test_thirds_are_those_of_every_stack(tiny):
    rows = pd.DataFrame(layers.layer_costs("chronos-bolt-nano", "trained", tiny, "", SUITE, COUNT, means=False))
    found = layers.thirds_of(rows.assign(variant="chronos-bolt-nano"))
    assert list(found.index.get_level_values("stack")) == ["encoder", "decoder"] and list(found.columns) == list(layers.THIRDS)


def test_the_widened_interval_holds_the_one_that_is_shown(curves):
    rows = pd.concat([layers.removed(curves), layers.removed(curves, "layers_half_trained", "half-trained")]).assign(profile="laptop")
    wide = layers.widened([claims.judge("R1", rows)], [rows])
    ends = wide[["interval", "refutes where wholly outside"]].map(lambda text: [float(x) for x in text.strip("[] %").split(", ")])
    assert len(wide) == 3 and all(b[0] < a[0] and a[1] < b[1] for a, b in ends.itertuples(index=False))
    assert layers.widened([claims.judge("R1", pd.DataFrame())], [pd.DataFrame()]).empty


# ---- R5 ----------------------------------------------------------------------------------------------------------------------------------


def test_r5_can_be_judged_from_rows_of_all_kinds(tiny):
    names = ("chronos-bolt-nano", "timesfm-nano", "moirai-nano")
    rows = pd.concat([pd.DataFrame(layers.mlp_costs(name, tiny, "", SUITE, COUNT)) for name in names]).assign(profile="laptop")
    assert set(rows[rows["experiment"] == "mlps"]["kind"]) == {"encoder-decoder", "decoder"}          # an encoder has no decoder to judge
    assert rows.groupby(["model", "stack", "removed"]).ngroups == 1 + 1 + 3 + 3
    found = claims.judge("R5", rows)
    assert len(found.parts) == 3 and not any("no recorded rows" in part.why or "no column" in part.why for part in found.parts)


def test_r5_is_asked_without_each_encoder_decoder(tiny):
    names = ("chronos-t5-nano", "chronos-bolt-nano", "timesfm-nano")
    rows = pd.concat([pd.DataFrame(layers.mlp_costs(name, tiny, "", SUITE, COUNT)) for name in names])
    ends = layers.without_the_decoders_mlps(rows[rows["experiment"] == "mlps_by_number"]).assign(profile="laptop")
    found = layers.other_casts(ends)
    assert list(found.index) == ["as judged", "without chronos-t5-nano", "without chronos-bolt-nano"] and found["decoder"].nunique() == 1
    count = layers.per_model(ends).droplevel("kind")["series"]
    assert count["chronos-t5-nano"] < count["chronos-bolt-nano"] == count["timesfm-nano"]


def test_increases_of_series_average_to_those_of_their_set(tiny):
    rows = pd.DataFrame(layers.mlp_costs("timesfm-nano", tiny, "", SUITE, COUNT))
    model, given = subjects.load("timesfm-nano", tiny), subjects.windows(SUITE, COUNT, "test")
    plans = [interpret.Plan(), interpret.Plan(mlps=["decoder.0", "decoder.1", "decoder.2"])]
    losses = interpret.HeadMask(model, plans).losses(subjects.medians(model), given.x, given.target, subjects.mase)
    expected = subjects.by_dataset(losses, given.dataset).query("plan == 1").set_index("dataset")["increase"]
    mine = rows[rows["experiment"] == "mlps"]
    alone = [name for name in expected.index if (given.dataset == name).sum() == 1]
    assert alone
    for name in alone:
        assert mine[mine["unit"].str.startswith(f"{name}/")]["increase"].item() == pytest.approx(expected[name], abs=1e-3)


# ---- R9 ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", subjects.SUBJECTS)
def test_every_architecture_of_the_paper_has_a_lens_that_ends_where_the_forecast_is(tiny, name):
    rows = pd.DataFrame(layers.lens_rows(name, "trained", tiny, "", SUITE, COUNT))
    model = subjects.load(name, tiny)
    assert len(rows) == 1 + len(interpret.plans.thirds(model)) and rows["distance"].iloc[-1] == 0
    assert rows["entropy_change"].iloc[1:].to_numpy() == pytest.approx(rows["entropy"].diff().iloc[1:].to_numpy())


def test_r9_can_be_judged_from_these_rows(tiny):
    rows = pd.concat([pd.DataFrame(layers.lens_rows(name, "trained", tiny, "", SUITE, COUNT)).assign(variant=name)
                      for name in subjects.SEEDS[:2]]).assign(profile="laptop")  # fmt: skip
    found = claims.judge("R9", rows)
    assert set(rows["experiment"]) == {"lens"} and not any("no recorded rows" in part.why for part in found.parts)


def test_models_without_a_read_out_behind_every_layer_are_left_out():
    class Blind(torch.nn.Module):
        config = None

    assert layers.look(Blind(), torch.zeros(1, 1, 8)) is None


# ---- depth -------------------------------------------------------------------------------------------------------------------------------


def test_a_grown_model_has_a_row_per_layer_and_training_helps():
    fresh, taught = (pd.DataFrame(growing.grown("next patch, quantiles", 2, 32, steps, 0, 16)) for steps in (0, 40))
    assert len(taught) == 2 and taught["MASE"].iloc[0] < fresh["MASE"].iloc[0]


def test_objectives_share_series_and_every_layer_of_every_stack_is_judged():
    rows = pd.DataFrame(growing.grown("one token, quantiles", 3, 64, 1, 0, 16))
    assert rows.groupby("stack")["layer"].count().to_dict() == {"decoder": 3, "encoder": 3} and np.isfinite(rows["increase"]).all()
    cells = growing.grid("laptop", range(5))
    assert {cell["objective"] for cell in cells} == set(growing.OBJECTIVES) and {cell["seed"] for cell in cells} == {0, 1, 2}


def test_layers_removed_together_end_where_all_are_gone(tiny):
    rows = pd.DataFrame(layers.blocks("timesfm-nano", tiny, "", SUITE, COUNT))
    assert rows["removed"].tolist() == [1, 2, 3] and rows["together"].iloc[0] == pytest.approx(rows["one by one"].iloc[0])


def test_the_middle_goes_first():
    assert layers.from_the_middle(list("abcde")) == ["c", "b", "d", "a", "e"]


def test_worse_than_naive_is_marked():
    row = {"objective": "o", "depth": 4, "width": 8, "seed": 0, "third": "middle", "increase": 2.0, "naive": 3.0}
    found = growing.summary(pd.DataFrame([row | {"steps": 0, "MASE": 4.0}, row | {"steps": 9, "MASE": 2.0}]))
    assert found["worse than naive"].tolist() == ["yes: says nothing", "no"] and found["late"].isna().all()


# ---- pictures ----------------------------------------------------------------------------------------------------------------------------


def test_percent_axes_have_plain_numbers_and_named_lines(curves):
    whole = curves[(curves["part"] == "whole") & (curves["mode"] == "zero")]
    figure = pictures.percent(pictures.spread(whole, "state", "cost"), {5: "five", 25: "twenty-five"})
    axes = figure.axes[0]
    assert {"0", "5", "25"} <= {text.get_text() for text in axes.get_yticklabels()} and axes.get_ylabel() == "% MASE"
    assert {"five", "twenty-five"} <= {text.get_text() for text in axes.texts}


def test_ten_models_are_told_apart_without_colour():
    rows = pd.DataFrame([{"variant": f"m{i}", "x": x, "y": i, "over": "sets"} for i in range(10) for x in (0, 1)])
    figure = pictures.tell_apart(plotting.lines(rows, "x", "y", by="variant", unit="over"))
    looks = {(line.get_marker(), line.get_linestyle()) for line in figure.axes[0].get_lines()}
    assert len(looks) == 10 and {handle.get_marker() for handle in figure.legends[0].legend_handles} == {m for m, _ in looks}
