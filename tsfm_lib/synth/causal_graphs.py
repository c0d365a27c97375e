"""The random choices and the arithmetic of CauKer's causal graphs, compiled. Every random number has an address.

Number `index` of (seed, graph, purpose, node) is a word of Philox-4x64-10 under the key (seed, graph) at the counter
(index // 4 + 1, node, purpose, realisation): the very word that numpy's Philox gives there. So what one node draws depends neither
on how much another has drawn nor on the settings of another step, and graphs can be made in any order.
"""

from typing import NamedTuple, no_type_check

import numba as nb
import numpy as np

GRAPH, KERNELS, MEANS, NOISE, ACTIVATIONS = range(5)                              # purposes: one sub-stream each
WHOLE = 2 ** 32                                                                   # the "node" of choices that concern a whole graph
MEAN_NAMES = ("zero", "linear", "exponential", "anomaly")
ACTIVATION_NAMES = ("linear", "relu", "sigmoid", "sin", "mod", "leaky_relu", "tanh", "softplus", "swish", "gaussian")
OFFICIAL_ACTIVATIONS = 6
_SLOT = 2 ** 20                                                                   # addresses set aside for one pick and its parameters


class Choice(NamedTuple):
    """Uniform choice among `total` entries, coupled to the choice from the full list.

    An entry of the full list of `len(at)` keeps its draw where it is still on offer (at[i] >= 0: its place on offer), so that two
    lists that overlap mostly pick the same; `extra` are the places of entries that the full list does not have.
    """
    at: np.ndarray
    offered: np.ndarray
    extra: np.ndarray
    total: int


class Rule(NamedTuple):
    """The settings as the compiled code reads them; `cauker.CauKerConfig` explains them."""
    nodes: int
    fewest_nodes: int
    max_parents: int
    depth: int
    roots: int
    max_kernels: int
    replacement: bool
    kernels: Choice
    means: Choice
    mean_names: np.ndarray
    mean_terms: int
    mean_scale: float
    line: tuple
    growth: tuple
    spikes: int
    spike: tuple
    activations: Choice
    activation_names: np.ndarray
    per_edge: bool
    weight: float
    bias: float
    gain: tuple
    shift: tuple
    modulus: tuple
    leak: tuple


def choice(offered: tuple[str, ...], full: tuple[str, ...]) -> Choice:
    """Which entries of `full` are in `offered`, each of these used once; the rest of `offered` is extra.

    >>> choice(("b", "x"), ("a", "b")).at.tolist()
    [-1, 0]
    """
    left, at = list(enumerate(offered)), np.full(len(full), -1)
    for i, name in enumerate(full):
        for pair in left:
            if pair[1] == name:
                at[i] = pair[0]
                left.remove(pair)
                break
    return Choice(at, at[at >= 0], np.array([i for i, _ in left], dtype=np.int64), len(offered))


# ---- numbers with an address -----------------------------------------------------------------------------------------------------

_U = np.uint64
_M0, _M1, _W0, _W1 = _U(0xD2E7470EE14C6C93), _U(0xCA5A826395121157), _U(0x9E3779B97F4A7C15), _U(0xBB67AE8584CAA73B)
_LOW, _32, _11 = _U(0xFFFFFFFF), _U(32), _U(11)


@no_type_check
@nb.njit(cache=True)
def _high(a, b):
    """The upper 64 bits of a product of 128."""
    a0, a1, b0, b1 = a & _LOW, a >> _32, b & _LOW, b >> _32
    middle = a1 * b0 + ((a0 * b0) >> _32)
    return a1 * b1 + (middle >> _32) + ((a0 * b1 + (middle & _LOW)) >> _32)


@no_type_check
@nb.njit(cache=True)
def uniform(seed, graph, purpose, node, index):
    """A number in [0, 1)."""
    c0, c1, c2, c3 = _U(index // 4 + 1), _U(node), _U(purpose), _U(0)
    k0, k1 = _U(seed), _U(graph)
    for _ in range(10):
        c0, c1, c2, c3 = _high(_M1, c2) ^ c1 ^ k0, _M1 * c2, _high(_M0, c0) ^ c3 ^ k1, _M0 * c0
        k0 += _W0
        k1 += _W1
    which = index % 4
    word = c0 if which == 0 else c1 if which == 1 else c2 if which == 2 else c3
    return (word >> _11) * 2.0 ** -53


@no_type_check
@nb.njit(cache=True)
def _between(seed, graph, purpose, node, index, span):
    return span[0] + (span[1] - span[0]) * uniform(seed, graph, purpose, node, index)


@no_type_check
@nb.njit(cache=True)
def _normal(seed, graph, purpose, node, index):
    u, w = uniform(seed, graph, purpose, node, 2 * index), uniform(seed, graph, purpose, node, 2 * index + 1)
    return np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * w)


