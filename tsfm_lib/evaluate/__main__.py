"""Judge a model from the shell: a table on the screen, rows in a CSV file.

    python -m tsfm_lib.evaluate forecast --model seasonal-naive,ets --data nile --horizon 8 --windows 5 --out rows.csv
    python -m tsfm_lib.evaluate forecast --model kairos-nano --suite local
    python -m tsfm_lib.evaluate classify --data trace-embedded --readout forest,ridge          # baselines alone
"""

import argparse
import sys
from pathlib import Path

from tsfm_lib.errors import TsfmError

BASE, INTERVALS = "seasonal-naive", "seasonal-naive-intervals"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one sentence on stderr when the request cannot be met."""
    chosen = parser().parse_args(arguments)
    try:
        if chosen.out and (chosen.out.is_dir() or not chosen.out.parent.is_dir()):          # said now, not after the work
            raise TsfmError(f"--out {chosen.out} should be a file in a folder that exists: make {chosen.out.parent}, or name another")
        rows = chosen.run(chosen)
        if chosen.out:
            rows.to_csv(chosen.out, index=False)
            print(f"\n{len(rows)} rows in {chosen.out}")
    except (TsfmError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m tsfm_lib.evaluate", description="Judge forecasters and encoders.")
    kinds = top.add_subparsers(required=True, metavar="forecast | classify")

    forecast = kinds.add_parser("forecast", help="forecasts against what happened, relative to the seasonal naive")
    classify = kinds.add_parser("classify", help="accuracy of frozen features")
    for sub, example in ((forecast, "kairos-nano,ets"), (classify, "mantis-nano")):
        optional = "" if sub is forecast else "; without it only the baselines"
        sub.add_argument("--model", required=sub is forecast, metavar="NAME[,NAME]", help=f"names or folders, e.g. {example}{optional}")
        where = sub.add_mutually_exclusive_group(required=True)
        where.add_argument("--data", metavar="NAME|FILE", help="a data set of the catalogue, or your own file")
        where.add_argument("--suite", help="embedded, local, fresh" if sub is forecast else "ucr")
        sub.add_argument("--out", type=Path, metavar="FILE.csv", help="save every row")
    forecast.set_defaults(run=run_forecast)
    forecast.add_argument("--horizon", type=int, help="points ahead (with --data; default: the data set's own)")
    forecast.add_argument("--context", type=int, default=512, help="points the model sees (with --data; default 512)")
    forecast.add_argument("--season", type=int, help="points per season (with --data; default: from the data set's frequency)")
    forecast.add_argument("--windows", type=int, default=1, help="windows from the end of each series (with --data; default 1)")
    forecast.add_argument("--batch", type=int, default=64)
    classify.set_defaults(run=run_classify)
    classify.add_argument("--readout", default="forest", metavar="NAME[,NAME]", help="forest, whitened_forest, ridge, logistic, svm")
    classify.add_argument("--seeds", type=int, default=1, help="seeds of the readout (default 1)")
    return top


def run_forecast(chosen: argparse.Namespace):
    import pandas as pd

    import tsfm_lib
    from tsfm_lib.evaluate import aggregate, forecasting, suites

    if chosen.suite:
        tasks = suites.suite(chosen.suite)
        if chosen.suite == "ucr":
            raise TsfmError("ucr is a classification suite: use `classify --suite ucr`, or forecast on embedded, local or fresh")
    else:
        found = read(chosen.data, "SeriesSet")
        horizon = found.horizon or None if chosen.horizon is None else chosen.horizon
        if horizon is None:
            raise TsfmError(f"nothing says how far to forecast {chosen.data}: pass --horizon")
        tasks = [forecasting.last_windows(found, horizon, chosen.context, chosen.season, chosen.windows)]
    wanted = list(dict.fromkeys([BASE, INTERVALS, *names(chosen.model)]))
    models = {name: tsfm_lib.load(name) for name in wanted}        # all of them first: a wrong name should cost nothing
    tasks = [task if isinstance(task, suites.Windows) else task.load() for task in tasks]        # once for all models; a few MB
    frames = [forecasting.evaluate(model, tasks, batch=chosen.batch, variant=name) for name, model in models.items()]
    rows = pd.concat(frames, ignore_index=True)

    table = aggregate.summary(rows)
    ratios = aggregate.relative(table, to=BASE)
    print(f"\nMASE / WQL relative to the point {BASE} (its own row: absolute); lower is better")
    print(_side_by_side(table, ratios, wanted))
    lost = list(dict.fromkeys(ratios.loc[ratios["MASE"].isna() | ratios["WQL"].isna(), "dataset"]))
    if lost:
        print(f"\nNaN, and left out of the means, where {BASE} makes no error or a constant context gives no unit: {', '.join(lost)}")
    means = [("all sets", aggregate.geometric_mean(ratios))]
    if set(suites.OUTLIERS) & set(ratios["dataset"]):
        means.append((f"without {', '.join(suites.OUTLIERS)}", aggregate.geometric_mean(ratios, leave_out=suites.OUTLIERS)))
    against = aggregate.geometric_mean(aggregate.relative(table, to=INTERVALS))
    means.append((f"all sets, relative to {INTERVALS}", against))
    for title, mean in means:
        print(f"\ngeometric mean, {title}")
        print(mean.to_string(index=False, float_format="{:.3f}".format))
    pointwise = sorted(set(rows.loc[~rows["probabilistic"], "variant"]))
    if pointwise:
        print(f"\npoint forecasts (the same value at every level, so WQL is a scaled MAE): {', '.join(pointwise)}")
    return rows


def run_classify(chosen: argparse.Namespace):
    import pandas as pd

    from tsfm_lib.evaluate import classification

    if chosen.suite and chosen.suite != "ucr":
        raise TsfmError(f"the classification suite is ucr, got {chosen.suite!r}: forecasting suites go with `forecast`")
    sets = "ucr" if chosen.suite else read(chosen.data, "LabelledSet")
    options = {"readouts": tuple(names(chosen.readout)), "seeds": tuple(range(chosen.seeds))}
    wanted = [None] if chosen.model is None else names(chosen.model)
    frames = [classification.evaluate(name, sets, baselines=number == 0, **options) for number, name in enumerate(wanted)]
    rows = pd.concat(frames, ignore_index=True)
    print(rows.groupby(["dataset", "variant", "readout"], sort=False)["accuracy"].mean().unstack("dataset").T.round(3).to_string())
    if chosen.suite:
        print("\nmean accuracy over the suite")
        print(rows.groupby(["variant", "readout"], sort=False)["accuracy"].mean().round(4).to_string())
    return rows


def read(name: str, kind: str):
    """A data set of the catalogue by name, else a file, as the kind of set that is asked for."""
    from tsfm_lib import data
    from tsfm_lib.data import cards

    path, listed = Path(name).expanduser(), cards.known(name.partition("/")[0])
    found = data.read(path) if (path.exists() and "/" in name) or (not listed and (path.exists() or path.suffix)) else data.load(name)
    holds = type(found).__name__
    if holds != kind:
        what = {"SeriesSet": f"series with no class labels: use `forecast --data {name}`",
                "LabelledSet": f"labelled examples, not series to forecast: use `classify --data {name}`"}  # fmt: skip
        raise TsfmError(f"{name} holds {what.get(holds, 'a table of results, no series to judge a model on: choose another data set')}")
    return found


def names(text: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise TsfmError(f"expected one name or several with commas between them, got {text!r}: leave the option out, or name one")
    return found


def _side_by_side(table, ratios, order: list[str]) -> str:
    """One row a data set: absolute numbers of the seasonal naive, ratios of everybody else."""
    cell = lambda row, digits: f"{row.MASE:.{digits}f} / {row.WQL:.{digits}f}"
    columns = {"windows": table[table["variant"] == BASE].set_index("dataset")["windows"]}
    for name in order:
        source, digits = (table, 4) if name == BASE else (ratios, 3)
        part = source[source["variant"] == name].set_index("dataset")
        columns[name] = part.apply(cell, axis=1, digits=digits)
    import pandas as pd

    return pd.DataFrame(columns).to_string()


if __name__ == "__main__":
    sys.exit(main())
