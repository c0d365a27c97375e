"""Statements about frozen-feature classification: what the read-outs can see, what the baselines are, what padding may do."""

import numpy as np
import pandas as pd
import pytest
import torch
from tqdm import tqdm

from tsfm_lib import paths
from tsfm_lib.data.sets import Card, LabelledSet
from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate import classification, neighbours

COLUMNS = ["dataset", "variant", "readout", "seed", "accuracy", "seconds", "unit"]

# 1-NN Euclidean errors as the UCR archive publishes them (DataSummary.csv), on sets without missing values.
PUBLISHED = {
    "ArrowHead": 0.2, "BME": 0.1667, "Beef": 0.3333, "BirdChicken": 0.45, "CBF": 0.1478, "Coffee": 0.0, "ECG200": 0.12, "FaceFour": 0.2159,
    "Fungi": 0.1774, "GunPoint": 0.0867, "ItalyPowerDemand": 0.0447, "MiddlePhalanxTW": 0.487, "OliveOil": 0.1333, "SmoothSubspace": 0.0933,
    "SonyAIBORobotSurface1": 0.3045, "SyntheticControl": 0.12, "Trace": 0.24, "TwoLeadECG": 0.2529,
}  # fmt: skip


def planted(name="planted", n=60, length=48, variates=1, noise=0.3, seed=0):
    """Two classes that differ in frequency, with a random phase: position tells nothing, the spectrum everything."""
    rng = np.random.default_rng(seed)
    y = np.arange(2 * n) % 2
    phase = rng.uniform(0, 2 * np.pi, (2 * n, variates, 1))
    x = np.sin(2 * np.pi * (3 + 4 * y[:, None, None]) * np.arange(length) / length + phase)
    x = (x + noise * rng.standard_normal(x.shape)).astype(np.float32)
    return LabelledSet(name, x[:n], y[:n], x[n:], y[n:], ("slow", "fast"), Card(name, task="classification"))


def spectrum(x):
    return torch.fft.rfft(x - x.mean(-1, keepdim=True), dim=-1).abs().flatten(1)


@pytest.mark.parametrize("readout", list(classification.READOUTS))
def test_every_readout_finds_what_the_features_show(readout):
    rows = classification.evaluate(spectrum, planted(), readouts=(readout,), baselines=False, progress=False)
    assert rows["accuracy"].item() > 0.95
    generator = torch.Generator().manual_seed(0)
    blind = lambda x: torch.rand(len(x), 5, generator=generator)
    noise = classification.evaluate(blind, planted(), (readout,), baselines=False, progress=False)
    assert 0.25 < noise["accuracy"].item() < 0.75, "features without information must stay near chance"


def test_rows_are_tidy_and_the_same_seed_gives_the_same_rows():
    sets = [planted(n=24), planted("second", n=20, variates=2, seed=1)]
    once, again = (classification.evaluate(spectrum, sets, readouts=("forest", "ridge"), seeds=(0, 1), progress=False) for _ in range(2))
    assert list(once.columns) == COLUMNS
    pd.testing.assert_frame_equal(once.drop(columns="seconds"), again.drop(columns="seconds"))
    one = once[once["dataset"] == "second"]
    assert (one["unit"] == "second").all()
    assert [tuple(r) for r in one[["variant", "readout", "seed"]].itertuples(index=False)] == [
        ("spectrum", "forest", 0), ("spectrum", "forest", 1), ("spectrum", "ridge", 0),
        ("raw values", "forest", 0), ("raw values", "forest", 1), ("raw values", "ridge", 0),
        ("random kernels", "forest", 0), ("random kernels", "ridge", 0), ("random kernels", "forest", 1), ("random kernels", "ridge", 1),
        ("raw values", "1nn-euclidean", 0), ("raw values", "1nn-dtw", 0), ("raw values", "1nn-dtw-10%", 0)]  # fmt: skip
    assert set(classification.evaluate(None, sets, baselines=("1nn-dtw",), progress=False)["readout"]) == {"1nn-dtw"}


