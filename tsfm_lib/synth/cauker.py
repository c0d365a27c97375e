"""CauKer (arXiv 2508.02879): Gaussian processes with means at the roots of a random causal graph, pointwise functions at its other nodes.

The rule is the released code's, which differs from the paper's words; every choice is a field of `CauKerConfig`.

| point | paper | code | here | why |
|---|---|---|---|---|
| kernel bank | 36 kernels, "as Chronos" | Chronos' 33 | the 33 | no list of 36 exists |
| kernels of a root | without replacement (text), with (Alg. 1) | with | with; `replacement=False` | the executable rule |
| activation | one per edge (Alg. 1) | one per node, of the sum | per node; `activation_per="edge"` | the executable rule |
| number of nodes | uniform up to a maximum | fixed, 18 | fixed; `fewest_nodes` | the executable rule |
| length | interpolated to 512 | drawn at 512 | drawn; `native_length` interpolates | the executable rule |
| node order | - | shuffled labels | node i is the i-th in causal order | labels mean nothing: the same distribution |
| noise of roots | - | one unseeded stream, eigenvalues to 1e-7 | a stream per root, factors to 1e-14 | a seed is a corpus |
| seeds | - | seed + 100 g for graph g: seeds 100 apart repeat graphs | key (seed, g) | no two corpora overlap |
"""

import re
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from tsfm_lib.errors import TsfmError, nearest, whole
from tsfm_lib.synth import causal_graphs as graphs
from tsfm_lib.synth import kernels, toeplitz

Number = float | int

BANK = (*(f"period {p}" for p in kernels.PERIODS), *(f"dot {s}" for s in (0, 1, 10)), *(f"rbf {s}" for s in (0.1, 1, 10)),
        *(f"rq {a}" for a in (0.1, 1, 10)), "white 0.1", "white 1", "constant")
FAMILIES = {name: tuple(k for k in BANK if k.split()[0] == name) for name in ("period", "dot", "rbf", "rq", "white", "constant")}
GAP_KERNELS = ("matern 0.5 5", "matern 0.5 50", "matern 1.5 5", "matern 1.5 50", "fractional 0.7", "fractional 0.9",
               *("periods 3 400",) * 6)                       # what the bank lacks: red noise of all slopes, and periods in between
ACTIVATIONS = graphs.ACTIVATION_NAMES[:graphs.OFFICIAL_ACTIVATIONS]


@dataclass(frozen=True)
class FractionalNoise(kernels.Stationary):
    """Increments of fractional Brownian motion, one per point: white at hurst 1/2, of long memory above (power ~ f^(1 - 2 hurst))."""
    hurst: Number = 0.7

    def at(self, d: Float[np.ndarray, "length"]) -> Float[np.ndarray, "length"]:
        k = d / d[1]
        return 0.5 * ((k + 1) ** (2 * self.hurst) - 2 * k ** (2 * self.hurst) + np.abs(k - 1) ** (2 * self.hurst))


_FORMS = {                                                     # the word that names a kernel, its numbers, the kernel at a length
    "period": (1, lambda length, p: kernels.ExpSineSquared(1.0, p / length)),
    "periods": (2, lambda length, low, high: None),            # log-uniform: another kernel for every root
    "dot": (1, lambda length, s: kernels.DotProduct(s)),
    "rbf": (1, lambda length, s: kernels.RBF(s)),
    "rq": (1, lambda length, a: kernels.RationalQuadratic(1.0, a)),
    "white": (1, lambda length, w: kernels.White(w)),
    "constant": (0, lambda length: kernels.Constant()),
    "matern": (2, lambda length, nu, scale: kernels.Matern(scale / length, nu)),
    "fractional": (1, lambda length, hurst: FractionalNoise(hurst)),
}


def _numbers(entry: str) -> tuple[str, list[float]]:
    word, *numbers = entry.split()
    try:
        if len(numbers) == _FORMS[word][0]:
            return word, [float(v) for v in numbers]
    except (KeyError, ValueError):
        pass
    raise TsfmError(f"expected a kernel like {', '.join(map(repr, GAP_KERNELS[4:7] + BANK[20:28:3]))}, got {entry!r}{nearest(entry, BANK)}")


