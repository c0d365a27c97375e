"""Trees of series: the numbers of a tree, what is planted, and what is found."""

import numpy as np
import pandas as pd
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform

from tsfm_lib import claims, plotting
from tsfm_lib.experiments.cauker import dtw_clusters
from tsfm_lib.synth import cauker, kernels

N = 48


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def blobs(rng, sizes=(20, 20, 1)):
    points = np.concatenate([rng.normal(10 * k, 0.3, (size, 3)) for k, size in enumerate(sizes)])
    distances = pdist(points)
    return dtw_clusters.Tree(squareform(distances), hierarchy.linkage(distances, "average"))


# -- trees --


def test_blocks_are_kept_faithfully_and_the_lonely_one_joins_last(rng):
    tree = blobs(rng)
    assert tree.cophenetic() > 0.95
    assert tree.joins().argmax() == 40 and (tree.joins()[:40] < 3).all()
    assert sorted(np.bincount(tree.clusters(3))[1:]) == [1, 20, 20]


def test_only_small_clusters_are_alone(rng):
    tree = blobs(rng, (18, 19, 3))
    alone = tree.alone()
    assert alone[-3:].all() and alone[:37].sum() < 10
    labels = tree.clusters()
    assert (alone == (np.bincount(labels)[labels] < dtw_clusters.PER_GRAPH)).all()


def test_silhouette_is_high_for_blocks_only(rng):
    assert blobs(rng, (10, 10)).silhouette() > blobs(rng, (20,)).silhouette()


def test_the_medoid_is_the_member_nearest_to_all():
    distances = squareform(pdist(np.array([[0.0], [1], [2], [50]])))
    assert dtw_clusters.medoid(distances, np.array([0, 1, 2])) == 1


def test_a_tree_does_not_see_level_and_scale_unless_asked_to(rng):
    x = rng.normal(size=(12, 30)).cumsum(1)
    scaled = x * rng.uniform(1, 9, (12, 1)) + rng.normal(size=(12, 1))
    same, other = (dtw_clusters.tree(y).distances for y in (x, scaled))
    assert np.allclose(same, other, atol=1e-8)
    assert not np.allclose(dtw_clusters.tree(x, normalise=False).distances, dtw_clusters.tree(scaled, normalise=False).distances)


def test_a_narrower_band_never_brings_series_closer(rng):
    x = rng.normal(size=(8, 40)).cumsum(1)
    assert (dtw_clusters.tree(x, band=2).distances >= dtw_clusters.tree(x).distances - 1e-9).all()


# -- what is known --


def test_labelled_series_are_the_bytes_of_the_corpus():
    given = dtw_clusters.grown(dtw_clusters.MADE["cauker"], 20, 3, length=64)
    assert given.series.tobytes() == cauker.generate(20, 64, 3).tobytes()
    assert given.groups["graph"].tolist() == np.repeat(range(5), 4).tolist()


def test_a_spike_is_planted_where_the_graph_says_so():
    given = dtw_clusters.grown(dtw_clusters.MADE["mean-kernelsynth"], 40, 0, length=64)       # roots only: nothing is passed on
    g = [cauker.graph(i, 64, 0, dtw_clusters.MADE["mean-kernelsynth"]) for i in range(10)]
    spiked = np.array([one.spikes[node].any() for one in g for node in one.kept[:4]])
    assert ((given.spike > 0) == spiked).all() and spiked.any() and not spiked.all()
    assert (dtw_clusters.grown(dtw_clusters.MADE["kernelsynth"], 8, 0, length=64).spike == 0).all()


