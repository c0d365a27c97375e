"""Pictures that only the notebooks on CauKer need."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tsfm_lib import plotting
from tsfm_lib.synth.cauker import Graph


def causal_graph(graph: Graph, keep: int = 4, *, title: str = "") -> Figure:
    """Nodes from causes (left) to effects, each as its series, named by what makes it; framed: the ones that are kept."""
    figure, axes = plotting.canvas("large")
    figure.set_figheight(7)
    at = {}
    for layer in range(graph.depth + 1):
        nodes = np.flatnonzero(graph.layer == layer)
        at |= {int(i): (layer, 0.15 * (layer % 2) - k + (len(nodes) - 1) / 2) for k, i in enumerate(nodes)}
    for child, parents in enumerate(graph.parents):
        for parent in parents:
            how = {"arrowstyle": "-", "color": plotting.GREY, "lw": 0.8, "alpha": 0.7, "connectionstyle": "arc3,rad=0.12"}
            axes.annotate("", at[child], at[parent], arrowprops=how, zorder=1)
    for i, (x, y) in at.items():
        place = axes.inset_axes((x - 0.33, y - 0.27, 0.66, 0.54), transform=axes.transData, zorder=3)
        root = not graph.parents[i]
        place.plot(graph.values[i], color=plotting.GREEN if root else plotting.BLUE, lw=0.7)
        place.set(xticks=[], yticks=[])
        for side in place.spines.values():
            side.set(color=plotting.ORANGE if i in graph.kept[:keep] else plotting.PALE, linewidth=2.2 if i in graph.kept[:keep] else 0.8)
        axes.text(x, y + 0.3, f"{i} · {'root' if root else graph.activations[i]}", ha="center", va="bottom", fontsize="x-small", zorder=4)
    low, high = (f(y for _, y in at.values()) for f in (min, max))
    axes.set(xlim=(-0.5, graph.depth + 0.5), ylim=(low - 0.5, high + 0.75))
    axes.axis("off")
    axes.set_title(title, loc="left")
    return figure


def ranges(rows: pd.DataFrame, variants: tuple[str, ...], *, title: str = "", y: str = "") -> Figure:
    """For every band the middle nine tenths (thin), the middle half (thick) and the median of each variant; means over seeds."""
    figure, axes = plotting.canvas("large")
    shade, bands = plotting.colours(variants), list(dict.fromkeys(rows["band"]))
    means = rows.groupby(["variant", "band"])[[f"q{q}" for q in (5, 25, 50, 75, 95)]].mean()
    for k, name in enumerate(variants):
        one, x = means.loc[name].loc[bands], np.arange(len(bands)) + 0.8 * ((k + 0.5) / len(variants) - 0.5)
        axes.vlines(x, one["q5"], one["q95"], color=shade[name], lw=1.2)
        axes.vlines(x, one["q25"], one["q75"], color=shade[name], lw=5, alpha=0.6)
        axes.scatter(x, one["q50"], color=shade[name], s=30, edgecolor="white", zorder=3, label=name)
    axes.set_xticks(range(len(bands)), bands)
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="cycles per window", ylabel=y)
    axes.set_title(title, loc="left")
    figure.legend(loc="outside right upper", fontsize="small")
    return figure
