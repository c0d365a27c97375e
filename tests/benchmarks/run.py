"""Speed beside what one would pick instead: `python tests/benchmarks/run.py [--only dtw,nn] [--quick] [--peers] [--out FILE]`."""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(p) for p in (HERE, HERE.parents[1]) if str(p) not in sys.path]

from harness import BENCHMARKS, functions, line, one_thread, run, write  # noqa: E402

GROUPS = ("dtw", "nn", "synth", "import", "kairos", "time_tracker", "finetune", "interpret", "models", "growth", "scale")
PEERS = "peers"  # needs an environment of its own


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--only", help="groups, or group/function, separated by commas "
                        f"(default {','.join(GROUPS)}, and {PEERS} with --peers)")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="fewer pairs and turns: shows that it runs, the ratios are rough")
    parser.add_argument("--peers", action="store_true", help="beside the authors' packages, too: installs them into build/peers")
    parser.add_argument("--out", type=Path, help="where the table goes (default build/bench.csv)")
    chosen = parser.parse_args(arguments)
    groups = chosen.only.split(",") if chosen.only else [*GROUPS, *[PEERS] * chosen.peers]
    if unknown := sorted({group.partition("/")[0] for group in groups} - {*GROUPS, PEERS}):
        parser.error(f"no benchmark group {unknown[0]!r}: there are {', '.join((*GROUPS, PEERS))}")
    one_thread()
    if chosen.peers:
        import peers

        peers.make()
    import bench_dtw  # noqa: F401  the modules register their functions
    import bench_finetune  # noqa: F401
    import bench_growth  # noqa: F401
    import bench_import  # noqa: F401
    import bench_interpret  # noqa: F401
    import bench_kairos  # noqa: F401
    import bench_models  # noqa: F401
    import bench_nn  # noqa: F401
    import bench_peers  # noqa: F401
    import bench_scale  # noqa: F401
    import bench_synth  # noqa: F401
    import bench_time_tracker  # noqa: F401

    from tsfm_lib.paths import BUILD
    out = chosen.out or BUILD / "bench.csv"
    assert set(BENCHMARKS) == {*GROUPS, PEERS}
    if nothing := [group for group in groups if not functions(group)]:
        there = ", ".join(function.__name__ for function in BENCHMARKS[nothing[0].partition("/")[0]])
        parser.error(f"no benchmark {nothing[0]!r}: the group has {there}")
    print(f"{'':<40} {'ours':>10} {'peer':>10} {'ratio':>9} {'interval':<18} {'unit':<14} how", flush=True)
    rows = []
    for row in run(groups, chosen.quick):
        rows.append(row)
        print(line(row), flush=True)
        write(rows, out)                # after every row: a killed run keeps what it has
    print(f"written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
