"""kill -9 at the worst moments: nothing is corrupt, nothing is lost beyond the last checkpoint, and the next run goes on by itself."""

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nbformat
import psutil
import pytest
import torch

from tests.faults import deaths
from tests.test_batch import alive, notebook
from tests.train.test_loop import go, same_ends
from tsfm_lib import checkpoints
from tsfm_lib.batch import run
from tsfm_lib.data import fetching
from tsfm_lib.paths import ROOT, replace_text
from tsfm_lib.synth.mixture import make_pool
from tsfm_lib.train.state import load_state

CSV = b"date,a\n" + b"".join(b"2024-01-01 00:%02d:%02d,%d\n" % (i // 60, i % 60, i) for i in range(3600)) * 4


@pytest.fixture(scope="module")
def server():
    """Sends the first who asks half of a file and then nothing."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CSV)))
            self.end_headers()
            self.wfile.write(CSV if len(asked) > 1 else CSV[: len(CSV) // 2])
            self.wfile.flush()
            if len(asked) == 1:
                time.sleep(5)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    http.server_close()


@pytest.fixture(scope="module")
def left(server, tmp_path_factory):
    """What the killed processes left: a folder each."""
    place = tmp_path_factory.mktemp("killed")
    surroundings = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and k != "TSFM_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.deaths", place],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=surroundings | {"TEST_SERVER": server, "no_proxy": "127.0.0.1"},
    )
    assert dict(line.split() for line in done.stdout.splitlines()) == dict.fromkeys(deaths.MOMENTS, str(int(signal.SIGKILL))), done.stderr
    return place


@pytest.mark.parametrize(
    "moment, step",
    [("in_the_middle_of_a_checkpoint", 20), ("before_a_checkpoint_takes_its_place", 20), ("between_the_weights_and_the_card", 60)],
)
def test_training_goes_on_from_its_last_checkpoint_and_ends_in_the_same_bytes(left, tmp_path, moment, step):
    folder = left / moment
    assert load_state(folder / "checkpoint.safetensors")[1]["step"] == step
    go(folder), go(tmp_path)
    same_ends(tmp_path, folder)
    assert (folder / "card.json").exists()


def test_a_saved_model_is_the_old_or_the_new_one(left):
    folder = left / "while_a_model_takes_the_place_of_another"
    assert not folder.exists()  # the worst moment: the old one away, the new one not there
    assert torch.equal(next(checkpoints.load(folder).parameters()), next(checkpoints.build("dlinear", deaths.DLINEAR, 0).parameters()))
    checkpoints.save(checkpoints.build("dlinear", deaths.DLINEAR, 1), folder)
    assert torch.equal(next(checkpoints.load(folder).parameters()), next(checkpoints.build("dlinear", deaths.DLINEAR, 1).parameters()))


def test_a_pool_is_made_again_where_it_is_missing(left):
    folder = left / "in_the_middle_of_a_pool"
    whole = [path for path in folder.iterdir() if path.suffix == ".npy"]
    (part,) = folder.glob("*.part")
    assert len(whole) == 1 and part.read_bytes() == b"half an array"
    written, day = whole[0].stat().st_mtime_ns, time.time() - 86400
    os.utime(part, (day, day))
    again, fresh = make_pool(**deaths.POOL, folder=folder), make_pool(**deaths.POOL)
    assert all((again.series[family] == fresh.series[family]).all() for family in fresh.series)
    assert whole[0].stat().st_mtime_ns == written and not part.exists() and len(list(folder.iterdir())) == 2


def test_a_download_begins_again(left, server, monkeypatch):
    folder = left / "in_the_middle_of_a_download"
    assert any(0 < part.stat().st_size < len(CSV) for part in folder.rglob("*.part*")) and not list(folder.rglob("own.csv"))
    monkeypatch.setenv("TSFM_CACHE", str(folder))
    monkeypatch.setenv("TEST_SERVER", server)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("TSFM_OFFLINE", raising=False)
    (file,) = fetching.fetch(deaths.card())
    assert file.read_bytes() == CSV and not list(folder.rglob("*.part*"))


def test_recorded_rows_are_the_old_or_the_new_ones(left):
    file = left / "before_recorded_rows_take_their_place" / "rows.csv"
    assert file.read_text() == "old"
    replace_text(file, "newer")
    assert file.read_text() == "newer"


def test_a_batch_run_goes_on_and_no_process_of_the_killed_one_stays(tmp_path):
    folder, pid = tmp_path / "notebooks", tmp_path / "pid"
    folder.mkdir(), (tmp_path / "figures").mkdir()
    slow = f"""import os, pathlib, time
pid = pathlib.Path({str(pid)!r})
if not pid.exists():
    pid.write_text(str(os.getpid()))
    time.sleep(600)"""
    for name, source in (("10_quick", "1"), ("11_slow", slow)):
        nbformat.write(notebook(source), folder / f"{name}.ipynb")
    given = {"notebooks": folder, "build": tmp_path / "build", "figures": tmp_path / "figures", "timeout": 120.0, "jobs": 1}
    code = f"from pathlib import PosixPath\nfrom tsfm_lib.batch import run\nrun.Batch(run.Settings(**{given!r})).run()"
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
    began = time.monotonic()
    while not (pid.exists() and pid.read_text()) and killed.poll() is None and time.monotonic() - began < 120:
        time.sleep(0.05)
    family = [int(pid.read_text()), *(child.pid for child in psutil.Process(killed.pid).children())]
    killed.kill()
    killed.wait()
    tries = iter(range(400))
    while any(map(alive, family)) and next(tries, None) is not None:
        time.sleep(0.05)
    assert not any(map(alive, family))
    results = run.Batch(run.Settings(**given, resume=True), str).run()
    assert [(result.ok, result.kept) for result in results] == [(True, True), (True, False)]


def test_a_report_that_a_kill_cut_short_does_not_stop_the_next_run(tmp_path):
    for text in ("", '{"ok": tr', "[]", '{"ok": true, "key": "other"}'):
        (tmp_path / "10_a.json").write_text(text)
        assert run.Batch.earlier(tmp_path / "10_a.json", "key") is None
