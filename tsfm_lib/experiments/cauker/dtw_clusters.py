"""Trees of series under dynamic time warping (C5): how good a tree, what its clusters share, and whether it finds planted anomalies.

Protocol, which the paper does not give: series z-scored, constant ones left out; DTW without a band, in single precision for sweeps;
average linkage. Series come in fours from one graph, as in the released corpora. *Cophenetic correlation* says how faithfully the tree
keeps the distances, not whether there are clusters. A cut is a partition into a tenth as many clusters as series, unless known groups
say how many.

An anomaly is *planted* where a spike of a mean function stands out: the same series without spikes (same graph, kernels, noise) differs at
some point by at least three of its own standard deviations. It is *found* where its cluster has fewer members than a graph has series.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score, average_precision_score, silhouette_score

from tsfm_lib.evaluate import dtw
from tsfm_lib.evaluate.neighbours import z_normalised
from tsfm_lib.experiments.cauker.generator import LENGTH, archive, varies
from tsfm_lib.synth import cauker
from tsfm_lib.synth.cauker import FAMILIES, VARIANTS, CauKerConfig
from tsfm_lib.synth.surrogates import with_other_phases

PER_GRAPH = 4
VISIBLE = 3.0                   # standard deviations of the series without its spikes

ONE_KERNEL = CauKerConfig(max_parents=0, max_kernels=1, means=("zero",), bank=("period 24", "dot 1", "rbf 0.1", "rq 0.1", "white 1"))
"""The easiest question about kernels: every series a draw from one of five that look nothing like each other."""

MADE = {**{name: VARIANTS[name] for name in ("cauker", "mean-kernelsynth", "kernelsynth", "scm")}, "one-kernel": ONE_KERNEL}
SETS = ("cauker", "phase-randomised", "kernelsynth", "mean-kernelsynth", "scm", "one-kernel", "real")
WAYS = {"": {}, "raw": {"normalise": False}, "band": {"band": LENGTH // 10}}


@dataclass(frozen=True)
class Labelled:
    """Series and what is known about them: groups by name, and where known the size of the largest planted spike."""
    series: Float[np.ndarray, "N T"]
    groups: dict[str, np.ndarray]
    spike: Float[np.ndarray, "N"] | None = None


# -- series with known origin --


def family(kernels: Sequence[str]) -> str:
    """The family that most kernels of these roots belong to.

    >>> family(["period 24 + rbf 1", "(period 7 + period 4) * dot 10"])
    'period'
    """
    words = re.findall("|".join(FAMILIES), " ".join(kernels))
    return Counter(words).most_common(1)[0][0]


def grown(config: CauKerConfig, n: int, seed: int, length: int = LENGTH) -> Labelled:
    """n series of a corpus, the bytes of `cauker.generate`, and where they come from."""
    series, groups, spike = [], {"graph": [], "node": [], "kernel family": []}, []
    calm = replace(config, spike=(0.0, 0.0))
    for index in range(-(-n // PER_GRAPH)):
        graph, without = (cauker.graph(index, length, seed, c) for c in (config, calm))
        for node in graph.kept[:PER_GRAPH]:
            series.append(graph.values[node].astype(np.float32))
            groups["graph"].append(index)
            groups["node"].append(graph.activations[node] or "root")
            groups["kernel family"].append(family([graph.kernels[i] for i in graph.ancestors(node) if i in graph.roots]))
            plain = without.values[node]
            spike.append(np.abs(graph.values[node] - plain).max() / max(plain.std(), 1e-12))
    return Labelled(np.array(series)[:n], {name: np.array(of)[:n] for name, of in groups.items()}, np.array(spike)[:n])


@lru_cache(2)
def draw(variant: str, n: int, seed: int) -> Labelled:
    """One of SETS; constant series left out."""
    if variant == "real":
        found = archive(seed, -(-n // 60))
        series, name = np.concatenate([x for _, x in found]), np.repeat([name for name, _ in found], [len(x) for _, x in found])
        chosen = np.random.default_rng(seed).permutation(len(series))[:n]
        return Labelled(series[chosen], {"data set": name[chosen]})
    if variant == "phase-randomised":
        source = draw("cauker", n, seed)
        shuffled = with_other_phases(z_normalised(source.series[:, None])[:, 0], np.random.default_rng(seed))
        return Labelled(shuffled, {"graph": source.groups["graph"]})
    whole = grown(MADE[variant], n, seed)
    kept = varies(whole.series)
    groups = {name: of[kept] for name, of in whole.groups.items() if len(set(of[kept])) > 1}
    return Labelled(whole.series[kept], groups, whole.spike[kept])


# -- trees --


@dataclass(frozen=True)
class Tree:
    """Distances and their average linkage, with the best order of the leaves for the eye."""
    distances: Float[np.ndarray, "N N"]
    linkage: Float[np.ndarray, "M 4"]

    def __len__(self) -> int:
        return len(self.distances)

    def cophenetic(self) -> float:
        """Correlation of the distances with the heights at which pairs meet."""
        return float(hierarchy.cophenet(self.linkage, squareform(self.distances, checks=False))[0])

    def clusters(self, count: int | None = None) -> Int[np.ndarray, "N"]:
        """Numbers of the clusters, 1 ..., a tenth as many as series if not told."""
        return hierarchy.fcluster(self.linkage, count or max(2, len(self) // 10), "maxclust")

    def joins(self) -> Float[np.ndarray, "N"]:
        """Height at which every series meets its first companion."""
        heights = np.empty(len(self))
        for left, right, height, _ in self.linkage:
            for child in (int(left), int(right)):
                if child < len(self):
                    heights[child] = height
        return heights

    def alone(self) -> Bool[np.ndarray, "N"]:
        """Series whose cluster has fewer members than a graph has series."""
        labels = self.clusters()
        return np.bincount(labels)[labels] < PER_GRAPH

    def silhouette(self) -> float:
        return float(silhouette_score(self.distances, self.clusters(), metric="precomputed"))


def tree(series: Float[np.ndarray, "N T"], band: int | None = None, normalise: bool = True, ordered: bool = False,
         dtype: type = np.float64) -> Tree:  # fmt: skip
    """The tree of z-scored series; `ordered`: neighbouring leaves are as similar as the tree allows."""
    x = z_normalised(series[:, None])[:, 0] if normalise else series.astype(np.float64)
    distances = dtw.matrix(x, band=band, dtype=dtype)
    return Tree(distances, hierarchy.linkage(squareform(distances, checks=False), "average", optimal_ordering=ordered))


def medoid(distances: Float[np.ndarray, "N N"], members: Int[np.ndarray, "m"]) -> int:
    """The member with the smallest sum of distances to the others."""
    return int(members[distances[np.ix_(members, members)].sum(1).argmin()])


# -- what is judged --


def trial(variant: str, seed: int, n: int, way: str = "") -> list[dict]:
    """One tree: its quality (`dtw_clusters`), its clusters against known groups (`dtw_ari`), its anomalies against the planted ones."""
    given = draw(variant, n, seed)
    found, name = tree(given.series, dtype=np.float32, **WAYS[way]), f"{variant}-{way}" if way else variant
    sizes = np.bincount(found.clusters())[1:]
    rows = [{"experiment": "dtw_clusters", "cophenetic": found.cophenetic(), "silhouette": found.silhouette(), "kept": len(found),
             "largest_cluster": float(sizes.max() / len(found)), "mean_distance": float(squareform(found.distances, checks=False).mean())}]
    for against, of in given.groups.items():
        count = len(set(of))
        ari = adjusted_rand_score(of, found.clusters(count))
        rows.append({"experiment": "dtw_ari", "against": against, "ari": float(ari), "groups": count})
    if given.spike is not None and (given.spike > 0).any():
        rows += anomalies(found, given)
    return [row | {"variant": name, "unit": seed} for row in rows]


def anomalies(found: Tree, given: Labelled) -> list[dict]:
    """The judged detector (small clusters), and how well several scores rank the planted anomalies."""
    planted, flagged = given.spike >= VISIBLE, found.alone()
    hits = int((planted & flagged).sum())
    share = lambda of: hits / int(of.sum()) if of.any() else np.nan
    rows = [{"experiment": "dtw_anomalies", "precision": share(flagged), "recall": share(planted), "planted": float(planted.mean()),
             "flagged": float(flagged.mean()), "any_spike": float((given.spike > 0).mean())}]  # fmt: skip
    scores = {"first join": found.joins(), "mean distance": found.distances.mean(1), "spike score": spikiness(given.series),
              "chance": np.zeros(len(found))}  # fmt: skip
    if planted.any():
        rows += [{"experiment": "dtw_detectors", "detector": name, "average_precision": float(average_precision_score(planted, score))}
                 for name, score in scores.items()]  # fmt: skip
    return rows


def spikiness(x: Float[np.ndarray, "N T"]) -> Float[np.ndarray, "N"]:
    """The largest deviation of a point from the middle of its neighbours, in medians of that deviation: no clustering, no distances.

    >>> spikiness(np.array([[0.0, 1, 0, 1, 0, 9, 0, 1]])).round(6).tolist()
    [3.0]
    """
    bend = np.abs(x[:, 1:-1] - (x[:, 2:] + x[:, :-2]) / 2)
    return bend.max(1) / np.maximum(np.median(bend, 1), 1e-6 * np.maximum(x.std(1), 1e-12))
