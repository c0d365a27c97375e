"""Curves of growth, and the sweep from which notebook 33 selects its experiments."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from tsfm_lib import claims
from tsfm_lib.errors import TsfmError
from tsfm_lib.experiments.cauker import encoders, growth, scaling
from tsfm_lib.synth import cauker

SIZES = np.array([1e2, 1e3, 1e4, 1e5, 1e6])
TRUE = {
    "power": 1 - 0.5 * (SIZES / SIZES[0]) ** -0.1,
    "log-linear": 0.5 + 0.05 * np.log10(SIZES / SIZES[0]),
    "saturating": 0.8 - 0.2 * (SIZES / SIZES[0]) ** -0.4,
    "stretched exponential": 0.8 * (1 - np.exp(-((SIZES / 2.0) ** 0.1))),
}


@pytest.fixture
def embedded(monkeypatch):
    monkeypatch.setattr(scaling, "sets_of", lambda scored: encoders.EMBEDDED)


def cell(**other):
    return scaling.BASE | {"n": 128, "seed": 0, "steps": 2, "scored": "two", "model_size": "small"} | other


# -- curves of growth --


@pytest.mark.parametrize("form", TRUE)
def test_a_curve_foretells_its_own_growth(form):
    curve = growth.fitted(form, SIZES[:-1], TRUE[form][:-1])
    assert curve(SIZES) == pytest.approx(TRUE[form], abs=2e-3)


@pytest.mark.parametrize("form", ["power", "log-linear", "saturating"])
def test_a_curve_may_fall(form):
    falling = np.array([0.7, 0.66, 0.64, 0.63])
    assert np.diff(growth.fitted(form, SIZES[:4], falling)(SIZES)).max() < 1e-6


def test_a_law_without_a_ceiling_promises_too_much_of_one_that_has_one():
    miss = {row["form"]: row["miss"] for row in growth.held_out(SIZES, TRUE["saturating"])}
    assert abs(miss["saturating"]) < 0.1 < 1 < miss["log-linear"]
    assert miss[growth.YARDSTICK] < 0                                      # it went on growing


def test_the_largest_size_is_not_looked_at():
    moved = TRUE["power"].copy()
    moved[-1] = 0.1
    before, after = (growth.held_out(SIZES, y) for y in (TRUE["power"], moved))
    assert [row["residual"] for row in before] == [row["residual"] for row in after]
    shift = 100 * (TRUE["power"][-1] - 0.1)
    assert [row["miss"] for row in after] == pytest.approx([row["miss"] + shift for row in before])


def test_fewer_sizes_than_parameters_are_not_fitted():
    assert growth.fitted("saturating", SIZES[:2], TRUE["power"][:2]) is None
    assert {row["form"] for row in growth.held_out(SIZES[:3], TRUE["power"][:3])} == {"power", "log-linear", growth.YARDSTICK}


def test_percent_and_unknown_names_are_refused():
    with pytest.raises(TsfmError, match="divide percentages"):
        growth.fitted("power", SIZES, 100 * TRUE["power"])
    with pytest.raises(TsfmError, match="no curve is called 'linear'"):
        growth.fitted("linear", SIZES, TRUE["power"])


def test_growth_does_not_mind_the_order_of_its_points():
    shuffled = np.array([3, 0, 4, 1, 2])
    assert growth.growth(SIZES[shuffled], TRUE["log-linear"][shuffled]) == growth.growth(SIZES, TRUE["log-linear"])
    assert growth.growth(SIZES, TRUE["log-linear"]) == {"steps_up": 1.0, "rho": 1.0, "per_tenfold": 5.0}
    assert growth.growth(SIZES, np.full(5, 0.5)) == {"steps_up": 0.0, "rho": 0.0, "per_tenfold": 0.0}


def test_published_tables_agree_with_each_other_where_they_overlap():
    """Table 8 has MOMENT's and half of Mantis' columns of Table 7 (Mantis on 100K series differs: that is the spread)."""
    paper = growth.published()
    seven, eight = (paper[paper["table"] == name] for name in ("corpus", "model"))
    small = eight[(eight["model"] == "moment") & (eight["size"] == 77e6)]
    both = small.merge(seven[seven["model"] == "moment-77M"], on=["corpus", "series"])
    assert len(both) == 6 and (both["accuracy_x"] == both["accuracy_y"]).all()
    assert np.ptp(list(growth.ONE_CONDITION.values())) == pytest.approx(0.49)


# -- cells --


@pytest.mark.parametrize("profile", scaling.BUDGET)
def test_every_encoder_is_trained_once(profile):
    cells = scaling.cells(profile, range(2))
    assert len({tuple(sorted(one.items())) for one in cells}) == len(cells)
    assert scaling.BUDGET[profile]["sizes"]["large"] >= 30 * scaling.BUDGET[profile]["sizes"]["small"]


def test_every_experiment_finds_its_cells():
    cells = pd.DataFrame(scaling.cells("laptop", (0,))).assign(profile="laptop")
    for name, tried in scaling.experiments("laptop").items():
        found = scaling.select(cells, name)
        trained = found[~found["corpus"].isin(scaling.NOTHING)]
        assert len(trained) == np.prod([len(values) for values in tried.values()]), name
        assert set(trained["model_size"]) == set(found.loc[found["corpus"] == scaling.RANDOM, "model_size"]), name
        assert (found["corpus"] == scaling.RAW).sum() == 1, name


def test_graphs_are_as_deep_as_said_with_one_share_of_roots():
    for name in (*(f"depth {d}" for d in scaling.DEPTHS), "narrow", "wide"):
        config = scaling.GENERATORS[name]
        graphs = [cauker.graph(i, 8, 0, config) for i in range(5)]
        assert {g.depth for g in graphs} == {config.depth}
        assert {len(g.roots) / len(g.parents) for g in graphs} == {scaling.SHARE}


def test_banks_are_parts_of_the_released_one():
    assert set(scaling.GENERATORS["half-bank"].bank) < set(cauker.BANK)
    assert len(scaling.GENERATORS["half-bank"].bank) == -(-len(cauker.BANK) // 2)
    assert not any(entry.startswith("period") for entry in scaling.GENERATORS["rbf only"].bank)


# -- corpora --


def test_series_of_any_length_reach_the_encoder_at_its_own():
    for length in scaling.LENGTHS:
        found = scaling.series_of("cauker", 40, length, 0, "full")
        assert found.shape[1] == encoders.LENGTH and np.isfinite(found).all()


def test_a_smaller_corpus_begins_a_larger_one():
    few, many = (scaling.series_of("cauker", n, encoders.LENGTH, 3, "depth 4") for n in (20, 60))
    assert np.array_equal(few, many[: len(few)])


def test_statistics_tell_a_varied_corpus_from_a_narrow_one(embedded):
    scaling.archive_bands.cache_clear()
    real = scaling.archive_bands("two")
    scaling.archive_bands.cache_clear()
    wide, narrow = (scaling.statistics(scaling.series_of("cauker", 200, 256, 0, name), real) for name in ("full", "one of each"))
    assert wide["entropy"] > narrow["entropy"] and wide["novelty"] > narrow["novelty"]
    twice = scaling.statistics(np.repeat(scaling.series_of("cauker", 100, 256, 0, "full"), 2, 0), real)
    assert twice["novelty"] == 0


# -- one encoder --


def test_a_trial_scores_every_read_out_and_keeps_its_loss(embedded):
    rows = pd.DataFrame(scaling.trial(**cell()))
    scored, curve = rows[rows["accuracy"].notna()], rows[rows["accuracy"].isna()]
    assert set(scored["readout"]) == set(scaling.READOUTS) and scored["accuracy"].between(0, 1).all()
    assert set(curve["experiment"]) == {"loss_curves"} and curve["step"].tolist() == [1, 2]
    assert scored[list(scaling.FACTS)].notna().all(None)
    pd.testing.assert_frame_equal(rows, pd.DataFrame(scaling.trial(**cell())))


def test_random_weights_and_raw_values_need_no_corpus(embedded):
    idle = cell(corpus=scaling.RANDOM, size="", length=0, generator="", n=0)
    random = pd.DataFrame(scaling.trial(**idle))
    assert "loss" not in random and random["parameters"].iloc[0] == scaling.parameters("mantis", "small")
    raw = pd.DataFrame(scaling.trial(**idle | {"corpus": scaling.RAW, "architecture": "", "model_size": ""}))
    assert set(raw["readout"]) == set(scaling.READOUTS)


def test_the_loss_of_a_contrast_starts_near_chance_and_knows_its_batch():
    model = encoders.untrained("mantis", 0)
    series = encoders.unlabelled()[:200, 0]
    at = {batch: scaling.loss_on(model, series, 0, batch) for batch in (20, 100)}
    assert at[20] < at[100] < np.log(100) + 0.1


# -- selections that claims can judge --


def planted(size=0.0, model=0.0, depth=0.0, bank=0.0, noise=0.002, profile="laptop"):
    """Rows as the sweep has them, with effects as large as said; seeds differ, sets do not."""
    rng = np.random.default_rng(0)
    rows = []
    for one in scaling.cells(profile, range(5)):
        gain = size * {"small": 0, "middle": 1, "large": 2}.get(one["size"], 0) * (one["corpus"] == "cauker")
        gain += model * {"small": 0, "middle": 1, "large": 2}.get(one["model_size"], 0) * (one["corpus"] == "cauker")
        gain += depth * (one["generator"] == "depth 2") + bank * (one["generator"] not in ("full", ""))
        known = dict.fromkeys(scaling.FACTS, 1.0 + one["n"])
        for readout in scaling.READOUTS:
            rows.append({"experiment": "runs", "profile": profile, **one, **known, "step": np.nan, "dataset": "x", "readout": readout,
                         "accuracy": 0.7 + gain + noise * rng.normal()})  # fmt: skip
    return pd.DataFrame(rows)


def verdict(id, runs, *names):
    return claims.judge(id, pd.concat([scaling.judged(runs, name) for name in names])).verdict


def test_claims_find_what_was_planted_and_nothing_else():
    grown, flat = planted(size=0.02, model=0.02, depth=-0.03, bank=-0.03), planted()
    assert verdict("C3", grown, "model_size") == verdict("C9", grown, "bank") == "direction holds"
    assert verdict("C7", grown, "depth", "width") == "direction holds"
    assert {verdict("C3", flat, "model_size"), verdict("C9", flat, "bank"), verdict("C7", flat, "depth", "width")} == {"not resolved"}
    assert verdict("C9", planted(bank=0.03), "bank") == "refuted here"


def test_growth_of_the_corpus_is_judged_with_its_ranks():
    for runs, said in ((planted(size=0.02), "direction holds"), (planted(size=-0.02), "refuted here")):
        ranks = scaling.ranked(scaling.per_encoder(runs))
        assert claims.judge("C2", pd.concat([scaling.judged(runs, "corpus_size"), ranks])).verdict == said


def test_a_selection_is_the_same_before_and_after_a_csv(tmp_path):
    found = scaling.per_encoder(planted(bank=-0.01))
    found.to_csv(tmp_path / "encoders.csv", index=False)
    again = pd.read_csv(tmp_path / "encoders.csv", keep_default_na=False, na_values=[""])
    for name in scaling.experiments("laptop"):
        pd.testing.assert_frame_equal(scaling.select(again, name), scaling.select(found, name), check_dtype=False)


def test_gains_are_paired_by_seed():
    rows = [{"seed": s, "label": name, "forest": base + s / 10, "ridge": 0.5} for s, (name, base) in
            product(range(3), {"full": 0.3, "half": 0.25}.items())]  # fmt: skip
    found = scaling.gains(pd.DataFrame(rows), "label", "full")
    assert found.loc[found["readout"] == "forest", "gain"].tolist() == pytest.approx([-5.0] * 3)
    assert set(found["label"]) == {"half"}


def test_predictors_find_the_statistic_that_goes_with_accuracy():
    encoders_ = scaling.per_encoder(planted(size=0.02, noise=0.0))
    found = scaling.predictors(encoders_).query("over == 'sizes'").groupby("statistic")["rho"].mean()
    assert found["coverage"] > 0.5                                          # planted to grow with the number of series
    assert scaling.fits(encoders_)["form"].nunique() == len(growth.NAMES)
