"""Experiments on CauKer (arXiv 2508.02879), a module per notebook; each function returns rows for the rule of a claim."""

from tsfm_lib.experiments.cauker import dtw_clusters, generator

__all__ = ["dtw_clusters", "generator"]
