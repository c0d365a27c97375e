"""Nearest-neighbour classification, the yardstick of the UCR archive: the label of the closest training series.

Distances are Euclidean or DTW, both between z-normalised series, which is how the archive's published errors were made
(`normalise=False` keeps levels and scales, as the tables of the multivariate UEA archive mostly do).
"""

import numpy as np
from jaxtyping import Float, Integer, Shaped

from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate import dtw


def observed_parts(x: Float[np.ndarray, "N V T"]) -> list[Float[np.ndarray, "V _"]]:
    """Each series from its first to its last observed time, with gaps between them filled by straight lines.

    >>> observed_parts(np.array([[[np.nan, 1, np.nan, 3, np.nan]]]))
    [array([[1., 2., 3.]])]
    """
    parts = []
    for k, series in enumerate(x):
        seen = np.isfinite(series)
        times = np.flatnonzero(seen.any(0))
        if not seen.any(1).all():
            raise TsfmError(f"series {k} has a variate without a single observed value: drop the series or the variate")
        part = series[:, times[0]: times[-1] + 1]
        gaps = ~seen[:, times[0]: times[-1] + 1]
        if gaps.any():
            at = np.arange(part.shape[1])
            part = np.stack([np.interp(at, at[~g], row[~g]) for row, g in zip(part, gaps)]).astype(x.dtype)
        parts.append(part)
    return parts


def resized(x: Float[np.ndarray, "N V T"], length: int | None = None) -> Float[np.ndarray, "N V L"]:
    """The observed parts stretched to one length (that of the longest by default) by linear interpolation.

    Points are taken as the centres of equal cells, as in PyTorch's `interpolate(mode="linear")`, which the Mantis code
    uses; a series that already has the length comes back unchanged.

    >>> resized(np.array([[[0., 1, 2, 3]], [[0, 4, np.nan, np.nan]]]))[:, 0]
    array([[0., 1., 2., 3.], [0., 1., 3., 4.]])
    """
    parts = observed_parts(x)
    length = length or max(p.shape[1] for p in parts)
    if all(p.shape[1] == length for p in parts):
        return np.stack(parts)
    out = np.empty((*x.shape[:2], length), x.dtype)
    for k, part in enumerate(parts):
        n = part.shape[1]
        at = np.clip((np.arange(length) + 0.5) * n / length - 0.5, 0, n - 1)
        out[k] = [np.interp(at, np.arange(n), row) for row in part]
    return out


def z_normalised(x: Float[np.ndarray, "N V T"]) -> Float[np.ndarray, "N V T"]:
    """Mean 0 and (population) deviation 1 for each variate of each series; constants become 0, missing values stay missing."""
    x = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        mean, deviation = np.nanmean(x, -1, keepdims=True), np.nanstd(x, -1, keepdims=True)
    flat = deviation <= 1e-12 * np.maximum(1, np.abs(mean))
    return (x - mean) / np.where(flat, np.inf, deviation)


def euclidean(x: Float[np.ndarray, "N V T"], y: Float[np.ndarray, "M V T"]) -> Float[np.ndarray, "N M"]:
    """Squared Euclidean distances by differences, a row at a time: exact ties stay ties."""
    x, y = x.reshape(len(x), -1).astype(np.float64), y.reshape(len(y), -1).astype(np.float64)
    return np.stack([((y - row) ** 2).sum(1) for row in x])


def predict(x_train: Float[np.ndarray, "N V T"], y_train: Integer[np.ndarray, "N"], x_test: Float[np.ndarray, "M V S"],
            distance: str = "euclidean", band: int | float | None = None, normalise: bool = True,
            n_jobs: int = 1) -> Shaped[np.ndarray, "M"]:
    """Labels of the nearest training series (the first one when several are equally near).

    `distance`: "euclidean" (series of unequal lengths are stretched to the longest) or "dtw" (lengths as they are).
    `band`: radius for DTW in points (int), as a share of the longest series (float, 0.1 = 10 %), or None for none.

    >>> predict(np.array([[[0., 0, 5, 0, 0]], [[0., 1, 2, 3, 4]]]), np.array([7, 8]), np.array([[[5., 0, 0, 0, 0]]]), "dtw")
    array([7])
    """
    if distance not in ("euclidean", "dtw"):
        raise TsfmError(f"distance is 'euclidean' or 'dtw', got {distance!r}")
    both = joined(x_train, x_test)
    if distance == "euclidean":
        both = resized(both)
    if normalise:
        both = z_normalised(both)
    train, test = both[: len(x_train)], both[len(x_train):]
    if distance == "euclidean":
        distances = euclidean(test, train)
    else:
        parts = observed_parts(both)
        radius = round(band * max(p.shape[1] for p in parts)) if isinstance(band, float) else band
        distances = dtw.matrix(parts[len(x_train):], parts[: len(x_train)], band=radius, n_jobs=n_jobs)
    return y_train[distances.argmin(1)]


def joined(*arrays: np.ndarray) -> np.ndarray:
    """One array [N, V, longest], the shorter ones filled up with NaN at the end."""
    longest = max(a.shape[-1] for a in arrays)
    return np.concatenate([np.pad(a, ((0, 0), (0, 0), (0, longest - a.shape[-1])), constant_values=np.nan) for a in arrays])
