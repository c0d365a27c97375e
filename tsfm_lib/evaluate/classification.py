"""How good are frozen features? Embed every series once, fit a simple classifier on the training split, score the test split.

The protocol is the one of CauKer (arXiv 2508.02879) and Mantis (arXiv 2502.15637): official splits, no fine-tuning, a random
forest with 100 trees on the embeddings. Two habits are added, because without them the numbers mislead:

* Every table carries baselines: a forest and a ridge on the raw values and on the features of random kernels (MiniRocket), 1-NN
  with Euclidean and DTW distance, and the same architecture with random weights. A random encoder is a strong baseline, and
  pre-training is what it adds to that; random kernels before a ridge are the ceiling of what is cheap.
* Every encoder is seen through several read-outs. A forest splits along single axes, so it rewards features that are spread
  over the axes; whitening and ridge show what is there in any direction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tqdm import tqdm

from tsfm_lib import data as catalogue
from tsfm_lib.data.sets import LabelledSet
from tsfm_lib.errors import DataMissing, TsfmError, nearest, whole
from tsfm_lib.evaluate import neighbours
from tsfm_lib.evaluate.forecasting import at_work
from tsfm_lib.evaluate.random_kernels import POINTS, RandomKernels

RAW, RANDOM, KERNELS = "raw values", "random weights", "random kernels"         # variants beside the model's own name
NEIGHBOURS = {"1nn-euclidean": ("euclidean", None), "1nn-dtw": ("dtw", None), "1nn-dtw-10%": ("dtw", 0.1)}
BASELINES = ("raw", "random", "random-kernels", *NEIGHBOURS)


class Whitening(TransformerMixin, BaseEstimator):
    """Rotate features to their principal axes and give each axis unit variance.

    Directions with a singular value below `tolerance` times the largest are dropped. At least `per_axis` rows are asked for
    each axis kept: with as many axes as rows every row is equally far from every other one, and whatever the features knew
    is gone. On small training splits even that costs accuracy; thousands of unlabelled series (`whiten_on`) are better.
    """

    def __init__(self, tolerance: float = 1e-4, per_axis: int = 4):
        self.tolerance, self.per_axis = tolerance, per_axis

    def fit(self, x: Float[np.ndarray, "N D"], y: Any = None) -> "Whitening":
        self.mean_ = x.mean(0)
        _, singular, axes = np.linalg.svd(x.astype(np.float64) - self.mean_, full_matrices=False)
        kept = min((singular > self.tolerance * singular[0]).sum(), max(1, len(x) // self.per_axis))
        self.axes_ = axes[:kept].T / np.maximum(singular[:kept], 1e-300) * np.sqrt(len(x) - 1)
        return self

    def transform(self, x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N K"]:
        return (x - self.mean_) @ self.axes_


def forest(seed: int, y: Int[np.ndarray, "N"], n_jobs: int = 1) -> Any:
    """The protocol of the papers: 100 trees, scikit-learn's other defaults, no scaling."""
    return RandomForestClassifier(n_estimators=100, random_state=seed, n_jobs=n_jobs)


def whitened_forest(seed: int, y: Int[np.ndarray, "N"], n_jobs: int = 1) -> Any:
    return make_pipeline(Whitening(), forest(seed, y, n_jobs))


def logistic(seed: int, y: Int[np.ndarray, "N"], n_jobs: int = 1) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def ridge(seed: int, y: Int[np.ndarray, "N"], n_jobs: int = 1) -> Any:
    """Ridge regression on the class indicators, its strength chosen by leave-one-out."""
    return make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(-3, 3, 13)))


def svm(seed: int, y: Int[np.ndarray, "N"], n_jobs: int = 1) -> Any:
    """MOMENT's rule (arXiv 2402.03885, as its code has it): almost no regularisation on small sets, else C by 5-fold search."""
    if len(y) < 50 or len(y) // len(np.unique(y)) < 5:
        return SVC(C=1e5, gamma="scale")
    return GridSearchCV(SVC(gamma="scale"), {"C": np.logspace(-4, 4, 9)}, cv=5, n_jobs=n_jobs)


READOUTS = {"forest": forest, "whitened_forest": whitened_forest, "logistic": logistic, "ridge": ridge, "svm": svm}
SEEDED = {"forest", "whitened_forest"}              # the others have no randomness: one row is all there is
SVM_LIMIT = 10_000                                  # training rows the SVM rule admits


