"""What the pictures of notebooks 50 to 53 have in common: losses in percent on a scale that can be read, many models told apart."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from tsfm_lib import plotting

TICKS = (-100, -50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 3000)


def percent(figure: Figure, levels: Mapping[int, str] | None = None, x: str = "", linear: float = 10) -> Figure:
    """Percent of MASE on every axis: linear to `linear` and logarithmic beyond, plain numbers, a named line at each level."""
    ticks = [t for t in TICKS if (abs(t) != 1 or linear <= 1) and all(not 0.7 < t / level < 1.4 for level in levels or ())]
    for i, axes in enumerate(figure.axes):
        axes.set_yscale("symlog", linthresh=linear)
        low, high = axes.get_ylim()
        at = sorted({*(t for t in ticks if low <= t <= high), *(levels or ())})
        axes.set_yticks(at, [f"{tick:g}" for tick in at])
        axes.minorticks_off()
        axes.set_ylabel("" if i and axes.get_subplotspec().colspan.start else "% MASE")
        axes.set_xlabel(x or axes.get_xlabel())
        for level in levels or {}:
            axes.axhline(level, color=plotting.INK, lw=1, ls=":", zorder=1)
    for level, words in (levels or {}).items():
        figure.axes[-1].annotate(
            words, (1, level), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points", va="center",
            fontsize="x-small", color=plotting.INK, annotation_clip=False,
        )  # fmt: skip
    return figure


def spread(rows: pd.DataFrame, by: str, title: str) -> Figure:
    """Cost by layer: the mean over data sets as a line, the middle half of the sets as a band."""
    figure, axes = plotting.canvas()
    for label, shade in plotting.colours(rows[by]).items():
        sets = rows[rows[by] == label].groupby("layer")["increase"]
        axes.fill_between(sets.mean().index, sets.quantile(0.25), sets.quantile(0.75), color=shade, alpha=0.2, lw=0)
        axes.plot(sets.mean(), color=shade, marker="o", ms=5, label=label)
    axes.set_title(title, loc="left")
    axes.set_xlabel("layer")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", title=by, fontsize="small", title_fontsize="small")
    return figure


def tell_apart(figure: Figure) -> Figure:
    """A marker and a dash for every name in the legend: colours alone are too alike for ten models."""
    legend = figure.legends[0]
    names = [text.get_text() for text in legend.get_texts()]
    looks = {name: ("osD^vP*X<>"[i % 10], ("-", "--", "-.", ":")[i % 4]) for i, name in enumerate(names)}
    drawn = [(line, line.get_label()) for axes in figure.axes for line in axes.get_lines() if line.get_label() in looks]
    for line, name in (*drawn, *zip(legend.legend_handles, names)):
        line.set(marker=looks[name][0], linestyle=looks[name][1], markersize=6)
    return figure
