"""What the experiments on graphs say of themselves is so."""

import numpy as np
import pandas as pd
import pytest
import torch

from tsfm_lib import checkpoints
from tsfm_lib.errors import TsfmError
from tsfm_lib.experiments.time_tracker import graph, pair_scores
from tsfm_lib.nn.graph import FrequencyGraph
from tsfm_lib.synth import planted


def waves(channels=5, length=192, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((3, channels, length)).cumsum(-1))


# ---- scores of pairs ---------------------------------------------------------------------------------------------------------------


def test_amplitudes_know_neither_lag_nor_sign_and_complex_spectra_know_both():
    x = waves(1)
    both = torch.cat([x, -x.roll(17, -1)], dim=1)
    assert torch.allclose(pair_scores.amplitudes(both), torch.ones(()).double())
    assert pair_scores.complex_spectra(both)[:, 0, 1].max() < 0.5
    own = pair_scores.complex_spectra(both).diagonal(dim1=1, dim2=2)
    assert torch.allclose(own, torch.ones_like(own))


def test_cross_correlation_peaks_at_the_lag_and_says_who_comes_first():
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 1, 260)))
    lead, late = noise[..., 30:], noise[..., :-30]
    found = pair_scores.cross_correlation(torch.cat([lead, late], dim=1))
    assert found.shape == (1, 2, 2, 2 * pair_scores.MAX_LAG + 1)
    assert found[0, 0, 1].argmax() - pair_scores.MAX_LAG == 30 and found[0, 1, 0].argmax() - pair_scores.MAX_LAG == -30
    assert torch.allclose(found[:, 0, 0, pair_scores.MAX_LAG], torch.ones(1).double())
    zero = pair_scores.ESTIMATORS["correlation"](waves())
    np.testing.assert_allclose(zero[0], np.abs(np.corrcoef(waves()[0])), atol=1e-9)


def test_every_score_is_the_same_read_either_way():
    for name, score in pair_scores.ESTIMATORS.items():
        found = score(waves())
        assert torch.allclose(found, found.mT), name


def test_surrogates_keep_the_amplitudes_and_nothing_else():
    x = planted.graph_case("C", 3).series.astype(float)
    y = pair_scores.surrogates(x, np.random.default_rng(0))
    np.testing.assert_allclose(np.abs(np.fft.rfft(y)), np.abs(np.fft.rfft(x)), atol=1e-6)
    related = lambda z: np.abs(np.corrcoef(z[0])[:4, :4][np.triu_indices(4, 1)]).mean()
    assert related(x) > 0.8 > 0.3 > related(y)


def test_only_the_amplitude_score_cannot_tell_a_relation_from_its_surrogate():
    rows = pd.DataFrame(pair_scores.planted_graphs("C", 4, 0)).groupby("variant")["against_surrogates"].mean()
    assert abs(rows["amplitude"] - 0.5) < 0.01 and (rows.drop("amplitude") > 0.95).all()


def test_lag_is_not_the_break_equal_spectra_and_a_season_of_ones_own_are():
    found = {case: pd.DataFrame(pair_scores.planted_graphs(case, 3, 1)).groupby("variant")["auroc"].mean() for case in "BDEH"}
    assert found["B"]["amplitude"] > 0.95 and found["D"]["amplitude"] > 0.95
    assert abs(found["E"]["amplitude"] - 0.5) < 0.05 and found["E"]["lagged-correlation"] > 0.95
    assert found["H"]["amplitude"] < 0.5 < 0.9 < found["H"]["complex"]


def test_white_noise_is_as_similar_as_the_derivation_says():
    found = pair_scores.similarities("noise", 2, 0)
    assert (found["pairs"] == "unrelated").all() and found["similarity"].mean() == pytest.approx(0.5**0.5, abs=0.01)
    shares = pair_scores.histogram(found)
    assert shares.groupby("seed")["share"].sum().tolist() == pytest.approx([1, 1])


def test_edges_become_more_with_alpha_and_there_are_none_without():
    dense = pair_scores.densities(pair_scores.similarities("D", 2, 0), (0, 0.5, 1)).groupby(["pairs", "alpha"])[["fixed", "drawn"]].mean()
    for kind in ("related", "unrelated"):
        assert (dense.loc[kind].loc[0] == 0).all() and dense.loc[kind].diff().dropna().ge(0).all(axis=None)
    assert dense.loc[("related", 1), "fixed"] > dense.loc[("unrelated", 1), "fixed"]


# ---- tasks and arms ----------------------------------------------------------------------------------------------------------------


def test_a_follower_is_its_driver_one_patch_later_and_the_law_belongs_to_the_seed():
    given = graph.task("planted-drivers", 3, 4, 6)
    assert given.windows.shape == (6, graph.VARIATES, graph.CONFIG.context + graph.CONFIG.patch)
    for reader, driver in zip(*np.nonzero(given.truth)):
        both = given.windows[0, reader, graph.LAG :], given.windows[0, driver, : -graph.LAG]
        assert np.corrcoef(*both)[0, 1] > 0.9
    assert given.truth.sum() == graph.VARIATES - graph.ROOTS and not given.truth[: graph.ROOTS].any()
    assert (graph.task("planted-drivers", 3, 4, 1).truth == given.truth).all()
    assert any((graph.task("planted-drivers", k, 4, 1).truth != given.truth).any() for k in range(3))


