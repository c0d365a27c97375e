"""Experiments on Time Tracker (arXiv 2505.15151), a module per notebook; each function returns rows for the rule of a claim."""
