"""Pictures that only the notebooks on CauKer need."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tsfm_lib import plotting
from tsfm_lib.evaluate.comparison import Interval, interval
from tsfm_lib.experiments.cauker import growth
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


def grown(rows: pd.DataFrame, panel: str, by: str, forms: tuple[str, ...] = ("log-linear", "saturating"), *, x: str = "n",
          title: str = "") -> Figure:  # fmt: skip
    """Accuracy in percent over size, means over seeds with their intervals; curves fitted to all but the largest size, which is hollow."""
    parts = list(rows.groupby(panel, sort=False))
    figure, axes = plotting.canvas("large", 1, len(parts), squeeze=False)
    shade = plotting.colours(rows[by])
    for place, (name, part) in zip(axes.flat, parts):
        for k, (label, one) in enumerate(part.groupby(by, sort=False)):
            seen = {n: 100 * values.to_numpy() for n, values in one.groupby(x)["accuracy"]}
            n, means = np.array(list(seen)), np.array([values.mean() for values in seen.values()])
            beside = n * 1.05**k                                         # bars stand side by side
            bars = [interval(values) for values in seen.values() if len(values) > 1]
            place.vlines(beside[: len(bars)], [b.low for b in bars], [b.high for b in bars], color=shade[label], lw=1.2)
            place.scatter(beside[:-1], means[:-1], color=shade[label], s=40, zorder=3, label=str(label))
            place.scatter(beside[-1:], means[-1:], facecolor="white", edgecolor=shade[label], s=50, lw=1.8, zorder=4)
            at = np.geomspace(n[0], n[-1])
            for form, style in zip(forms, ("--", "-", ":")):
                curve = growth.fitted(form, n[:-1], means[:-1] / 100)
                place.plot(at, 100 * curve(at), style, color=shade[label], lw=1.3, label=None) if curve else None
        place.set_xscale("log")
        place.xaxis.set_minor_formatter("")
        place.set(xlabel="series", title=str(name))
    for form, style in zip(forms, ("--", "-", ":")):
        axes[0, 0].plot([], [], style, color=plotting.GREY, label=form)
    axes[0, 0].plot([], [], "o", markerfacecolor="white", markeredgecolor=plotting.GREY, label="not seen by the curves")
    axes[0, 0].set_ylabel("accuracy (%)")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    return figure


RESOLUTION = "the paper's own spread for one condition"


def gained(rows: pd.DataFrame, by: str, *, title: str = "", size: str = "medium") -> Figure:
    """Points above a reference, a dot per seed; grey: what one paper's three numbers for one and the same condition differ by."""
    figure = plotting.paired(rows.assign(readout="by " + rows["readout"]), by, "gain", by="readout", title=title, size=size)
    axes, spread = figure.axes[0], np.ptp(list(growth.ONE_CONDITION.values()))
    axes.axhspan(-spread, spread, color=plotting.PALE, alpha=0.6, lw=0, zorder=0, label=RESOLUTION)
    axes.axhline(0, color=plotting.INK, lw=1)
    axes.set(xlabel="", ylabel="gain (points)")
    return figure


def beside_paper(ours: Mapping[tuple[str, str], Interval], paper: Mapping[tuple[str, str], float], *, x: str = "",
                 title: str = "") -> Figure:  # fmt: skip
    """For every model and step the interval measured here and the paper's single number; grey: what the paper's numbers for one and the
    same condition differ by."""
    models = list(dict.fromkeys(model for model, _ in ours))
    figure, axes = plotting.canvas("large", 1, len(models), sharey=True, squeeze=False)
    figure.set_figheight(3.6)
    spread, steps = np.ptp(list(growth.ONE_CONDITION.values())), list(dict.fromkeys(step for _, step in ours))
    for place, model in zip(axes.flat, models):
        place.axvspan(-spread, spread, color=plotting.PALE, alpha=0.7, lw=0, label=RESOLUTION)
        place.axvline(0, color=plotting.INK, lw=1)
        for k, step in enumerate(steps):
            seen = ours[model, step]
            place.plot([seen.low, seen.high], [k, k], color=plotting.BLUE, lw=3, solid_capstyle="butt")
            place.scatter([seen.estimate], [k], s=45, color=plotting.BLUE, edgecolor="white", zorder=3, label="here, with 95 % interval")
            if (model, step) in paper:
                place.scatter([paper[model, step]], [k - 0.22], s=45, marker="D", color=plotting.ORANGE, zorder=3, label="the paper")
        place.set_yticks(range(len(steps)), steps)
        place.set(ylim=(len(steps) - 0.5, -0.6), xlabel=x, title=model)
        place.grid(axis="y", visible=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    once = dict(zip(labels, handles))
    figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=3, fontsize="small")
    return figure


def over_training(curve: pd.DataFrame, metrics: Mapping[str, str], *, by: str = "corpus", x: str = "epoch", title: str = "") -> Figure:
    """A row of axes for every model, a column for every metric (with its name): means over seeds and their intervals."""
    models = list(dict.fromkeys(curve["model"]))
    figure, axes = plotting.canvas("large", len(models), len(metrics), sharex=True, squeeze=False)
    shade = plotting.colours(curve[by])
    for k, model in enumerate(models):
        for place, (metric, name) in zip(axes[k], metrics.items()):
            for label, one in curve[curve["model"] == model].dropna(subset=[metric]).groupby(by, sort=False):
                seen = {at: values.to_numpy() for at, values in one.groupby("step")[metric]}
                at = one.groupby("step")[x].mean().to_numpy()
                if min(map(len, seen.values())) > 1:
                    bars = [interval(values) for values in seen.values()]
                    place.fill_between(at, [b.low for b in bars], [b.high for b in bars], color=shade[label], alpha=0.18, lw=0)
                place.plot(at, [values.mean() for values in seen.values()], color=shade[label], marker="o", ms=4, label=str(label))
            place.set_title(f"{model}: {name}", loc="left", fontsize="small")
            place.set_xlabel(x if k == len(models) - 1 else "")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return figure


def symptoms(rows: pd.DataFrame, x: str, y: str, *, title: str = "") -> Figure:
    """A panel for every model: one point a way to spoil its training, means over seeds, named."""
    models = list(dict.fromkeys(rows["model"]))
    figure, axes = plotting.canvas("large", 1, len(models), sharey=True, squeeze=False)
    for place, model in zip(axes.flat, models):
        means = rows[rows["model"] == model].groupby("variant", sort=False)[[x, y]].mean()
        for k, (name, row) in enumerate(means.iterrows()):
            place.scatter(row[x], row[y], s=60, color=plotting.BLUE if name == "as it is" else plotting.ORANGE, edgecolor="white", zorder=3)
            place.annotate(f"{k + 1}", (row[x], row[y]), xytext=(5, 4), textcoords="offset points", fontsize="small")
        place.plot([], [], " ", label="\n".join(f"{k + 1}  {name}" for k, name in enumerate(means.index)))
        place.legend(fontsize="x-small", handlelength=0, loc="best")
        place.set(xlabel=x, title=model)
    axes[0, 0].set_ylabel(y)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return figure
