"""The playground says what it does: its three lines make its numbers, one knob moves one thing, one move makes one picture."""

from functools import cache
from html import escape
from itertools import count
from statistics import median

import numpy as np
import pytest

from tsfm_lib import data, front, interpret, playground
from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret.plans import head_sites, layers
from tsfm_lib.playground import State

HEADS = interpret.Plan(heads={"decoder.1.cross": [0, 2], "encoder.0.self": [1]}, mlps=["encoder.2"])
STATES = {
    "as it begins": State(),
    "heads and an MLP off": State(off=HEADS, bursts=0.35, noise=0.25, period=17, seed=3),
    "Kairos's knobs": State(tokens=1, sizes=(32, 128), bursts=0.5, off=interpret.Plan(layers=["encoder.1"])),
    "a loaded series": State(source="co2", model="timesfm-nano", horizon=104, off=interpret.Plan(layers=["decoder.3"])),
    "a disturbed one": State(source="sunspots_yearly", noise=0.5, bursts=0.2, seed=4, model="moirai-nano", horizon=24),
    "no heads": State(model="seasonal-naive", noise=0.3),
}


@cache
def forecasters():
    found = [name for name in front.shipped() if hasattr(front.load(name), "predict_quantiles")]
    assert set(playground.forecasters()) <= set(found)
    return found


def same(made, seen):
    scores = playground.errors(made["forecast"], made["future"])
    return np.array_equal(made["forecast"], seen.forecast) and scores == seen.scores["this state"]


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_the_three_lines_make_the_same_numbers(state):
    lines, made = playground.code(state), {}
    assert len(lines.splitlines()) == 3
    exec(compile(lines, "the three lines", "exec"), made)
    seen = playground.look(state)
    assert same(made, seen) and np.array_equal(made["past"], seen.past, equal_nan=True)


def test_a_file_is_a_series_too(tmp_path):
    file = tmp_path / "mine.csv"
    data.load("nile").frame().to_csv(file)
    state, made = State(source=str(file), noise=0.0, horizon=12), {}
    exec(playground.code(state), made)
    assert same(made, playground.look(state)) and len(made["past"]) + len(made["future"]) == 100


# ---- one knob, one thing -----------------------------------------------------------------------------------------------------------


def test_noise_is_the_same_noise_louder():
    calm, some, more = (np.concatenate(playground.wave(noise=level)) for level in (0, 0.2, 0.4))
    np.testing.assert_allclose(more - calm, 2 * (some - calm), atol=1e-12)


def test_more_bursts_keep_those_that_were_there_and_none_follows_the_origin():
    calm = playground.wave(noise=0)
    on = [np.abs(playground.wave(noise=0, bursts=share)[0] - calm[0]).reshape(-1, 32).max(1) > 0.1 for share in (0, 0.3, 0.6, 1)]
    assert all((less <= more).all() for less, more in zip(on, on[1:])) and 0 == on[0].sum() < on[1].sum() < on[2].sum() < on[3].sum() == 16
    np.testing.assert_array_equal(playground.wave(noise=0, bursts=1)[1], calm[1])


def test_the_horizon_leaves_series_and_nearer_steps_alone():
    near, far = (playground.look(State(horizon=horizon)) for horizon in (48, 96))
    assert np.array_equal(near.past, far.past) and np.array_equal(near.forecast, far.forecast[:48])


@pytest.mark.parametrize("knobs", [{"period": 1}, {"noise": -1}, {"bursts": 1.5}, {"horizon": 0}, {"seed": -1}, {"source": "nilee"},
                                   {"source": "trace-embedded"}, {"model": "kairos-nan"}, {"sizes": ()}, {"sizes": (48,)}, {"tokens": 3},
                                   {"model": "timesfm-nano", "tokens": 1}, {"site": "decoder.1.kross"},
                                   {"off": interpret.Plan(layers=["middle"])}, {"model": "theta", "off": HEADS}])  # fmt: skip
def test_what_cannot_be_is_refused_with_a_sentence(knobs):
    with pytest.raises(TsfmError, match=r"expected|got|did you mean|there are"):
        playground.look(State(**knobs))


