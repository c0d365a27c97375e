"""A corpus on disk has the bytes of `generate`, whoever made it, in however many pieces, and however often it was interrupted."""

import json
import os
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from tsfm_lib.errors import TsfmError
from tsfm_lib.synth import cauker, corpus
from tsfm_lib.synth.__main__ import main


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def make(folder, n=50, **more):
    return corpus.make(folder, n, **({"length": 32, "seed": 3, "shard": 16, "progress": False} | more))


def test_one_process_and_two_write_the_same_bytes(tmp_path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert (one[:] == cauker.generate(50, 32, 3)).all() and len(two) == 50
    assert (np.concatenate(list(one.shards())) == one[:]).all()


def test_a_backend_without_streams_of_results_serves_as_well(tmp_path):
    from joblib import parallel_config
    with parallel_config(backend="threading"):
        make(tmp_path / "threads", workers=2)
    make(tmp_path / "one")
    assert contents(tmp_path / "one") == contents(tmp_path / "threads")


def test_an_interrupted_run_goes_on_with_what_is_missing(tmp_path, monkeypatch):
    made, generate = [], cauker.generate

    def interrupted(n, *rest):
        if n and len(made) == 2:
            raise KeyboardInterrupt
        made.append(n) if n else None
        return generate(n, *rest)

    monkeypatch.setattr(cauker, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut")
    with pytest.raises(TsfmError, match="not finished"):
        corpus.read(tmp_path / "cut")
    first = contents(tmp_path / "cut")
    assert len(first) == 3                                        # two shards and the manifest, nothing half written
    (tmp_path / "cut" / "shard-00001.npy").write_bytes(b"damaged")
    (tmp_path / "cut" / ".unfinished-x.npy").write_bytes(b"left by a killed process")
    made.clear()
    monkeypatch.setattr(cauker, "generate", lambda n, *rest: made.append(n) or generate(n, *rest))
    make(tmp_path / "cut")
    assert [n for n in made if n] == [16, 16, 2]                  # the damaged one and those that were missing
    make(tmp_path / "whole")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_corpus_can_grow_but_not_become_another(tmp_path):
    make(tmp_path / "grown", 20)
    make(tmp_path / "grown", 50)
    make(tmp_path / "whole", 50)
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")
    other = cauker.CauKerConfig(nodes=9)
    for change, words in (({"seed": 4}, "seed"), ({"length": 33}, "length"), ({"config": other}, "nodes"), ({"n": 8}, "50 series")):
        with pytest.raises(TsfmError, match=words):
            make(tmp_path / "grown", **change)


def test_rows_are_read_as_an_array_reads_them(tmp_path):
    c, x = make(tmp_path), cauker.generate(50, 32, 3)
    for rows in (0, -1, np.int64(17), slice(None), slice(10, 40, 3), [33, 2, 33, -2], np.arange(50) % 3 == 0, np.array([], int)):
        assert c[rows].shape == x[rows].shape and (c[rows] == x[rows]).all()
    with pytest.raises(IndexError, match="50 series"):
        c[[50]]
    c.verify()
    assert c.config == cauker.CauKerConfig() and c.per_graph == 4 and sum(s["series"] for s in c.manifest["shards"]) == 50
    shard = tmp_path / c.manifest["shards"][2]["file"]
    *rest, last = shard.read_bytes()
    shard.write_bytes(bytes([*rest, last ^ 1]))
    with pytest.raises(TsfmError, match="not what was written"):
        c.verify()


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    def peak(n):
        tracemalloc.start()
        make(tmp_path / str(n), n, length=128, shard=100)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top
    peak(100)
    assert peak(1600) < 1.3 * peak(200)


def test_a_killed_command_loses_no_finished_shard(tmp_path, capsys):
    arguments = ["cauker", "--n", "40000", "--out", str(tmp_path / "killed"), "--length", "64", "--shard", "400", "--set", "nodes=6"]
    run = subprocess.Popen([sys.executable, "-m", "tsfm_lib.synth", *arguments], stdout=subprocess.DEVNULL, env=os.environ)
    began = time.monotonic()
    while len(list(tmp_path.glob("killed/shard-*.npy"))) < 3 and run.poll() is None and time.monotonic() - began < 120:
        time.sleep(0.02)
    run.kill()
    run.wait()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("killed/shard-*.npy")}
    assert 3 <= len(before) < 100
    manifest = json.loads((tmp_path / "killed" / "manifest.json").read_text())
    manifest["n"] = 400 * len(before) + 500                       # the rest of so long a run is not waited for
    (tmp_path / "killed" / "manifest.json").write_text(json.dumps(manifest))
    arguments[2] = str(manifest["n"])
    assert main(arguments) == 0 and f"{manifest['n']} series of 64 points" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    made = corpus.read(tmp_path / "killed")
    config = cauker.CauKerConfig(nodes=6)
    assert made.config == config and (made[-600:] == cauker.generate(600, 64, 0, config, start=len(made) - 600)).all()


def test_the_shell_says_what_it_needs(tmp_path, capsys):
    for arguments, words in ((["--n", "5"], "--out"), (["--n", "5", "--out", "x", "--variant", "cauk"], "did you mean 'cauker'"),
                             (["--n", "5", "--out", str(tmp_path), "--set", "depths=3"], "did you mean 'depth'")):
        assert main(["cauker", *arguments]) == 2 and words in capsys.readouterr().err
    assert main(["cauker", "--list"]) == 0 and "kernelsynth" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
