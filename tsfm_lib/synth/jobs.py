"""Independent jobs, one after another here or handed to the processes of joblib: a machine's, or those of a cluster."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any


def done(function: Callable, jobs: Sequence[tuple], workers: int | None = None, ordered: bool = True) -> Iterator[Any]:
    """What `function(*job)` returns for each job, in the order of the jobs or of their ends.

    workers: processes; None = what the active backend has (`joblib.parallel_config`: loky, Dask, Ray), which without one is this process.

    >>> list(done(pow, [(2, 3), (3, 2)]))
    [8, 9]
    """
    here = (function(*job) for job in jobs)
    if workers == 1 or len(jobs) < 2:
        return here
    from joblib import Parallel, delayed, effective_n_jobs
    from joblib.parallel import get_active_backend

    if effective_n_jobs(workers) == 1:
        return here
    streams = get_active_backend()[0].supports_return_generator
    how = "list" if not streams else "generator" if ordered else "generator_unordered"
    return iter(Parallel(workers, return_as=how, batch_size=1)(delayed(function)(*job) for job in jobs))
