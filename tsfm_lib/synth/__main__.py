"""Make a corpus from the shell; a killed run goes on where it was.

    python -m tsfm_lib.synth cauker --n 100000 --out corpora/cauker --workers 2
    python -m tsfm_lib.synth cauker --n 20000 --out corpora/deep --set depth=6 --set root_share=0.25
    python -m tsfm_lib.synth cauker --n 20000 --out corpora/kernelsynth --variant kernelsynth
    python -m tsfm_lib.synth cauker --list

Under --out: shard-00000.npy, ... (float32 rows) and manifest.json; `tsfm_lib.synth.corpus.read` opens them.
"""

import argparse
import json
import sys
import time
from dataclasses import fields
from pathlib import Path

from tsfm_lib.errors import TsfmError, nearest


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m tsfm_lib.synth", description="Make a corpus of generated series.")
    cauker = top.add_subparsers(dest="generator", required=True).add_parser("cauker", help="Gaussian processes in causal graphs")
    cauker.add_argument("--n", type=int, help="number of series")
    cauker.add_argument("--out", type=Path, metavar="DIR", help="where the shards go")
    cauker.add_argument("--length", type=int, default=512, help="points of a series (default 512)")
    cauker.add_argument("--seed", type=int, default=0, help="default 0")
    cauker.add_argument("--per-graph", type=int, default=4, help="series kept of each graph (default 4)")
    cauker.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    cauker.add_argument("--shard", type=int, default=8192, help="series of a file (default 8192)")
    cauker.add_argument("--variant", default="cauker", help="a named configuration, see --list (default cauker)")
    cauker.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE",
                        help='a field of the configuration, in JSON: depth=4, means=["zero"]')  # fmt: skip
    cauker.add_argument("--list", action="store_true", help="name the variants and the fields, and stop")
    return top


def configured(variant: str, settings: list[str]):
    """The configuration of a variant with some fields replaced.

    >>> configured("kernelsynth", ["max_kernels=5"]).max_kernels
    5
    """
    from tsfm_lib.synth import cauker

    if variant not in cauker.VARIANTS:
        raise TsfmError(f"no variant named {variant!r}, there are {', '.join(cauker.VARIANTS)}{nearest(variant, cauker.VARIANTS)}")
    values = cauker.VARIANTS[variant].to_dict()
    for setting in settings:
        name, _, text = setting.partition("=")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return cauker.CauKerConfig.from_dict(values)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one sentence on stderr when the request cannot be met."""
    chosen = parser().parse_args(arguments)
    try:
        if chosen.list:
            from tsfm_lib.synth import cauker

            official = cauker.CauKerConfig()
            for name, config in cauker.VARIANTS.items():
                changed = [f.name for f in fields(config) if getattr(config, f.name) != getattr(official, f.name)]
                print(f"{name:<18}{'changes ' + ', '.join(changed) if changed else 'the released rule'}")
            print("\nfields:", json.dumps(official.to_dict()))
            return 0
        if chosen.n is None or chosen.out is None:
            raise TsfmError("a corpus needs --n and --out, for example --n 10000 --out corpora/cauker")
        config = configured(chosen.variant, chosen.set)

        from tsfm_lib.synth import corpus

        began = time.perf_counter()
        made = corpus.make(chosen.out, chosen.n, chosen.length, chosen.seed, config, chosen.per_graph, chosen.workers, chosen.shard)
        seconds, files = time.perf_counter() - began, len(made.manifest["shards"])
        print(f"{len(made)} series of {made.length} points in {files} files under {chosen.out}, {seconds:.1f} s")
    except (TsfmError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on from the finished shards", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
