"""Pictures: one colour per model, the same bytes for the same figure, nothing left behind in pyplot."""

import itertools
import os
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform

from tsfm_lib import plotting
from tsfm_lib.claims.rules import WEAKEST_FIRST
from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate.comparison import Interval, interval
from tsfm_lib.evaluate.comparison import ranks as compare
from tsfm_lib.paths import ROOT

TEN = ("kairos", "time-tracker", "mantis", "moment", "moirai", "units", "chronos-t5", "chronos-bolt", "timesfm", "toto")
SOME = ("forecast", "patch_map", "matrix_cluster")
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


def runs(seeds=6):
    rng = np.random.default_rng(0)
    means = {"adaptive": 0.3, "fixed-small": 0.32, "new": 0.4}
    return pd.DataFrame([{"seed": s, "density": d, "variant": v, "WQL": m + rng.normal(0, 0.01)}
                         for s in range(seeds) for d in (0.0, 0.35, 1.0) for v, m in means.items()])


def named_points():
    """Two neighbours, whose names would fall on each other above."""
    return pd.DataFrame([(9.0, 0.73, "a", "flowstate"), (11.0, 0.73, "b", "moirai"), (200.0, 0.9, "b", "timesfm")],
                        columns=["size", "MASE", "group", "name"])


def pictures() -> dict[str, Figure]:
    rng = np.random.default_rng(1)
    fan = np.sort(rng.normal(size=(24, 5)), axis=1)
    points = rng.normal(size=(20, 3))
    table = pd.DataFrame(rng.random((12, 4)) + np.linspace(0, 0.6, 4), columns=["kairos-nano", "ets", "dlinear", "naive"])
    return {
        "forecast": plotting.forecast(rng.normal(size=80), fan, LEVELS, rng.normal(size=24)),
        "forecasts": plotting.forecast(rng.normal(size=80), {"kairos-nano": fan, "naive": fan * 0}, LEVELS),
        "paired": plotting.paired(runs(), "density", "WQL"),
        "lines": plotting.lines(runs(), "density", "WQL"),
        "gallery": plotting.gallery({"gp": rng.normal(size=50), "ets": rng.normal(size=50), "walks": rng.normal(size=50)}),
        "heat": plotting.heat(rng.normal(size=(4, 6)), diverging=True, label="MASE"),
        "heats": plotting.heats({"all": rng.random((4, 6)), "causal": np.tri(4)}, x="key", y="query", label="weight"),
        "patch_map": plotting.patch_map(rng.normal(size=256), rng.choice([8, 16, 32], 8), rng.random(8) < 0.4),
        "ranks": plotting.ranks(compare(table)),
        "scatter": plotting.scatter(named_points(), "size", "MASE", "group", "name", logx=True),
        "forest": plotting.forest({"K1": interval([1.0, 2.0, 1.5]), "K2": None}, {"K1": "direction holds", "K2": "needs data"}),
        "matrix_cluster": plotting.matrix_cluster(squareform(pdist(points)), hierarchy.linkage(pdist(points)), ["a", "b"] * 10),
        "spectrum": plotting.spectrum({"real": rng.normal(size=(5, 64)), "cauker": rng.normal(size=(5, 64))}, marks={"day": 1 / 24}),
    }


@pytest.fixture(scope="module", autouse=True)
def themed():
    before = mpl.rcParams.copy()
    plotting.theme()
    yield
    mpl.rcParams.update(before)


def save_some(folder: str) -> None:
    made = pictures()
    for name in SOME:
        plotting.save(made[name], f"{folder}/{name}", "what to notice")


def test_every_picture_is_a_figure_that_pyplot_does_not_know():
    import matplotlib.pyplot as plt

    open_before = plt.get_fignums()
    for name, figure in pictures().items():
        assert isinstance(figure, Figure) and figure.axes, name
    assert plt.get_fignums() == open_before


