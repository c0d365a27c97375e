"""Experiments on multi-scale fine-tuning (arXiv 2506.14087), a module per notebook; each trial returns rows for the rules of claims."""