def features(encoder: Any, x: Float[np.ndarray, "N V T"], batch: int = 256, length: int | None = None) -> Float[np.ndarray, "N D"]:
    """Embeddings of all series by an object with `embed` (or a function) from tensors [B, V, T] to [B, D].

    Encoders see complete series of one length: the observed part of each (gaps bridged by straight lines) is resized to
    `length`, by default the encoder's own (`series_length`, or the `context` of its config), else that of the longest here.

    >>> features(lambda x: x.mean(-1), np.array([[[1., 3.]], [[5., np.nan]]]))
    array([[2.],
           [5.]])
    """
    if hasattr(encoder, "predict_quantiles") and not hasattr(encoder, "embed"):
        raise TsfmError(f"{_name(encoder)} forecasts and has no embed: pass an encoder, or a function from series to features")
    embed = getattr(encoder, "embed", encoder)
    series = neighbours.resized(x, length or own_length(encoder))
    with at_work(encoder) as own:
        parts = [embed(torch.as_tensor(series[i : i + batch], **own)) for i in range(0, len(series), batch)]
    out = torch.cat([torch.as_tensor(part).cpu() for part in parts]).numpy()
    if out.ndim != 2 or not np.isfinite(out).all():
        lost = (~np.isfinite(out)).sum()
        raise TsfmError(f"an encoder should give finite features [B, D], got shape {out.shape} with {lost} values not finite: check embed")
    return out


def own_length(encoder: Any) -> int | None:
    """The length of series an encoder was made for, if it says so."""
    return getattr(encoder, "series_length", None) or getattr(getattr(encoder, "config", None), "context", None)


def evaluate(model: Any, data: str | LabelledSet | Sequence, readouts: str | Sequence[str] = ("forest", "whitened_forest", "ridge"),
             seeds: Sequence[int] = (0,), baselines: bool | str | Sequence[str] = True, progress: bool = True, *, name: str | None = None,
             whiten_on: Float[np.ndarray, "N 1 T"] | None = None, length: int | None = None, batch: int = 256,
             limit: int | None = None, n_jobs: int = 1) -> pd.DataFrame:
    """Test accuracy of frozen features: one row per data set, variant, read-out and seed.

    `model`: a name for `tsfm_lib.load`, an encoder with `embed`, a function from [B, V, T] to [B, D], or None (baselines only).
    `data`: a name, a LabelledSet, a list of these, or "ucr", the suite (sets that are not on this machine are left out).
    `seeds`: of the forests; the random weights of baseline `random` and the kernels of `random-kernels` use them too. Read-outs
    without randomness give one row, under the first seed (random weights and kernels: one a seed).
    `baselines`: True for all that apply, False for none, or some of "raw" (values), "random" (weights), "random-kernels" (about
    2,000 features of `evaluate.random_kernels`; like raw values read by forest and ridge), "1nn-euclidean", "1nn-dtw", "1nn-dtw-10%".
    `whiten_on`: unlabelled series (made ones, say) on whose embeddings the whitening is fitted, once for each encoder and shape of
    series (in the `seconds` of no row); None: the training split.
    `length`: see `features`; raw values and random kernels take the length of the longest series. `limit`: at most so many
    (evenly spread) training series, and as many test series.
    """
    if isinstance(model, str):
        import tsfm_lib
        name, model = name or model, tsfm_lib.load(model)
    readouts, baselines = ((one,) if isinstance(one, str) else one for one in (readouts, baselines))
    seeds = tuple(whole(seed, "a seed", 0) for seed in seeds)
    if not seeds:
        raise TsfmError("expected at least one seed, got none: pass seeds=(0,)")
    if unknown := [r for r in readouts if r not in READOUTS]:
        raise TsfmError(f"no read-out called {unknown[0]!r}{nearest(unknown[0], READOUTS)} (there are {', '.join(READOUTS)})")
    wanted = BASELINES if baselines is True else tuple(baselines or ())
    if unknown := [b for b in wanted if b not in BASELINES]:
        raise TsfmError(f"no baseline called {unknown[0]!r}{nearest(unknown[0], BASELINES)} (there are {', '.join(BASELINES)})")
    encoders = _encoders(model, name, seeds, "random" in wanted)
    rows, whitenings = [], {}
    sets = labelled_sets(data)
    for item in (bar := tqdm(sets, desc="classify", **({} if progress else {"disable": True}))):
        split = catalogue.load(item) if isinstance(item, str) else item
        if not isinstance(split, LabelledSet):
            raise TsfmError(f"{item} is not a classification set: pass one whose card says task 'classification'")
        bar.set_postfix_str(split.name)
        split = _limited(split, limit)
        found = _rows(encoders, split, readouts, seeds, wanted, whiten_on, whitenings, length, batch, n_jobs)
        for variant, readout, seed, accuracy, seconds in found:
            rows.append({"dataset": split.name, "variant": variant, "readout": readout, "seed": seed, "accuracy": accuracy,
                         "seconds": round(seconds, 3), "unit": split.name})
    return pd.DataFrame(rows, columns=["dataset", "variant", "readout", "seed", "accuracy", "seconds", "unit"])


def labelled_sets(data: str | LabelledSet | Sequence) -> list[str | LabelledSet]:
    """The sets meant by what a user passed; of the suite `ucr` those that can be had here without a download."""
    if not isinstance(data, str):
        return [data] if isinstance(data, LabelledSet) else list(data)
    if data != "ucr":
        return [data]
    from tsfm_lib.evaluate.suites import suite
    here = [n for n in suite("ucr") if catalogue.available(n)]
    if not here:
        raise DataMissing("none of the UCR sets is on this machine: set TSFM_DATA to their folder, or load one by name to fetch it")
    return here