# ---- models -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", forecasters())
def test_heads_and_layers_of_every_forecaster_can_be_switched_off(name):
    model = front.load(name)
    intact = playground.look(State(model=name))
    site = next(found for found in head_sites(model) if found.name == intact.site)
    one = playground.look(State(model=name, off=interpret.Plan(heads={site.name: [0]})))
    layer = playground.look(State(model=name, off=interpret.Plan(layers=[next(iter(layers(model)))])))
    assert not np.array_equal(one.forecast, intact.forecast) and not np.array_equal(layer.forecast, intact.forecast)
    assert np.array_equal(playground.look(State(model=name, seed=0, noise=0.1)).forecast, intact.forecast)      # nothing stays switched off
    assert one.scores["intact"] == intact.scores["this state"]
    assert intact.pattern.shape[0] == site.n_heads
    np.testing.assert_allclose(intact.pattern.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("name", forecasters())
def test_patches_cover_the_context_and_their_shares_sum_to_one(name):
    model = front.load(name)
    found = playground.patches(model, playground.wave(period=250)[0])
    share = np.zeros(512)
    for start, size, part in zip(found.start, found.size, found.share):
        share[max(start + 512, 0) : start + 512 + size] += part
    reads = min(512, model.config.context)  # of the series; what is before them no patch holds
    np.testing.assert_allclose(share, np.arange(512) >= 512 - reads, atol=1e-5)


def test_kairos_reads_the_sizes_it_may_and_makes_the_tokens_it_is_asked_for():
    for sizes, tokens in {(128,): 4, (64,): 8, (32,): 16}.items():
        found = playground.look(State(sizes=sizes)).patches
        assert set(found.size) == set(sizes) and found.tokens == tokens
    both, one = playground.look(State(horizon=48)), playground.look(State(horizon=48, tokens=1))
    assert one.pattern.shape[1] == 1 and both.pattern.shape[1] == 2
    np.testing.assert_allclose(one.forecast, both.forecast, rtol=1e-5, atol=1e-5)


# ---- the panel ----------------------------------------------------------------------------------------------------------------------


@cache                                           # to furnish one takes half a second
def the_panel():
    return playground.Panel(sources=("wave", "elnino"))


@pytest.fixture
def panel():
    the_panel().show(State())
    return the_panel()


@pytest.fixture
def bare(panel, monkeypatch):
    """The panel with a number in place of its picture, which takes most of the time."""
    numbers = count()
    monkeypatch.setattr(playground.panel, "draw", lambda seen: seen)
    monkeypatch.setattr(playground.panel.plotting, "png", lambda seen: f"picture {next(numbers)}".encode())
    return panel


def moves(panel, widget, value):
    """How many pictures it takes to put a widget somewhere."""
    before, picture = panel.redraws, panel.picture.value
    widget.value = value
    assert (panel.picture.value != picture) == (panel.redraws > before)
    return panel.redraws - before


def test_one_move_makes_one_picture(panel):
    values = {"period": 60, "noise": 0.5, "bursts": 0.4, "seed": 7, "horizon": 64, "tokens": 1, "site": "encoder.0.self"}
    for name, value in {**values, "source": "elnino"}.items():
        assert moves(panel, getattr(panel, name), value) == 1, name
        assert getattr(panel.state, name) == value
        assert moves(panel, getattr(panel, name), value) == 0
    assert panel.period.disabled and not any(getattr(panel, name).continuous_update for name in ("period", "noise", "bursts", "horizon"))


def test_a_click_switches_a_head_off_and_another_one_on_again(bare):
    begun = bare.state
    assert moves(bare, bare.buttons["head", ("decoder.1.cross", 2)], True) == 1
    assert bare.state.off == interpret.Plan(heads={"decoder.1.cross": [2]})
    assert escape("heads={'decoder.1.cross': [2]}") in bare.code.value
    for key in (("layer", "encoder.1"), ("mlp", "decoder.0.mlp")):
        assert moves(bare, bare.buttons[key], True) == 1
    assert bare.state.off == interpret.Plan({"decoder.1.cross": [2]}, ["decoder.0"], ["encoder.1"])
    for button in [button for button in bare.buttons.values() if button.value]:
        assert moves(bare, button, False) == 1
    assert bare.state == begun


def test_another_model_brings_its_own_switches_in_one_picture(bare):
    bare.buttons["layer", "encoder.1"].value = True
    assert moves(bare, bare.model, "timesfm-nano") == 1
    assert not bare.state.off and bare.tokens.disabled and not bare.sizes.children and "knobs of Kairos" in bare.hint.value
    model = front.load("timesfm-nano")
    heads = {key for key in bare.buttons if key[0] == "head"}
    assert heads == {("head", (site.name, h)) for site in head_sites(model) for h in range(site.n_heads)}
    assert moves(bare, bare.model, "kairos-nano") == 1 and not bare.tokens.disabled


@pytest.mark.parametrize("name", ["heads and an MLP off", "Kairos's knobs", "a disturbed one", "no heads"])
def test_a_state_goes_through_the_widgets_and_comes_back(bare, name):
    bare.show(STATES[name])
    assert playground.code(bare.state) == playground.code(STATES[name])


def test_what_cannot_be_shown_is_said_and_the_picture_stays(bare):
    for button in list(bare.patch_buttons.values())[:2]:
        button.value = True
    last = bare.patch_buttons[32]
    assert moves(bare, last, True) == 0 and "needs at least 1" in bare.summary.value
    assert moves(bare, last, False) == 0           # back where the picture is
    assert moves(bare, bare.patch_buttons[64], False) == 1 and "needs" not in bare.summary.value


def test_a_redraw_is_quick(panel):
    """Meant are 0.3 seconds. CPU time of this process, so that neighbours count little; the median, so that a pause of the garbage
    collector does not count; and twice the time, for machines half as fast."""
    before = len(panel.seconds)
    for noise in (0.2, 0.3, 0.4):
        panel.noise.value = noise
    assert len(panel.seconds) == before + 3 and median(panel.seconds[before:]) < 0.6


def test_it_shows_itself_as_widgets_and_says_on_paper_what_it_needs(panel):
    found = panel._repr_mimebundle_()
    assert found["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.box.model_id and "kernel" in found["text/plain"]