@no_type_check
@nb.njit(cache=True)
def _choose(seed, graph, purpose, node, index, among):
    """One entry; takes the addresses index .. index + 15."""
    extra, full = len(among.extra), len(among.at)
    if extra and uniform(seed, graph, purpose, node, index) * among.total < extra:
        return among.extra[int(uniform(seed, graph, purpose, node, index + 1) * extra)]
    for k in range(2, 15):
        place = among.at[int(uniform(seed, graph, purpose, node, index + k) * full)]
        if place >= 0:
            return place
    return among.offered[int(uniform(seed, graph, purpose, node, index + 15) * len(among.offered))]


# ---- the choices of one graph ----------------------------------------------------------------------------------------------------

@no_type_check
@nb.njit(cache=True)
def structure(rule, seed, graph):
    """Parents of every node [V, most], how many, the layers of the nodes, and the nodes in the order in which they are kept."""
    count = rule.nodes
    if rule.fewest_nodes < count:
        count = rule.fewest_nodes + int(uniform(seed, graph, GRAPH, WHOLE, 0) * (count - rule.fewest_nodes + 1))
    parents, many = np.empty((count, rule.max_parents), np.int64), np.zeros(count, np.int64)
    layer, earlier, kept = np.zeros(count, np.int64), np.empty(count, np.int64), np.arange(count)
    for i in range(count):
        u = uniform(seed, graph, GRAPH, i, 0)
        if rule.depth == 0:
            available, near = i, 0
            many[i] = int(u * (min(i, rule.max_parents) + 1))
        elif i < rule.roots:
            continue
        else:                                       # layers of even size; `earlier` counts the nodes below, `near` where the last begins
            layer[i] = 1 + (i - rule.roots) * rule.depth // (count - rule.roots)
            available, near = 0, 0
            for j in range(i):
                available += layer[j] < layer[i]
                near += layer[j] < layer[i] - 1
            many[i] = 1 + int(u * min(available, rule.max_parents))
        for j in range(available):
            earlier[j] = j
        for j in range(many[i]):                    # without replacement; in layers the first comes from the layer before
            low = near if rule.depth and j == 0 else j
            k = low + int(uniform(seed, graph, GRAPH, i, 1 + j) * (available - low))
            earlier[j], earlier[k] = earlier[k], earlier[j]
            parents[i, j] = earlier[j]
        for j in range(many[i]):
            if rule.depth == 0:
                layer[i] = max(layer[i], layer[parents[i, j]] + 1)
    for j in range(count - 1):
        k = j + int(uniform(seed, graph, GRAPH, WHOLE, 1 + j) * (count - j))
        kept[j], kept[k] = kept[k], kept[j]
    return parents, many, layer, kept


@no_type_check
@nb.njit(cache=True)
def ancestors(parents, many, nodes):
    """True for `nodes` and all they descend from."""
    needed = np.zeros(len(many), np.bool_)
    for i in nodes:
        needed[i] = True
    for i in range(len(many) - 1, -1, -1):
        if needed[i]:
            for j in range(many[i]):
                needed[parents[i, j]] = True
    return needed


@no_type_check
@nb.njit(cache=True)
def kernels_of(rule, seed, graph, node):
    """Entries of the bank, how each is joined to those before it (1: x, 0: +), and a free parameter in [0, 1) for each."""
    count = 1 + int(uniform(seed, graph, KERNELS, node, 0) * rule.max_kernels)
    pick, times, free = np.empty(count, np.int64), np.zeros(count, np.int64), np.empty(count)
    for k in range(count):
        place, new = _SLOT * (k + 1), False
        free[k] = uniform(seed, graph, KERNELS, node, place)
        times[k] = k > 0 and uniform(seed, graph, KERNELS, node, place + 1) < 0.5
        while not new:
            place += 16
            pick[k] = _choose(seed, graph, KERNELS, node, place, rule.kernels)
            new = rule.replacement or not (pick[:k] == pick[k]).any()
    return pick, times, free


