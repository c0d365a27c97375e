"""Downloads are checked, atomic and shared; without them the sentence says what to do. The server is on this machine."""

import errno
import gzip
import hashlib
import io
import multiprocessing
import threading
import time
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pooch
import pytest

from tsfm_lib import data
from tsfm_lib.data import cards, fetching, loading
from tsfm_lib.data.sets import Card
from tsfm_lib.errors import DataMissing, TsfmError

CSV = b"date,a\n" + b"".join(b"2024-01-%02d,%d\n" % (d, d) for d in range(1, 29))
TSF = b"@relation R\n@attribute series_name string\n@frequency daily\n@data\nT1:1,2,3\n"


@pytest.fixture
def server(monkeypatch):
    """A web server that counts what it is asked for."""
    state = SimpleNamespace(files={}, asked=[], slow=0.0, short=False)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.asked.append(self.path)
            time.sleep(state.slow)
            content = state.files.get(self.path)
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write((content or b"")[: -5 if state.short else None])

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield state
    http.shutdown()
    http.server_close()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache, no data folder, downloads allowed."""
    monkeypatch.setenv("TSFM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TSFM_DATA", raising=False)
    monkeypatch.delenv("TSFM_OFFLINE", raising=False)
    for proxy in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    return tmp_path


@pytest.fixture
def catalogued(monkeypatch):
    """Put a card into the catalogue for one test."""

    def add(card: Card) -> str:
        known = cards._cards()
        changed = ({**known[0], card.name: card}, {**known[1], card.name.lower(): card.name})
        monkeypatch.setattr(cards, "_cards", lambda: changed)
        return card.name

    return add


def own(server, **changes) -> Card:
    card = Card("own", frequency="D", season=7, horizon=2, splits="7:1:2", source="web", file="forecasting/own.csv.gz")
    return replace(card, **{"url": f"{server.url}/own.csv", **changes})


def leftovers(home) -> list[str]:
    return [p.name for p in (home / "cache").rglob("*") if ".part" in p.name]


def test_a_download_is_kept_and_used_again(server, home, catalogued):
    server.files["/own.csv"] = CSV
    name = catalogued(own(server, checksum="md5:" + hashlib.md5(CSV).hexdigest(), facts={"rows": 28, "channels": 1}))
    assert not data.available(name)
    first = data.load(name)
    assert first.frequency == "D" and first.series[0][0, 27] == 28 and data.available(name)
    np.testing.assert_array_equal(data.load(name).series[0], first.series[0])
    assert server.asked == ["/own.csv"] and not leftovers(home)
    assert data.fetch(name)[0].read_bytes() == CSV


@pytest.mark.parametrize("kind", ["sha256", "md5", "git-blob"])
def test_a_download_with_another_checksum_is_not_kept(server, home, catalogued, kind):
    server.files["/own.csv"] = CSV
    name = catalogued(own(server, checksum=f"{kind}:{'0' * {'sha256': 64, 'md5': 32, 'git-blob': 40}[kind]}"))
    with pytest.raises(TsfmError, match=f"own: the download from .* has not the checksum {kind}:0+ and was not kept"):
        data.load(name)
    assert not leftovers(home) and not data.available(name)


def test_git_blob_checksums_are_gits_own():
    assert fetching._equal(b"hello\n", "git-blob:ce013625030ba8dba906f756967f9e9ca394464a")


def test_a_zip_is_checked_by_the_text_inside_it(server, home, catalogued):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("own.tsf", TSF)
    server.files["/own.zip"] = out.getvalue()
    card = own(server, url=f"{server.url}/own.zip", splits="last-horizon", checksum=f"sha256:{hashlib.sha256(TSF).hexdigest()}")
    assert data.load(catalogued(card)).series[0].tolist() == [[1, 2, 3]]


def test_without_a_published_checksum_the_first_read_pins_one(server, home, catalogued):
    server.files["/own.csv"] = CSV
    name = catalogued(own(server, facts={"rows": 28}))
    data.load(name)
    kept = data.fetch(name)[0]
    kept.write_bytes(CSV.replace(b"28,28", b"28,29"))
    with pytest.raises(TsfmError, match="does not have the checksum sha256:.* and has been removed: load it again"):
        data.load(name)
    assert not kept.exists()
    assert data.load(name).series[0][0, 27] == 28 and len(server.asked) == 2


@pytest.mark.parametrize("content, said", [(CSV[:46], "rows 3 instead of 28"), (b"<html>sorry</html>", "no rows")])
def test_a_wrong_file_is_not_kept(server, home, catalogued, content, said):
    server.files["/own.csv"] = content
    name = catalogued(own(server, facts={"rows": 28}))
    with pytest.raises(TsfmError, match=said):
        data.load(name)
    assert not data.available(name)


def test_several_files_make_one_set(server, home, catalogued):
    server.files.update({"/train.csv": b'"V1","V2","V3"\n"D1",1,2\n', "/test.csv": b'"V1","V2"\n"D1",3\n'})
    name = catalogued(own(server, url=f"{server.url}/train.csv {server.url}/test.csv", splits="last-horizon", horizon=1))
    assert data.load(name).series[0].tolist() == [[1, 2, 3]]


def test_the_leaderboard_is_put_together_from_one_file_a_model(server, home, catalogued):
    head = b"dataset,model,eval_metrics/MASE[0.5],eval_metrics/mean_weighted_sum_quantile_loss\n"
    server.files.update({f"/{m}/all_results.csv": head + b"solar/H/short,%s,0.5,%d\n" % (m.encode(), i) for i, m in enumerate("ab")})
    address = f"{server.url}/{{model}}/all_results.csv"
    card = replace(data.card("leaderboard"), name="board", url=address, facts={"models": ["a", "b"], "rows": 2})
    rows = data.load(catalogued(card))
    assert rows.to_dict("list") == {
        "model": ["a", "b"], "config": ["solar/H/short"] * 2, "dataset": ["solar"] * 2, "frequency": ["H"] * 2, "term": ["short"] * 2,
        "MASE": [0.5, 0.5], "CRPS": [0, 1],
    }  # fmt: skip


def test_extracts_are_cut_from_the_larger_set(server, home, catalogued):
    server.files["/own.csv"] = CSV.replace(b"date,a", b"date,OT")
    catalogued(own(server, name="whole"))
    part = Card("part", frequency="D", splits="7:1:2", source="extract", file="forecasting/part.csv.gz", url="https://example.org")
    part = replace(part, facts={"of": "whole", "columns": ["OT"], "last_rows": 3, "rows": 3, "channels": 1})
    assert data.load(catalogued(part)).series[0].tolist() == [[26, 27, 28]]


def test_the_files_of_an_extract_are_those_of_the_larger_set_wherever_it_lies(server, home, catalogued, monkeypatch):
    catalogued(own(server, name="whole"))
    part = catalogued(Card("part", source="extract", file="forecasting/part.csv.gz", facts={"of": "whole"}))
    monkeypatch.setenv("TSFM_DATA", str(home))
    there = home / "forecasting" / "own.csv.gz"
    there.parent.mkdir()
    there.write_bytes(gzip.compress(CSV))
    assert data.fetch(part) == [there] and not server.asked


def test_a_cut_connection_leaves_nothing(server, home, catalogued):
    server.files["/own.csv"], server.short = CSV, True
    name = catalogued(own(server))
    with pytest.raises(DataMissing, match="own could not be downloaded from"):
        data.load(name)
    assert not leftovers(home) and not data.available(name)


def test_an_address_that_is_gone(server, home, catalogued):
    with pytest.raises(DataMissing, match=r"own could not be downloaded from .*404.* put own.csv.gz into the folder forecasting/"):
        data.load(catalogued(own(server)))


def test_no_network_is_said_at_once(server, home, catalogued):
    begin = time.monotonic()
    with pytest.raises(DataMissing, match=r"cannot be reached: connect to a network, or put own.csv.gz into"):
        data.load(catalogued(own(server, url="http://127.0.0.1:9/own.csv")))
    with pytest.raises(DataMissing, match="cannot be reached"):
        data.load(catalogued(own(server, name="other", url="http://no-such-host.invalid/own.csv")))
    assert time.monotonic() - begin < 2 * fetching.REACH + 1


def test_a_name_that_takes_long_to_look_up_is_not_waited_for(server, home, catalogued, monkeypatch):
    monkeypatch.setattr(fetching, "REACH", 0.2)
    monkeypatch.setattr(fetching.socket, "create_connection", lambda *a, **k: time.sleep(3) or SimpleNamespace(close=int))
    begin = time.monotonic()
    with pytest.raises(DataMissing, match="cannot be reached"):
        data.load(catalogued(own(server)))
    assert time.monotonic() - begin < 2


def test_a_proxy_is_left_out_where_no_proxy_says_so(server, home, monkeypatch):
    monkeypatch.setenv("http_proxy", "127.0.0.1:9")  # without a scheme, as many write it
    assert fetching.answers(server.url, 1.0)
    monkeypatch.setenv("no_proxy", "")
    assert not fetching.answers(server.url, 1.0)


def test_offline_never_touches_the_network(server, home, catalogued, monkeypatch):
    monkeypatch.setenv("TSFM_OFFLINE", "1")
    monkeypatch.setattr(fetching.socket, "create_connection", lambda *a, **k: pytest.fail("asked the network"))
    with pytest.raises(DataMissing, match="TSFM_OFFLINE forbids a download from"):
        data.load(catalogued(own(server)))
    assert not server.asked and not (home / "cache").exists()


def test_sets_without_an_address_say_how_they_were_made(home):
    with pytest.raises(DataMissing, match=r"vic_elec is no single download .* put vic_elec.csv.gz into .* of \$TSFM_DATA"):
        data.load("vic_elec")
    with pytest.raises(DataMissing, match="nile comes with the installed packages"):
        data.fetch("nile")


def test_a_cache_that_cannot_be_written(server, home, catalogued):
    (home / "cache").write_text("a file where the folder should be")        # also refused for root, unlike a read-only folder
    server.files["/own.csv"] = CSV
    with pytest.raises(DataMissing, match=r"own cannot be kept in .*: free space there or set TSFM_CACHE to another folder"):
        data.load(catalogued(own(server)))


@pytest.mark.parametrize("number, said", [(errno.EROFS, "Read-only file system"), (errno.EACCES, "Permission denied")])
def test_a_read_only_cache(server, home, catalogued, monkeypatch, number, said):
    def refuse(*args, **kwargs):
        raise OSError(number, said)

    server.files["/own.csv"] = CSV
    monkeypatch.setattr(fetching.Path, "mkdir", refuse)
    with pytest.raises(DataMissing, match=rf"own cannot be kept in .* \({said}\): free space there or set TSFM_CACHE"):
        data.load(catalogued(own(server)))


def test_a_full_cache_keeps_no_half_file(server, home, catalogued, monkeypatch):
    server.files["/own.csv"] = CSV

    def half(self, url, output_file, *rest, **kwargs):
        with open(output_file, "wb") as out:
            out.write(CSV[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    name = catalogued(own(server))
    with monkeypatch.context() as full:
        full.setattr(pooch.HTTPDownloader, "__call__", half)
        with pytest.raises(DataMissing, match=r"own cannot be kept in .* \(No space left on device\): free space there"):
            data.load(name)
    assert not leftovers(home) and not data.available(name)
    assert data.load(name).series[0].size == 28                              # nothing stands in the way of the next try


def _fetch(card: Card, ready, results) -> None:
    ready.wait()
    try:
        results.put([f.read_bytes() for f in fetching.fetch(card)])
    except Exception as error:
        results.put(repr(error))


def test_two_processes_at_once_get_one_good_file(server, home):
    server.files["/own.csv"], server.slow = CSV, 0.3
    context = multiprocessing.get_context("fork")
    ready, results = context.Event(), context.Queue()
    card = own(server, checksum=f"sha256:{hashlib.sha256(CSV).hexdigest()}")
    both = [context.Process(target=_fetch, args=(card, ready, results)) for _ in range(2)]
    for process in both:
        process.start()
    ready.set()
    assert [results.get(timeout=20) for _ in both] == [[CSV], [CSV]]
    for process in both:
        process.join(20)
    assert server.asked == ["/own.csv"] and not leftovers(home)


def test_the_data_folder_goes_before_cache_and_network(server, home, catalogued, monkeypatch):
    server.files["/own.csv"] = CSV
    name = catalogued(own(server))
    data.load(name)
    folder = home / "data" / "forecasting"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TSFM_DATA", str(home / "data"))
    assert data.load(name).series[0].shape == (1, 28)                        # not in the folder: from the cache
    (folder / "own.csv").write_bytes(CSV[:46])
    assert data.load(name).series[0].shape == (1, 3)


def test_a_damaged_file_of_the_data_folder_is_named_and_left_alone(server, home, catalogued, monkeypatch):
    (home / "forecasting").mkdir()
    theirs = home / "forecasting" / "own.csv.gz"
    theirs.write_bytes(b"\x1f\x8b damaged")
    monkeypatch.setenv("TSFM_DATA", str(home))
    with pytest.raises(TsfmError, match="own: .*own.csv.gz does not have the checksum sha256:0+: copy it again from"):
        data.load(catalogued(own(server, sha256="0" * 64)))
    assert theirs.exists()


def test_sizes_that_only_the_literature_states_do_not_refuse_a_file(server, home, catalogued):
    server.files["/own.csv"] = CSV
    with pytest.warns(UserWarning, match="rows 28 instead of 30 as the literature states"):
        data.load(catalogued(own(server, facts={"rows": 30, "unproven": 1})))


def test_a_proxy_is_asked_instead_of_the_host(server, home, catalogued, monkeypatch):
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", server.url)
    fetching.reach(own(server), "http://no-such-host.invalid/own.csv")      # the proxy answers: no refusal
    assert loading.available("nile")