def test_a_notebook_cell_that_ends_in_a_figure_shows_it(tmp_path):
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.display_formatter.active_types = shell.display_formatter.format_types
from tsfm_lib import plotting
plotting.theme()
shown, _ = shell.display_formatter.format(plotting.heat([[0.0, 1.0]]))
print("image/png" in shown)
"""
    home = {**os.environ, "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=home, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("True")


def test_same_figure_same_bytes_in_two_processes(tmp_path):
    code = "import sys; sys.path.insert(0, 'tests'); import test_plotting as t; t.plotting.theme(); t.save_some(sys.argv[1])"
    save_some(str(tmp_path / "here"))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, end in itertools.product(SOME, (".png", ".svg")):
        assert (tmp_path / "here" / (name + end)).read_bytes() == (tmp_path / "there" / (name + end)).read_bytes(), name + end


def test_saved_pictures_hold_the_caption_and_neither_date_nor_version(tmp_path):
    png, svg = plotting.save(plotting.heat(np.eye(3)), tmp_path / "a", "what to notice")
    for content in (png.read_bytes(), svg.read_bytes()):
        assert b"what to notice" in content
        assert b"dc:date" not in content and b"Matplotlib v" not in content and b"matplotlib version" not in content.lower()


def test_the_ten_models_have_ten_colours_that_sizes_share():
    assert len({plotting.colour(name) for name in TEN}) == 10
    assert all(plotting.colour(f"{name}-nano") == plotting.colour(name) for name in TEN)
    assert plotting.colour("chronos-bolt-nano") != plotting.colour("chronos-t5-nano")
    assert plotting.colour("stable-rank reversed") != plotting.colour("stable-rank")


def test_colours_tell_apart_for_the_colour_blind():
    """Deuteranopia after Machado et al. 2009: the ten models stay further apart than a just visible step."""
    seen = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    rgb = np.array([mpl.colors.to_rgb(plotting.colour(name)) for name in TEN]) @ seen.T
    distance = squareform(pdist(rgb)) + np.eye(10)
    assert distance.min() > 0.08


def test_ten_layers_have_ten_colours():
    assert len(set(plotting.colours([f"decoder.{i}.self" for i in range(10)]).values())) == 10


def test_all_rows_of_a_heat_map_are_named_while_there_is_room():
    figure = plotting.heat([[0.0]] * 18, [""], [f"row {i}" for i in range(18)], size="large")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [f"row {i}" for i in range(18)]


def test_unknown_names_get_the_same_colours_everywhere_and_none_twice():
    names = ["kairos", "first", "second", "third", "fourth"]
    found = plotting.colours(names)
    assert found == plotting.colours(names) and len(set(found.values())) == 5
    assert found["kairos"] == plotting.colour("kairos")


def test_every_verdict_has_a_colour():
    assert set(plotting.VERDICTS) == set(WEAKEST_FIRST)


def test_the_mean_line_is_the_mean_over_units():
    axes = plotting.lines(runs(), "density", "WQL").axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    expected = runs().groupby(["variant", "density"])["WQL"].mean()
    for variant in ("adaptive", "fixed-small", "new"):
        np.testing.assert_allclose(drawn[variant], expected[variant].to_numpy())


@pytest.mark.parametrize("draw", [plotting.lines, plotting.paired])
def test_a_picture_of_nothing_is_refused(draw):
    with pytest.raises(TsfmError, match="no row to draw WQL from"):
        draw(runs().query("density > 2"), "density", "WQL")


def test_panels_stand_on_one_scale_and_are_named():
    figure = plotting.lines(runs().assign(J=1 + runs()["seed"] % 2), "density", "WQL", panel="J")
    named = {axes.get_title(loc="left"): axes.get_ylim() for axes in figure.axes}
    assert list(named) == ["J 1", "J 2"] and named["J 1"] == named["J 2"]


def test_a_line_that_only_a_later_panel_has_is_in_the_legend():
    rows = runs().query("variant != 'new' or density > 0").assign(half=lambda r: np.where(r["density"] > 0, "b", "a"))
    figure = plotting.lines(rows, "density", "WQL", panel="half")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["adaptive", "fixed-small", "new"]


def test_a_patch_map_draws_every_size_by_its_name():
    figure = plotting.patch_map(np.zeros(64), {"mean": [12.0, 9.0], "finest": [8, 8]})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["series", "mean", "finest"]
    drawn = [patch.get_data().values.tolist() for patch in figure.axes[1].patches]
    assert [12.0, 9.0] in drawn and [8.0, 8.0] in drawn


def test_paired_dots_of_one_unit_are_joined():
    axes = plotting.paired(runs(seeds=4), "density", "WQL").axes[0]
    joined = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert len(joined) == 3 * 4
    first = runs(seeds=4).query("seed == 0 and density == 0.0")["WQL"].to_numpy()
    np.testing.assert_allclose(joined[0].get_ydata(), first)


def test_the_fan_holds_one_band_per_pair_of_levels():
    fan = np.sort(np.random.default_rng(2).normal(size=(24, 5)), axis=1)
    axes = plotting.forecast(np.zeros(10), fan, LEVELS).axes[0]
    assert len(axes.collections) == 2
    outer = axes.collections[0].get_paths()[0].get_extents()
    assert outer.ymin == pytest.approx(fan[:, 0].min()) and outer.ymax == pytest.approx(fan[:, -1].max())


def test_names_of_neighbouring_points_do_not_fall_on_each_other():
    axes = plotting.scatter(named_points(), "size", "MASE", "group", "name", logx=True).axes[0]
    assert [text.xyann[1] > 0 for text in axes.texts] == [True, False, True]


def test_a_matrix_is_drawn_in_the_order_of_its_tree():
    points = np.random.default_rng(3).normal(size=(9, 2))
    linkage = hierarchy.linkage(pdist(points), "average")
    order = hierarchy.leaves_list(linkage)
    drawn = np.asarray(plotting.matrix_cluster(squareform(pdist(points)), linkage).axes[2].images[0].get_array())
    np.testing.assert_allclose(drawn, squareform(pdist(points))[np.ix_(order, order)])


def test_a_sine_peaks_at_its_frequency():
    t = np.arange(480)
    line = plotting.spectrum(np.sin(2 * np.pi * t / 24)).axes[0].lines[0]
    assert line.get_xdata()[np.argmax(line.get_ydata())] == pytest.approx(1 / 24)


def test_a_standardised_forest_shows_unlike_units_at_one_width():
    axes = plotting.forest({"a": Interval(1.0, 0.5, 1.5, 5, "t"), "b": Interval(400.0, -100.0, 900.0, 5, "t")}, standardise=True).axes[0]
    widths = [np.ptp(line.get_xdata()) for line in axes.lines[:2]]
    np.testing.assert_allclose(widths, 2.0)


def test_no_legend_lies_over_the_data():
    made = pictures()
    for name in ("forecast", "forecasts", "paired", "lines", "forest", "patch_map", "matrix_cluster"):
        figure = made[name]
        figure.draw_without_rendering()
        legend = figure.legends[0].get_window_extent()
        assert not any(legend.overlaps(axes.get_window_extent()) for axes in figure.axes), name


def test_nothing_written_is_cut_off_or_tiny():
    for name, figure in pictures().items():
        figure.draw_without_rendering()
        width, height = figure.get_size_inches() * figure.dpi
        for text in figure.findobj(mpl.text.Text):
            if text.get_text() and text.get_visible() and text.axes is not None and name != "heat":
                box = text.get_window_extent()
                assert box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2, (name, text.get_text())
                assert text.get_fontsize() >= 9, (name, text.get_text())


def test_wrong_columns_and_sizes_are_refused_by_name():
    with pytest.raises(TsfmError, match="no column 'MASE'"):
        plotting.lines(runs(), "density", "MASE")
    with pytest.raises(TsfmError, match="size must be one of small, medium, large"):
        plotting.canvas("huge")
