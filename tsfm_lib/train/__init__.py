"""Training: one loop (`fit`), recipes as data, streams that are functions of the step, objectives shared by models."""

from tsfm_lib.train.loop import Run, fit
from tsfm_lib.train.recipe import Recipe
from tsfm_lib.train.watch import Diverged

__all__ = ["Diverged", "Recipe", "Run", "fit"]
