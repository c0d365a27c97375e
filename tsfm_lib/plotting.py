"""One function per recurring picture, one theme, one colour per model throughout the collection.

Every function returns a matplotlib Figure and shows nothing. Figures are made without pyplot, so a notebook shows one exactly
once: as the value of its cell. `save` writes the same bytes for the same figure: no date, no version, fixed ids in the SVG.
"""

import io
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate.comparison import Interval, Ranks, interval

SIZES = {"small": (4.8, 3.4), "medium": (7.2, 4.0), "large": (10.0, 5.6)}
INK, GREY, PALE = "#222222", "#7f7f7f", "#d9d9d9"
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, _, _, _, SKY = sns.color_palette("colorblind").as_hex()
PINK, YELLOW = "#d58fc0", "#c4a300"         # the palette's own are too pale for thin lines on white

COLOURS = {
    "kairos": BLUE, "time-tracker": ORANGE, "mantis": GREEN, "moment": RED, "moirai": PURPLE, "units": BROWN, "chronos-t5": PINK,
    "chronos-bolt": "#8c3a8f", "timesfm": SKY, "toto": "#b8860b",
    "dlinear": "#4d4d4d", "patchtst": "#6b6b3a", "itransformer": "#3a6b6b",
    "naive": "#bdbdbd", "seasonal-naive": GREY, "ets": "#a0826d", "theta": "#6d8aa0", "ridge-lags": "#8aa06d", "random-weights": "#c4a1c4",
    "adaptive": BLUE, "fixed-small": SKY, "fixed-middle": YELLOW, "fixed-large": RED, "all-sizes": GREEN,
    "own": BLUE, "intra-shuffled": SKY, "inter-shuffled": ORANGE, "fixed-rope": GREY,
    "ordinary": PALE, "cauker": GREEN, "kernelsynth": ORANGE, "mean-kernelsynth": YELLOW, "scm": PINK, "real": INK,
    "msft": PURPLE, "full": RED, "lora": SKY, "probe": GREEN, "prompt": BROWN, "zero-shot": GREY, "scratch": INK,
    "learned": ORANGE, "learned-fixed": YELLOW, "correlation": SKY, "lagged-correlation": BLUE,
    "stable-rank": BLUE, "stable-rank reversed": ORANGE, "entropy": GREEN, "random": GREY, "oracle": INK, "intact": GREY, "parrot": ORANGE,
}
"""Fixed colours. A name such as `kairos-nano` takes the colour of the longest entry it begins with."""

VERDICTS = {"reproduced": BLUE, "direction holds": SKY, "not resolved": GREY, "refuted here": RED, "needs data": PALE,
            "needs official weights": PALE}
_SPARE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, INK)      # told apart as thin lines on white
_MORE = (BROWN, YELLOW, GREY)                              # for an eighth name and two more


