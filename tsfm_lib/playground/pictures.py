"""One figure for a state: forecast, patches, attention, errors."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tsfm_lib import plotting
from tsfm_lib.evaluate import metrics
from tsfm_lib.playground.states import Seen, choices, model_of, words


def draw(seen: Seen) -> Figure:
    """Forecast over patches on the left, attention over errors on the right. Places are fixed: a layout engine would double the time."""
    figure = Figure(figsize=plotting.SIZES["large"])
    grid = figure.add_gridspec(2, 2, width_ratios=(2.1, 1), height_ratios=(2.1, 1), left=0.065, right=0.985, top=0.85, bottom=0.055,
                               wspace=0.26, hspace=0.36)  # fmt: skip
    _forecast(figure, figure.add_subplot(grid[0, 0]), seen)
    _patches(figure.add_subplot(grid[1, 0]), seen)
    _attention(figure.add_subplot(grid[0, 1]), seen)
    _errors(figure.add_subplot(grid[1, 1]), seen)
    figure.text(0.065, 0.925, words(seen.state), fontsize="small", va="center")
    return figure


def _bare(axes: Axes, words: str, sides: tuple[str, ...] = ("top", "right")) -> None:
    axes.set_title(words, loc="left", fontsize="small", y=1.0)  # a place of its own: to look for one takes a third of the drawing
    axes.tick_params(labelsize="x-small", length=0, pad=2)
    for side in sides:
        axes.spines[side].set_visible(False)


def _forecast(figure: Figure, axes: Axes, seen: Seen) -> None:
    past, fan, shade, middle = seen.past[-256:], seen.forecast, plotting.colour(seen.state.model), len(metrics.DECILES) // 2
    known, ahead = seen.future[: len(fan)], np.arange(len(fan))
    axes.plot(np.arange(-len(past), 0), past, color=plotting.INK, lw=0.9, label="context, its end")
    axes.plot(np.arange(len(known)), known, color=plotting.INK, lw=1, ls=(0, (2, 1.5)), label="what came")
    axes.plot(ahead, seen.naive[:, middle], color=plotting.GREY, lw=0.9, label="seasonal naive")
    axes.fill_between(ahead, fan[:, 0], fan[:, -1], color=shade, alpha=0.25, lw=0, label="10 to 90 %")
    axes.plot(ahead, fan[:, middle], color=shade, lw=1.6, label=f"{seen.state.model}, median")
    axes.axvline(-0.5, color=plotting.GREY, lw=1)
    axes.set_xlim(-len(past), len(fan))
    _bare(axes, "forecast, steps from its origin")
    figure.legend(*axes.get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(0.055, 1.0), ncols=5, fontsize="x-small",
                  handlelength=1.5, columnspacing=1.2)  # fmt: skip


def _patches(axes: Axes, seen: Seen) -> None:
    """The series over the spans it is read in: one line of spans for each size, darker where a size has the larger share."""
    found, (low, high) = seen.patches, (np.nanmin(seen.past), np.nanmax(seen.past))
    sizes = choices(model_of(seen.state.model))[1] or tuple(np.unique(found.size))
    for line, size in enumerate(sizes):
        here = found.size == size
        inside = [mpl.colors.to_rgba(plotting.colour(seen.state.model), 0.15 + 0.65 * share) for share in found.share[here]]
        axes.broken_barh([(start, size) for start in found.start[here]], (line + 0.04, 0.92), facecolors=inside, edgecolor="white", lw=0.8)
    axes.plot(np.arange(-len(seen.past), 0), -0.15 - 0.9 * (seen.past - low) / max(high - low, 1e-12), color=plotting.INK, lw=0.7)
    axes.set(xlim=(-len(seen.past), 0), ylim=(len(sizes), -1.2))
    axes.set_yticks(np.arange(len(sizes)) + 0.5, [str(size) for size in sizes])
    axes.grid(visible=False)
    _bare(axes, f"patch sizes over the whole context, {found.tokens} tokens")


def _attention(axes: Axes, seen: Seen) -> None:
    """Every head's pattern, one beside or under the other; those that are switched off are blank."""
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    _bare(axes, f"attention, {seen.site}" if seen.site else "no attention", ("top", "right", "bottom", "left"))
    if seen.pattern is None:
        return
    heads, n, m = seen.pattern.shape
    columns = 1 if m >= 4 * n else -(-heads // 2) if heads > 2 else heads
    rows = -(-heads // columns)
    right, down = max(1, round(0.06 * m)) + m, max(1, round((0.5 if columns == 1 else 0.06) * n)) + n
    mosaic = np.full((rows * down - down + n, columns * right - right + m), np.nan)
    off = set(range(heads)) if seen.site.rpartition(".")[0] in seen.state.off.layers else set(seen.state.off.heads.get(seen.site, ()))
    for h in range(heads):
        y, x = h // columns * down, h % columns * right
        if h in off:
            axes.text(x + m / 2 - 0.5, y + n / 2 - 0.5, f"{h} off", ha="center", va="center", fontsize="x-small", color=plotting.RED)
        else:
            mosaic[y : y + n, x : x + m] = seen.pattern[h]
    axes.imshow(mosaic, cmap="viridis", aspect="auto", interpolation="nearest", vmin=0)
    axes.set_xlabel("token that is looked at, old to new", fontsize="x-small")
    axes.set_ylabel("token that looks", fontsize="x-small")


def _errors(axes: Axes, seen: Seen) -> None:
    values = {name: found["MAE"] for name, found in seen.scores.items()}
    shade = plotting.colour(seen.state.model)
    bars = axes.barh(range(3), list(values.values()), color=[shade, mpl.colors.to_rgba(shade, 0.35), plotting.PALE])
    axes.bar_label(bars, [f"{value:#.3g}" for value in values.values()], fontsize="x-small", padding=2)
    axes.set_yticks(range(3), list(values))
    axes.set(xlim=(0, 1.25 * max(*values.values(), 1e-9)), ylim=(2.6, -0.6))
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
    axes.grid(axis="y", visible=False)
    _bare(axes, "mean absolute error")
