"""The published lists of five real models, analysed again, and what the public scripts that made them do (notebook 51).

Source of all numbers: the assets and scripts of the paper's public code (github abao1999/tsfm-lens at 1031f83): mean stable rank of each
layer (cross-attention for Bolt; Toto's were computed on scrambled heads, see FLAWS), heads that must be kept for a MASE at most 1 % above
the intact one, layer by layer, and in how many layers the order that begins with the lowest or with the highest stable rank won. The lists
are per layer; nobody claims that all of them together keep the 1 %.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from tsfm_lib.experiments.redundancies.layers import slope


@dataclass(frozen=True)
class Listed:
    heads: int  # of each layer
    stable_rank: tuple[float, ...]  # mean of each layer
    kept: tuple[int, ...]  # heads@1pp
    low_first: int  # layers in which the order from the lowest stable rank up had the lower mean score, layer 1 left out
    high_first: int
    difference: float  # mean stable rank of removed minus kept heads, within layers


LISTED = {
    "Chronos-Bolt": Listed(12, (1.1, 2.7, 2.7, 3.0, 3.5, 3.3, 5.6, 4.2, 3.7, 4.3, 4.3, 2.5), (4, 0, 0, 2, 5, 2, 7, 4, 7, 7, 8, 10),
                           8, 3, -1.25),
    "Chronos-2": Listed(12, (2.3, 2.9, 4.2, 4.3, 5.1, 7.2, 6.4, 5.7, 9.0, 9.2, 10.7, 8.9), (3, 0, 0, 1, 0, 0, 3, 1, 4, 0, 1, 5),
                        4, 7, 0.12),
    "Moirai 1.1": Listed(12, (1.8, 1.6, 1.8, 4.0, 2.0, 2.2, 3.3, 2.4, 4.6, 2.9, 2.6, 1.9), (3, 3, 9, 5, 5, 3, 5, 4, 4, 2, 8, 10),
                         4, 7, 0.78),
    "TimesFM 2.5": Listed(16, (1.9, 5.3, 5.2, 5.0, 6.8, 8.3, 6.9, 6.2, 10.2, 6.3, 9.5, 12.4, 12.1, 11.7, 13.3, 10.5, 6.4, 8.2, 3.4, 4.4),
                          (13, 9, 8, 7, 2, 1, 5, 3, 5, 5, 0, 0, 7, 4, 7, 13, 13, 13, 15, 13), 10, 9, 0.05),
    "Toto": Listed(12, (1.6, 3.6, 4.4, 6.6, 7.6, 5.6, 5.1, 7.7, 7.8, 7.8, 4.8, 5.9), (5, 5, 2, 6, 6, 5, 7, 8, 6, 3, 0, 1), 4, 7, 0.51),
}  # fmt: skip

FLAWS = pd.DataFrame(
    [
        ("stable ranks of layer 1", 'a layer is found by asking whether "L1" is in "L10_H3"',
         "layer 1 also gets the heads of layers 10 and up", "sites have whole names"),
        ("stable ranks of Toto", "contiguous rows of the fused projection are taken for heads; they are ordered head fastest",
         "ranks of mixtures of heads", "each model says itself which rows are a head"),
        ("heads of T5 and Bolt", "heads are transposed, zeroed and reshaped without transposing back",
         "right for a decoder that says one token at a time, scrambled for an encoder", "a slice of the last axis"),
        ('"mean" ablation', "a head's vector is replaced by the mean over its own features", "neither the head's mean nor nothing",
         "a mean over series and positions of a calibration set"),
        ("heads@1pp", "the largest level within the limit counts, even behind a crossing, and of two seeds the better one",
         "more heads look removable than are", "the first crossing, with an interval"),
        ("the order of removal", "chosen for each layer on the benchmark on which it is then scored", "optimistic",
         "chosen on calibration windows, scored on others"),
    ],
    columns=["what", "in the public scripts", "effect", "here"],
)  # fmt: skip


def by_layer() -> pd.DataFrame:
    """A row per model and layer."""
    rows = []
    for name, one in LISTED.items():
        for i, (sr, kept) in enumerate(zip(one.stable_rank, one.kept)):
            rows.append({"model": name, "layer": i, "depth": i / (len(one.kept) - 1), "stable rank": sr, "kept": kept / one.heads,
                         "removable": 1 - kept / one.heads})  # fmt: skip
    return pd.DataFrame(rows)


def by_model() -> pd.DataFrame:
    """What each list says: share removed if all were applied, how it goes with the distance from the middle and with stable rank.

    >>> by_model().loc["TimesFM 2.5", ["removed %", "rho middle", "rho rank"]].astype(float).round(2).tolist()
    [55.31, 0.78, -0.49]
    """
    rows = {}
    for name, one in LISTED.items():
        kept, depth = np.array(one.kept), np.linspace(0, 1, len(one.kept))
        middle = stats.spearmanr(np.abs(depth - 0.5).round(9), kept)
        rank = stats.spearmanr(one.stable_rank, kept)
        rows[name] = {"heads": one.heads * len(kept), "removed %": 100 * (1 - kept.sum() / (one.heads * len(kept))),
                      "rho middle": slope(depth, kept), "p middle": middle.pvalue, "rho rank": rank.statistic, "p rank": rank.pvalue,
                      "low first": one.low_first, "high first": one.high_first, "removed - kept": one.difference}  # fmt: skip
    return pd.DataFrame(rows).T


def pooled() -> tuple[float, float]:
    """Spearman of the layers' stable ranks and the share of heads kept, over all models, each in units of its own model, and p."""
    rows = by_layer()
    own = lambda column: rows.groupby("model")[column].transform(lambda v: (v - v.mean()) / v.std())
    found = stats.spearmanr(own("stable rank"), own("kept"))
    return float(found.statistic), float(found.pvalue)


