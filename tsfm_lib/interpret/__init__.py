"""One dissection kit for every model: it knows `model.sites()` and nothing else about a model.

>>> from tsfm_lib import interpret
>>> interpret.Plan(heads={"decoder.3.self": [0, 5]}, mlps=["decoder.2"]).mlps
('decoder.2.mlp',)
"""

from tsfm_lib.lazy import attach

_HOME = {
    "Plan": "plans", "single_heads": "plans", "single_layers": "plans", "thirds": "plans",
    "ablate": "ablation", "calibrate": "ablation", "Calibration": "ablation", "HeadMask": "masks",
    "capture": "capturing", "entropy": "capturing", "lens": "lenses", "Lens": "lenses",
    "stable_rank": "ranking", "random_stable_rank": "ranking", "sharpness": "ranking", "magnitude": "ranking", "attention_svd": "ranking",
    "output_svd": "ranking", "induction": "ranking", "oracle": "ranking", "order": "ranking", "together": "ranking", "select": "ranking",
    "random_like": "ranking", "table": "ranking", "within_sites": "ranking",
    "removal": "curves", "heads_at": "curves", "HeadsAt": "curves", "spearman_distance": "curves",
    "Parrot": "parroting", "parrot_gap": "parroting", "seasonal_power": "parroting", "seasonal_bias": "parroting",
    "prune": "pruning", "save_pruned": "pruning", "load_pruned": "pruning", "parameters": "pruning",
}  # fmt: skip
_ROOMS = ("plans", "ablation", "masks", "capturing", "lenses", "ranking", "curves", "parroting", "pruning")
__all__ = [*_HOME, *_ROOMS]
__getattr__, __dir__ = attach(__name__, _HOME, _ROOMS)
