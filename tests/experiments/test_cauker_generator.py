"""The audit of the generator measures what it says: coverage, bands, failures, and the two ways to get a product wrong."""

import numpy as np
import pandas as pd
import pytest

from tsfm_lib import claims, data
from tsfm_lib.evaluate import suites
from tsfm_lib.experiments.cauker import generator, pictures
from tsfm_lib.synth import cauker, kernels

HAVE = all(data.available(name) for name in suites.suite("ucr"))
needs_archive = pytest.mark.skipif(not HAVE, reason="the UCR sets are not on this machine")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def waves(n, low, high, rng, length=512):
    cycles = rng.integers(low, high + 1, n)[:, None]
    return np.sin(2 * np.pi * (cycles * np.arange(length) / length + rng.random((n, 1)))) + 1e-3 * rng.normal(size=(n, length))


def some_archive(seed, per_set=20, length=512, native=False):
    """Two sets of slow waves in place of the archive."""
    rng = np.random.default_rng(seed)
    return [("slow", waves(per_set, 2, 7, rng, length)), ("slower", waves(per_set, 1, 3, rng, length))]


# -- coverage --


def test_the_same_distribution_is_covered_and_another_is_not(rng):
    real, same, far = rng.normal(size=(800, 1)), rng.normal(size=(800, 1)), rng.normal(8, 1, size=(800, 1))
    assert generator.coverage(real, same) == pytest.approx(1 - 0.5**generator.NEIGHBOURS, abs=0.03)      # the five nearest are all real
    assert generator.coverage(real, far) < 0.02


def test_a_wider_corpus_covers_as_long_as_it_is_large(rng):
    real = rng.normal(size=(500, 1))
    wide = np.concatenate([rng.normal(size=(500, 1)), rng.normal(50, 1, size=(500, 1))])
    assert generator.coverage(real, wide) > 0.9                        # coverage forgives what lies elsewhere,
    assert generator.overlap(real[:, 0], wide[:, 0]) < 0.55            # overlap does not


def test_half_an_archive_out_of_reach_is_half_covered(rng):
    real = np.concatenate([rng.normal(size=(400, 1)), rng.normal(20, 1, size=(400, 1))])
    assert generator.coverage(real, rng.normal(size=(800, 1))) == pytest.approx(0.5, abs=0.03)


def test_more_neighbours_cover_more(rng):
    real, made = rng.normal(size=(300, 2)), rng.normal(0.5, 1, size=(300, 2))
    found = [generator.coverage(real, made, k) for k in (1, 5, 20)]
    assert found == sorted(found) and found[0] < found[-1]


def test_overlap_of_equal_sets_is_one_and_of_distant_ones_is_none(rng):
    x = rng.normal(size=400)
    assert generator.overlap(x, x) == pytest.approx(1) and generator.overlap(x, x + 100) == 0


# -- bands --


@pytest.mark.parametrize("cycles, band", [(1, "1"), (2, "2 to 3"), (3, "2 to 3"), (8, "8 to 15"), (127, "64 to 127"), (200, "128 to 256")])
def test_a_wave_stands_in_the_band_of_its_cycles(cycles, band, rng):
    x = waves(5, cycles, cycles, rng)
    assert {generator.BANDS[i] for i in generator.bands(x).argmax(1)} == {band}
    assert np.isclose((10 ** generator.bands(x)).sum(1), 1, atol=1e-6).all()


def test_level_and_scale_do_not_matter_and_silence_meets_the_floor(rng):
    x = waves(4, 3, 9, rng)
    assert np.allclose(generator.bands(x), generator.bands(100 - 7 * x), atol=1e-6)
    smooth = np.cos(2 * np.pi * 3 * np.arange(512) / 512)[None]
    assert generator.bands(smooth).min() == pytest.approx(np.log10(generator.FLOOR))


def test_peaks_are_shares_of_series(rng):
    found = generator.peaks(np.concatenate([waves(30, 16, 16, rng), waves(10, 1, 1, rng)]))
    assert found.sum() == pytest.approx(1) and found[0] == 0.25
    assert generator.FINE[found.argmax()] == 16


def test_a_corpus_is_the_generators_with_constant_series_replaced():
    found = generator.corpus("cauker", 60, 64, 3)
    plain = cauker.generate(80, 64, 3, per_graph=1)
    plain = plain[generator.varies(plain)][:60]
    assert found.shape == (60, 64) and np.array_equal(found, plain) and generator.varies(found).all()


