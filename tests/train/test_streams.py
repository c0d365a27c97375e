"""Streams are functions of the step; making them ahead changes the time, not the bytes."""

import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.train.toys import Waves, recipe
from tsfm_lib.errors import TsfmError
from tsfm_lib.synth import cauker, corpus
from tsfm_lib.train.streams import block_means, cauker_corpus, from_corpus, from_windows, generated, prefetch, standardised

SMALL = {"batch": 16, "context": 64, "horizon": 16, "pool": 64}


@pytest.fixture(scope="module")
def stream():
    return generated(recipe(mixture="periodic", **SMALL), progress=False)


def test_generated_batches_are_functions_of_seed_and_step(stream):
    a, b = stream(3), stream(3)
    assert a.shape == (16, 1, 80) and a.dtype == torch.float32 and torch.equal(a.nan_to_num(9e9), b.nan_to_num(9e9))
    assert not torch.equal(a.nan_to_num(0), stream(4).nan_to_num(0))
    other = generated(recipe(mixture="periodic", seed=1, **SMALL), progress=False)
    assert not torch.equal(a.nan_to_num(0), other(3).nan_to_num(0))


def test_only_contexts_have_gaps(stream):
    batches = torch.cat([stream(step) for step in range(8)])
    assert batches[..., 64:].isfinite().all() and batches[..., :64].isnan().any() and batches[..., :64].isfinite().any(-1).all()


def test_a_share_of_the_batches_is_coarse_and_shorter(stream):
    coarse = replace(stream, recipe=replace(stream.recipe, coarse=0.5, context=400))
    batches = [coarse(step) for step in range(40)]
    assert {x.shape[-1] for x in batches} == {416, 256, 128}  # means of 2, of 4 and of 8 of the pool's 1024 steps
    assert 6 <= sum(x.shape[-1] < 416 for x in batches) <= 22  # two thirds of a half
    assert all(x[..., -16:].isfinite().all() for x in batches) and torch.equal(coarse(3).nan_to_num(9), coarse(3).nan_to_num(9))
    assert coarse.description["coarse"] == 0.5 and "coarse" not in stream.description


def test_coarse_series_are_means_of_blocks_of_the_pools(stream):
    found = block_means(stream.pool, 5, 200, 16, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    factor = int(rng.choice((2, 4, 8)))
    steps = min(200, 1024 // factor)
    blocks = stream.pool.batch(5, steps * factor, rng).reshape(5, steps, factor).mean(-1)
    np.testing.assert_allclose(found, (blocks - blocks.mean(1, keepdims=True)) / blocks.std(1, keepdims=True), atol=1e-4)
    assert block_means(stream.pool, 2, 900, 600, np.random.default_rng(0)).shape == (2, 900)  # no mean leaves such a horizon


def test_a_stream_describes_itself(stream):
    assert stream.description["mixture"] == "periodic" and stream.description["series"] == 64
    assert set(stream.description["weights"]) == {"gp", "seasonal", "templates"}
    with pytest.raises(TsfmError, match="no mixture is named 'finale'.*did you mean 'final'"):
        generated(recipe(mixture="finale"), progress=False)


@pytest.mark.parametrize("processes", [False, True])
def test_prefetched_equals_synchronous(stream, processes):
    with prefetch(stream, 2, processes=processes) as ahead:
        assert ahead.description == stream.description
        for step in [0, 1, 2, 3, 10, 11, 4]:                              # with a jump forward, as after a resume, and one back
            assert torch.equal(ahead(step).nan_to_num(9e9), stream(step).nan_to_num(9e9))


def test_order_holds_when_early_steps_are_slow():
    def uneven(step):
        time.sleep(0.03 if step % 3 == 0 else 0)
        return torch.full((1, 1, 1), float(step))

    with prefetch(uneven, 3) as ahead:
        assert [int(ahead(step)) for step in range(9)] == list(range(9))


def test_a_failing_worker_is_heard():
    def broken(step):
        if step == 2:
            raise TsfmError("no series left")
        return torch.zeros(1, 1, 1)

    with prefetch(broken, 1) as ahead:
        ahead(0), ahead(1)
        with pytest.raises(TsfmError, match="no series left"):
            ahead(2)


def test_worker_processes_are_other_processes_and_end():
    class Whoami(Waves):
        def __call__(self, step):
            return torch.tensor([[[float(os.getpid())]]], dtype=torch.float64)

    with prefetch(Whoami(), 1, processes=True) as ahead:
        pid = int(ahead(0))
        assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_every_window_is_seen_once_an_epoch():
    values = np.stack([np.arange(12.0), 100 + np.arange(12.0)])
    stream = from_windows(values, context=4, horizon=2, batch=5, seed=1)             # 7 windows a channel: epochs end inside a batch
    assert len(stream) == 14
    firsts = [int(x) for step in range(14) for x in stream(step)[:, 0, 0]]
    for epoch in range(5):
        assert sorted(firsts[14 * epoch : 14 * epoch + 14]) == [*range(7), *range(100, 107)]
    assert firsts[:14] != firsts[14:28]


def test_windows_keep_order_in_time_and_channels_apart_or_together():
    values = np.arange(24.0).reshape(2, 12)
    apart, together = (from_windows(values, 4, 2, 3, together=t) for t in (False, True))
    assert apart(0).shape == (3, 1, 6) and together(0).shape == (3, 2, 6) and len(together) == 7
    assert (apart(0).diff(dim=-1) == 1).all() and (together(0)[:, 1] - together(0)[:, 0] == 12).all()


def test_series_shorter_than_a_window_are_refused():
    with pytest.raises(TsfmError, match="longest series has 5 points, windows need 12"):
        from_windows(np.zeros((1, 5)), 8, 4, 2)
    with pytest.raises(TsfmError, match="batch and length of a window should be at least 1, got 0 and 6"):
        from_windows(np.zeros((1, 50)), 4, 2, 0)
    with pytest.raises(TsfmError, match=r"shape \[V, T\], got \[5\]"):
        from_windows(np.zeros(5), 2, 1, 2)


def test_a_corpus_for_encoders_is_standardised_and_every_series_comes_once_an_epoch():
    given = recipe(mixture="cauker", batch=8, context=64, horizon=0, pool=32)
    stream, raw = cauker_corpus(given), cauker.generate(32, 64, given.seed)
    kept = standardised(raw)
    epoch = torch.cat([stream(step)[:, 0] for step in range(len(kept) // 8)])
    assert len(epoch.unique(dim=0)) == len(epoch) and len(stream) == len(kept) <= 32
    np.testing.assert_allclose(epoch.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(epoch.std(1, correction=0), 1, atol=1e-4)
    assert torch.equal(cauker_corpus(given)(3), stream(3)) and stream.description["name"] == f"cauker, {len(kept)} of 32 series"
    with pytest.raises(TsfmError, match="no corpus of CauKer is named 'caukr'.*did you mean 'cauker'"):
        cauker_corpus(recipe(mixture="caukr", horizon=0))
    with pytest.raises(TsfmError, match="which need a horizon"):
        generated(recipe(mixture="final", horizon=0), progress=False)


def test_a_corpus_on_disk_gives_the_batches_of_one_in_memory(tmp_path):
    given = recipe(context=64, horizon=0, mixture="cauker", pool=300, batch=16)
    memory = cauker_corpus(given)
    disk = from_corpus(corpus.make(tmp_path, 300, 64, given.seed, shard=128, progress=False), given.batch, given.seed)
    assert len(memory) == len(disk.rows) < 300 and disk.description["used"] == len(memory)
    assert all(torch.equal(memory(step), disk(step)) for step in (0, 7, 18, 40))
