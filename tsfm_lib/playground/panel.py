"""Widgets in front of a state. All that is computed is computed elsewhere: a widget moves, a state is read off all of them, one picture
is drawn. Sliders tell where they were let go, not where they passed, so that a move is one picture."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from typing import Any

import ipywidgets as widgets

from tsfm_lib import plotting
from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret import Plan
from tsfm_lib.interpret.plans import head_sites, layers
from tsfm_lib.nn.sites import HeadSite
from tsfm_lib.playground import states
from tsfm_lib.playground.pictures import draw
from tsfm_lib.playground.states import SOURCES, State

NAMED = {"description_width": "62px"}


class Panel:
    """The playground. `show(state)` puts all knobs where a state says; `state`, `redraws` and `seconds` tell what happened.

    A button that is pressed in switches its head, MLP or layer off. What a model does not have is disabled, with a sentence.
    """

    def __init__(self, state: State | None = None, *, sources: Sequence[str] = SOURCES):
        state = state or State()
        models = list(dict.fromkeys([*states.forecasters(), state.model]))
        slider = lambda kind, low, high, step, name, **how: kind(
            min=low, max=high, step=step, value=low, description=name, continuous_update=False, style=NAMED,
            layout={"width": "330px"}, **how,
        )  # fmt: skip
        dropdown = lambda options, name: widgets.Dropdown(options=options, description=name, style=NAMED, layout={"width": "330px"})
        self.source, self.model = dropdown(list(dict.fromkeys([*sources, state.source])), "series"), dropdown(models, "model")
        self.period = slider(widgets.FloatSlider, 4, 256, 1, "period", readout_format=".0f")
        self.noise = slider(widgets.FloatSlider, 0, 2, 0.05, "noise")
        self.bursts = slider(widgets.FloatSlider, 0, 1, 0.05, "bursts")
        self.seed = slider(widgets.IntSlider, 0, 99, 1, "seed")
        self.horizon = slider(widgets.IntSlider, 8, states.FUTURE, 8, "horizon")
        self.tokens = slider(widgets.IntSlider, 1, states.MOST_TOKENS, 1, "J")
        self.site = dropdown([""], "attention")
        self.sizes, self.switches = widgets.HBox(), widgets.VBox()
        self.hint, self.summary, self.code = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.picture = widgets.Image(format="png", layout={"width": "100%", "max_width": "1000px"})
        self.buttons: dict[tuple[str, Any], widgets.ToggleButton] = {}
        self.patch_buttons: dict[int, widgets.ToggleButton] = {}
        self.state: State | None = None
        self.redraws, self.seconds, self._quiet = 0, [], False
        for knob in (self.source, self.model, self.period, self.noise, self.bursts, self.seed, self.horizon, self.tokens, self.site):
            knob.observe(self._moved, "value")
        left = widgets.VBox([self.source, self.period, self.noise, self.bursts, self.seed])
        right = widgets.VBox([self.model, self.horizon, self.tokens, self.sizes, self.hint, self.site])
        self.box = widgets.VBox([widgets.HBox([left, right]), self.picture, self.summary, self.code, self.switches])
        self.show(state)

    def _repr_mimebundle_(self, **how: Any) -> Any:
        words = "The panel needs a running kernel: ./run_all.sh lab, then Run All."
        return self.box._repr_mimebundle_(**how) | {"text/plain": words}

    # -- from a state to the widgets --

    def show(self, state: State) -> None:
        """Every knob to where `state` says, and one picture."""
        with self._silence():
            for knob, value in ((self.source, state.source), (self.model, state.model)):
                knob.options = list(dict.fromkeys([*knob.options, value]))
                knob.value = value
            self._furnish()
            for name in ("period", "noise", "bursts", "seed", "horizon"):
                knob, value = getattr(self, name), getattr(state, name)
                knob.min, knob.max = min(knob.min, value), max(knob.max, value)
                knob.value = value
            self.tokens.value = state.tokens or self.tokens.value
            for size, button in self.patch_buttons.items():
                button.value = state.sizes is not None and size not in state.sizes
            self.site.value = state.site or self.site.value
            pressed = {("head", (site, h)) for site, heads in state.off.heads.items() for h in heads}
            pressed |= {("mlp", name) for name in state.off.mlps} | {("layer", name) for name in state.off.layers}
            for key, button in self.buttons.items():
                button.value = key in pressed
        self._redraw()

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Widgets may be moved without a picture for each."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _furnish(self) -> None:
        """The switches, sites and knobs that this model has, all as trained and on."""
        model = states.model_of(self.model.value)
        tokens, sizes = states.choices(model)
        self.tokens.max = max(tokens, default=states.MOST_TOKENS)
        self.tokens.value = model.config.forecast_tokens if tokens else 1
        self.tokens.disabled = not tokens
        self.patch_buttons = {size: self._button(str(size), f"patches of {size} steps") for size in sizes}
        self.sizes.children = [widgets.Label("patches", layout={"width": "62px"}), *self.patch_buttons.values()] if sizes else ()
        self.hint.value = "" if tokens else f"<small>J and patch sizes are knobs of Kairos; {escape(self.model.value)} has neither.</small>"
        sites = [site.name for site in head_sites(model)] if hasattr(model, "sites") else []
        self.site.options, self.site.disabled = sites or [""], not sites
        self.site.value = states.usual_site(model)
        self.buttons = {}
        self.switches.children = [widgets.HTML("<small>Press to switch off:</small>"), *self._rows(model)] if sites else ()

    def _rows(self, model: Any) -> Iterator[widgets.HBox]:
        """A row for each layer: the layer as a whole, its heads by site, its MLP."""
        for name, sites in layers(model).items():
            self.buttons["layer", name] = self._button(name, f"the whole layer {name}", "96px")
            row = [self.buttons["layer", name]]
            for site in sites:
                if isinstance(site, HeadSite):
                    keys = [("head", (site.name, h)) for h in range(site.n_heads)]
                    self.buttons |= {key: self._button(str(h), f"head {h} of {site.name}", "34px") for h, key in enumerate(keys)}
                    row += [widgets.Label(site.kind), *(self.buttons[key] for key in keys)]
                else:
                    self.buttons["mlp", site.name] = self._button("MLP", site.name)
                    row.append(self.buttons["mlp", site.name])
            yield widgets.HBox(row)

    def _button(self, words: str, tip: str, width: str = "52px") -> widgets.ToggleButton:
        button = widgets.ToggleButton(description=words, tooltip=f"switch off {tip}", layout={"width": width})
        button.observe(self._moved, "value")
        return button

    # -- from the widgets to a state --

    def _read(self) -> State:
        pressed = [key for key, button in self.buttons.items() if button.value]
        mlps, layers_off = ([name for kind, name in pressed if kind == wanted] for wanted in ("mlp", "layer"))
        heads: dict[str, list[int]] = {}
        for site, h in (which for kind, which in pressed if kind == "head"):
            heads.setdefault(site, []).append(h)
        model = states.model_of(self.model.value)
        kept = tuple(size for size, button in self.patch_buttons.items() if not button.value)
        return State(
            source=self.source.value, period=self.period.value, noise=self.noise.value, bursts=self.bursts.value, seed=self.seed.value,
            model=self.model.value, horizon=self.horizon.value, off=Plan(heads, mlps, layers_off), site=self.site.value,
            tokens=None if self.tokens.disabled or self.tokens.value == model.config.forecast_tokens else self.tokens.value,
            sizes=None if len(kept) == len(self.patch_buttons) else kept,
        )  # fmt: skip

    def _moved(self, change: dict[str, Any]) -> None:
        if self._quiet:
            return
        if change["owner"] is self.model:
            with self._silence():
                self._furnish()
        self._redraw()

    def _redraw(self) -> None:
        """One picture of where everything stands. What cannot be shown is said, and the last picture stays."""
        began = time.process_time()
        self.period.disabled = self.source.value != "wave"
        for button in (*self.buttons.values(), *self.patch_buttons.values()):
            button.button_style = "danger" if button.value else ""
        try:
            state = self._read()
            if state == self.state:
                return
            seen = states.look(state)
        except TsfmError as problem:
            self.summary.value = f"<b>{escape(str(problem))}</b>"
            return
        self.picture.value = plotting.png(draw(seen))
        self.summary.value = escape(f"{seen.summary}. {seen.note}".strip())
        self.code.value = f"<pre style='overflow-x: auto; white-space: pre'>{escape(states.code(replace(state, site='')))}</pre>"
        self.state, self.redraws = state, self.redraws + 1
        self.seconds.append(time.process_time() - began)
