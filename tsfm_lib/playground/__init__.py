"""One series, one model, and everything that can be turned, clicked and watched: what notebook 02 plays with.

    state = State(model="kairos-nano", bursts=0.35, off=interpret.Plan(layers=["encoder.1"]))
    seen = look(state)             # the series, its forecast, the patches, the attention, the errors
    draw(seen)                     # one figure
    print(code(state))             # three lines that make the same forecast without any of this
    Panel(state)                   # the same with sliders and buttons

Stands above every other room but the notebooks: nothing imports it.
"""

from tsfm_lib.lazy import attach

_HOME = {
    "State": "states", "Seen": "states", "look": "states", "table": "states", "code": "states", "words": "states", "errors": "states",
    "wave": "states", "loaded": "states", "disturbed": "states", "kairos": "states", "forecasters": "states", "choices": "states",
    "patches": "states", "usual_site": "states", "SOURCES": "states",
    "draw": "pictures", "Panel": "panel",
}  # fmt: skip
_ROOMS = ("states", "pictures", "panel")
__all__ = [*_HOME, *_ROOMS]
__getattr__, __dir__ = attach(__name__, _HOME, _ROOMS)
