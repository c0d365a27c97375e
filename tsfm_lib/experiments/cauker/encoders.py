"""What the experiments on pretraining share: small encoders, corpora made and real, a training, and what frozen features are worth.

Protocol. Every series of a corpus has mean 0 and deviation 1; those that hardly move are left out. Encoders read 256 points. Features are
frozen; a classifier is fitted on the official training part of a UCR set and scored on its test part. Series of the archive are stretched
to 256 points and otherwise taken as they are. Whitening is fitted on generated series, never on the archive.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import nn

from tsfm_lib import checkpoints, data
from tsfm_lib.data.sets import LabelledSet
from tsfm_lib.errors import TsfmError, nearest
from tsfm_lib.evaluate import suites
from tsfm_lib.evaluate.classification import READOUTS, Whitening, features
from tsfm_lib.evaluate.neighbours import observed_parts, resized
from tsfm_lib.experiments import trials
from tsfm_lib.models.mantis import MantisConfig
from tsfm_lib.models.moment import MomentConfig
from tsfm_lib.synth import cauker
from tsfm_lib.synth.cauker import VARIANTS, CauKerConfig
from tsfm_lib.train import Run
from tsfm_lib.train.streams import from_windows, standardised

LENGTH = 256
STEPS, BATCH = 160, 128

SMALL = {
    "mantis": MantisConfig(context=LENGTH, patches=16, stride=4, width=32, layers=2, heads=4, head_width=8, hidden=64, scalar_width=8,
                           readout="both", crop="series", crop_shares=(0.0, 0.5), warp=0.3, jitter=0.5, noise=0.1, symmetric=True,
                           head_hidden=64, dropout=0.0),
    "moment": MomentConfig(context=LENGTH, patch=16, width=64, layers=2, heads=4, head_width=16, hidden=128, positions=16, dropout=0.0),
}  # fmt: skip
"""The encoders of the sweeps: the recipes `mantis-nano` and `moment-nano` made smaller; both give 64 features."""

RECIPES = {
    "mantis": {"matrices": "(?!)", "rate": 2e-3, "betas": [0.9, 0.999], "weight_decay": 0.05, "ema": 0.0},
    "moment": {"matrices": r"^layers\.\d+\.", "matrix_rate": 1e-2, "rate": 4e-3, "ema": 0.9},
}
BOTH = {"warmup": 16, "final_fraction": 0.0}
"""As in `mantis-nano` (AdamW alone) and `moment-nano` (Muon for the layers), with rates for short runs, picked by the loss on seed 0. The
rate falls to zero at the last step, so that what is scored is the end of a schedule."""

DEVELOPMENT = (
    "BirdChicken", "Coffee", "Beef", "OliveOil", "PickupGestureWiimoteZ", "ShakeGestureWiimoteZ", "FaceFour", "Car", "Lightning2",
    "Lightning7", "DodgerLoopDay", "DodgerLoopGame", "DodgerLoopWeekend", "HouseTwenty", "BME", "ACSF1", "ECG200", "GunPoint", "Trace",
    "Fungi", "ArrowHead", "Ham", "SonyAIBORobotSurface1", "CBF", "SonyAIBORobotSurface2", "ItalyPowerDemand", "TwoLeadECG",
)  # fmt: skip
"""The sets of the suite `ucr` with at most 110 training series, by number of series: chosen by size alone."""
FEW = ("BME", "ECG200", "GunPoint", "Trace", "ArrowHead", "CBF", "SonyAIBORobotSurface1", "TwoLeadECG")
"""Of those, sets that cost least for the number of test series they have: for curves over training, and for quick runs."""
EMBEDDED = ("trace-embedded",)

UEA = ("ArticularyWordRecognition", "BasicMotions", "HandMovementDirection", "JapaneseVowels")
FORECASTING = (
    "ETTh1", "ETTh2", "ETTm1", "ETTm2", "exchange_rate", "ecl_203ch_1000h", "solar_al_test20", "aus_electricity_demand_1", "nn5_daily",
    "vic_elec", "nyc_taxi_30min", "beijing_pm25", "pjm_load_2023", "m4_hourly_dataset", "fred_md_dataset", "nab_real_long",
    "us_births_dataset", "saugeenday_dataset", "sunspot_dataset_without_missing_values",
)  # fmt: skip
REAL = {"uea": (UEA,), "forecasting": (FORECASTING,), "real": (UEA, FORECASTING), "real+ucr": (UEA, FORECASTING, suites.suite("ucr"))}
"""Real corpora: groups of sets that are drawn from equally often. Of UCR only training parts are read, and no label of any set."""


# ---- encoders -------------------------------------------------------------------------------------------------------------------


def small(model: str, **changes: Any) -> MantisConfig | MomentConfig:
    """The small encoder of this name, with some settings replaced.

    >>> small("mantis", width=16).width
    16
    """
    if model not in SMALL:
        raise TsfmError(f"no small encoder {model!r}, there are {', '.join(SMALL)}{nearest(model, SMALL)}")
    return replace(SMALL[model], **changes)


def untrained(model: str, seed: int, **changes: Any) -> nn.Module:
    """The weights from which a training with this seed starts."""
    return checkpoints.build(model, small(model, **changes), seed).eval()


def pretrain(model: str, series: Float32[np.ndarray, "N T"], seed: int, steps: int = STEPS, batch: int = BATCH, *,
             config: MantisConfig | MomentConfig | None = None, loss: Callable[..., torch.Tensor] | None = None,
             watch: Callable[[int, nn.Module], Any] | None = None, **recipe: Any) -> Run:  # fmt: skip
    """The small encoder after `steps` batches of a corpus, each series once an epoch in an order that is new in every epoch.

    `watch(step, model)` is called before every step; what it does leaves no trace in the training.
    """
    config = config or small(model)
    own, steps_taken = loss or (lambda net, rows, generator: net.loss(rows, generator)), count()

    def watched(net: nn.Module, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        watch(next(steps_taken), net)
        return own(net, rows, generator)

    stream = from_windows(series, series.shape[1], 0, batch, seed)
    return trials.trained(model, config, stream, seed, steps, horizon=0, batch=batch, loss=watched if watch else own,
                          **BOTH | RECIPES[model] | recipe)  # fmt: skip


# ---- corpora --------------------------------------------------------------------------------------------------------------------


@lru_cache(2)
def corpus(name: str, n: int, length: int = LENGTH, seed: int = 0, config: CauKerConfig | None = None) -> Float32[np.ndarray, "M T"]:
    """n series of a variant of CauKer, of another generator (`config`), or of a real corpus, but for those that hardly move.

    The order belongs to the seed: a smaller corpus is the beginning of a larger one.
    """
    if config is None and name in REAL:
        return standardised(real(n, length, seed, REAL[name]))
    if config is None and name not in VARIANTS:
        known = (*VARIANTS, *REAL)
        raise TsfmError(f"no corpus {name!r}, there are {', '.join(known)}{nearest(name, known)}: or pass a CauKerConfig")
    return standardised(cauker.generate(n, length, seed, config or VARIANTS[name]))


def real(n: int, length: int, seed: int, groups: Sequence[Sequence[str]]) -> Float32[np.ndarray, "n T"]:
    """Series of sets: group by group equally often, within a group set by set. Labelled series come whole and each once before any comes
    twice; of long series random windows. All are stretched to one length."""
    names = [name for group in groups for name in group]
    odds = [1 / len(groups) / len(group) for group in groups for _ in group]
    which = np.random.default_rng([seed, 0]).choice(len(names), n, p=odds)
    out = np.empty((n, length), np.float32)
    for k, name in enumerate(names):
        places, rng = np.flatnonzero(which == k), np.random.default_rng([seed, 1 + k])
        out[places] = _pieces(name, len(places), length, rng)
    return out


def _pieces(name: str, n: int, length: int, rng: np.random.Generator) -> Float32[np.ndarray, "n T"]:
    whole, windows = _series(name)
    if not windows:
        order = rng.permutation(len(whole))
        picked = [whole[order[i % len(whole)]] for i in range(n)]
    else:
        whole, picked = [x for x in whole if len(x) >= length] or whole, []
        for which, wide, where in rng.random((n, 3)):
            x = whole[int(which * len(whole))]
            span = min(len(x), int(length * 4**wide))           # up to four times as long as what is seen of it
            start = int(where * (len(x) - span + 1))
            picked.append(x[start : start + span])
    at = (np.arange(length) + 0.5) / length
    return np.array([np.interp(at * len(x) - 0.5, np.arange(len(x)), x) for x in picked], np.float32).reshape(n, length)


@lru_cache(100)
def _series(name: str) -> tuple[list[Float[np.ndarray, "_"]], bool]:
    """Every channel of every series without gaps, and whether windows of it should be taken."""
    found = data.load(name)
    if isinstance(found, LabelledSet):
        parts = [found.x_train] if name in suites.suite("ucr") else [found.x_train, found.x_test]
        return [row for part in parts for x in observed_parts(part) for row in x], False
    rows = [row for x in found.series for row in x if np.isfinite(row).any()]
    return [part[0] for row in rows for part in observed_parts(row[None, None])], True


# ---- what features are worth ----------------------------------------------------------------------------------------------------


def development(few: bool = False) -> tuple[str, ...]:
    """The sets to score on, as far as they are on this machine; without any of them the one that ships with a package."""
    return tuple(name for name in (FEW if few else DEVELOPMENT) if data.available(name)) or EMBEDDED


@lru_cache(100)
def prepared(name: str, length: int = LENGTH) -> LabelledSet:
    """A labelled set whose series are stretched to the length that encoders read."""
    found = data.load(name)
    return replace(found, x_train=resized(found.x_train, length), x_test=resized(found.x_test, length))


@lru_cache(2)
def unlabelled(length: int = LENGTH, n: int = 1024) -> Float32[np.ndarray, "M 1 T"]:
    """Generated series that no training sees: for whitening and ranks."""
    return standardised(cauker.generate(n, length, seed=2**62))[:, None]


def effective_rank(z: Float[np.ndarray, "N D"]) -> float:
    """Over how many directions the variance of features spreads: exp of the entropy of its shares (Roy and Vetterli, 2007).

    >>> round(effective_rank(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])), 6), effective_rank(np.ones((4, 2)))
    (2.0, 0.0)
    """
    singular = np.linalg.svd(z.astype(np.float64) - z.mean(0, dtype=np.float64), compute_uv=False)
    if singular[0] <= 1e-7 * max(1.0, np.abs(z).max()):
        return 0.0                                              # one point
    share = singular[singular > 0] ** 2 / np.square(singular).sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def score(encoder: Any, sets: Iterable[str], readouts: Sequence[str] = ("forest", "whitened_forest", "ridge"), seed: int = 0,
          length: int = LENGTH) -> list[dict[str, Any]]:  # fmt: skip
    """Test accuracy of frozen features: a row per set and read-out. `seed`: of the forests."""
    whiten = Whitening().fit(features(encoder, unlabelled(length))) if "whitened_forest" in readouts else None
    rows = []
    for name in sets:
        split = prepared(name, length)
        train, test = (features(encoder, x) for x in (split.x_train, split.x_test))
        for readout in readouts:
            change = whiten.transform if readout == "whitened_forest" else lambda z: z
            make = READOUTS["forest" if readout == "whitened_forest" else readout]
            fitted = make(seed, split.y_train).fit(change(train), split.y_train)
            rows.append({"dataset": split.name, "readout": readout, "accuracy": fitted.score(change(test), split.y_test)})
    return rows