def direction() -> tuple[int, int, float]:
    """In how many layers low-first and high-first won, and the p of a coin that does as much.

    >>> low, high, p = direction()
    >>> low, high, round(p, 2)
    (30, 33, 0.8)
    """
    low, high = (sum(getattr(one, name) for one in LISTED.values()) for name in ("low_first", "high_first"))
    return low, high, float(stats.binomtest(low, low + high).pvalue)


# ---- the flaws, each made to happen ----------------------------------------------------------------------------------------------------


def by_substring(layer: int, layers: int, heads: int) -> list[str]:
    """The heads that a substring test finds for a layer.

    >>> by_substring(1, 12, 1)
    ['L1_H0', 'L10_H0', 'L11_H0']
    """
    return [name for name in (f"L{i}_H{h}" for i in range(layers) for h in range(heads)) if f"L{layer}" in name]


def contiguous(weight: Float[Tensor, "HK D"], heads: int) -> Float[Tensor, "H K D"]:
    """What the rows of a projection are taken for when they are thought to be ordered (head, width)."""
    return weight.unflatten(0, (heads, -1))


def head_fastest(weight: Float[Tensor, "HK D"], heads: int) -> Float[Tensor, "H K D"]:
    """And what they are when they are ordered (width, head)."""
    return weight.unflatten(0, (-1, heads)).transpose(0, 1)


def not_turned_back(z: Float[Tensor, "B N HK"], heads: int, gone: int) -> Float[Tensor, "B N HK"]:
    """A head taken out of heads that are transposed and not transposed back: right for a single position.

    >>> import torch
    >>> z = torch.arange(4.0).reshape(1, 1, 4)
    >>> not_turned_back(z, 2, 0), not_turned_back(torch.arange(8.0).reshape(1, 2, 4), 2, 0)
    (tensor([[[0., 0., 2., 3.]]]), tensor([[[0., 0., 0., 0.],
             [2., 3., 6., 7.]]]))
    """
    turned = z.unflatten(-1, (heads, -1)).transpose(1, 2).clone()  # B H N K
    turned[:, gone] = 0
    return turned.reshape(z.shape)
