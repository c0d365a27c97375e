"""What a state of the playground shows: its series, its model, and everything measured on them.

A state is all there is to know: the same state gives the same numbers. One knob moves one thing: noise and bursts are drawn once for a
seed and then scaled and thinned, and the forecast origin stays where it is whatever the horizon.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from tsfm_lib import data, front, interpret
from tsfm_lib.data.reading import ENDINGS
from tsfm_lib.errors import TsfmError, nearest, whole
from tsfm_lib.evaluate import metrics
from tsfm_lib.interpret.plans import head_sites
from tsfm_lib.interpret.plans import sites as sites_of
from tsfm_lib.models.kairos import Kairos, with_tokens
from tsfm_lib.models.listing import forecasters as forecasters
from tsfm_lib.nn.sites import HeadSite
from tsfm_lib.synth.shapes import Number

CONTEXT, FUTURE = 512, 192                      # steps of a series before and behind the forecast origin
BLOCK, BURST = 32, 6                            # steps of a block that may hold a burst, and of one turn inside of it
MOST_TOKENS = 6                                 # forecast tokens of a Kairos whose tokens share their start row
SOURCES = ("wave", "co2", "elnino", "sunspots_yearly")
Series = tuple[Float[np.ndarray, " C"], Float[np.ndarray, " F"]]


@dataclass(frozen=True)
class State:
    """Where every knob stands. `source` is "wave", a data set by name or a file; `tokens` and `sizes` are Kairos's, None: as trained."""

    source: str = "wave"
    period: Number = 24                         # steps, of a wave
    noise: Number = 0.1                         # standard deviations of the series
    bursts: Number = 0.0                        # share of the blocks of the context that hold a burst
    seed: int = 0                               # of noise and bursts
    model: str = "kairos-nano"
    horizon: int = 96
    tokens: int | None = None                   # J
    sizes: tuple[int, ...] | None = None        # patch sizes the router may choose from
    off: interpret.Plan = field(default_factory=interpret.Plan)
    site: str = ""                              # whose attention is drawn; "": the last cross-attention, or the last one along time

    def __post_init__(self):
        whole(self.horizon, "the horizon"), whole(self.seed, "the seed", 0)
        if self.sizes is not None:
            object.__setattr__(self, "sizes", tuple(sorted((int(s) for s in self.sizes), reverse=True)))


# ---- the series -------------------------------------------------------------------------------------------------------------------------


def wave(period: Number = 24, noise: Number = 0.1, bursts: Number = 0.0, seed: int = 0) -> Series:
    """A season of two harmonics, disturbed; 512 steps and the 192 that follow.

    >>> past, future = wave(noise=0.0)
    >>> bool(np.isclose(past[-1], np.sin(-2 * np.pi / 24) + 0.5 * np.sin(-4 * np.pi / 24 + 1))), len(future)
    (True, 192)
    """
    if not period >= 2:
        raise TsfmError(f"a period has 2 steps or more, got {period!r}")
    turn = 2 * np.pi * np.arange(-CONTEXT, FUTURE) / period
    return disturbed(np.sin(turn) + 0.5 * np.sin(2 * turn + 1), CONTEXT, noise, bursts, seed)


