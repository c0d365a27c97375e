"""What `import tsfm_lib` costs a script that has not asked for anything yet."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from harness import Row, benchmark


@benchmark("import")
def front_door(quick: bool) -> Iterator[Row]:
    root = str(Path(__file__).resolve().parents[2])

    def seconds(code: str) -> float:
        spent = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        before = spent()
        subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); {code}"], check=True)
        return spent() - before

    turns = 2 if quick else 9
    seconds("import tsfm_lib")
    bare, ours = zip(*[(seconds("pass"), seconds("import tsfm_lib")) for _ in range(turns)])
    how = f"CPU time of a fresh interpreter that imports it; an empty one takes {1e3 * median(bare):.0f}"
    yield Row("import tsfm_lib", 1e3 * median(ours), None, None, "ms", how)