def test_whitening_whitens():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 9)) * 10 + 5            # 9 columns, only 6 directions
    z = classification.Whitening().fit(x).transform(x)
    assert z.shape == (300, 6)
    assert np.allclose(np.cov(z.T), np.eye(6), atol=1e-8) and np.allclose(z.mean(0), 0, atol=1e-8)
    few = classification.Whitening().fit(x[:8]).transform(x)
    assert few.shape[1] == 2, "four rows for each axis kept"
    constant = np.ones((10, 3))
    assert np.isfinite(classification.Whitening().fit(constant).transform(constant)).all()


def test_whitening_shows_a_forest_the_small_directions():
    """One loud direction on every axis, the class in a quiet one: the forest alone is nearly blind to it."""
    rng = np.random.default_rng(1)
    y = np.arange(400) % 2
    loud, quiet = rng.standard_normal((400, 1)) * 100, rng.standard_normal((400, 1)) * 0.1 + y[:, None]
    mixed = loud @ np.ones((1, 8)) + quiet @ np.where(np.arange(8) % 2, 1.0, -1.0)[None] + rng.standard_normal((400, 8)) * 0.1
    score = {r: (classification.READOUTS[r](0, y[:200]).fit(mixed[:200], y[:200]).predict(mixed[200:]) == y[200:]).mean()
             for r in ("forest", "whitened_forest", "ridge")}
    assert score["forest"] < 0.8 and score["whitened_forest"] > 0.95 and score["ridge"] > 0.95


def test_whitening_can_be_fitted_on_series_without_labels():
    """Sixteen training rows give four axes, all taken by loud noise; unlabelled series reveal the quiet one with the class."""
    rng = np.random.default_rng(2)
    y = np.arange(216) % 2
    mix = np.linalg.qr(rng.standard_normal((8, 8)))[0] * np.array([100.0] * 7 + [1.0])[:, None]
    x = ((rng.standard_normal((216, 8)) + 6 * y[:, None] * np.eye(8)[7]) @ mix)[:, None].astype(np.float32)
    few = LabelledSet("few", x[:16], y[:16], x[16:], y[16:], ("a", "b"), Card("few"))
    accuracy = {}
    for source, unlabelled in {"training split": None, "unlabelled": x[16:]}.items():
        rows = classification.evaluate(lambda t: t.flatten(1), few, ("whitened_forest",), baselines=False, progress=False,
                                       whiten_on=unlabelled)
        accuracy[source] = rows["accuracy"].item()
    assert accuracy["training split"] < 0.7 and accuracy["unlabelled"] > 0.9


def test_the_whitening_is_made_once_for_each_encoder_and_shape_of_series():
    rng = np.random.default_rng(3)
    made = rng.standard_normal((40, 1, 48)).astype(np.float32)
    one, two = planted(n=20), planted("two", n=20, seed=1)
    other = [planted("wide", n=20, variates=2, seed=2), planted("long", n=20, length=64, seed=3)]
    seen = []

    def counted(x):
        seen.append(len(x))
        return spectrum(x)

    options = dict(readouts="whitened_forest", baselines=False, progress=False, whiten_on=made)
    together = classification.evaluate(counted, [one, two, *other], **options)
    assert seen.count(len(made)) == 3, "the first two share theirs, another number of variates and another length have their own"
    alone = pd.concat([classification.evaluate(spectrum, split, **options) for split in (one, two, *other)], ignore_index=True)
    assert together["accuracy"].equals(alone["accuracy"])