def loaded(source: str | Path, noise: Number = 0.0, bursts: Number = 0.0, seed: int = 0) -> Series:
    """The first channel of the first series of a data set or a file, at most its last 512 + 192 steps; a third of a short one is future."""
    found = data.read(source) if Path(source).suffix in ENDINGS else data.load(source)
    if not isinstance(found, data.SeriesSet):
        raise TsfmError(f"{source} holds no series to forecast: expected a forecasting set such as {', '.join(SOURCES[1:])}, or a file")
    values = np.asarray(found.series[0][0], np.float64)[-CONTEXT - FUTURE :]
    origin = len(values) - min(FUTURE, len(values) // 3)
    if origin == len(values):
        raise TsfmError(f"{source} has {len(values)} steps, too few to hide some of them: pass 3 or more")
    return disturbed(values, origin, noise, bursts, seed)


def disturbed(values: Float[np.ndarray, " T"], origin: int, noise: Number, bursts: Number, seed: int) -> Series:
    """The values with white noise everywhere, and a fast sine of 1.5 deviations in some blocks before the origin.

    More bursts keep those that were there, more noise is the same noise louder. What follows the origin is free of bursts: they may mislead
    a model, but nobody is asked to foresee them."""
    if not noise >= 0 or not 0 <= bursts <= 1:
        raise TsfmError(f"expected noise of 0 or more and a share of bursts between 0 and 1, got {noise!r} and {bursts!r}")
    rng, n = np.random.default_rng(seed), len(values)
    white, lot = rng.standard_normal(CONTEXT + FUTURE)[-n:], rng.random(CONTEXT // BLOCK)
    t = np.arange(-origin, n - origin)                                        # 0: the first step of the future
    burst = np.append(lot < bursts, np.zeros(FUTURE // BLOCK + 1, bool))[t // BLOCK + len(lot)]
    extra = noise * white + 1.5 * np.sqrt(2) * burst * np.sin(2 * np.pi * t / BURST)
    series = values + np.nanstd(values[:origin]) * extra
    return series[:origin], series[origin:]


@lru_cache(maxsize=64)
def _series(source: str, period: Number, noise: Number, bursts: Number, seed: int) -> Series:
    return wave(period, noise, bursts, seed) if source == "wave" else loaded(source, noise, bursts, seed)


# ---- the model --------------------------------------------------------------------------------------------------------------------------


def kairos(name: str, tokens: int | None = None, sizes: Iterable[int] | None = None) -> Kairos:
    """A Kairos whose decoder makes so many forecast tokens, and whose router may choose from these patch sizes alone.

    No weight changes: earlier forecast tokens never see later ones, and a size that is forbidden gets a bias of minus infinity.
    """
    model = front.load(name)
    if not isinstance(model, Kairos):
        raise TsfmError(f"forecast tokens and patch sizes are knobs of Kairos, got {name}, a {type(model).__name__}: leave them alone")
    c = model.config
    if tokens is not None and whole(tokens, "the number of forecast tokens") != c.forecast_tokens:
        model = with_tokens(model, whole(tokens, "the number of forecast tokens"))
    if sizes is not None:
        kept = {int(s) for s in sizes}
        if not kept or kept - set(c.patch_lengths) or len(kept) + c.null_experts < c.active_experts:
            least = max(1, c.active_experts - c.null_experts)
            raise TsfmError(f"{name} reads patches of {c.patch_lengths} steps and needs at least {least} of them, got {sorted(kept)}")
        forbidden = torch.tensor([size not in kept for size in c.patch_lengths] + [False] * c.null_experts)
        model.router.bias.masked_fill_(forbidden, -torch.inf)
    return model


@lru_cache(maxsize=16)
def model_of(name: str, tokens: int | None = None, sizes: tuple[int, ...] | None = None) -> Any:
    return front.load(name) if tokens is None and sizes is None else kairos(name, tokens, sizes)


def choices(model: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The numbers of forecast tokens and the patch sizes that can be asked for; nothing for a model that is no Kairos."""
    if not isinstance(model, Kairos):
        return (), ()
    most = model.config.forecast_tokens if model.config.own_rows else MOST_TOKENS
    return tuple(range(1, most + 1)), model.config.patch_lengths


def usual_site(model: Any) -> str:
    """The attention whose pattern says most: the last cross-attention, from forecast to series, or else the last one along time."""
    kinds = [(site.kind, site.name) for site in head_sites(model)] if hasattr(model, "sites") else []
    for wanted in (("cross",), ("self", "time", "space")):
        if found := [name for kind, name in kinds if kind in wanted]:
            return found[-1]
    return ""


@dataclass(frozen=True)
class Patches:
    """Spans of a series that a model reads, and the share each has in its token: 1 unless sizes are mixed."""

    start: Int[np.ndarray, " n"]                 # steps from the forecast origin
    size: Int[np.ndarray, " n"]
    share: Float[np.ndarray, " n"]
    tokens: int


@torch.no_grad()
def patches(model: Any, past: Float[np.ndarray, " C"]) -> Patches:
    """Kairos mixes sizes, differently for each stretch of a series; others read patches of one size, or steps.

    >>> patches(None, np.zeros(3))
    Patches(start=array([-3, -2, -1]), size=array([1, 1, 1]), share=array([1., 1., 1.]), tokens=3)
    """
    if not isinstance(model, Kairos):
        config = getattr(model, "config", None)
        size, most = (int(getattr(config, name, None) or usual) for name, usual in (("patch", 1), ("context", len(past))))
        n = -(-min(len(past), most) // size)
        return Patches(size * np.arange(-n, 0), np.full(n, size), np.ones(n), n)
    z, seen, _ = model.normalise(model.fill(torch.as_tensor(past, dtype=torch.float32)[None]))
    encoded = model.encode(z, seen)
    spans, longest = [], model.config.patch_lengths[0]
    for level, size in enumerate(model.config.patch_lengths):
        share = encoded.routing.share[0, :, level].repeat_interleave(longest // size).numpy()
        observed = seen[0].unflatten(0, (-1, size)).any(-1).numpy()
        spans.append(np.stack([size * np.arange(-len(share), 0), np.full(len(share), size), share])[:, (share > 0) & observed])
    start, size, share = np.concatenate(spans, axis=1)
    return Patches(start.astype(int), size.astype(int), share, int((encoded.tokens.observed & (encoded.tokens.size > 0)).sum()))


# ---- what is seen -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """Everything a state shows. Forecasts hold the nine deciles."""

    state: State
    past: Float[np.ndarray, " C"]
    future: Float[np.ndarray, " F"]
    forecast: Float[np.ndarray, "horizon Q"]
    naive: Float[np.ndarray, "horizon Q"]              # the seasonal naive, which looks for a season by itself
    patches: Patches
    site: str
    pattern: Float[np.ndarray, "heads N M"] | None   # attention of every head in the first pass
    scores: dict[str, dict[str, float]]          # of "this state", "intact" and "seasonal naive"
    note: str = ""                               # what one should know about it

    @property
    def summary(self) -> str:
        now, intact, naive = (self.scores[name] for name in ("this state", "intact", "seasonal naive"))
        return (f"MAE {now['MAE']:#.3g} (intact {intact['MAE']:#.3g}, seasonal naive {naive['MAE']:#.3g}), WQL {now['WQL']:#.3g}, "
                f"{now['coverage']:.0%} of what came lies in the 80 % band, {self.patches.tokens} tokens")  # fmt: skip

    @property
    def row(self) -> dict[str, Any]:
        """The state and its errors, for a table."""
        s, now = self.state, self.scores["this state"]
        off = "; ".join([*(f"{site} {list(heads)}" for site, heads in s.off.heads.items()), *s.off.mlps, *s.off.layers])
        return {
            "dataset": s.source, "period": s.period, "noise": s.noise, "bursts": s.bursts, "seed": s.seed, "variant": s.model,
            "horizon": s.horizon, "J": s.tokens, "sizes": " ".join(map(str, s.sizes or ())), "off": off, "tokens_read": self.patches.tokens,
            "MAE": now["MAE"], "WQL": now["WQL"], "coverage": now["coverage"],
            "intact_MAE": self.scores["intact"]["MAE"], "naive_MAE": self.scores["seasonal naive"]["MAE"],
        }  # fmt: skip


def look(state: State) -> Seen:
    """Forecast, patches, attention and errors of one state."""
    made = (state.source, state.period, state.noise, state.bursts, state.seed)
    past, future = _series(*made)
    model = model_of(state.model, state.tokens, state.sizes)
    site = state.site or usual_site(model)
    if site and not isinstance(sites_of(model).get(site), HeadSite):
        known = [found.name for found in head_sites(model)]
        raise TsfmError(f"{state.model} has no attention {site!r}, there are {', '.join(known)}{nearest(site, known)}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        forecast, pattern = _run(model, past, state.horizon, state.off, site)
    naive, intact = _naive(made, state.horizon), _intact(state.model, made, state.horizon)
    scores = {name: errors(fan, future) for name, fan in (("this state", forecast), ("intact", intact), ("seasonal naive", naive))}
    notes = [str(w.message) for w in said if "ablation" in str(w.message)]
    if not getattr(model, "probabilistic", True):
        notes.append("a point forecast: it has no band")
    if state.horizon > len(future):
        notes.append(f"only the first {len(future)} steps of the future are known, and errors count those")
    return Seen(state, past, future, forecast, naive, patches(model, past), site, pattern, scores, "; ".join(notes))


def _run(model: Any, past: Float[np.ndarray, " C"], horizon: int, off: interpret.Plan, site: str) -> tuple[np.ndarray, np.ndarray | None]:
    if not hasattr(model, "sites"):
        if off:
            raise TsfmError(f"{type(model).__name__} has no heads or layers to switch off: expected an empty plan, got {off}")
        return front.forecast(model, past, horizon), None
    with interpret.ablate(model, off):
        forecast = front.forecast(model, past, horizon)
        with interpret.capture(model, "patterns", sites=[site]) as seen:  # a pass of its own: an open softmax rounds otherwise
            front.forecast(model, past, horizon)
    return forecast, seen.calls("patterns", site)[0][0].numpy()


@lru_cache(maxsize=256)
def _naive(made: tuple, horizon: int) -> Float[np.ndarray, "horizon Q"]:
    return front.forecast("seasonal-naive", _series(*made)[0], horizon)


@lru_cache(maxsize=256)
def _intact(model: str, made: tuple, horizon: int) -> Float[np.ndarray, "horizon Q"]:
    """The same model on the same series, with nothing switched off and all of Kairos's knobs as trained."""
    return front.forecast(model_of(model), _series(*made)[0], horizon)


def errors(forecast: Float[np.ndarray, "horizon Q"], future: Float[np.ndarray, " F"]) -> dict[str, float]:
    """MAE of the median, WQL and coverage of the outermost deciles, over those steps whose truth is known."""
    known = min(len(forecast), len(future))
    found = metrics.score(future[None, None, :known], forecast[None, None, :known], metrics.DECILES)
    return {name: float(found[name][0]) for name in ("MAE", "WQL", "coverage")}


def words(state: State) -> str:
    """A state in one line.

    >>> words(State(source="co2", off=interpret.Plan(layers=["encoder.1"])))
    'kairos-nano on co2, noise 0.1, seed 0; 96 steps ahead; off: encoder.1'
    """
    made = f"wave of period {state.period:g}" if state.source == "wave" else state.source
    knobs = [f"noise {state.noise:g}" * bool(state.noise), f"bursts {state.bursts:g}" * bool(state.bursts)]
    made = ", ".join(filter(None, [made, *knobs, f"seed {state.seed}" * any(knobs)]))
    kairos = [f"J = {state.tokens}" * bool(state.tokens), "sizes " + " ".join(map(str, state.sizes)) if state.sizes else ""]
    off = [*(f"{site} {', '.join(map(str, heads))}" for site, heads in state.off.heads.items()), *state.off.mlps, *state.off.layers]
    off = f"off: {'; '.join(off)}" if len(off) < 4 else f"off: {len(off)} parts"
    return "; ".join(filter(None, [f"{state.model} on {made}", f"{state.horizon} steps ahead", *kairos, off * bool(state.off)]))


def code(state: State) -> str:
    """Three lines that make this state's forecast.

    >>> print(code(State(off=interpret.Plan(heads={"decoder.0.cross": [1]}))))
    import tsfm_lib as tsfm
    model, (past, future) = tsfm.load('kairos-nano'), tsfm.playground.wave(period=24, noise=0.1, bursts=0, seed=0)
    with tsfm.interpret.ablate(model, heads={'decoder.0.cross': [1]}): forecast = tsfm.forecast(model, past, 96)
    """
    told = {"period": state.period, "noise": state.noise, "bursts": state.bursts}
    told = {name: int(value) if float(value).is_integer() else float(value) for name, value in told.items()} | {"seed": state.seed}
    if state.source != "wave":                   # a series that is left as it is needs no seed
        told = {name: told[name] for name in ("noise", "bursts", "seed") if (told["noise"] or told["bursts"]) and told[name]}
    given = [] if state.source == "wave" else [repr(state.source)]
    series = f"{'wave' if state.source == 'wave' else 'loaded'}({', '.join([*given, *(f'{k}={v!r}' for k, v in told.items())])})"
    knobs = "".join(f", {name}={value!r}" for name, value in (("tokens", state.tokens), ("sizes", state.sizes)) if value is not None)
    model = f"tsfm.playground.kairos({state.model!r}{knobs})" if knobs else f"tsfm.load({state.model!r})"
    heads = {site: list(numbers) for site, numbers in state.off.heads.items()}
    off = {"heads": heads, "mlps": list(state.off.mlps), "layers": list(state.off.layers)}
    without = ", ".join(f"{name}={what!r}" for name, what in off.items() if what)
    return "\n".join([
        "import tsfm_lib as tsfm",
        f"model, (past, future) = {model}, tsfm.playground.{series}",
        (f"with tsfm.interpret.ablate(model, {without}): " if without else "") + f"forecast = tsfm.forecast(model, past, {state.horizon})",
    ])


def table(states: Iterable[State]) -> pd.DataFrame:
    """One row per state."""
    return pd.DataFrame([look(state).row for state in states])
