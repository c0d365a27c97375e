"""Experiments on Kairos (arXiv 2509.25826), a module per notebook; each function returns a tidy frame for the rule of a claim."""

from tsfm_lib.experiments.kairos import fixed_sizes, gift_eval, multi_patch, patch_sizes, pool_sampling, zero_shot
from tsfm_lib.experiments.kairos.iarope import iarope_on

__all__ = ["fixed_sizes", "gift_eval", "iarope_on", "multi_patch", "patch_sizes", "pool_sampling", "zero_shot"]
