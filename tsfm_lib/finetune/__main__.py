"""Fine-tune a model from the shell and see whether it was worth it.

    python -m tsfm_lib.finetune --model moirai-nano --data ETTm1 --method msft --horizon 96 --budget quick
    python -m tsfm_lib.finetune --model build/train/units-nano/weights --data my.csv --method lora,msft --horizon 24 --out build/tuned
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from tsfm_lib.errors import TsfmError


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m tsfm_lib.finetune", description="Fine-tune a model: before, after, and at what price.")
    top.add_argument("--model", required=True, metavar="NAME|FOLDER", help="shipped weights or a folder; for moirai, moment, units, "
                     "timesfm, chronos-bolt a tiny model with random weights, to try things")  # fmt: skip
    top.add_argument("--data", required=True, metavar="NAME|FILE", help="a data set of the catalogue, or your own file")
    top.add_argument("--method", default="msft", metavar="NAME[,NAME]", help="probe, prompt, lora, adalora, full, scratch, msft (default)")
    top.add_argument("--horizon", type=int, help="points ahead (default: the data set's own)")
    top.add_argument("--context", type=int, help="points the model sees (default: the model's own)")
    top.add_argument("--budget", default="quick", help="quick (default), laptop, full")
    top.add_argument("--scales", metavar="K|auto", help="scales beside the original one (with msft; default 3)")
    top.add_argument("--seed", type=int, default=0)
    top.add_argument("--tested", type=int, default=112, help="windows of the test part (default 112)")
    top.add_argument("--out", type=Path, metavar="DIR", help="where the adapters of the last method go")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one sentence on stderr when the request cannot be met."""
    chosen = parser().parse_args(arguments)
    try:
        compare(chosen)
    except (TsfmError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def compare(chosen: argparse.Namespace) -> None:
    import pandas as pd

    from tsfm_lib import finetune
    from tsfm_lib.evaluate.__main__ import names, read
    from tsfm_lib.evaluate.metrics import DECILES
    from tsfm_lib.finetune.tuning import budget_of

    methods = {name: method_of(name, chosen.scales) for name in names(chosen.method) if name != "zero-shot"}
    budget, model, data = budget_of(chosen.budget), model_of(chosen.model), read(chosen.data, "SeriesSet")
    horizon = chosen.horizon or data.horizon
    if not horizon:
        raise TsfmError(f"nothing says how far to forecast {chosen.data}: pass --horizon")
    context = chosen.context or model.config.context
    cut = finetune.target(data, context, horizon, count=budget.count, tested=chosen.tested)
    rows = []
    for name, how in {"zero-shot": "zero-shot", **methods}.items():
        tuned = finetune.fit(model, cut, how, budget, chosen.seed, progress=True)
        kept = {key: tuned.facts[key] for key in ("trainable", "rate", "steps", "ms_per_step", "seconds", "val_MSE") if key in tuned.facts}
        rows.append({"method": name, **kept, **cut.test.scores(tuned.model, DECILES)})
        weights = [f"{tuned.facts[key]:.2f}" for key in sorted(tuned.facts) if key[0] == "w" and key[1:].isdigit()]
        if len(weights) > 1:
            print(f"{name}: weights of the scales, finest first: {' '.join(weights)}")
    table = pd.DataFrame(rows)
    print(f"\n{data.name}, context {cut.context}, horizon {horizon}, budget {chosen.budget}, seed {chosen.seed}; errors on {len(cut.test)} "
          "windows of the test part, z-scored by the training part")  # fmt: skip
    print(table.to_string(index=False, float_format="{:.4g}".format, na_rep="-"))
    before = rows[0]["MSE"]
    for row in rows[1:]:
        change = 100 * (row["MSE"] / before - 1)
        print(f"{row['method']}: MSE {before:.4g} before (zero-shot), {row['MSE']:.4g} after: {change:+.1f} %")
    if chosen.out and methods:
        print(f"adapters of {rows[-1]['method']} in {finetune.save(tuned.model, chosen.out, tuned.facts)}")


def method_of(name: str, scales: str | None) -> Any:
    from tsfm_lib.finetune.design import method, variation

    method(name)  # a wrong name costs nothing
    if scales is None or name != "msft":
        return name
    if scales != "auto" and not scales.isdigit():
        raise TsfmError(f"--scales is a number from 0 up or auto, got {scales!r}")
    return variation(name, scales=None if scales == "auto" else int(scales))


def model_of(name: str) -> Any:
    """Shipped weights, a folder, or a tiny untrained model of an architecture."""
    from tsfm_lib import checkpoints, front
    from tsfm_lib.finetune.readings import reading
    from tsfm_lib.models import MODELS

    if name not in MODELS:
        model = front.load(name)
    else:
        print(f"{name} is an architecture without weights: a tiny one with random weights is tried", file=sys.stderr)
        model = checkpoints.build(name, MODELS[name].config_class().tiny(), 0)
    reading(model)  # refuses what cannot be fine-tuned
    return model


if __name__ == "__main__":
    sys.exit(main())
