"""Surrogates: other series with the same periodogram. What survives them is a matter of the spectrum alone."""

import numpy as np
from jaxtyping import Float


def with_other_phases(x: Float[np.ndarray, "N T"], rng: np.random.Generator) -> Float[np.ndarray, "N T"]:
    """Series of the same periodogram whose phases are drawn at random.

    >>> x = np.random.default_rng(0).normal(size=(2, 8))
    >>> np.allclose(*(np.abs(np.fft.rfft(series)) for series in (x, with_other_phases(x, np.random.default_rng(1)))))
    True
    """
    spectrum = np.fft.rfft(x)
    turn = np.exp(2j * np.pi * rng.random(spectrum.shape))
    turn[:, 0] = 1
    turn[:, -1] = np.where(x.shape[-1] % 2 == 0, 1, turn[:, -1])        # the fastest frequency of an even length has no phase
    return np.fft.irfft(spectrum * turn, x.shape[-1])
