"""Chaotic and forced oscillators, integrated by the classical Runge-Kutta method of order four for many series at once."""

from typing import no_type_check

import numba as nb
import numpy as np
from jaxtyping import Float, Float32

from tsfm_lib.errors import TsfmError, nearest
from tsfm_lib.synth import shapes

# name: (step of one sample at speed 1, usual parameters). Forced systems keep their own clock as third state.
SYSTEMS = {
    "lorenz": (0.06, (10.0, 28.0, 8 / 3)),                  # sigma, rho, beta
    "roessler": (0.3, (0.2, 0.2, 5.7)),                     # a, b, c
    "van_der_pol": (0.2, (2.5, 0.8, 0.7)),                  # damping mu, forcing amplitude and frequency
    "duffing": (0.2, (0.2, 0.35, 1.2)),                     # damping, forcing amplitude and frequency
}


@no_type_check
@nb.njit(cache=True)
def _slope(system, a, b, c, p):
    if system == 0:
        return p[0] * (b - a), a * (p[1] - c) - b, a * b - p[2] * c
    if system == 1:
        return -b - c, a + p[0] * b, p[1] + c * (a - p[2])
    if system == 2:
        return b, p[0] * (1.0 - a * a) * b - a + p[1] * np.sin(p[2] * c), 1.0
    return b, a - a * a * a - p[0] * b + p[1] * np.cos(p[2] * c), 1.0


@no_type_check
@nb.njit(cache=True)
def _integrate(system, state, parameters, step, substeps, length):
    n = len(state)
    out = np.empty((n, length, 3))
    for i in range(n):
        a, b, c = state[i]
        p, h = parameters[i], step[i] / substeps
        for t in range(length):
            out[i, t, 0], out[i, t, 1], out[i, t, 2] = a, b, c
            for _ in range(substeps):
                a1, b1, c1 = _slope(system, a, b, c, p)
                a2, b2, c2 = _slope(system, a + h / 2 * a1, b + h / 2 * b1, c + h / 2 * c1, p)
                a3, b3, c3 = _slope(system, a + h / 2 * a2, b + h / 2 * b2, c + h / 2 * c2, p)
                a4, b4, c4 = _slope(system, a + h * a3, b + h * b3, c + h * c3, p)
                a += h / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
                b += h / 6 * (b1 + 2 * b2 + 2 * b3 + b4)
                c += h / 6 * (c1 + 2 * c2 + 2 * c3 + c4)
                a, b = min(max(a, -1e3), 1e3), min(max(b, -1e3), 1e3)
                if system < 2:
                    c = min(max(c, -1e3), 1e3)
    return out


def trajectories(system: str, state: Float[np.ndarray, "n 3"], parameters: Float[np.ndarray, "n 3"], step: Float[np.ndarray, "n"],
                 length: int, substeps: int = 3) -> Float[np.ndarray, "n length 3"]:
    """Paths from `state`, one point every `step`, each step made in `substeps` Runge-Kutta steps.

    Van der Pol's oscillator without damping and forcing is a plain one: after a full turn it is back.

    >>> turn = trajectories("van_der_pol", np.array([[1.0, 0, 0]]), np.zeros((1, 3)), np.array([2 * np.pi / 100]), 101)
    >>> abs(turn[0, 100, :2] - turn[0, 0, :2]).max() < 1e-6
    np.True_
    """
    if system not in SYSTEMS:
        raise TsfmError(f"expected one of {', '.join(SYSTEMS)}, got {system!r}{nearest(system, SYSTEMS)}")
    return _integrate(list(SYSTEMS).index(system), state, parameters, step, substeps, length)


def chaos(n: int, length: int, rng: np.random.Generator) -> Float32[np.ndarray, "n length"]:
    """One coordinate of the four systems, equally often: speeds log-uniform .15 to 1.2, parameters varied by 20 %, a little noise."""
    kind, out = rng.integers(0, len(SYSTEMS), n), np.empty((n, length), np.float32)
    for k, (name, (step, usual)) in enumerate(SYSTEMS.items()):
        rows = np.flatnonzero(kind == k)
        state = rng.normal(1.0, 0.5, (len(rows), 3))
        parameters = np.array(usual) * rng.uniform(0.8, 1.2, (len(rows), 3))
        steps = step * shapes.log_uniform(rng, 0.15, 1.2, len(rows))[:, 0].astype(float)
        path = trajectories(name, state, parameters, steps, length + 60)[:, 60:]              # the first points lead to the attractor
        seen = rng.integers(0, 3 if k < 2 else 2, len(rows))
        out[rows] = np.take_along_axis(path, seen[:, None, None], 2)[..., 0]
    return shapes.zscore(out) + shapes.log_uniform(rng, 0.002, 0.1, n) * shapes.normals(rng, n, length)
