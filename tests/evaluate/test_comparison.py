"""Intervals cover, tests err as often as they say, and whole units move together."""

import numpy as np
import pandas as pd
import pytest

from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate import comparison as c


def covers(found: c.Interval, truth: float = 0.0) -> bool:
    return not found.excludes(truth)


def test_paired_t_covers_95_percent_from_five_units():
    rng = np.random.default_rng(0)
    share = np.mean([covers(c.paired_t(rng.normal(0, 1, 5))) for _ in range(600)])
    assert abs(share - 0.95) < 0.03                                  # 3.4 standard errors


@pytest.mark.parametrize("units", [20, 40])
def test_bootstrap_covers_95_percent_from_twenty_units(units):
    rng = np.random.default_rng(units)
    share = np.mean([covers(c.bootstrap(rng.normal(0, 1, units), draws=600, seed=i)) for i in range(500)])
    assert abs(share - 0.95) < 0.03


def test_rows_of_one_unit_move_together():
    """Ten windows per series share the series' effect: treating them as independent would cover far too rarely."""
    rng = np.random.default_rng(3)
    units = np.repeat(np.arange(25), 10)
    draws = [np.repeat(rng.normal(0, 1, 25), 10) + rng.normal(0, 0.3, 250) for _ in range(200)]
    clustered = np.mean([covers(c.bootstrap(x, units, draws=400, seed=i)) for i, x in enumerate(draws)])
    naive = np.mean([covers(c.bootstrap(x, draws=400, seed=i)) for i, x in enumerate(draws)])
    assert abs(clustered - 0.95) < 0.04 and naive < 0.7


def test_bootstrap_weighs_units_by_their_rows_and_the_ratio_is_one_of_sums():
    x, units = np.array([1.0, 1.0, 1.0, 5.0]), np.array(["a", "a", "a", "b"])
    assert c.bootstrap(x, units).estimate == 2.0 and c.paired_t(x, units).estimate == 3.0
    assert c.bootstrap_ratio([1.0, 3.0], [1.0, 1.0]).estimate == 2.0
    assert c.bootstrap_ratio([1.0, 3.0], [1.0, 3.0]).high == 1.0


def test_same_seed_same_interval():
    x = np.random.default_rng(0).normal(size=30)
    assert c.bootstrap(x, seed=1) == c.bootstrap(x, seed=1) != c.bootstrap(x, seed=2)
    assert c.permutation(x, seed=1) == c.permutation(x, seed=1) != c.permutation(x, seed=2)


@pytest.mark.parametrize("n", [8, 30])
def test_permutation_test_rejects_a_true_null_one_time_in_twenty(n):
    rng = np.random.default_rng(n)
    share = np.mean([c.permutation(rng.standard_t(3, n), draws=499, seed=i) <= 0.05 for i in range(500)])
    assert 0.02 < share < 0.08


def test_permutation_finds_what_is_there():
    rng = np.random.default_rng(1)
    assert np.mean([c.permutation(rng.normal(1, 1, 15), draws=499, seed=i) <= 0.05 for i in range(50)]) > 0.9


def test_exact_and_drawn_permutations_agree():
    x = np.random.default_rng(2).normal(0.5, 1, 12)
    drawn = np.mean(np.abs(np.random.default_rng(0).choice([-1, 1], (100_000, 12)) @ x) >= abs(x.sum()))
    assert abs(c.permutation(x) - drawn) < 0.01


def test_equivalence_errs_as_rarely_as_it_says_and_succeeds_when_true():
    rng = np.random.default_rng(4)
    at_the_margin = np.mean([c.equivalence(rng.normal(1, 1, 12), 1.0).within(1.0) for _ in range(500)])
    none_at_all = np.mean([c.equivalence(rng.normal(0, 1, 30), 1.0, seed=i).within(1.0) for i in range(40)])
    assert at_the_margin < 0.08 and none_at_all > 0.95


def test_holm_by_hand_and_never_below_the_raw_p():
    assert c.holm([0.01, 0.02, 0.03, 0.04]).tolist() == [0.04, 0.06, 0.06, 0.06]
    p = np.random.default_rng(0).random(20)
    adjusted = c.holm(p)
    assert (adjusted >= p).all() and (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert c.holm([0.6, 0.9]).tolist() == [1.0, 1.0]


def test_ranks_separate_the_good_from_the_twins():
    rng = np.random.default_rng(0)
    base = rng.random((30, 1))
    twins = base + 0.5 + rng.normal(0, 0.01, (30, 2))
    table = pd.DataFrame(np.hstack([base, twins]), columns=["a", "b", "c"])
    found = c.ranks(table)
    assert found.mean.index[0] == "a" and found.mean["a"] == 1 and found.n == 30
    assert found.cliques in ((("b", "c"),), (("c", "b"),))
    assert found.friedman < 1e-6 and found.p_values.loc["a", "b"] < 0.01 < 0.05 < found.p_values.loc["b", "c"]
    upside_down = c.ranks(table, higher=True)
    assert upside_down.mean["a"] == 3


@pytest.mark.parametrize("models", ["ab", "abc"])
def test_models_that_tie_everywhere_rank_alike(models):
    found = c.ranks(pd.DataFrame(1.0, index=range(6), columns=list(models)))
    assert found.friedman == 1 and found.cliques == (tuple(models),) and found.mean.nunique() == 1


def test_nemenyi_distance_is_the_published_one():
    """Demsar 2006: 4 classifiers on 14 data sets, alpha 0.05: 2.569 sqrt(4 * 5 / (6 * 14)) = 1.25."""
    table = pd.DataFrame(np.random.default_rng(0).random((14, 4)))
    assert abs(c.ranks(table).critical - 1.25) < 0.005


def test_pairs_are_matched_not_assumed():
    rows = pd.DataFrame({"variant": ["a", "a", "b", "b"], "dataset": "d", "unit": [1, 2, 2, 1], "MASE": [1.0, 2.0, 5.0, 3.0]})
    assert c.paired(rows, "MASE", "a", "b")["difference"].tolist() == [-2.0, -3.0]
    np.testing.assert_allclose(c.paired(rows, "MASE", "a", "b", log=True)["difference"], np.log([1 / 3, 2 / 5]))
    with pytest.raises(TsfmError, match="no partner"):
        c.paired(rows[:-1], "MASE", "a", "b")
    with pytest.raises(TsfmError, match="several rows"):
        c.paired(pd.concat([rows, rows[:1]]), "MASE", "a", "b")
    with pytest.raises(TsfmError, match="no rows"):
        c.paired(rows, "MASE", "a", "z")


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(TsfmError, match="missing"):
        c.bootstrap([1.0, np.nan])
    with pytest.raises(TsfmError, match="at least 2"):
        c.bootstrap([1.0, 2.0], ["a", "a"])
    with pytest.raises(TsfmError, match="positive"):
        c.equivalence([1.0, 2.0], 0.0)
    with pytest.raises(TsfmError, match="gaps"):
        c.ranks(pd.DataFrame({"a": [1.0, np.nan], "b": [1.0, 2.0]}))