def test_spikes_are_measured_against_the_series_without_them():
    given = dtw_clusters.grown(dtw_clusters.MADE["mean-kernelsynth"], 40, 0, length=64)
    at = int(given.spike.argmax())
    g = cauker.graph(at // 4, 64, 0, dtw_clusters.MADE["mean-kernelsynth"])
    node = g.kept[at % 4]
    plain = np.where(g.spikes[node], np.nan, g.values[node])
    assert given.spike[at] > 1 and np.nanstd(plain) > 0


def test_the_family_is_the_one_of_most_kernels():
    assert dtw_clusters.family(["rbf 0.1 * rbf 1 + period 4"]) == "rbf"
    assert dtw_clusters.family(["white 1", "white 0.1 + dot 10"]) == "white"


def test_constant_series_are_left_out_and_surrogates_keep_spectra():
    given, other = dtw_clusters.draw("cauker", 200, 0), dtw_clusters.draw("phase-randomised", 200, 0)
    whole = cauker.generate(200, seed=0)
    assert len(given.series) < 200 and (np.ptp(given.series, axis=1) > 0).all() and (np.ptp(whole, axis=1) == 0).any()
    z = (given.series - given.series.mean(1, keepdims=True)) / given.series.std(1, keepdims=True)
    a, b = (np.abs(np.fft.rfft(x))[:, 1:] for x in (z.astype(float), other.series))
    assert np.allclose(a, b, atol=1e-3 * a.max())


# -- what is judged --


def test_rows_of_every_kind_can_be_judged():
    kinds = [name for name in dtw_clusters.SETS if name != "real"]
    rows = [{"seed": seed, "profile": "quick", **row} for seed in (0, 1) for name in kinds for row in dtw_clusters.trial(name, seed, N)]
    rows = pd.DataFrame(rows)
    judged = claims.judge("C5", rows[rows["experiment"].isin(["dtw_clusters", "dtw_anomalies"])]).frame()
    assert len(judged) == 6 and not judged["recorded"].isin(["-"]).any() and (judged["verdict"] == "not resolved").all()
    ari = rows[rows["experiment"] == "dtw_ari"].groupby(["variant", "against"])["ari"].mean()
    assert ari["one-kernel", "kernel family"] > 0.2 and abs(ari["kernelsynth", "graph"]) < 0.1


def test_a_way_of_measuring_has_a_name_of_its_own():
    rows = dtw_clusters.trial("cauker", 0, N, "raw")
    assert {row["variant"] for row in rows} == {"cauker-raw"}
    assert rows[0]["cophenetic"] != dtw_clusters.trial("cauker", 0, N)[0]["cophenetic"]


def test_precision_and_recall_count_what_they_say(rng):
    tree = blobs(rng, (18, 19, 3))
    alone = tree.alone()
    spike = np.where(alone, 9.0, 0.0)
    spike[:2] = 5.0                                                     # two that no small cluster holds, and one too small to count
    spike[2] = 1.0
    assert not alone[:3].any()
    series = rng.normal(size=(40, 32))
    row = dtw_clusters.anomalies(tree, dtw_clusters.Labelled(series, {}, spike))[0]
    assert row["precision"] == 1 and row["recall"] == pytest.approx(alone.sum() / (alone.sum() + 2))
    assert row["any_spike"] == pytest.approx((alone.sum() + 3) / 40)


def test_the_spike_score_finds_spikes_in_noise(rng):
    x = kernels.sample(kernels.RBF(0.05) + kernels.White(0.01), 20, 128, rng)
    x[:5, 60] += 6
    score = dtw_clusters.spikiness(x)
    assert score[:5].min() > score[5:].max()


# -- picture --


def test_exemplars_are_framed_and_drawn_beside_the_matrix(rng):
    tree = blobs(rng, (6, 8))
    labels = tree.clusters(2)
    exemplars = {name: (np.flatnonzero(labels == k), np.arange(9.0)) for name, k in (("A", 1), ("B", 2))}
    figure = plotting.matrix_cluster(tree.distances, tree.linkage, exemplars=exemplars)
    frames = figure.axes[2].patches
    assert sorted(int(f.get_width()) for f in frames) == [6, 8]
    assert {f.get_x() + 0.5 for f in frames} in ({0, 6}, {0, 8})
