"""Recurrences over time, compiled once by numba and kept in its cache: rows are series, every row stands alone.

`no_type_check`: the shape checks of the test suite wrap every function, and numba cannot compile a wrapped one.
"""

from typing import no_type_check

import numba as nb
import numpy as np


@no_type_check
@nb.njit(cache=True)
def filter_arma(shocks, phi, theta):
    """x_t = phi_1 x_{t-1} + phi_2 x_{t-2} + e_t + theta e_{t-1}, from rest; shocks [n, T], phi [n, 2], theta [n]."""
    n, length = shocks.shape
    out = np.empty((n, length), np.float32)
    for i in range(n):
        last, before, shock_before = 0.0, 0.0, 0.0
        for t in range(length):
            shock = np.float64(shocks[i, t])
            x = phi[i, 0] * last + phi[i, 1] * before + shock + theta[i] * shock_before
            last, before, shock_before = x, last, shock
            out[i, t] = x
    return out


@no_type_check
@nb.njit(cache=True)
def interpolate(knots, pieces, smooth, length):
    """Each row of knots spread evenly over `length` points: straight lines, or smooth steps 3f^2 - 2f^3."""
    n = len(knots)
    out = np.empty((n, length), np.float32)
    for i in range(n):
        rate = pieces[i] / max(length - 1, 1)
        for t in range(length):
            u = t * rate
            j = min(int(u), pieces[i] - 1)
            f = u - j
            if smooth[i]:
                f = f * f * (3.0 - 2.0 * f)
            out[i, t] = knots[i, j] * (1.0 - f) + knots[i, j + 1] * f
    return out


@no_type_check
@nb.njit(cache=True)
def harmonics(cos, sin, a, b):
    """sum_h a_h cos(h phase) + b_h sin(h phase) by turning the first harmonic again and again: [n, T] from a, b [n, H]."""
    n, length = cos.shape
    out = np.zeros((n, length), np.float32)
    c, s = np.empty(length, np.float32), np.empty(length, np.float32)
    for i in range(n):
        row, c1, s1 = out[i], cos[i], sin[i]
        c[:], s[:] = c1, s1
        for h in range(a.shape[1]):
            if h:
                for t in range(length):
                    turned = c[t] * c1[t] - s[t] * s1[t]
                    s[t] = s[t] * c1[t] + c[t] * s1[t]
                    c[t] = turned
            if a[i, h] != 0.0 or b[i, h] != 0.0:
                for t in range(length):
                    row[t] += a[i, h] * c[t] + b[i, h] * s[t]
    return out


@no_type_check
@nb.njit(cache=True)
def repeat(profile, other, period, start, rest_days, day_gain, gain, level, length):
    """Cycles of `profile` [n, G] with a gain and a level each; of every seven, the first `rest_days` follow `other`.

    start: phase at t = 0 in cycles (0..7); day_gain [n, 7]; gain, level [n, C] with C more than the number of cycles.
    """
    n, grid = profile.shape
    out = np.empty((n, length), np.float32)
    for i in range(n):
        for t in range(length):
            u = start[i] + t / period[i]
            cycle = int(u)
            g = min(int((u - cycle) * grid), grid - 1)
            day = cycle % 7
            value = other[i, g] if day < rest_days[i] else profile[i, g]
            out[i, t] = value * day_gain[i, day] * gain[i, cycle] + level[i, cycle]
    return out


@no_type_check
@nb.njit(cache=True)
def ets(shocks, alpha, beta, gamma, phi, slope, season, period):
    """Additive innovations state space: damped level and slope, `period` seasonal states; shocks [n, T], season [n, M]."""
    n, length = shocks.shape
    out = np.empty((n, length), np.float32)
    states = season.copy()
    for i in range(n):
        level, b = 0.0, slope[i]
        for t in range(length):
            j = t % period[i]
            e = np.float64(shocks[i, t])
            damped = phi[i] * b
            out[i, t] = level + damped + states[i, j] + e
            level = level + damped + alpha[i] * e
            b = damped + beta[i] * e
            if period[i] > 1:
                states[i, j] += gamma[i] * e
    return out


@no_type_check
@nb.njit(cache=True)
def crop(halves, table, rows, start, step, out, into):
    """Row `rows[k]` of a float16 pool (as bits) read at start + step * t, linearly interpolated and z-scored, to out[into[k]].

    numba has no float16 on the CPU: `table` holds the 65,536 values. A crop without spread becomes zeros.
    """
    length = out.shape[1]
    last = halves.shape[1] - 1
    for k in range(len(rows)):
        source, target = halves[rows[k]], out[into[k]]
        total = 0.0
        if step[k] == 1.0:
            first = int(start[k])
            for t in range(length):
                target[t] = table[source[first + t]]
                total += target[t]
        else:
            for t in range(length):
                u = start[k] + step[k] * t
                j = min(int(u), last)
                f = np.float32(u - j)
                value = table[source[j]]
                value += f * (table[source[min(j + 1, last)]] - value)
                target[t] = value
                total += value
        mean, square = np.float32(total / length), 0.0
        for t in range(length):
            target[t] -= mean
            square += target[t] * target[t]
        sd = np.sqrt(square / length)
        scale = np.float32(1.0 / sd) if sd > 1e-4 else np.float32(0.0)
        for t in range(length):
            target[t] *= scale
