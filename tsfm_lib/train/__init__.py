"""Training: one loop (`fit`), recipes as data, streams that are functions of the step."""

from tsfm_lib.lazy import attach

_HOME = {"Diverged": "watch", "Recipe": "recipe", "Run": "loop", "fit": "loop"}           # the loop needs torch: seconds, when asked for
__all__ = list(_HOME)
__getattr__, __dir__ = attach(__name__, _HOME)
