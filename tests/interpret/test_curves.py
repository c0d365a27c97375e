"""Heads that can go are counted up to the first crossing, with an interval; constants have no order."""

import numpy as np
import pytest
import torch
from scipy import stats

from tests.interpret.models import close, series, setting
from tsfm_lib import interpret
from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret.plans import Plan

MAE = lambda forecast, target: (forecast[..., 1] - target).abs().mean((1, 2))


def test_a_curve_that_comes_back_is_cut_at_its_first_crossing():
    losses = np.outer([1.0, 1.005, 1.02, 1.0, 1.3], np.linspace(1, 2, 30))
    found = interpret.heads_at(losses, 1.0)
    assert (found.kept, found.removable, found.low, found.high) == (3, 1, 1, 1) and abs(found.increase - 0.5) < 1e-9
    assert interpret.heads_at(losses, 1.0, rule="last").removable == 3
    assert interpret.heads_at(losses, 50).kept == 0
    assert interpret.heads_at(losses[::-1], 0.0).removable == 4  # removal helps


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Increases of 0.4 % a head up to 2, then far above: the truth is 2; units are resampled whole."""
    rng, held = np.random.default_rng(0), 0
    truth = np.array([1.0, 1.004, 1.008, 1.03, 1.05])
    for trial in range(60):
        losses = truth[:, None] * (1 + 0.02 * rng.standard_normal((5, 40)))
        found = interpret.heads_at(losses, 1.0, draws=200, seed=trial)
        held += found.low <= 2 <= found.high
        assert found.low <= found.removable <= found.high
    assert held >= 54
    doubled = np.repeat(losses, 2, axis=1)
    same = interpret.heads_at(doubled, 1.0, units=np.repeat(np.arange(40), 2), draws=200, seed=trial)
    assert same[:4] == found[:4]


def test_losses_that_cannot_be_counted_are_refused():
    with pytest.raises(TsfmError, match="drop series without a loss"):
        interpret.heads_at(np.array([[1.0, np.nan], [1.0, 1.0]]))
    with pytest.raises(TsfmError, match="must be first or last"):
        interpret.heads_at(np.ones((2, 2)), rule="best")


def test_a_removal_curve_is_made_of_nested_plans():
    model, run, x = setting("moirai", v=1)
    target = series(v=1, b=3, seed=4, length=7)
    order = interpret.order(interpret.stable_rank(model))
    losses = interpret.removal(model, run, x, target, MAE, order)
    assert losses.shape == (5, 3)
    close(losses[0], MAE(run(x), target))
    with interpret.ablate(model, interpret.together(order[:3])):
        close(losses[3], MAE(run(x), target))
    mlp = Plan(mlps=["encoder.0"])
    some = interpret.removal(model, run, x, target, MAE, order, levels=[0, 2], base=mlp)
    with interpret.ablate(model, mlp | interpret.together(order[:2])):
        close(some[1], MAE(run(x), target))


def test_spearman_distance_is_scipys_and_counts_what_has_no_order():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 12)), rng.standard_normal((2, 3, 12)).round()
    found = interpret.spearman_distance(a, torch.tensor(b))
    expected = [[1 - stats.spearmanr(x, y).statistic for x, y in zip(xs, ys)] for xs, ys in zip(a, b)]
    np.testing.assert_allclose(found.distance, expected)
    assert found.constants == 0
    a[0, 1], b[1, 2] = 3.0, 0.0
    found = interpret.spearman_distance(a, b)
    assert found.distance[0, 1] == found.distance[1, 2] == 1 and found.constants == 2 and found.constant[0, 1]
    with pytest.raises(TsfmError, match="of one shape"):
        interpret.spearman_distance(a, b[:1])
