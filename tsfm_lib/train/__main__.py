"""Train a recipe from the shell; killed runs go on where their last checkpoint was.

    python -m tsfm_lib.train --list
    python -m tsfm_lib.train patchtst-nano --minutes 10
    python -m tsfm_lib.train patchtst-nano --steps 500 --out build/try --fresh
    python -m tsfm_lib.train mantis-nano --seed 3                                # another start, other series, another order
    torchrun --nproc_per_node=2 -m tsfm_lib.train patchtst-nano

Under --out: checkpoint.safetensors and metrics.jsonl of the run, and `weights/` (config.json, model.safetensors in float16,
card.json), ready to be copied to tsfm_lib/weights.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsfm_lib.errors import TsfmError, nearest
from tsfm_lib.paths import BUILD
from tsfm_lib.train.recipes import RECIPES

BASE, LABELLED = "seasonal-naive", "trace-embedded"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m tsfm_lib.train", description="Train a recipe.")
    top.add_argument("name", nargs="?", metavar="NAME", help="a recipe, see --list")
    top.add_argument("--list", action="store_true", help="name the recipes and stop")
    budget = top.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="budget in minutes (default: the recipe's)")
    budget.add_argument("--steps", type=int, help="budget in steps")
    top.add_argument("--seed", type=int, help="of the series, the start and the order (default: the recipe's)")
    top.add_argument("--out", type=Path, metavar="DIR", help="default build/train/NAME, or NAME-seedN with --seed N")
    start = top.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on from the checkpoint in DIR (the default)")
    start.add_argument("--fresh", action="store_true", help="forget what is in DIR")
    top.add_argument("--threads", type=int, help="threads of torch; the same bytes need the same number")
    top.add_argument("--workers", type=int, default=1,
                     help="batches made ahead by a thread, or by processes if more than 1; 0 = none (default 1)")  # fmt: skip
    top.add_argument("--pool", type=int, help="series to generate beforehand (default: the recipe's)")
    top.add_argument("--device", help="cpu, cuda, ... (default: cuda if there is one)")
    top.add_argument("--no-evaluation", action="store_true", help="do not run the embedded suite at the end")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one sentence on stderr when the request cannot be met or the run diverged."""
    chosen = parser().parse_args(arguments)
    try:
        if chosen.list:
            for recipe in RECIPES.values():
                budget = f"{recipe.steps} steps" if recipe.steps else f"{recipe.minutes:g} minutes"
                print(f"{recipe.name:<20}{recipe.model:<14}{budget:<16}{recipe.notes}")
        elif chosen.name not in RECIPES:
            asked = f"no recipe named {chosen.name!r}" if chosen.name else "no recipe named"
            raise TsfmError(f"{asked}, there are {', '.join(RECIPES)}{nearest(chosen.name or '', RECIPES)}")
        else:
            train(chosen)
    except (TsfmError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def train(chosen: argparse.Namespace) -> None:
    from contextlib import nullcontext
    from dataclasses import replace

    for option, least in (("threads", 1), ("workers", 0)):                      # before anything that takes time
        value = getattr(chosen, option)
        if value is not None and value < least:
            raise TsfmError(f"--{option} should be at least {least}, got {value}")
    recipe = RECIPES[chosen.name].with_budget(chosen.steps, chosen.minutes)
    recipe = replace(recipe, **{name: getattr(chosen, name) for name in ("pool", "seed") if getattr(chosen, name) is not None})
    folder = chosen.out or BUILD / "train" / (recipe.name if chosen.seed is None else f"{recipe.name}-seed{chosen.seed}")
    weights = folder / "weights"

    import torch

    from tsfm_lib import checkpoints
    from tsfm_lib.models import MODELS
    from tsfm_lib.train import fit
    from tsfm_lib.train.streams import cauker_corpus, generated, prefetch

    task = MODELS[recipe.model].task

    def shipped(model: torch.nn.Module) -> dict[str, Any]:
        """The card tells of the file that is handed on: rounded to float16, stored, read back."""
        checkpoints.save(model, weights, half=True)
        return {**evaluate(checkpoints.load(weights, next(model.parameters()).device), task), "stored": "float16"}

    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    stream = cauker_corpus(recipe) if task == "embedding" else generated(recipe, max(1, chosen.workers), BUILD / "pools")
    model = checkpoints.build(recipe.model, recipe.config, recipe.seed)
    with prefetch(stream, chosen.workers, processes=chosen.workers > 1) if chosen.workers else nullcontext(stream) as ahead:
        run = fit(model, ahead, recipe, folder=folder, resume=not chosen.fresh, device=chosen.device,
                  evaluate=None if chosen.no_evaluation else shipped)  # fmt: skip
    if int(torch.distributed.get_rank() if torch.distributed.is_initialized() else 0) == 0:
        checkpoints.save(run.model, weights, run.card, half=True)
        print(f"{recipe.name}: {run.card['steps']} steps, {run.card['samples_per_second']:g} samples/s, {run.card.get('result', '')}")
        print(f"weights in {weights}")


def evaluate(model: Any, task: str) -> Mapping[str, Any]:
    """What can be said without a download. Forecasters: suite `embedded`, relative to the point seasonal naive. Encoders: Trace."""
    import pandas as pd

    from tsfm_lib.evaluate import aggregate, classification, forecasting

    if task == "embedding":
        rows = classification.evaluate(model, LABELLED, baselines=("random",), progress=False, name="trained")
        means = rows.groupby(["variant", "readout"])["accuracy"].mean().round(4)
        return {"dataset": LABELLED, **{name: means[name].to_dict() for name in ("trained", classification.RANDOM)}}
    rows = [forecasting.evaluate(who, "embedded", variant=name, progress=False) for who, name in ((model, "trained"), (BASE, BASE))]
    ratios = aggregate.relative(pd.concat(rows, ignore_index=True), BASE)
    ratios = ratios[ratios["variant"] == "trained"]
    means = aggregate.geometric_mean(ratios).iloc[0]
    sets = {row["dataset"]: {"MASE": round(row["MASE"], 4), "WQL": round(row["WQL"], 4)} for row in ratios.to_dict("records")}
    return {"suite": "embedded", "relative_to": BASE, "datasets": int(means["datasets"]),
            "MASE": round(float(means["MASE"]), 4), "WQL": round(float(means["WQL"]), 4), "by_dataset": sets}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