def kernel(entry: str, length: int) -> kernels.Kernel | None:
    """The kernel an entry of the bank stands for; None for "periods LOW HIGH", which draws a period for every root.

    Periods and the scales of Matern kernels are in points, other scales in lengths of the window, as in the released bank.

    >>> kernel("period 24", 512)
    ExpSineSquared(length_scale=1.0, periodicity=0.046875)
    """
    word, numbers = _numbers(entry)
    return _FORMS[word][1](length, *numbers)


@dataclass(frozen=True)
class CauKerConfig:
    """Every choice of the generator; the defaults are those of the released command line.

    >>> CauKerConfig().expected_roots().__round__(2)
    4.16
    """
    # the graph: node i has uniform{0 .. min(i, max_parents)} parents among the nodes before it
    nodes: int = 18
    fewest_nodes: int | None = None                            # number of nodes uniform{fewest_nodes .. nodes} instead (paper's text)
    max_parents: int = 6
    depth: int | None = None                                   # layered instead: a path of exactly this many edges to the last layer,
    root_share: Number | None = None                           # this share of the nodes are roots (default: the expected share without)
    # kernels of a root: uniform{1 .. max_kernels}, joined from left to right by + or x with even odds
    bank: tuple[str, ...] = BANK
    max_kernels: int = 7
    replacement: bool = True
    # its mean: terms drawn with replacement, joined by + or x with even odds
    means: tuple[str, ...] = graphs.MEAN_NAMES
    mean_terms: int = 2
    mean_scale: Number = 1.0                                   # not in the code: amplitude of the means for ablations
    line: tuple[Number, Number] = (-1.0, 1.0)                  # slope and level
    growth: tuple[Number, Number] = (0.5, 1.5)                 # size and rate of the exponential
    spikes: int = 5                                            # at most
    spike: tuple[Number, Number] = (-5.0, 5.0)
    # other nodes: an activation of the weighted sum of the parents and a bias
    activations: tuple[str, ...] = ACTIVATIONS
    activation_per: str = "node"                               # or "edge": of every parent, before the sum
    weight: Number = 1.0                                       # standard deviations
    bias: Number = 1.0
    gain: tuple[Number, Number] = (0.5, 2.0)                   # of "linear"
    shift: tuple[Number, Number] = (-1.0, 1.0)
    modulus: tuple[Number, Number] = (1.0, 5.0)                # of "mod"
    leak: tuple[Number, Number] = (0.01, 0.3)                  # of "leaky_relu"
    # what comes out
    native_length: int | None = None                           # drawn at this length and interpolated linearly
    least_std: Number = 0.0                                    # nodes that vary less are passed over while the graph has others
    realisation: int = 0                                       # another one: the same graphs, kernels and means with other noise

    def __post_init__(self):
        for name, least in (("nodes", 1), ("max_parents", 0), ("max_kernels", 1), ("mean_terms", 1), ("spikes", 1), ("realisation", 0)):
            whole(getattr(self, name), name, least)
        for name, least in (("fewest_nodes", 1), ("depth", 1), ("native_length", 2)):
            if getattr(self, name) is not None:
                whole(getattr(self, name), name, least)
        for name, known in (("means", graphs.MEAN_NAMES), ("activations", graphs.ACTIVATION_NAMES), ("bank", None)):
            offered = getattr(self, name)
            if not isinstance(offered, tuple) or not offered:
                raise TsfmError(f"{name} should be a tuple with at least one name, got {offered!r}")
            for entry in offered:
                if known is None:
                    _numbers(entry)
                elif entry not in known:
                    raise TsfmError(f"{name} should name some of {', '.join(known)}, got {entry!r}{nearest(str(entry), known)}")
        for name in ("line", "growth", "spike", "gain", "shift", "modulus", "leak"):
            low, high = getattr(self, name)
            if not low <= high or (name == "modulus" and low <= 0):
                raise TsfmError(f"{name} should be a range (low, high){' above 0' * (name == 'modulus')}, got {(low, high)}")
        if self.activation_per not in ("node", "edge"):
            raise TsfmError(f"activation_per should be 'node' or 'edge', got {self.activation_per!r}")
        if not self.replacement and self.max_kernels > len(self.bank):
            raise TsfmError(f"without replacement at most the {len(self.bank)} kernels of the bank can be drawn, got {self.max_kernels}")
        if self.smallest > self.nodes:
            raise TsfmError(f"fewest_nodes should be at most nodes, {self.nodes}, got {self.fewest_nodes}")
        if self.depth is not None and (self.max_parents < 1 or self.smallest - self.roots < self.depth):
            raise TsfmError(f"{self.depth} layers below {self.roots} roots need max_parents >= 1 and {self.depth + self.roots} nodes, got "
                            f"{self.max_parents} and {self.smallest}: pass more nodes, less depth or a smaller root_share")

    @property
    def smallest(self) -> int:
        return self.nodes if self.fewest_nodes is None else self.fewest_nodes

    @property
    def roots(self) -> int:
        """Number of roots in a layered graph."""
        share = self.expected_roots() / self.nodes if self.root_share is None else self.root_share
        return max(1, round(share * self.nodes))

    def expected_roots(self) -> float:
        """Nodes without parents in a graph without layers, on average."""
        return sum(1 / (min(i, self.max_parents) + 1) for i in range(self.nodes))

    def to_dict(self) -> dict:
        """Plain lists and numbers, for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict) -> "CauKerConfig":
        """The inverse of `to_dict`; fields that are left out keep their defaults.

        >>> CauKerConfig.from_dict(CauKerConfig(depth=4).to_dict()) == CauKerConfig(depth=4)
        True
        """
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                raise TsfmError(f"CauKerConfig has no field {name!r}, it has {', '.join(known)}{nearest(name, known)}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


VARIANTS = {
    "cauker": CauKerConfig(),
    "paper": CauKerConfig(fewest_nodes=4, replacement=False, activation_per="edge"),                 # the text where it can be run
    "colab": CauKerConfig(nodes=20, max_parents=4, max_kernels=3, bank=BANK[:12] + BANK[21:]),      # the released notebook; keeps 10
    "v2": CauKerConfig(bank=(*BANK[:-1], "matern 0.5 1", "matern 1.5 5"),                            # its sampler's flaws left out
                       activations=("sigmoid", "sin", "mod", "tanh", "softplus", "swish", "gaussian")),
    "repaired": CauKerConfig(bank=BANK + GAP_KERNELS),
    "mean-kernelsynth": CauKerConfig(max_parents=0),           # every node a root: the same roots as CauKer's, without the graph
    "kernelsynth": CauKerConfig(max_parents=0, means=("zero",)),
    "scm": CauKerConfig(bank=("white 1",), max_kernels=1, means=("zero",)),                          # the graph without time
}


# ---- making series ---------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Tables:
    rule: graphs.Rule
    lags: np.ndarray                                           # [bank + max_kernels, L]: spare rows for periods drawn at a root
    kind: np.ndarray
    level: np.ndarray
    ranges: dict[int, tuple[float, float]]                     # entries "periods LOW HIGH"
    x: np.ndarray


@lru_cache(16)
def _tables(config: CauKerConfig, length: int) -> _Tables:
    """The settings as the compiled code reads them, and the bank evaluated once."""
    some = lambda names, full: (graphs.choice(names, full), np.array([full.index(n) for n in names]))
    span = lambda pair: (float(pair[0]), float(pair[1]))
    rule = graphs.Rule(
        config.nodes, config.smallest, config.max_parents, config.depth or 0, config.roots if config.depth else 0,
        config.max_kernels, config.replacement, graphs.choice(config.bank, BANK), *some(config.means, graphs.MEAN_NAMES),
        config.mean_terms, float(config.mean_scale), span(config.line), span(config.growth), config.spikes, span(config.spike),
        *some(config.activations, graphs.ACTIVATION_NAMES), config.activation_per == "edge", float(config.weight), float(config.bias),
        span(config.gain), span(config.shift), span(config.modulus), span(config.leak))
    rows = len(config.bank) + config.max_kernels
    lags, kind, level, ranges = np.zeros((rows, length)), np.full(rows, toeplitz.STATIONARY), np.zeros(rows), {}
    for i, entry in enumerate(config.bank):
        match kernel(entry, length):
            case kernels.DotProduct(sigma):
                kind[i], level[i] = toeplitz.DOT, sigma ** 2
            case kernels.White(noise):
                kind[i], level[i] = toeplitz.WHITE, noise
            case None:
                ranges[i] = tuple(_numbers(entry)[1])
            case stationary:
                lags[i] = stationary.structure(length).lags[0]
    return _Tables(rule, lags, kind, level, ranges, kernels.grid(length))


class _Maker:
    """Makes the graphs of one corpus, one after the other. Not to be shared by threads: it works in its own buffers."""

    def __init__(self, config: CauKerConfig, length: int, seed: int):
        self.config, self.seed, self.out_length = config, seed, length
        self.length = config.native_length or length
        self.tables = _tables(replace(config, realisation=0), self.length)                # the same tables for every realisation
        self.lags = self.tables.lags.copy() if self.tables.ranges else self.tables.lags
        self.work = toeplitz.room(self.length)
        self.bits = np.random.Philox(key=np.array([seed, 0], np.uint64))
        self.normal = np.random.Generator(self.bits).standard_normal
        self.state = self.bits.state

    def noise(self, graph: int, node: int, rows: int) -> np.ndarray:
        """Normal numbers of the sub-stream of one root."""
        self.state["state"]["key"][1] = graph
        self.state["state"]["counter"][:] = 0, node, graphs.NOISE, self.config.realisation
        self.bits.state = self.state
        return self.normal((rows, self.length))

    def kernels(self, graph: int, node: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of the table, joints and periods (0 where none is drawn) of a root."""
        pick, times, free = graphs.kernels_of(self.tables.rule, self.seed, graph, node)
        period = np.zeros(len(pick))
        for k, entry in enumerate(pick.tolist()) if self.tables.ranges else ():
            if entry in self.tables.ranges:
                low, high = self.tables.ranges[entry]
                period[k] = low * (high / low) ** free[k]
                self.lags[-1 - k] = kernels.ExpSineSquared(1.0, period[k] / self.length).at(self.tables.x)
                pick[k] = len(self.lags) - 1 - k
        return pick, times, period

    def structure(self, graph: int):
        return graphs.structure(self.tables.rule, self.seed, graph)

    def values(self, graph: int, parents: np.ndarray, many: np.ndarray, needed: np.ndarray) -> np.ndarray:
        """The nodes that are needed, as rows of [V, L]."""
        tables, out = self.tables, np.zeros((len(many), self.length))
        for i in np.flatnonzero(needed & (many == 0)).tolist():
            pick, times, _ = self.kernels(graph, i)
            z = self.noise(graph, i, toeplitz.rows(tables.kind, pick))
            toeplitz.draw(self.lags, tables.kind, tables.level, pick, times, z, self.work, out[i])
            out[i] += graphs.means_of(tables.rule, self.seed, graph, i, tables.x)[0]
        graphs.propagate(tables.rule, self.seed, graph, parents, many, needed, out)
        return out

    def fit(self, values: np.ndarray) -> np.ndarray:
        """Rows at the length asked for."""
        if self.length == self.out_length:
            return values
        return np.stack([np.interp(kernels.grid(self.out_length), self.tables.x, row) for row in values])

    def kept(self, order: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The order in which nodes are kept: those that vary too little come last."""
        return order[np.argsort(values[order].std(1) < self.config.least_std, kind="stable")] if self.config.least_std else order

    def series(self, graph: int, count: int) -> np.ndarray:
        """The first `count` kept nodes."""
        parents, many, _, order = self.structure(graph)
        needed = graphs.ancestors(parents, many, order if self.config.least_std else order[:count])
        values = self.values(graph, parents, many, needed)
        return self.fit(values[self.kept(order, values)[:count]])


def generate(n: int, length: int = 512, seed: int = 0, config: CauKerConfig = CauKerConfig(), per_graph: int = 4,  # noqa: B008
             start: int = 0) -> Float32[np.ndarray, "n length"]:
    """Series start .. start + n - 1 of a corpus, as drawn (neither centred nor scaled): `per_graph` nodes of each graph in a row.

    Any part of a corpus can be made alone, and corpora of configurations that differ in one step share the numbers of the others.

    >>> a, b = generate(6, length=64), generate(3, length=64, start=3)
    >>> a.shape, bool((a[3:] == b).all())
    ((6, 64), True)
    """
    maker = _checked(n, length, seed, config, per_graph, start)
    out = np.empty((n, length), np.float32)
    for graph in range(start // per_graph, -(-(start + n) // per_graph)):
        first = graph * per_graph - start
        low, high = max(first, 0), min(first + per_graph, n)
        out[low:high] = maker.series(graph, per_graph)[low - first:high - first]
    return out


def multivariate(n: int, length: int = 512, seed: int = 0, config: CauKerConfig = CauKerConfig(), variates: int = 4,  # noqa: B008
                 start: int = 0) -> Float32[np.ndarray, "n variates length"]:
    """Samples of several channels: the nodes that `generate` writes one after the other stay together.

    >>> multivariate(2, length=64, variates=3).shape
    (2, 3, 64)
    """
    return generate(n * variates, length, seed, config, variates, start * variates).reshape(n, variates, length)


def _checked(n: int, length: int, seed: int, config: CauKerConfig, per_graph: int, start: int) -> _Maker:
    for value, name, least in ((n, "n", 0), (length, "length", 2), (seed, "seed", 0), (per_graph, "per_graph", 1), (start, "start", 0)):
        whole(value, name, least)
    if per_graph > config.smallest:
        raise TsfmError(f"a graph of {config.smallest} nodes cannot give {per_graph} series: pass a smaller per_graph or more nodes")
    if seed >= 2 ** 63:
        raise TsfmError(f"expected a seed below 2^63, got {seed}: pass a smaller one")
    return _Maker(config, length, seed)


# ---- one graph in words ----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Graph:
    """All of one graph: what was drawn, and every node as a series. Series s of a corpus is node `kept[s % per_graph]`."""
    index: int
    parents: tuple[tuple[int, ...], ...]
    layer: Int[np.ndarray, "nodes"]                            # edges on the longest path from a root
    kept: tuple[int, ...]                                      # all nodes in the order in which they are kept
    kernels: tuple[str, ...]                                   # of roots, else ""
    means: tuple[str, ...]
    activations: tuple[str, ...]                               # of other nodes (joined by commas where edges have their own), else ""
    weights: tuple[tuple[float, ...], ...]                     # of the parents and, last, the bias
    spikes: Bool[np.ndarray, "nodes length"]                   # where the mean of a root has an anomaly
    mean: Float[np.ndarray, "nodes length"]                    # of roots, at the length of drawing
    values: Float[np.ndarray, "nodes length"]

    @property
    def roots(self) -> tuple[int, ...]:
        return tuple(i for i, p in enumerate(self.parents) if not p)

    @property
    def depth(self) -> int:
        return int(self.layer.max())

    def ancestors(self, node: int) -> tuple[int, ...]:
        """The node and all it depends on, in causal order."""
        found, waiting = set(), [node]
        while waiting:
            found.add(i := waiting.pop())
            waiting += [p for p in self.parents[i] if p not in found]
        return tuple(sorted(found))


def _joined(terms: list[str], times: np.ndarray) -> str:
    """Left to right, without precedence.

    >>> _joined(["a", "b", "c"], np.array([0, 0, 1]))
    '(a + b) * c'
    """
    out = terms[0]
    for term, by in zip(terms[1:], times[1:]):
        out = (f"({out}) * {term}" if " + " in re.sub(r"\(.*\)", "", out) else f"{out} * {term}") if by else f"{out} + {term}"
    return out


def graph(index: int, length: int = 512, seed: int = 0, config: CauKerConfig = CauKerConfig()) -> Graph:  # noqa: B008
    """What graph `index` of a corpus is made of.

    >>> g, series = graph(5, length=64), generate(4, length=64, start=20)
    >>> bool((g.values[list(g.kept[:4])].astype(np.float32) == series).all())
    True
    """
    maker = _checked(1, length, seed, config, 1, index)
    rule, x = maker.tables.rule, maker.tables.x
    parents, many, layer, order = maker.structure(index)
    values = maker.values(index, parents, many, np.ones(len(many), bool))
    words, means, activations, weights = [[""] * len(many) for _ in range(4)]
    spikes, mean = np.zeros(values.shape, bool), np.zeros(values.shape)
    for i, count in enumerate(many.tolist()):
        weights[i] = tuple(graphs.weights_of(rule, seed, index, i, count).tolist()) if count else ()
        if count:
            slots = range(1, 1 + count) if rule.per_edge else (0,)
            drawn = [graphs.activation_of(rule, seed, index, i, slot)[0] for slot in slots]
            activations[i] = ", ".join(graphs.ACTIVATION_NAMES[name] for name in drawn)
            continue
        pick, times, period = maker.kernels(index, i)
        words[i] = _joined([f"period {p:g}" if p else config.bank[k] for k, p in zip(pick, period)], times)
        mean[i], terms, times, spikes[i] = graphs.means_of(rule, seed, index, i, x)
        means[i] = _joined([graphs.MEAN_NAMES[name] for name in terms], times)
    return Graph(index, tuple(tuple(row[:count].tolist()) for row, count in zip(parents, many)), layer,
                 tuple(maker.kept(order, values).tolist()), tuple(words), tuple(means), tuple(activations), tuple(weights),
                 spikes, mean, maker.fit(values))