def test_a_season_of_ones_own_hides_drivers_from_amplitudes_and_not_from_lagged_correlation():
    found = FrequencyGraph(graph.CONFIG.context, graph.ALPHA).eval()
    recall, best = {}, {}
    for name in ("planted-drivers", "planted-drivers-season"):
        given = graph.task(name, 0, 1, 24)
        z = torch.from_numpy(given.windows[..., : graph.CONFIG.context])
        z = (z - z.mean(-1, keepdim=True)) / z.std(-1, keepdim=True)
        recall[name] = found(z).adjacency()[:, torch.from_numpy(given.truth)].float().mean()
        drivers = pair_scores.ESTIMATORS["lagged-correlation"](z)[:, graph.ROOTS :, : graph.ROOTS].argmax(-1).numpy()
        best[name] = (drivers == given.truth[graph.ROOTS :, : graph.ROOTS].argmax(1)).mean()
    assert recall["planted-drivers"] > 0.7 and recall["planted-drivers-season"] < 0.3
    assert best["planted-drivers"] > 0.95 and best["planted-drivers-season"] > 0.6


def test_copies_are_delayed_by_what_their_name_says_and_unknown_sets_are_refused():
    given = graph.task("copy-12", 0, 2, 2)
    assert (given.windows[:, 1, 12:] == given.windows[:, 0, :-12]).all()
    assert given.truth.tolist() == [[False, False], [True, False]]
    with pytest.raises(TsfmError, match="copy-<delay>.*got 'copycat'"):
        graph.task("copycat", 0, 2, 2)


def model():
    return checkpoints.build("time-tracker", graph.CONFIG, 0).mixed(alpha=graph.ALPHA)


def drawn(arm, training=True, seed=0):
    given, net = graph.task("planted-drivers", 0, 16, 1), model().train(training)
    z = net.normalise(given.stream(0)[..., : graph.CONFIG.context])[0]
    return graph.adjacency(arm, net.graph, z, given.truth, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("training", [True, False])
def test_rival_graphs_have_as_many_edges_in_every_sample_as_the_learned_one(training):
    count = graph.density_pairs(drawn("learned", training))
    assert count.unique().numel() > 1
    for arm in ("random", "correlation", "lagged-correlation"):
        edges = drawn(arm, training)
        assert torch.equal(graph.density_pairs(edges), count) and torch.equal(edges, edges.mT), arm
        assert not edges.diagonal(dim1=1, dim2=2).any()


def test_the_learned_graph_is_drawn_in_training_and_fixed_at_evaluation():
    assert not torch.equal(drawn("learned", seed=0), drawn("learned", seed=1))
    assert torch.equal(drawn("learned", False, 0), drawn("learned", False, 1))
    off = ~torch.eye(graph.VARIATES, dtype=torch.bool)
    assert torch.equal(drawn("learned", False) & off, drawn("learned-fixed", True) & off)


def test_without_steps_and_edges_the_pretrained_model_is_judged_as_it_is():
    row = graph.graph_forecasting("planted-drivers", "none", 0, steps=0, count=3, pretraining=2)
    given, start = graph.task("planted-drivers", 0, 8, 3), graph.pretrained(0, 2)
    assert row["MSE"] == graph.scores(start, given.windows)["MSE"] and row["density"] == row["recall"] == 0
    moved = graph.graph_forecasting("planted-drivers", "oracle", 0, steps=2, count=3, pretraining=2)
    assert moved["recall"] == 1 and moved["MSE"] != row["MSE"] and moved["horizon"] == graph.CONFIG.patch


def test_without_a_known_graph_there_is_no_oracle():
    z = torch.zeros(1, 3, graph.CONFIG.context)
    with pytest.raises(TsfmError, match="whose graph is known"):
        graph.adjacency("oracle", model().graph, z, None, torch.Generator())


# ---- what is read off the rows -----------------------------------------------------------------------------------------------------


def test_both_curves_of_the_sweep_begin_without_a_graph_and_end_with_all():
    given = [("none", np.nan, 0.0, 1.0), ("full", np.nan, 1.0, 1.2), ("learned", np.nan, 0.2, 0.9), ("random", np.nan, 0.2, 1.0),
             ("learned", 1.0, 0.5, 0.8), ("random", 1.0, 0.5, 1.1)]  # fmt: skip
    rows = pd.DataFrame(given, columns=["variant", "alpha", "density", "MSE"]).assign(dataset="d", seed=0)
    found = graph.by_density(rows).sort_values("density")
    assert found[found["variant"] == "learned"]["gain"].round(6).tolist() == [0, 10, 20, -20]
    assert found[found["variant"] == "random"]["density"].tolist() == [0, 0.2, 0.5, 1]
    assert graph.gains(rows[rows["alpha"].isna()])["gain"].round(6).tolist() == [-20, 10, 0]
