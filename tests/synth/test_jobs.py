"""Jobs come back the same from this process, from others, and from a cluster; the library knows none of them by name."""

import os

import joblib
import numpy as np
import pytest

from tests.synth.test_cauker_corpus import contents, make
from tsfm_lib.synth.jobs import done
from tsfm_lib.synth.mixture import Mixture, make_pool


def test_without_a_number_the_active_backend_decides():
    with joblib.parallel_config("threading", n_jobs=2):
        assert list(done(divmod, [(7, 2), (9, 4)])) == [(3, 1), (2, 1)]
        assert sorted(done(divmod, [(7, 2), (9, 4)], ordered=False)) == [(2, 1), (3, 1)]
    assert set(done(os.getpid, [(), ()])) == {os.getpid()}


@pytest.fixture(scope="module")
def cluster():
    """Two processes that share nothing with this one but the disk, as two machines would."""
    distributed = pytest.importorskip("distributed", reason="dask and distributed are not installed (pip install 'tsfm-lib[scale]')")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as two, distributed.Client(two):
        yield two


def test_a_corpus_made_by_dask_has_the_bytes_of_one_process(cluster, tmp_path):
    with joblib.parallel_config("dask"):
        make(tmp_path / "dask")
    make(tmp_path / "here")
    assert contents(tmp_path / "dask") == contents(tmp_path / "here")


def test_a_pool_made_by_dask_has_the_bytes_of_one_process(cluster):
    here = make_pool(Mixture(), 600, 160, seed=3, progress=False)
    with joblib.parallel_config("dask"):
        there = make_pool(Mixture(), 600, 160, seed=3, progress=False)
    assert all(np.array_equal(here.series[name], there.series[name]) for name in here.series)


def test_dask_really_does_the_work(cluster):
    with joblib.parallel_config("dask"):
        who = set(done(os.getpid, [() for _ in range(8)]))
    assert os.getpid() not in who