@no_type_check
@nb.njit(cache=True)
def means_of(rule, seed, graph, node, x):
    """The mean of a root, its terms (numbers of MEAN_NAMES), how each is joined to those before (1: x), and where spikes stand."""
    total, one, spiked = np.zeros(len(x)), np.empty(len(x)), np.zeros(len(x), np.bool_)
    terms, times = np.empty(rule.mean_terms, np.int64), np.zeros(rule.mean_terms, np.int64)
    for k in range(rule.mean_terms):
        place = _SLOT * (k + 1)
        terms[k] = name = rule.mean_names[_choose(seed, graph, MEANS, node, place, rule.means)]
        times[k] = k > 0 and uniform(seed, graph, MEANS, node, k) < 0.5
        span = rule.line if name == 1 else rule.growth
        a, b = _between(seed, graph, MEANS, node, place + 16, span), _between(seed, graph, MEANS, node, place + 17, span)
        for i in range(len(x)):
            one[i] = a * x[i] + b if name == 1 else a * np.exp(b * x[i]) if name == 2 else 0.0
        if name == 3:
            for s in range(1 + int(uniform(seed, graph, MEANS, node, place + 18) * rule.spikes)):
                at = int(uniform(seed, graph, MEANS, node, place + 20 + 2 * s) * len(x))
                one[at] += _between(seed, graph, MEANS, node, place + 21 + 2 * s, rule.spike)
                spiked[at] = True
        for i in range(len(x)):
            total[i] = total[i] * one[i] if times[k] else total[i] + one[i]
    for i in range(len(x)):
        total[i] *= rule.mean_scale
        spiked[i] = spiked[i] and total[i] != 0
    return total, terms, times, spiked


@no_type_check
@nb.njit(cache=True)
def activation_of(rule, seed, graph, node, slot):
    """The name (as a number) and two parameters of an activation; slot 0 is the node's own, 1 + p that of the edge from parent p."""
    place = _SLOT * (slot + 1)
    name = rule.activation_names[_choose(seed, graph, ACTIVATIONS, node, place, rule.activations)]
    a, b = 0.0, 0.0
    if name == 0:
        a = _between(seed, graph, ACTIVATIONS, node, place + 16, rule.gain)
        b = _between(seed, graph, ACTIVATIONS, node, place + 17, rule.shift)
    elif name == 4:
        a = _between(seed, graph, ACTIVATIONS, node, place + 18, rule.modulus)
    elif name == 5:
        a = _between(seed, graph, ACTIVATIONS, node, place + 19, rule.leak)
    return name, a, b


@no_type_check
@nb.njit(cache=True)
def _activate(rule, seed, graph, node, slot, z):
    """In place."""
    name, a, b = activation_of(rule, seed, graph, node, slot)
    for i in range(len(z)):
        t = z[i]
        if name == 0:
            z[i] = a * t + b
        elif name == 1:
            z[i] = max(t, 0.0)
        elif name == 2:
            z[i] = 1 / (1 + np.exp(-t))
        elif name == 3:
            z[i] = np.sin(t)
        elif name == 4:
            z[i] = t % a                            # in [0, a), as numpy's mod
        elif name == 5:
            z[i] = t if t > 0 else a * t
        elif name == 6:
            z[i] = np.tanh(t)
        elif name == 7:
            z[i] = max(t, 0.0) + np.log1p(np.exp(-abs(t)))
        elif name == 8:
            z[i] = t / (1 + np.exp(-t))
        else:
            z[i] = np.exp(-t * t)


@no_type_check
@nb.njit(cache=True)
def weights_of(rule, seed, graph, node, many):
    """Weights of the parents and, last, the bias."""
    out = np.empty(many + 1)
    for p in range(many):
        out[p] = rule.weight * _normal(seed, graph, ACTIVATIONS, node, _SLOT // 4 + p)
    out[many] = rule.bias * _normal(seed, graph, ACTIVATIONS, node, 0)
    return out


@no_type_check
@nb.njit(cache=True)
def propagate(rule, seed, graph, parents, many, needed, values):
    """Fills in the rows of `values` [V, L] that are no roots, in the order of the nodes: parents always stand before children."""
    length = values.shape[1]
    edge = np.empty(length)
    for i in range(len(many)):
        if many[i] == 0 or not needed[i]:
            continue
        weights, z = weights_of(rule, seed, graph, i, many[i]), values[i]
        for t in range(length):
            z[t] = weights[many[i]]
        for p in range(many[i]):
            for t in range(length):
                edge[t] = values[parents[i, p], t]
            if rule.per_edge:
                _activate(rule, seed, graph, i, 1 + p, edge)
            for t in range(length):
                z[t] += weights[p] * edge[t]
        if not rule.per_edge:
            _activate(rule, seed, graph, i, 0, z)