def test_the_repaired_bank_adds_to_the_released_one_and_each_repair_is_a_part():
    extra = {name: config.bank[len(cauker.BANK):] for name, config in generator.CORPORA.items() if name.startswith(("with ", "repaired"))}
    assert all(config.bank[: len(cauker.BANK)] == cauker.BANK for name, config in generator.CORPORA.items() if name in extra)
    assert extra["with matern"] + extra["with fractional"] + extra["with periods"] == extra["repaired"]


# -- rows --


def test_every_corpus_gives_rows_that_can_be_judged(monkeypatch):
    monkeypatch.setattr(generator, "archive", some_archive)
    rows = [{"variant": name, "seed": seed, "profile": "quick", **row} for name in ("real", *generator.CORPORA) for seed in (0, 1)
            for row in generator.coverage_trial(name, seed, 8)]  # fmt: skip
    rows = pd.DataFrame(rows)
    whole = rows[rows["experiment"] == "coverage"].set_index(["variant", "seed"])
    bands = rows[rows["experiment"] == "coverage_bands"]
    assert (bands.groupby(["variant", "seed"])["coverage"].min() == whole["worst_band"].sort_index()).all()
    assert (bands.groupby(["variant", "seed"]).size() == len(generator.BANDS)).all()
    assert (whole.loc["real", "worst_band"] > whole.loc["scm", "worst_band"]).all()       # white noise has nothing slow
    parts = claims.judge("C8", whole.reset_index()).frame()
    assert len(parts) == 3 and not parts["recorded"].isin(["-"]).any() and (parts["verdict"] == "not resolved").all()


@needs_archive
def test_the_archive_is_sampled_without_repeats_and_at_one_length():
    small, large = generator.archive(0, 3), generator.archive(0, 6)
    assert len(small) == 66 and all(x.shape == (3, 512) for _, x in small)
    assert all(np.array_equal(a, b[:3]) for (_, a), (_, b) in zip(small, large))      # the control's series are the ones behind
    whole = np.concatenate([x for _, x in small])
    assert generator.varies(whole).all() and np.isfinite(whole).all()
    assert len(generator.archive(0, 3, native=True)) < 20                             # few sets are that long


# -- what goes wrong --


def test_relu_alone_kills_more_series_and_a_filter_leaves_none():
    found = {name: generator.failures(name, 0, 400) for name in ("cauker", "relu only", "std above 0.01")}
    assert found["relu only"]["constant"] > 3 * found["cauker"]["constant"] > 0
    assert found["std above 0.01"]["std_below_0.01"] < found["cauker"]["std_below_0.01"]
    assert all(row["not_finite"] == 0 for row in found.values())


def test_cholesky_refuses_smooth_composites_and_jitter_swamps_their_steps():
    found = generator.cholesky(0, 30, 256)
    assert 0.2 < found["refused"] < 0.95 and found["step_variance_with_jitter"] > 10


def test_products_of_kernels_are_gaussian_and_products_of_samples_are_not():
    for factors, kurtosis in ((1, 3), (2, 9)):
        kernel, sample = generator.moments(factors, 200_000, 0)
        assert kernel["variance"] == pytest.approx(1, abs=0.03) and sample["variance"] == pytest.approx(1, abs=0.05)
        assert kernel["fourth"] == pytest.approx(3, abs=0.15) and sample["fourth"] == pytest.approx(kurtosis, rel=0.1)


def test_the_dense_root_has_the_covariance_of_its_kernel(rng):
    kernel = kernels.RBF(0.3) * kernels.ExpSineSquared(1.0, 0.4) + kernels.White(0.5)
    draws = np.stack([generator.dense(kernel, 12, rng) for _ in range(4000)])
    assert np.abs(np.cov(draws.T) - kernel.covariance(12)).max() < 0.2


def test_times_are_told_for_every_way_of_making_a_root():
    found = generator.root_times(3, 0, 64)
    assert [row["variant"] for row in found] == ["eigenvectors", "half-size factors", "compiled"] and all(row["ms"] >= 0 for row in found)


# -- pictures --


def test_a_graph_is_drawn_with_all_its_nodes_and_edges():
    g = cauker.graph(1, length=64)
    figure = pictures.causal_graph(g, title="t")
    axes = figure.axes[0]
    named = [text.get_text() for text in axes.texts if "·" in text.get_text()]
    assert len(named) == len(g.parents) and sum("root" in name for name in named) == len(g.roots)
    assert len(axes.texts) - len(named) == sum(map(len, g.parents))