def test_random_weights_of_different_seeds_are_whitened_apart():
    from tsfm_lib import checkpoints
    from tsfm_lib.models.scratch import PatchTSTConfig
    made = np.random.default_rng(4).standard_normal((40, 1, 100)).astype(np.float32)
    model, split = checkpoints.build("patchtst", PatchTSTConfig.tiny(), seed=3), planted(n=30, length=100, noise=1.0)
    options = dict(readouts="whitened_forest", progress=False, whiten_on=made)
    both = classification.evaluate(model, [split, split], seeds=(3, 4), baselines="random", **options)
    alone = [classification.evaluate(checkpoints.build("patchtst", PatchTSTConfig.tiny(), seed=seed), split, seeds=(seed,), baselines=False,
                                     **options)["accuracy"].item() for seed in (3, 4)]
    assert both.loc[both["variant"] == "random weights", "accuracy"].tolist() == alone * 2


def test_series_shorter_than_a_kernel_are_stretched_for_random_kernels():
    short = planted(n=20, length=48)
    short = LabelledSet("short", short.x_train[..., :6], short.y_train, short.x_test[..., :6], short.y_test, short.classes, short.card)
    rows = classification.evaluate(None, short, baselines="random-kernels", readouts="ridge", progress=False)
    assert rows[["variant", "readout", "seed"]].agg(tuple, axis=1).tolist() == [("random kernels", "ridge", 0)]
    assert rows["accuracy"].item() > 0.6


def test_random_weights_stand_beside_a_model_of_the_register():
    from tsfm_lib import checkpoints
    from tsfm_lib.models.scratch import PatchTSTConfig
    model, split = checkpoints.build("patchtst", PatchTSTConfig.tiny(), seed=3), planted(n=20, length=100, variates=2)
    rows = classification.evaluate(model, split, ("forest", "ridge"), seeds=(3, 4), baselines=("random",), progress=False)
    assert list(rows["variant"]) == ["patchtst"] * 3 + ["random weights"] * 4
    untrained = rows[(rows["variant"] == "random weights") & (rows["seed"] == 3)].set_index("readout")["accuracy"]
    itself = rows[(rows["variant"] == "patchtst") & (rows["seed"] == 3)].set_index("readout")["accuracy"]
    assert untrained.equals(itself), "seed 3 builds the very weights of the model"
    assert classification.features(model, split.x_train).shape[0] == 20


def test_padding_of_unequal_series_is_not_seen():
    full = planted(n=30, length=40)
    wide = lambda x: np.concatenate([x, np.full((*x.shape[:2], 17), np.nan, np.float32)], -1)
    padded = LabelledSet(full.name, wide(full.x_train), full.y_train, wide(full.x_test), full.y_test, full.classes, full.card)
    same = [classification.evaluate(spectrum, s, progress=False).drop(columns="seconds") for s in (full, padded)]
    pd.testing.assert_frame_equal(*same)


def test_features_fill_resize_and_leave_the_encoder_as_it_was():
    x = np.array([[[0.0, np.nan, 2.0, 3.0]], [[1.0, 1.0, np.nan, np.nan]]])
    assert classification.features(lambda t: t[:, 0], x).tolist() == [[0, 1, 2, 3], [1, 1, 1, 1]]
    assert classification.features(lambda t: t[:, 0], x, length=8).shape == (2, 8)
    encoder = torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Dropout(0.9)).double()
    one, two = (classification.features(encoder, np.ones((5, 1, 6)), batch=b) for b in (2, 5))
    assert np.array_equal(one, two) and one.sum() == 30 and encoder.training


def test_resizing_agrees_with_torch():
    x = np.random.default_rng(0).standard_normal((3, 2, 37))
    for length in (20, 37, 64):
        theirs = torch.nn.functional.interpolate(torch.tensor(x), length, mode="linear").numpy()
        assert np.allclose(neighbours.resized(x, length), theirs, atol=1e-12)


def test_limit_takes_evenly_spread_rows():
    rows = classification.evaluate(lambda x: x.sum(-1), planted(n=50), limit=10, readouts=("forest",), baselines=False, progress=False)
    assert (rows["accuracy"] * 10 % 1).abs().item() < 1e-9


