"""Universal Redundancies (arXiv 2602.01605): which parts of a forecaster can go, and by what one could have known.

subjects   who is taken apart, on which windows, and the number that an ablation is judged by
layers, growing   notebook 50      ranks, published   notebook 51      parroting   notebook 52      pruning   notebook 53
pictures   what their figures have in common
"""
