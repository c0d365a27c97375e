"""Speed beside what one would pick instead: `python tests/benchmarks/run.py [--only dtw,nn] [--quick] [--out FILE]`."""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(p) for p in (HERE, HERE.parents[1]) if str(p) not in sys.path]

from harness import BENCHMARKS, line, one_thread, run, write  # noqa: E402

GROUPS = ("dtw", "nn", "models", "synth", "import", "kairos", "time_tracker", "finetune", "interpret")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--only", default=",".join(GROUPS), help=f"groups, separated by commas (default {','.join(GROUPS)})")
    parser.add_argument("--quick", action="store_true", help="fewer pairs and turns: shows that it runs, the ratios are rough")
    parser.add_argument("--out", type=Path, help="where the table goes (default build/bench.csv)")
    chosen = parser.parse_args(arguments)
    groups = chosen.only.split(",")
    if unknown := sorted(set(groups) - set(GROUPS)):
        parser.error(f"no benchmark group {unknown[0]!r}: there are {', '.join(GROUPS)}")
    one_thread()
    import bench_dtw  # noqa: F401  the modules register their functions
    import bench_finetune  # noqa: F401
    import bench_import  # noqa: F401
    import bench_interpret  # noqa: F401
    import bench_kairos  # noqa: F401
    import bench_models  # noqa: F401
    import bench_nn  # noqa: F401
    import bench_synth  # noqa: F401
    import bench_time_tracker  # noqa: F401

    from tsfm_lib.paths import BUILD
    out = chosen.out or BUILD / "bench.csv"
    assert set(BENCHMARKS) == set(GROUPS)
    print(f"{'':<34} {'ours':>10} {'peer':>10} {'ratio':>8}  {'unit':<14} how", flush=True)
    rows = []
    for row in run(groups, chosen.quick):
        rows.append(row)
        print(line(row), flush=True)
        write(rows, out)                # after every row: a killed run keeps what it has
    print(f"written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