def random_weights(model: Any, seed: int) -> Any | None:
    """The same architecture before any training, or None for what is not in the registry (a plain function, say)."""
    from tsfm_lib import checkpoints
    from tsfm_lib.models import MODELS
    home = type(model).__module__, type(model).__name__
    name = next((n for n, entry in MODELS.items() if (entry.module, entry.cls) == home), None)
    return checkpoints.build(name, model.config, seed) if name else None


def _encoders(model, name, seeds, random) -> list[tuple[str, Any, Sequence[int]]]:
    """Variant, encoder and the seeds of its read-outs: the model itself, and its architecture with random weights."""
    if model is None:
        return []
    untrained = [(RANDOM, random_weights(model, seed), (seed,)) for seed in seeds] if random else []
    return [(name or _name(model), model, seeds), *(row for row in untrained if row[1] is not None)]


def _rows(encoders, split, readouts, seeds, baselines, whiten_on, whitenings, length, batch, n_jobs
          ) -> Iterable[tuple[str, str, int, float, float]]:
    for variant, encoder, its_seeds in encoders:
        size = length or own_length(encoder) or max(p.shape[1] for p in neighbours.observed_parts(split.x_train))
        whitening, variates = None, split.x_train.shape[1]
        if whiten_on is not None and "whitened_forest" in readouts:
            key = id(encoder), size, variates
            if key not in whitenings:
                mixed = np.concatenate([np.roll(whiten_on, v, 0) for v in range(variates)], 1)      # other series per variate
                whitenings[key] = Whitening().fit(features(encoder, mixed.astype(np.float32), batch, size))
            whitening = whitenings[key]
        began = perf_counter()
        train, test = (features(encoder, x, batch, size) for x in (split.x_train, split.x_test))
        yield from _read(variant, train, test, perf_counter() - began, split, readouts, its_seeds, n_jobs, whitening)
    kept = [r for r in ("forest", "ridge") if r in readouts] or ["forest"]
    if "raw" in baselines:
        train, test = (x.reshape(len(x), -1) for x in _at_one_length(split))
        yield from _read(RAW, train, test, 0.0, split, kept, seeds, n_jobs)
    for seed in seeds if "random-kernels" in baselines else ():
        began = perf_counter()
        train, test = (neighbours.resized(x, max(POINTS, x.shape[-1])) for x in _at_one_length(split))
        kernels = RandomKernels(seed=seed).fit(train)
        train, test = kernels.transform(train), kernels.transform(test)
        yield from _read(KERNELS, train, test, perf_counter() - began, split, kept, (seed,), n_jobs)
    for baseline in [b for b in NEIGHBOURS if b in baselines]:
        began = perf_counter()
        distance, band = NEIGHBOURS[baseline]
        one = split.x_train.shape[1] == 1       # the archives' custom: levels of several variates carry information
        guess = neighbours.predict(split.x_train, split.y_train, split.x_test, distance, band, normalise=one, n_jobs=n_jobs)
        yield RAW, baseline, seeds[0], float((guess == split.y_test).mean()), perf_counter() - began


def _read(variant, train, test, embedding_seconds, split, readouts, seeds, n_jobs, whitening=None) -> Iterable[tuple]:
    for readout in readouts:
        for seed in seeds if readout in SEEDED else seeds[:1]:
            began = perf_counter()
            make, x, x_test, rows = READOUTS[readout], train, test, np.arange(len(train))
            if readout == "whitened_forest" and whitening is not None:
                make, x, x_test = forest, whitening.transform(train), whitening.transform(test)
            if readout == "svm" and len(rows) > SVM_LIMIT:
                rows, _ = train_test_split(rows, train_size=SVM_LIMIT, stratify=split.y_train, random_state=seed)
            classifier = make(seed, split.y_train[rows], n_jobs).fit(x[rows], split.y_train[rows])
            accuracy = float((classifier.predict(x_test) == split.y_test).mean())
            yield variant, readout, seed, accuracy, embedding_seconds + perf_counter() - began


def _at_one_length(split: LabelledSet) -> tuple[np.ndarray, np.ndarray]:
    """Training and test series, all stretched to the longest."""
    both = neighbours.resized(neighbours.joined(split.x_train, split.x_test))
    return both[: len(split.x_train)], both[len(split.x_train):]


def _limited(split: LabelledSet, limit: int | None) -> LabelledSet:
    if limit is None:
        return split
    train, test = (np.unique(np.linspace(0, len(y) - 1, min(limit, len(y))).round().astype(int)) for y in (split.y_train, split.y_test))
    return replace(split, x_train=split.x_train[train], y_train=split.y_train[train], x_test=split.x_test[test], y_test=split.y_test[test])


def _name(model: Any) -> str:
    return getattr(model, "__name__", type(model).__name__).lower()