def test_one_readout_or_baseline_may_stand_alone_and_features_may_be_numpy():
    numpy = lambda x: np.abs(np.fft.rfft(x.numpy()[:, 0]))[:, 1:]
    rows = classification.evaluate(numpy, planted(n=20), readouts="ridge", baselines="raw", progress=False, name="numpy")
    assert rows[["variant", "readout"]].agg(tuple, axis=1).tolist() == [("numpy", "ridge"), ("raw values", "ridge")]
    assert rows["accuracy"][0] > 0.9


def test_tqdm_disable_silences_the_bar(monkeypatch):
    """TQDM_DISABLE=1 is the default of tqdm's own `disable`, so that must not be given when progress is wanted."""
    given = []
    monkeypatch.setattr(classification, "tqdm", lambda sets, **options: given.append(options) or tqdm(sets, disable=True))
    for progress in (True, False):
        classification.evaluate(spectrum, planted(n=8), ("ridge",), baselines=False, progress=progress)
    assert "disable" not in given[0] and given[1]["disable"] is True


@pytest.mark.parametrize(("call", "words"), [
    (lambda: classification.evaluate(spectrum, planted(), seeds=()), "at least one seed"),
    (lambda: classification.evaluate(spectrum, planted(), readouts="rigde"), "no read-out called 'rigde'; did you mean 'ridge'"),
    (lambda: classification.evaluate(spectrum, planted(), readouts=("forrest",)), "did you mean 'forest'"),
    (lambda: classification.evaluate(spectrum, planted(), baselines=("1nn-dwt",)), "did you mean '1nn-dtw'"),
    (lambda: classification.evaluate("naive", planted()), "naive forecasts and has no embed"),
    (lambda: classification.features(lambda x: x, np.zeros((2, 1, 5))), "finite features"),
    (lambda: classification.features(lambda x: x[:, 0] / 0, np.ones((2, 1, 5))), "10 values not finite"),
    (lambda: neighbours.observed_parts(np.full((1, 1, 4), np.nan)), "series 0 has a variate without"),
    (lambda: neighbours.predict(np.zeros((1, 1, 2)), np.zeros(1, int), np.zeros((1, 1, 2)), "cosine"), "'euclidean' or 'dtw'"),
])
def test_bad_input_is_named(call, words):
    with pytest.raises(TsfmError, match=words):
        call()


def test_warping_beats_the_rigid_distance_on_shifted_shapes():
    rng = np.random.default_rng(2)
    peak = lambda at: np.exp(-0.5 * ((np.arange(60) - at) / 3) ** 2)
    bump = lambda at, up: up * (peak(at) - 0.5 * peak(at + 8))
    y = np.arange(60) % 2
    x = np.stack([bump(rng.uniform(8, 45), 2 * k - 1) for k in y])[:, None] + 0.02 * rng.standard_normal((60, 1, 60))
    error = {d: (neighbours.predict(x[:20], y[:20], x[20:], d) != y[20:]).mean() for d in ("euclidean", "dtw")}
    assert error["dtw"] < 0.05 < error["euclidean"]


def test_bundled_trace_gives_the_published_errors():
    """The archive's DataSummary.csv: 0.24 for Euclidean distance, 0 for DTW without a band."""
    from tsfm_lib import data
    rows = classification.evaluate(None, data.load("trace-embedded"), baselines=("1nn-euclidean", "1nn-dtw"), progress=False)
    assert rows.set_index("readout")["accuracy"].to_dict() == {"1nn-euclidean": 0.76, "1nn-dtw": 1.0}


@pytest.mark.skipif(paths.data_folder() is None, reason="TSFM_DATA is not set: the UCR sets are not here")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_errors_of_the_nearest_neighbour(name):
    from tsfm_lib import data
    split = data.load(name)
    error = (neighbours.predict(split.x_train, split.y_train, split.x_test) != split.y_test).mean()
    assert error == pytest.approx(PUBLISHED[name], abs=5.1e-5)