def theme() -> None:
    """seaborn's whitegrid with the colour-blind palette and letters that survive printing at half size."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", font_scale=1.1, rc={
        "figure.dpi": 100, "savefig.dpi": 150, "svg.hashsalt": "tsfm", "svg.fonttype": "path", "grid.color": "#e6e6e6",
        "axes.edgecolor": GREY, "axes.titlesize": "medium", "legend.frameon": False, "lines.linewidth": 1.8, "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"]})
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:                            # a cell that ends in a Figure shows it, though pyplot never saw it
        from IPython.core.pylabtools import select_figure_formats

        select_figure_formats(shell, {"png"})


def colour(name: Any) -> str:
    """The colour of a model or variant.

    >>> colour("kairos-nano") == colour("kairos"), colour("never seen") == colour("never seen")
    (True, True)
    """
    key = str(name).lower()
    known = [entry for entry in COLOURS if key == entry or key.startswith(entry + "-")]
    return COLOURS[max(known, key=len)] if known else _SPARE[zlib.crc32(key.encode()) % len(_SPARE)]


def colours(names: Iterable[Any]) -> dict[Any, str]:
    """A colour for each name: fixed ones first, then spare ones, no two alike while there are enough."""
    names = list(dict.fromkeys(names))
    found = {name: colour(name) for name in names}
    taken: set[str] = set()
    for name in sorted(names, key=lambda n: (str(n).lower() not in COLOURS, names.index(n))):
        if found[name] in taken:
            found[name] = next((spare for spare in (*_SPARE, *_MORE) if spare not in taken and spare not in found.values()), found[name])
        taken.add(found[name])
    return found


def canvas(size: str = "medium", rows: int = 1, columns: int = 1, **how: Any) -> tuple[Figure, Any]:
    """An empty figure of one of the three sizes, and its axes."""
    if size not in SIZES:
        raise TsfmError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    figure = Figure(figsize=SIZES[size], layout="constrained")
    return figure, figure.subplots(rows, columns, **how)


def _legend(figure: Figure, *axes: Axes, title: str = "") -> None:
    """Outside on the right: never over the data. What several axes show is named once."""
    once = {label: handle for place in axes for handle, label in zip(*place.get_legend_handles_labels())}
    if once:
        figure.legend(once.values(), once.keys(), loc="outside right upper", title=title or None, fontsize="small", title_fontsize="small")


def _finish(axes: Axes, x: str = "", y: str = "", title: str = "") -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title, loc="left")
    sns.despine(ax=axes)


def _middle(values: pd.Series) -> tuple[float, float, float]:
    """Mean and interval of one number per unit; no interval for a single one."""
    kept = values.dropna().to_numpy(np.float64)
    if len(kept) < 2:
        return (float(kept[0]),) * 3 if len(kept) else (np.nan,) * 3
    found = interval(kept)
    return found.estimate, found.low, found.high


def _per_unit(rows: pd.DataFrame, keys: Sequence[str], y: str, unit: str) -> pd.DataFrame:
    missing = [column for column in (*keys, y, unit) if column not in rows]
    if missing:
        raise TsfmError(f"the rows have no column {missing[0]!r}: there are {', '.join(map(str, rows.columns))}")
    if rows.empty:
        raise TsfmError(f"there is no row to draw {y} from: a filter in front of the picture has left nothing")
    return rows.groupby([*keys, unit], observed=True, sort=False)[y].mean().reset_index()


def forecast(context: ArrayLike, forecast: ArrayLike | Mapping[str, Any], levels: Sequence[float], truth: ArrayLike | None = None, *,
             name: str = "forecast", title: str = "", x: str = "step", y: str = "value", size: str = "medium") -> Figure:
    """A context and what follows: fan of central intervals `[horizon, levels]`, one or (by a mapping of names) several."""
    fans = forecast if isinstance(forecast, Mapping) else {name: forecast}
    figure, axes = canvas(size)
    past, levels = np.asarray(context, np.float64), np.asarray(levels, np.float64)
    axes.plot(np.arange(-len(past), 0), past, color=INK, lw=1.2, label="context")
    if truth is not None:
        axes.plot(np.arange(len(np.asarray(truth))), truth, color=INK, lw=1.2, ls=(0, (2, 1.5)), label="what came")
    shade = colours(fans)
    for label, fan in fans.items():
        fan = np.asarray(fan, np.float64)
        ahead = np.arange(len(fan))
        for low, high in [(i, j) for i, a in enumerate(levels) for j, b in enumerate(levels) if a < 0.5 and abs(a + b - 1) < 1e-9]:
            axes.fill_between(ahead, fan[:, low], fan[:, high], color=shade[label], alpha=0.25 if len(fans) == 1 else 0.12, lw=0,
                              label=f"{100 * levels[low]:g} to {100 * levels[high]:g} %" if len(fans) == 1 and low == 0 else None)
        axes.plot(ahead, fan[:, np.abs(levels - 0.5).argmin()], color=shade[label], label=label if len(fans) > 1 else f"{label}, median")
    axes.axvline(-0.5, color=GREY, lw=1)
    _finish(axes, x, y, title)
    _legend(figure, axes)
    return figure


def gallery(series: Mapping[str, ArrayLike], *, columns: int = 2, title: str = "", size: str = "large") -> Figure:
    """Small pictures of several series, one name each, on scales of their own."""
    rows = -(-len(series) // columns)
    figure, axes = canvas(size, rows, columns, squeeze=False)
    figure.set_figheight(1.25 * rows + 0.5)
    shade = colours(series)
    for place, (name, values) in zip(axes.flat, series.items()):
        place.plot(np.asarray(values, np.float64), color=shade[name], lw=1)
        _finish(place, title=name)
        place.set(xticks=[], yticks=[])
    for place in axes.flat[len(series) :]:
        place.axis("off")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return figure


def paired(rows: pd.DataFrame, x: str, y: str, by: str = "variant", unit: str = "seed", *, title: str = "", size: str = "medium") -> Figure:
    """For each x the variants side by side: a dot per unit, a line between dots of one unit, mean and interval beside them.

    The intervals are of each mean, not of the paired differences, which the lines show and `forest` measures.
    """
    values = _per_unit(rows, [x, by], y, unit)
    names, places = list(dict.fromkeys(values[by])), list(dict.fromkeys(values[x]))
    shade, width = colours(names), 0.7 / max(len(names), 1)
    figure, axes = canvas(size)
    for i, place in enumerate(places):
        wide = values[values[x] == place].pivot(index=unit, columns=by, values=y).reindex(columns=names)
        spots = i + width * (np.arange(len(names)) - (len(names) - 1) / 2)
        axes.plot(spots, wide.to_numpy().T, color=PALE, lw=0.8, zorder=1)
        for spot, label in zip(spots, names):
            centre, low, high = _middle(wide[label])
            axes.scatter(np.full(len(wide), spot), wide[label], s=16, color=shade[label], alpha=0.55, lw=0, zorder=2)
            bar = spot + 0.22 * width
            axes.plot([bar, bar], [low, high], color=shade[label], lw=2.6, zorder=3, solid_capstyle="butt")
            axes.scatter([bar], [centre], s=46, color=shade[label], edgecolor="white", zorder=4, label=str(label))
    axes.set_xticks(range(len(places)), [str(p) for p in places])
    axes.grid(axis="x", visible=False)
    _finish(axes, x, y, title)
    _legend(figure, axes, title=by)
    return figure


def lines(rows: pd.DataFrame, x: str, y: str, by: str = "variant", unit: str = "seed", *, panel: str = "", logx: bool = False,
          title: str = "", size: str = "medium") -> Figure:
    """Curves over x: the mean over units, with its interval as a band where there are at least two units. `panel`: a column whose
    values get axes of their own, side by side on one scale."""
    values = _per_unit(rows, [*([panel] if panel else []), by, x], y, unit)
    shade = colours(values[by])
    parts = list(values.groupby(panel, sort=False, observed=True)) if panel else [("", values)]
    figure, axes = canvas(size, 1, len(parts), sharey=True, squeeze=False)
    for i, (place, (name, part)) in enumerate(zip(axes.flat, parts)):
        for label, one in part.groupby(by, sort=False, observed=True):
            band = pd.DataFrame({at: _middle(group[y]) for at, group in one.groupby(x)}, index=["mean", "low", "high"]).T.sort_index()
            place.fill_between(band.index, band["low"], band["high"], color=shade[label], alpha=0.18, lw=0)
            place.plot(band.index, band["mean"], color=shade[label], marker="o" if len(band) <= 15 else None, ms=5, label=str(label))
        place.set_xscale("log") if logx else None
        _finish(place, x, "" if i else y, f"{panel} {name}" if panel else title)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium") if panel and title else None
    _legend(figure, *axes.flat, title=by)
    return figure


def scatter(rows: pd.DataFrame, x: str, y: str, by: str, label: str = "", *, logx: bool = False, title: str = "",
            size: str = "large") -> Figure:
    """A point per row, coloured by a group; the column `label` is written beside each point, where there is room."""
    shade = colours(rows[by])
    figure, axes = canvas(size)
    axes.set_xscale("log") if logx else None
    for group, part in rows.groupby(by, sort=False):
        axes.scatter(part[x], part[y], s=45, color=shade[group], edgecolor="white", label=str(group), zorder=3)
    axes.margins(x=0.08)
    place_of = lambda v: (v - v.min()) / (np.ptp(v) or 1.0)
    spots = list(zip(place_of(np.log(rows[x]) if logx else rows[x]), place_of(rows[y])))
    taken = [(*spot, 0.012, 0.015) for spot in spots]        # middle, half width and half height, in parts of the axes
    for spot, (_, row) in zip(spots, rows.iterrows()) if label else ():
        if name := str(row[label]):
            half = 0.05 * len(name) / SIZES[size][0]
            sides = {(0, 6, "center"): (0, 0.035), (0, -14, "center"): (0, -0.035), (7, -3, "left"): (half + 0.015, 0),
                     (-7, -3, "right"): (-half - 0.015, 0)}  # fmt: skip
            boxes = {how: (spot[0] + right, spot[1] + up, half, 0.017) for how, (right, up) in sides.items()}
            meets = lambda a: any(abs(a[0] - b[0]) < a[2] + b[2] and abs(a[1] - b[1]) < a[3] + b[3] for b in taken)
            across, up, side = next((how for how, box in boxes.items() if not meets(box)), (0, 6, "center"))
            taken.append(boxes[across, up, side])
            axes.annotate(name, (row[x], row[y]), xytext=(across, up), textcoords="offset points", ha=side, fontsize="x-small",
                          color=shade[row[by]])  # fmt: skip
    _finish(axes, x, y, title)
    _legend(figure, axes, title=by)
    return figure


def heat(matrix: ArrayLike, xlabels: Sequence[Any] | None = None, ylabels: Sequence[Any] | None = None, *, x: str = "", y: str = "",
         label: str = "", title: str = "", diverging: bool = False, annotate: bool | None = None, size: str = "medium") -> Figure:
    """A matrix as colours: layer by head, an attention pattern, a grid of doses. Numbers inside when there is room."""
    values = np.asarray(matrix, np.float64)
    figure, axes = canvas(size)
    numbers = values.shape[1] <= 12 and values.shape[0] <= 10 if annotate is None else annotate
    bound = np.nanmax(np.abs(values), initial=1e-12) if diverging else None
    sns.heatmap(values, ax=axes, cmap="vlag" if diverging else "viridis", center=0 if diverging else None, annot=numbers, fmt=".2g",
                vmin=-bound if diverging else None, vmax=bound, annot_kws={"size": "small"}, linewidths=0.5 if numbers else 0,
                cbar_kws={"label": label, "shrink": 0.9})
    for axis, names, n, most in ((axes.xaxis, xlabels, values.shape[1], 12), (axes.yaxis, ylabels, values.shape[0], 24)):
        at = np.arange(0, n, max(1, -(-n // most)))
        axis.set_ticks(at + 0.5, [str(i if names is None else names[i]) for i in at], rotation=0)
    crowded = sum(len(t.get_text()) for t in axes.get_xticklabels()) > 9 * SIZES[size][0]
    axes.tick_params(length=0)
    for text in axes.get_xticklabels() if crowded else ():
        text.set(rotation=35, ha="right", rotation_mode="anchor")
    _finish(axes, x, y, title)
    return figure


def heats(matrices: Mapping[str, ArrayLike], *, x: str = "", y: str = "", label: str = "", title: str = "", size: str = "medium") -> Figure:
    """Several matrices side by side on one colour scale, first row on top: masks, attention patterns, patches. No label, no colour bar."""
    values = {name: np.asarray(matrix, np.float64) for name, matrix in matrices.items()}
    low, high = min(map(np.nanmin, values.values())), max(map(np.nanmax, values.values()))
    square = all(matrix.shape[0] == matrix.shape[1] for matrix in values.values())
    figure, axes = canvas(size, 1, len(values), squeeze=False)
    figure.set_figheight(SIZES[size][0] / (len(values) + bool(label) / 2) + 0.6 + 0.3 * bool(title)) if square else None
    for place, (name, matrix) in zip(axes.flat, values.items()):
        picture = place.imshow(matrix, cmap="viridis", vmin=low, vmax=high, aspect="equal" if square else "auto", interpolation="nearest")
        place.grid(visible=False)
        for axis in (place.xaxis, place.yaxis):
            axis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
        _finish(place, title=name)
    figure.colorbar(picture, ax=axes, label=label, shrink=0.9) if label else None
    figure.supxlabel(x, fontsize="medium"), figure.supylabel(y, fontsize="medium")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium") if title else None
    return figure


def patch_map(series: ArrayLike, sizes: ArrayLike | Mapping[str, ArrayLike], events: ArrayLike | None = None, *, title: str = "",
              size: str = "medium") -> Figure:
    """A series over the patch size chosen at each place (or several sizes by name, the first one filled); `events` marks blocks known
    to hold a burst (one flag per size)."""
    named = {name: np.asarray(of, np.float64) for name, of in (sizes if isinstance(sizes, Mapping) else {"": sizes}).items()}
    values, chosen = np.asarray(series, np.float64), np.concatenate(list(named.values()))
    edges = np.linspace(0, len(values), len(next(iter(named.values()))) + 1)
    figure, (top, below) = canvas(size, 2, 1, sharex=True, height_ratios=(2.4, 1))
    for i, event in enumerate(() if events is None else np.asarray(events, bool)):
        top.axvspan(edges[i], edges[i + 1], color=YELLOW, alpha=0.3, lw=0, label="burst" if event else None) if event else None
    top.plot(values, color=INK, lw=1, label="series")
    for i, (name, one) in enumerate(named.items()):
        shade = (BLUE, ORANGE, GREEN)[i % 3]
        below.stairs(one, edges, color=shade, lw=2, fill=False)
        below.stairs(one, edges, color=shade, alpha=0.18, fill=True) if i == 0 else None
        top.plot([], [], color=shade, lw=2, label=name) if name else None
    below.set_yscale("log", base=2)
    ticks = 2.0 ** np.arange(np.floor(np.log2(chosen.min())), np.ceil(np.log2(chosen.max())) + 1)
    below.set_yticks(ticks, [f"{t:g}" for t in ticks])
    below.set_ylim(ticks[0] / 1.5, ticks[-1] * 1.3)
    below.minorticks_off()
    _finish(top, "", "value", title)
    _finish(below, "step", "patch size")
    _legend(figure, top) if events is not None or isinstance(sizes, Mapping) else None
    return figure


def ranks(found: Ranks, *, title: str = "", size: str = "medium") -> Figure:
    """Critical-difference diagram: mean ranks, best at the left; a bar joins those that cannot be told apart."""
    names, at = list(found.mean.index), found.mean.to_numpy()
    half = -(-len(names) // 2)
    depth = max(half, len(names) - half)
    figure, axes = canvas(size)
    low, high = np.floor(at.min()), max(np.ceil(at.max()), np.floor(at.min()) + 1)
    inches = 0.095 * (7 + max(map(len, names)))                  # what the longest label takes
    margin = (high - low) * inches / max(SIZES[size][0] - 2 * inches, 1.0)
    drop = 0.32 * len(found.cliques) + 0.5
    axes.plot([low, high], [0, 0], color=INK, lw=1.2)
    for tick in np.arange(low, high + 0.5):
        axes.plot([tick, tick], [0, 0.12], color=INK, lw=1.2)
        axes.text(tick, 0.2, f"{tick:g}", ha="center", va="bottom")
    for i, (name, rank) in enumerate(zip(names, at)):
        left = i < half
        y, end = -drop - (i if left else len(names) - 1 - i), low - 0.04 * margin if left else high + 0.04 * margin
        axes.plot([rank, rank, end], [0, y, y], color=colour(name), lw=1.6)
        axes.text(end, y, f"{name}  {rank:.2f} " if left else f" {rank:.2f}  {name}", ha="right" if left else "left", va="center")
    for k, clique in enumerate(found.cliques):
        ends = [found.mean[clique[0]] - 0.03, found.mean[clique[-1]] + 0.03]
        axes.plot(ends, [-0.3 - 0.32 * k] * 2, color=INK, lw=5, solid_capstyle="butt")
    axes.set(xlim=(low - margin, high + margin), ylim=(-drop - depth + 0.5, 0.9))
    axes.axis("off")
    axes.set_title(title or f"mean rank over {found.n} data sets (1 = best)", loc="left")
    return figure


def forest(intervals: Mapping[str, Interval | None], verdicts: Mapping[str, str] | None = None, *, standardise: bool = False,
           x: str = "gain", title: str = "", size: str = "medium") -> Figure:
    """An interval per claim about zero, coloured by verdict; `standardise` divides each by its half-width, for unlike units."""
    figure, axes = canvas(size)
    figure.set_figheight(max(SIZES[size][1] * 0.6, 0.32 * len(intervals) + 1.1))
    for i, (name, found) in enumerate(intervals.items()):
        verdict = (verdicts or {}).get(name, "")
        shade = VERDICTS.get(verdict, BLUE)
        if found is None:
            axes.text(0.01, i, verdict or "no interval", transform=axes.get_yaxis_transform(), va="center", fontsize="small", color=GREY)
            continue
        scale = max((found.high - found.low) / 2, 1e-12) if standardise else 1.0
        axes.plot([found.low / scale, found.high / scale], [i, i], color=shade, lw=3, solid_capstyle="butt")
        axes.scatter([found.estimate / scale], [i], s=40, color=shade, edgecolor="white", zorder=3, label=verdict or None)
    axes.axvline(0, color=INK, lw=1)
    axes.set_yticks(range(len(intervals)), list(intervals))
    axes.set_ylim(len(intervals) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    _finish(axes, f"{x}, in half-widths of its interval" if standardise else x, "", title)
    _legend(figure, axes)
    return figure


def matrix_cluster(distances: ArrayLike, linkage: ArrayLike, groups: Sequence[Any] | None = None, *, title: str = "",
                   exemplars: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None, label: str = "distance",
                   size: str = "large") -> Figure:
    """The distance matrix in the order of its dendrogram, the dendrogram beside it, and known groups as a strip.

    exemplars: by a letter, the members of a cluster (framed in the matrix) and one series to draw for it."""
    from scipy.cluster import hierarchy

    values = np.asarray(distances, np.float64)
    figure, (tree, strip, axes, *side) = canvas(size, 1, 4 if exemplars else 3, width_ratios=(1.3, 0.09, 3, 1.1)[:4 if exemplars else 3])
    with mpl.rc_context({"lines.linewidth": 0.9}):
        drawn = hierarchy.dendrogram(np.asarray(linkage, np.float64), ax=tree, orientation="left", no_labels=True, color_threshold=0,
                                     above_threshold_color=INK)
    order = np.array(drawn["leaves"])
    tree.set(xticks=[], yticks=[], title="")
    sns.despine(ax=tree, left=True, bottom=True)
    picture = axes.imshow(values[np.ix_(order, order)], cmap="viridis", origin="lower", aspect="auto", interpolation="nearest")
    strip.axis("off")
    if groups is not None:
        names = sorted(set(groups), key=str)
        shade = colours(names)
        rgb = np.array([mpl.colors.to_rgb(shade[groups[i]]) for i in order])
        strip.imshow(rgb[:, None], origin="lower", aspect="auto", interpolation="nearest")
        for name in names:
            axes.scatter([], [], marker="s", color=shade[name], label=str(name))
    figure.colorbar(picture, ax=axes, label=label, shrink=0.9, location="bottom" if exemplars else "right")
    axes.grid(visible=False)
    _finish(axes, "" if exemplars else "series, in the order of the tree", "", title)
    axes.set_yticks([])
    _exemplars(axes, side[0], order, exemplars) if exemplars else None
    _legend(figure, axes)
    return figure


def _exemplars(axes: Axes, side: Axes, order: np.ndarray, exemplars: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> None:
    """Frames around clusters, and beside the matrix a series for each, in the order of the tree (last leaf on top)."""
    spans = {name: np.flatnonzero(np.isin(order, members))[[0, -1]] for name, (members, _) in exemplars.items()}
    side.axis("off")
    for i, name in enumerate(sorted(spans, key=lambda name: spans[name][0])):
        first, last = spans[name]
        axes.add_patch(mpl.patches.Rectangle((first - 0.5, first - 0.5), *[last - first + 1] * 2, fill=False, edgecolor="white", lw=1.4))
        axes.text(last + 0.015 * len(order), first, name, color="white", fontsize="small", va="bottom", weight="bold")
        place = side.inset_axes((0.16, i / len(spans), 0.84, 0.8 / len(spans)))
        place.plot(np.asarray(exemplars[name][1], np.float64), color=INK, lw=0.8)
        place.axis("off")
        side.text(0, (i + 0.4) / len(spans), name, transform=side.transAxes, va="center", weight="bold")


def spectrum(series: ArrayLike | Mapping[str, Any], *, marks: Mapping[str, float] | None = None, title: str = "",
             size: str = "medium") -> Figure:
    """Share of power by frequency, z-scored, for one set `[n, T]` or several by name: median and middle half of the series."""
    sets = series if isinstance(series, Mapping) else {"series": series}
    shade = colours(sets)
    figure, axes = canvas(size)
    for name, values in sets.items():
        values = np.atleast_2d(np.asarray(values, np.float64))
        values = values - values.mean(-1, keepdims=True)
        power = np.abs(np.fft.rfft(values)[:, 1:]) ** 2
        power = power / np.maximum(power.sum(-1, keepdims=True), 1e-30)
        frequency = np.arange(1, power.shape[1] + 1) / values.shape[-1]
        low, middle, high = np.quantile(power, (0.25, 0.5, 0.75), axis=0)
        axes.fill_between(frequency, low, high, color=shade[name], alpha=0.18, lw=0) if len(values) > 1 else None
        axes.plot(frequency, middle, color=shade[name], lw=1.4, label=name if len(sets) > 1 else None)
    axes.set(xscale="log", yscale="log")
    for name, at in (marks or {}).items():
        axes.axvline(at, color=GREY, lw=1, ls=":")
        axes.annotate(f" {name}", (at, 1), xycoords=("data", "axes fraction"), va="top", fontsize="small", color=GREY)
    _finish(axes, "cycles per step", "share of power", title)
    _legend(figure, axes)
    return figure


def save(figure: Figure, stem: Path | str, caption: str = "") -> tuple[Path, Path]:
    """`stem`.png (150 dpi) and `stem`.svg; the caption goes into both as their description. Same figure, same bytes."""
    png, svg = (Path(f"{stem}{end}") for end in (".png", ".svg"))
    png.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "tsfm", "svg.fonttype": "path"}):
        figure.savefig(png, dpi=150, metadata={"Software": None, **({"Description": caption} if caption else {})})
        figure.savefig(svg, metadata={"Date": None, "Creator": None, **({"Description": caption} if caption else {})})
    return png, svg


def png(figure: Figure) -> bytes:
    """For a screen: fewer dots than in print, and little time spent on packing them."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100, pil_kwargs={"compress_level": 1})
    return stream.getvalue()
