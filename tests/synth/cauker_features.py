"""What 28 numbers say about a series: the ones by which the generator is held against the released one."""

import numpy as np

LAGS = (1, 2, 4, 8, 16, 32, 64, 128)
BANDS = (1, 2, 4, 8, 16, 32, 64, 128, 257)                      # cycles in the window, by octaves


def features(x):
    """[n, L] -> {name: [n]}; the shape of a constant series is set to 0."""
    x = np.asarray(x, np.float64)
    centre, spread = x.mean(1, keepdims=True), x.std(1, keepdims=True)
    constant = spread[:, 0] <= 1e-6 * (1 + np.abs(centre[:, 0]))
    z = (x - centre) / np.where(spread > 0, spread, 1)
    shape = lambda values: np.where(constant, 0.0, values)
    power = np.abs(np.fft.rfft(z)[:, 1:]) ** 2
    power /= np.maximum(power.sum(1, keepdims=True), 1e-300)
    reached, cycles = power.cumsum(1), 1 + np.arange(power.shape[1])
    out = {
        "mean": centre[:, 0],
        "log10_std": np.log10(spread[:, 0] + 1e-12),
        "log10_absmax": np.log10(np.abs(x).max(1) + 1e-12),
        "const_flag": 1.0 * constant,
        "unique_frac": np.array([np.unique(row).size for row in x]) / x.shape[1],
        "skew": shape((z ** 3).mean(1)),
        "kurtosis": shape((z ** 4).mean(1) - 3),
        "diff_std_ratio": shape((z[:, 1:] - z[:, :-1]).std(1)),
        "spectral_centroid": power @ cycles,
        "spectral_entropy": -(power * np.log(power + 1e-300)).sum(1) / np.log(len(cycles)),
        "spec_q50": 1.0 + (reached < 0.5).sum(1),
        "spec_q90": 1.0 + (reached < 0.9).sum(1),
    }
    for lag in LAGS:
        out[f"acf{lag}"] = shape((z[:, lag:] * z[:, :-lag]).mean(1))
    for low, high in zip(BANDS, BANDS[1:]):
        out[f"band{low}_{high - 1}"] = power[:, low - 1:high - 1].sum(1)
    return out
