"""KernelSynth (arXiv 2403.07815): every series a draw from its own random composite of the 33 kernels of the bank."""

import numpy as np
from jaxtyping import Float32

from tsfm_lib.errors import TsfmError
from tsfm_lib.synth import kernels


def stream(seed: int, index: int) -> np.random.Generator:
    """The generator of one series: a counter-based stream with the key (seed, index), so any sub-range can be made alone.

    >>> bool(stream(1, 7).random() == stream(1, 7).random()), bool(stream(1, 7).random() == stream(1, 8).random())
    (True, False)
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))


def generate(n: int, length: int = 1024, seed: int = 0, max_kernels: int = 5, start: int = 0,
             per_kernel: int = 1) -> Float32[np.ndarray, "n length"]:
    """Series start .. start + n - 1 of the corpus `seed`, as drawn (neither centred nor scaled).

    per_kernel: how many neighbours share a composite. 1 is KernelSynth; more is faster and less diverse, another corpus.

    >>> a, b = generate(4, length=64, seed=1), generate(2, length=64, seed=1, start=2)
    >>> bool((a[2:] == b).all())
    True
    """
    if min(n, start, seed) < 0 or per_kernel < 1:
        raise TsfmError(f"expected n, start, seed >= 0 and per_kernel >= 1, got {n}, {start}, {seed}, {per_kernel}: pass such numbers")
    bank = kernels.bank(length)
    out = np.empty((n, length), np.float32)
    for group in range(start // per_kernel, -(-(start + n) // per_kernel)):
        rng = stream(seed, group)
        drawn = kernels.sample(kernels.compose(bank, rng, max_kernels), per_kernel, length, rng)
        first = group * per_kernel - start
        out[max(first, 0):first + per_kernel] = drawn[max(-first, 0):n - first]
    return out
