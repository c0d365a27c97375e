"""Corpora on disk: shards of float32 rows that are mapped into memory, and a manifest. Made in pieces, in any order, by any processes.

A worker makes a shard from nothing but its number and writes it whole or not at all, so a run that was killed goes on with the shards
that are missing, and the bytes do not depend on who made them. Memory: one shard a worker, whatever the size of the corpus.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from tsfm_lib.errors import TsfmError, whole
from tsfm_lib.paths import read_json
from tsfm_lib.synth import cauker, causal_graphs, kernels, toeplitz
from tsfm_lib.synth.jobs import done

MANIFEST = "manifest.json"
FORMAT = "tsfm_lib corpus 1"
UNFINISHED = ".unfinished-"


def version() -> str:
    """Eight letters that change whenever the code that makes the series does.

    >>> len(version())
    8
    """
    digest = hashlib.sha256(np.__version__.encode())
    for module in (causal_graphs, cauker, kernels, toeplitz):
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:8]


@dataclass(frozen=True)
class Corpus:
    """A finished corpus: `corpus[5]`, `corpus[10:20]` and `corpus[[3, 1, 4]]` are copies of rows, read when asked for."""
    folder: Path
    manifest: dict

    def __len__(self) -> int:
        return self.manifest["n"]

    @property
    def length(self) -> int:
        return self.manifest["length"]

    @property
    def per_graph(self) -> int:
        return self.manifest["per_graph"]

    @property
    def config(self) -> cauker.CauKerConfig:
        return cauker.CauKerConfig.from_dict(self.manifest["config"])

    def shards(self) -> Iterator[Float32[np.ndarray, "rows length"]]:
        """The shards in order, memory-mapped: for a pass over a corpus larger than memory."""
        return (_mapped(self.folder / shard["file"]) for shard in self.manifest["shards"])

    def __getitem__(self, rows: int | np.integer | slice | Sequence[int] | np.ndarray) -> Float32[np.ndarray, "..."]:
        if isinstance(rows, (int, np.integer)):
            return self[[int(rows)]][0]
        rows = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        if len(rows) and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows from {rows.min()} to {rows.max()} asked of a corpus of {len(self)} series")
        shard, row = np.divmod(rows % max(len(self), 1), self.manifest["shard"])
        out = np.empty((len(rows), self.length), np.float32)
        for s in np.unique(shard):
            out[shard == s] = _mapped(self.folder / self.manifest["shards"][s]["file"])[row[shard == s]]
        return out

    def verify(self) -> None:
        """Compare every shard with its sum in the manifest."""
        for shard in self.manifest["shards"]:
            if _sha256(self.folder / shard["file"]) != shard["sha256"]:
                raise TsfmError(f"{self.folder / shard['file']} is not what was written: delete it and make the corpus again")


@lru_cache(64)
def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def read(folder: str | Path) -> Corpus:
    """A corpus that `make` has finished."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise TsfmError(f"expected a corpus with a {MANIFEST} in {folder}, found none: make one with python -m tsfm_lib.synth cauker")
    manifest = read_json(path, "delete the folder and make the corpus again")
    if "shards" not in manifest:
        raise TsfmError(f"the corpus in {folder} is not finished: run the command that began it again, it goes on where it was")
    return Corpus(Path(folder), manifest)


def make(folder: str | Path, n: int, length: int = 512, seed: int = 0, config: cauker.CauKerConfig = cauker.CauKerConfig(),  # noqa: B008
         per_graph: int = 4, workers: int | None = None, shard: int = 8192, progress: bool = True) -> Corpus:
    """n series in shards of `shard`, as `cauker.generate` makes them; what is in the folder already is kept, so n may also grow.

    workers: processes; None = those of the backend that `joblib.parallel_config` chose (loky, Dask, Ray), see `jobs.done`. On several
    machines the folder has to be one that all of them see.
    """
    whole(n, "n"), whole(shard, "shard"), workers is None or whole(workers, "workers")
    cauker.generate(0, length, seed, config, per_graph)                           # refuses what cannot be made before anything is written
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"format": FORMAT, "generator": "cauker", "version": version(), "length": length, "seed": seed, "per_graph": per_graph,
                "shard": shard, "config": config.to_dict()}
    _same_settings(folder, settings, n)
    _write(folder / MANIFEST, json.dumps({"n": n} | settings, indent=1).encode())
    jobs = [(folder, first, min(shard, n - first), length, seed, config, per_graph) for first in range(0, n, shard)]
    missing = [job for job in jobs if not _finished(_path(folder, job[1] // shard), (job[2], length))]
    with tqdm(total=n, initial=n - sum(job[2] for job in missing), desc="cauker", unit=" series", unit_scale=True,
              disable=None if progress else True) as bar:
        for made in done(_make_shard, [(*job, shard) for job in missing], workers, ordered=False):
            bar.update(made)
    _mapped.cache_clear()
    shards = [_receipt(_path(folder, i)) for i in range(len(jobs))]
    _write(folder / MANIFEST, json.dumps({"n": n} | settings | {"shards": shards}, indent=1).encode())
    for left in folder.glob(f"{UNFINISHED}*"):                                    # by a run that was killed while it wrote
        left.unlink(missing_ok=True)
    return read(folder)


def _same_settings(folder: Path, settings: dict, n: int) -> None:
    if not (folder / MANIFEST).is_file():
        return
    there = read_json(folder / MANIFEST, "delete the folder and make the corpus again")
    for name, value in settings.items():
        if there.get(name) != value:
            what = [k for k in value if there.get(name, {}).get(k) != value[k]] if name == "config" else [name]
            raise TsfmError(f"{folder} holds another corpus, its {', '.join(what)} differs: pass another folder, or delete this one")
    if there["n"] > n:
        raise TsfmError(f"{folder} holds {there['n']} series of this corpus, more than the {n} asked for: read the first {n} of them")


def _make_shard(folder: Path, first: int, n: int, length: int, seed: int, config: cauker.CauKerConfig, per_graph: int, shard: int) -> int:
    series = cauker.generate(n, length, seed, config, per_graph, first)
    _write(_path(folder, first // shard), series)
    return n


def _receipt(path: Path) -> dict:
    """What the manifest says of a shard; series that never change are counted: about 2 % of the released rule's."""
    series = np.load(path, mmap_mode="r", allow_pickle=False)
    return {"file": path.name, "series": len(series), "constant": int((np.ptp(series, 1) == 0).sum()), "sha256": _sha256(path)}


def _path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.npy"


def _finished(path: Path, shape: tuple[int, int]) -> bool:
    try:
        x = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return x.shape == shape and x.dtype == np.float32


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, what: np.ndarray | bytes) -> None:
    """All or nothing: written beside its place, then moved there."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED, suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(what, bytes):
                file.write(what)
            else:
                np.save(file, what, allow_pickle=False)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
