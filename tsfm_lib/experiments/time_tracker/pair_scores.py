"""Which graph do spectra and correlations find? Scores of pairs of channels, on series whose graph is known; nothing is trained (T6).

The amplitude distance of Time Tracker and three rivals. A score is [B V V], the same read either way.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from sklearn.metrics import roc_auc_score
from torch import Tensor

from tsfm_lib.nn.graph import UNRELATED, similarity
from tsfm_lib.synth import planted

MAX_LAG = 48


def amplitudes(z: Float[Tensor, "B V T"]) -> Float[Tensor, "B V V"]:
    """Similarity of amplitude spectra, the paper's idea, before it is set against the level of noise."""
    return similarity(torch.fft.rfft(z).abs()[..., 1:])


def complex_spectra(z: Float[Tensor, "B V T"]) -> Float[Tensor, "B V V"]:
    """The same with phases: 1 - sum |X_i - X_j| / sum (|X_i| + |X_j|)."""
    x = torch.fft.rfft(z)[..., 1:]
    size = x.abs().sum(-1)
    apart = torch.stack([(x - x[:, [i]]).abs().sum(-1) for i in range(x.shape[1])], dim=1)
    return 1 - apart / (size[..., :, None] + size[..., None, :]).clamp_min(torch.finfo(z.dtype).tiny)


def cross_correlation(z: Float[Tensor, "B V T"], max_lag: int = MAX_LAG) -> Float[Tensor, "B V V L"]:
    """[b, i, j, max_lag + l] is the correlation of i with j, l steps later: a peak at l > 0 says that i comes first."""
    z = z - z.mean(-1, keepdim=True)
    z = z / z.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    x = torch.fft.rfft(z, n=2 * z.shape[-1])  # zeros behind: nothing wraps round
    found = torch.fft.irfft(x[:, :, None].conj() * x[:, None])
    return torch.cat([found[..., -max_lag:], found[..., : max_lag + 1]], dim=-1)


ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "amplitude": amplitudes,
    "complex": complex_spectra,
    "correlation": lambda z: cross_correlation(z, 0)[..., 0].abs(),
    "lagged-correlation": lambda z: cross_correlation(z).abs().amax(-1),
}
"""A score [B V V] per pair of variates; the higher, the more related."""


def surrogates(series: Float[np.ndarray, "*n T"], rng: np.random.Generator) -> Float[np.ndarray, "*n T"]:
    """The same amplitudes with phases drawn anew for every channel: nothing is related any more, and amplitudes cannot know."""
    x = np.fft.rfft(series)
    turn = np.exp(2j * np.pi * rng.random(x.shape))
    turn[..., 0] = 1
    if series.shape[-1] % 2 == 0:
        turn[..., -1] = 1  # the highest frequency of an even length has no phase
    return np.fft.irfft(x * turn, series.shape[-1])


def pairs(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of channels once."""
    return np.triu_indices(channels, 1)


def planted_graphs(case: str, draws: int, seed: int, channels: int = 16, length: int = 672) -> list[dict[str, Any]]:
    """A row per draw and estimator. `auroc`: related pairs against unrelated ones; `against_surrogates`: related pairs against the same
    pairs of phase-randomised surrogates, where no pair is related."""
    given = planted.graph_case(case, draws, seed, channels=channels, length=length)
    null = surrogates(given.series, np.random.default_rng([seed, ord(case)]))
    rows, upper = [], pairs(channels)
    for name, score in ESTIMATORS.items():
        of = lambda x, score=score: score(torch.as_tensor(x, dtype=torch.float64)).numpy()[:, *upper].round(6)
        for draw, (true, found, shuffled) in enumerate(zip(given.edges, of(given.series), of(null))):
            related = (true | true.T)[upper]
            both = np.concatenate([found[related], shuffled[related]])
            rows.append({"variant": name, "seed": draw, "auroc": roc_auc_score(related, found),
                         "against_surrogates": roc_auc_score(np.arange(len(both)) < related.sum(), both)})  # fmt: skip
    return rows


def similarities(case: str, draws: int, seed: int, channels: int = 16, length: int = 672) -> pd.DataFrame:
    """Similarity of amplitudes of every pair of a case, related or not; case "noise" is white noise, where none is."""
    if case == "noise":
        series = np.random.default_rng([seed, 1]).standard_normal((draws, channels, length))
        edges = np.zeros((draws, channels, channels), bool)
    else:
        given = planted.graph_case(case, draws, seed, channels=channels, length=length)
        series, edges = given.series, given.edges
    upper = pairs(channels)
    found = amplitudes(torch.as_tensor(series, dtype=torch.float64)).numpy()[:, *upper]
    related = (edges | edges.transpose(0, 2, 1))[:, *upper]
    frame = pd.DataFrame({"similarity": found.ravel(), "pairs": np.where(related.ravel(), "related", "unrelated")})
    return frame.assign(case=case, seed=np.repeat(np.arange(draws), found.shape[1]))


def histogram(found: pd.DataFrame, width: float = 0.025) -> pd.DataFrame:
    """Share of the pairs of a kind within each step of similarity, per draw."""
    middle = (found["similarity"].clip(upper=1 - width / 2) // width + 0.5) * width  # 1 belongs to the last step
    counts = found.assign(similarity=middle.round(6)).groupby(["case", "pairs", "seed", "similarity"], sort=False).size()
    whole = counts.groupby(level=["case", "pairs", "seed"]).transform("sum")
    grid = counts.div(whole).rename("share").unstack("similarity", fill_value=0.0).sort_index(axis=1)
    return grid.stack().rename("share").reset_index()


def densities(found: pd.DataFrame, alphas: Sequence[float | int]) -> pd.DataFrame:
    """For every alpha: the share of pairs with an edge at evaluation (S' > 1 - alpha) and in training (alpha S', expected)."""
    calibrated = ((found["similarity"] - UNRELATED) / (1 - UNRELATED)).clip(0, 1)
    rows = [found.assign(alpha=a, fixed=calibrated > 1 - a, drawn=a * calibrated) for a in alphas]
    keys = ["case", "pairs", "seed", "alpha"]
    return pd.concat(rows).groupby(keys, sort=False)[["fixed", "drawn"]].mean().reset_index()
