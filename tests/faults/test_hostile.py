"""Files made to do harm: headers that lie, archives that burst or lead elsewhere, pickles. Each is refused in one sentence, unread."""

import gzip
import io
import json
import os
import pickle
import stat
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import tsfm_lib
from tests.faults.malformed import TSF, WIDE, zipped
from tsfm_lib import checkpoints, data
from tsfm_lib.data import archives
from tsfm_lib.errors import TsfmError
from tsfm_lib.models import MODELS


def refused(call, *words):
    with pytest.raises(TsfmError) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence and all(word in sentence for word in words), sentence


# ---- model folders ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    return checkpoints.save(checkpoints.build("dlinear", {"context": 32, "horizon": 8}), tmp_path / "m")


def lying(folder, lie):
    """The same tensors under another header."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    told = lie(header, next(name for name in header if name != "__metadata__"))
    header = json.dumps(header if told is None else told).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])


LIES = {
    "offsets beyond the file": lambda h, n: h[n].update(data_offsets=[0, 10**12]),
    "offsets that run backwards": lambda h, n: h[n].update(data_offsets=h[n]["data_offsets"][::-1]),
    "tensors that overlap": lambda h, n: [t.update(data_offsets=[0, 4]) for m, t in h.items() if m != "__metadata__"] and None,
    "a shape that is not its size": lambda h, n: h[n].update(shape=[10**9, 10**9]),
    "a shape below zero": lambda h, n: h[n].update(shape=[-1]),
    "numbers of another width": lambda h, n: h[n].update(dtype="F64"),
    "an unknown kind of number": lambda h, n: h[n].update(dtype="F12"),
    "a list of everything": lambda h, n: [h],
    "nothing": lambda h, n: {},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_safetensors_header_that_lies(folder, lie):
    lying(folder, LIES[lie])
    refused(lambda: tsfm_lib.load(folder), str(folder))


@pytest.mark.parametrize("size", [10**8, 2**62, 2**64 - 1])
def test_a_header_longer_than_the_file_takes_no_memory(folder, size):
    file = folder / "model.safetensors"
    file.write_bytes(size.to_bytes(8, "little") + file.read_bytes()[8:])
    refused(lambda: tsfm_lib.load(folder), "model.safetensors is damaged or cut short", "save it again")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.long(), ["of another kind", "torch.int64 for torch.float32"]),
        (lambda t: t.bool(), ["torch.bool for torch.float32"]),
        (lambda t: t.to(torch.complex64), ["torch.complex64 for torch.float32"]),
        (lambda t: t[:1].clone(), ["of another shape"]),
    ],
)
def test_numbers_of_another_kind_are_not_cast_in_silence(folder, change, words):
    tensors = load_file(folder / "model.safetensors")
    name = max(tensors, key=lambda n: tensors[n].numel())
    save_file({**tensors, name: change(tensors[name])}, folder / "model.safetensors")
    refused(lambda: tsfm_lib.load(folder), *words)


def test_weights_that_are_no_numbers_never_reach_a_forecast_or_a_vector(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    save_file({name: torch.full_like(t, float("nan")) for name, t in tensors.items()}, folder / "model.safetensors")
    refused(lambda: tsfm_lib.forecast(folder, np.arange(40.0), 3), "must be finite")
    encoder = checkpoints.build("mantis", MODELS["mantis"].config_class().tiny())
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(float("nan"))
    refused(lambda: tsfm_lib.embed(encoder, np.arange(64.0)), "must be finite")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"context": 10**12}, ["context should be int", "got 1000000000000"]),
        ({"context": 4096, "horizon": 4096}, ["far larger than its tensors"]),
        ({"context": "32"}, ["context should be int", "'32'"]),
        ({"context": True}, ["context should be int"]),
        ({"context": None}, ["context should be int"]),
        ({"levels": [0.5, float("nan")]}, ["levels should be tuple[float, ...]"]),
        ({"kernel": 0}, ["a centred moving average has an odd kernel"]),
    ],
)
def test_a_config_of_other_values_is_refused_before_memory_is_taken(folder, change, words):
    config = json.loads((folder / "config.json").read_text())
    config["config"].update(change)
    (folder / "config.json").write_text(json.dumps(config))
    refused(lambda: tsfm_lib.load(folder), *words)


def test_json_of_brackets_within_brackets(folder):
    (folder / "config.json").write_text("[" * 10**5)
    refused(lambda: tsfm_lib.load(folder), "config.json cannot be read as JSON")


# ---- archives --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def peak(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


BOMB = b"date,a\n" + b"2024-01-01,1\n" * 2_000_000  # 26 MB that pack into some tens of kB


@pytest.mark.parametrize(
    "name, pack",
    [
        ("b.csv.gz", lambda: gzip.compress(BOMB)),
        ("b.zip", lambda: zipped({"b.csv": BOMB})),
        ("b.zip", lambda: zipped({f"{i}.csv": BOMB[:8_000_000] for i in range(4)})),
        ("b.npz", lambda: zipped({"X_train.npy": BOMB})),
    ],
)
def test_a_file_that_bursts_is_refused_within_the_limit(write, monkeypatch, name, pack):
    monkeypatch.setattr(archives, "LIMIT", 8 * 2**20)
    path = write(name, pack())
    assert path.stat().st_size < 300_000
    assert peak(lambda: refused(lambda: data.read(path), name, "unpacks to more than 0.00781 GiB")) < 2.5 * archives.LIMIT


def test_a_zip_that_says_it_is_small_is_not_read_beyond_what_it_says(write, monkeypatch):
    monkeypatch.setattr(archives, "LIMIT", 8 * 2**20)
    content = bytearray(zipped({"b.csv": BOMB}))
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = (1000).to_bytes(4, "little")  # the size in the directory
    path = write("b.zip", bytes(content))
    assert peak(lambda: refused(lambda: data.read(path), "b.zip", "cut short or damaged")) < archives.LIMIT


def test_the_limit_leaves_room_for_every_set_of_the_catalogue():
    assert archives.LIMIT >= 1.5 * 1.2e9


@pytest.mark.parametrize("shape", [(10**13,), (2**40, 2**40), (-1,), (10**6, 10**6)])
def test_an_array_whose_header_asks_for_more_than_there_is(write, shape):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": shape})
    for path in (write("a.npy", out.getvalue() + bytes(80)), write("a.npz", zipped({"a.npy": out.getvalue() + bytes(80)}))):
        assert peak(lambda path=path: refused(lambda: data.read(path), path.name, "plain array")) < 2**25


@pytest.mark.parametrize("name", ["../mine.csv", "a/../../mine.csv", "/mine.csv", "..\\mine.csv"])
def test_names_that_lead_out_of_an_archive(write, tmp_path, name):
    path = write("p.zip", zipped({name: WIDE, "good.csv": WIDE}))
    before = sorted(os.listdir(tmp_path)), sorted(os.listdir(tmp_path.parent))
    refused(lambda: data.read(path), "p.zip", repr(name), "leads out of it")
    assert before == (sorted(os.listdir(tmp_path)), sorted(os.listdir(tmp_path.parent)))


def test_links_in_an_archive_are_not_followed(write, tmp_path):
    (tmp_path / "secret.csv").write_bytes(WIDE)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("mine.csv")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(tmp_path / "secret.csv"))
    refused(lambda: data.read(write("l.zip", out.getvalue())), "l.zip", "'mine.csv', a link")


def test_what_a_password_hides(write):
    content = bytearray(zipped({"mine.tsf": TSF}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    refused(lambda: data.read(write("e.zip", bytes(content))), "e.zip", "needs a password")


class Trap:
    def __reduce__(self):
        return os.mkdir, (Trap.place,)


@pytest.mark.parametrize("name", ["t.npy", "t.npz", "t.csv", "t.tsf", "t.txt"])
def test_pickles_are_never_opened(write, tmp_path, name):
    Trap.place = str(tmp_path / "sprung")
    objects, raw = io.BytesIO(), pickle.dumps(Trap())
    (np.savez if name.endswith("npz") else np.save)(objects, np.array([Trap()], dtype=object))
    for content in (raw, objects.getvalue(), zipped({"a.npy": raw})):
        refused(lambda content=content: data.read(write(name, content)), name)
    assert not (tmp_path / "sprung").exists()
    model = checkpoints.save(checkpoints.build("dlinear", {"context": 32, "horizon": 8}), tmp_path / "m")
    (model / "model.safetensors").write_bytes(raw)
    refused(lambda: tsfm_lib.load(model), "damaged")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    refused(lambda: tsfm_lib.load(model), "holds no .safetensors file")
    assert not (tmp_path / "sprung").exists()


# ---- values that would change their meaning in silence ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [np.array([1 + 2j, 3]), np.array(["2024", "2025"], "M8[Y]"), np.array([1, 2], "m8[h]"), torch.tensor([1j, 2])]
)
def test_complex_numbers_dates_and_durations_are_no_series(values):
    for call in (lambda: tsfm_lib.forecast("naive", values, 2), lambda: data.as_series_set(values)):
        refused(call, "expected numbers")


@pytest.mark.parametrize("values", [pd.date_range("2024", periods=3), pd.timedelta_range("1h", periods=3), pd.Series([1j, 2, 3])])
def test_nor_are_columns_of_them(values):
    refused(lambda: data.as_series_set(pd.DataFrame({"ds": [1, 2, 3], "y": values})), "row 0, column 'y'", "is not a number")


def test_what_a_mask_hides_is_missing():
    hidden = np.ma.masked_array([1.0, 2.0, 99.0], [False, False, True])
    np.testing.assert_array_equal(data.as_series_set(hidden).series[0], [[1, 2, np.nan]])
    assert tsfm_lib.forecast("naive", hidden, 1, [0.5]).item() == 2
