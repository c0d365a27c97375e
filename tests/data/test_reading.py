"""Each layout is read as written, and each bad file is refused with the place, what was expected and what to do."""

import gzip
import io
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch

from tsfm_lib import data
from tsfm_lib.data.sets import LabelledSet, SeriesSet
from tsfm_lib.errors import TsfmError

WIDE = "date,a,b\n2024-01-01 00:00:00,1,4\n2024-01-01 01:00:00,,5\n2024-01-01 02:00:00,3,6.5\n"
TSF = """# words
@relation R
@attribute series_name string
@attribute start_timestamp date
@frequency half_hourly
@horizon 2
@missing true
@equallength false
@data
T1:2012-01-31 00-00-00:1,?,3
T2:2013-05-01 12-30-00:4,5,6,7
"""
TS = """# words
@problemName P
@timeStamps false
@univariate false
@dimensions 2
@classLabel true left right
@data
1,2,3:4,5,6:right
7,?:8,9:left
"""


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: str | bytes):
        path = tmp_path / name
        raw = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") and isinstance(content, str) else raw)
        return path

    return write


def npz(**arrays) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


@pytest.mark.parametrize("name", ["mine.csv", "mine.csv.gz"])
def test_wide_csv(write, name):
    found = data.read(write(name, WIDE))
    assert (found.name, found.channels, found.frequency, found.season) == ("mine", ("a", "b"), "h", 24)
    np.testing.assert_array_equal(found.series[0], [[1, np.nan, 3], [4, 5, 6.5]])
    assert found.stamps[0][2] == pd.Timestamp("2024-01-01 02:00")


@pytest.mark.parametrize("header", ["unique_id,ds,y", "item_id,timestamp,target"])
def test_long_csv(write, header):
    found = data.read(write("mine.csv", f"{header}\nA,2024-01-01,1\nB,2024-01-01,5\nA,2024-02-01,2\n"))
    assert found.ids == ("A", "B") and [s.tolist() for s in found.series] == [[[1, 2]], [[5]]]
    assert found.frequency == "MS" and found.stamps[0][1] == pd.Timestamp("2024-02-01")


def test_csv_variants(write):
    same = data.read(write("mine.csv", WIDE)).series[0]
    for text in (WIDE.replace(",", ";"), "\ufeff" + WIDE, WIDE.replace("\n", "\r\n"), WIDE.replace(":00,", ":00Z,"), WIDE.rstrip("\n")):
        np.testing.assert_array_equal(data.read(write("other.csv", text)).series[0], same)
    bare = data.read(write("bare.txt", "1,2\n3,4\n5,6\n"))
    assert bare.channels == ("0", "1") and bare.series[0].tolist() == [[1, 3, 5], [2, 4, 6]] and bare.stamps == (None,)


def test_time_column_in_another_place(write):
    assert data.read(write("mine.csv", "y,date\n1,2024-01-01\n2,2024-01-02\n")).series[0].tolist() == [[1, 2]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "cells, stamps",
    [
        ("01/02/2024 02/02/2024 13/02/2024", "2024-02-01 2024-02-02 2024-02-13"),
        ("01/02/2024 01/03/2024 01/13/2024", "2024-01-02 2024-01-03 2024-01-13"),
        ("30.12.2023 31.12.2023 01.01.2024", "2023-12-30 2023-12-31 2024-01-01"),
        ("2024/1/5 2024/1/12 2024/1/13", "2024-01-05 2024-01-12 2024-01-13"),
        ("2024-01-05 2024-01-05T06:00 2024-01-05T12:00+03:00", "2024-01-05 2024-01-05T06:00 2024-01-05T09:00"),
        ("2023Q4 2024Q1 2024Q2", "2023-10-01 2024-01-01 2024-04-01"),
    ],
)  # fmt: skip
def test_dates_of_a_column_are_read_in_one_order(write, cells, stamps):
    text = "date,y\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells.split()))
    assert data.read(write("mine.csv", text)).stamps[0].tolist() == [pd.Timestamp(s) for s in stamps.split()]


@pytest.mark.parametrize(
    "cells, said",
    [
        ("01.02.2024 02.02.2024 03.02.2024", "line 2, column 'date': in '01.02.2024' day and month cannot be told apart"),
        ("13/02/2024 02/14/2024", "line 3, column 'date': '02/14/2024' is not a time stamp"),
        ("2024-01-05 2024-13-05", "line 3, column 'date': '2024-13-05' is not a time stamp"),
        ("april may", "line 2, column 'date': 'april' is not a time stamp"),
    ],
)  # fmt: skip
def test_dates_that_can_be_misread_are_refused(write, cells, said):
    assert said in refused(write("mine.csv", "date,y\n" + "".join(f"{cell},1\n" for cell in cells.split())))


@pytest.mark.parametrize(
    "text, first",
    [("1e3\n2e3\n", [1000]), ("1.5e-3,2\n3,4\n", [0.0015, 2]), ("nan,2\n3,4\n", [np.nan, 2]), (",2\n3,4\n", [np.nan, 2]),
     ("+1,-2\n3,4\n", [1, -2]), ("\t2\n3\t4\n", [np.nan, 2]), (",0\n5,1\n", [np.nan, 0])],
)  # fmt: skip
def test_a_first_line_of_numbers_is_data(write, text, first):
    found = data.read(write("bare.csv", text)).series[0]
    assert found.shape == (len(first), 2)
    np.testing.assert_array_equal(found[:, 0], first)


@pytest.mark.parametrize("text", [",a,b\n0,1,2\n1,3,4\n", ",0,1\n0,1,2\n1,3,4\n", "2024_01,2024_02\n1,2\n3,4\n", "nan\n1\n3\n"])
def test_a_first_line_of_names_is_none(write, text):
    assert data.read(write("named.csv", text)).series[0][0].tolist() == [1, 3]


@pytest.mark.parametrize("begin", [0, 1])
def test_the_nameless_index_of_a_saved_frame_is_no_series(write, begin):
    frame = pd.DataFrame({"date": ["2024-01-01", "2024-01-02"], "a": [3.0, 4.0]}, index=[begin, begin + 1])
    for text in (frame.to_csv(), frame.drop(columns="date").to_csv()):
        found = data.read(write("mine.csv", text))
        assert found.channels == ("a",) and found.series[0].tolist() == [[3, 4]]
    assert data.read(write("mine.csv", frame.to_csv())).frequency == "D"
    assert data.read(write("mine.csv", ",a\n0,1\n7,2\n")).channels == ("Unnamed: 0", "a")


def test_years_are_time(write):
    assert data.read(write("mine.csv", "year,y\n1990,1\n1991,2\n")).channels == ("y",)


def test_ids_may_stand_in_the_index():
    long = pd.DataFrame({"unique_id": ["A", "A", "B"], "ds": [1, 2, 1], "y": [1.0, 2.0, 3.0]})
    for index in ("unique_id", ["unique_id", "ds"]):
        assert data.as_series_set(long.set_index(index)).ids == ("A", "B")


@pytest.mark.parametrize("name", ["mine.tsf", "mine.tsf.gz"])
def test_monash_tsf(write, name):
    found = data.read(write(name, TSF))
    assert (found.ids, found.frequency, found.season, found.horizon) == (("T1", "T2"), "30min", 48, 2)
    np.testing.assert_array_equal(found.series[0], [[1, np.nan, 3]])
    assert found.stamps[0][0] == pd.Timestamp("2012-01-31") and found.stamps[1][3] == pd.Timestamp("2013-05-01 14:00")
    assert found.split("test", element=1) == slice(2, 4)


def test_tsf_of_months_counts_calendar_months(write):
    found = data.read(write("mine.tsf", TSF.replace("half_hourly", "monthly").replace("2012-01-31", "2012-01-01")))
    assert [str(s)[:10] for s in found.stamps[0]] == ["2012-01-01", "2012-02-01", "2012-03-01"]


def test_tsf_without_starts_has_no_stamps(write):
    text = "\n".join(line for line in TSF.splitlines() if "start_timestamp" not in line)
    found = data.read(write("mine.tsf", text.replace("2012-01-31 00-00-00:", "").replace("2013-05-01 12-30-00:", "")))
    assert found.stamps == (None, None) and found.long().ds.tolist() == [0, 1, 2, 0, 1, 2, 3]


def test_m4_csv(write):
    found = data.read(write("Daily-train.csv", '"V1","V2","V3","V4"\n"D1",1.5,2,\n"D2",4,5,6\n'))
    assert found.ids == ("D1", "D2") and [s.tolist() for s in found.series] == [[[1.5, 2]], [[4, 5, 6]]]


def test_ts_multivariate_uneven_missing(write):
    write("P_TEST.ts", TS)
    found = data.read(write("P_TRAIN.ts", TS))
    assert found.classes == ("left", "right") and found.y_train.tolist() == [1, 0] and found.x_test.shape == (2, 2, 3)
    np.testing.assert_array_equal(found.x_train[1], np.array([[7, np.nan, np.nan], [8, 9, np.nan]], np.float32))
    assert found.lengths().tolist() == [3, 2]


@pytest.mark.parametrize("separator, ending", [("\t", "tsv"), (",", "txt"), ("  ", "txt")])
def test_ucr_tables(write, separator, ending):
    text = "-1 0.5 1.5\n1 2.5 NaN\n".replace(" ", separator)
    write(f"P_TEST.{ending}", text)
    found = data.read(write(f"P_TRAIN.{ending}", text))
    assert (found.name, found.classes, found.y_train.tolist()) == ("P", ("-1", "1"), [0, 1])
    np.testing.assert_array_equal(found.x_test[:, 0], np.array([[0.5, 1.5], [2.5, np.nan]], np.float32))


def test_labels_written_in_two_ways_are_one_class(write):
    write("P_TEST.tsv", "1\t0.5\n2\t1\n")
    found = data.read(write("P_TRAIN.tsv", "1.0000000e+00\t0.5\n2.0000000e+00\t3\n"))
    assert found.classes == ("1", "2") and found.y_train.tolist() == found.y_test.tolist() == [0, 1]


def test_zip_is_read_in_memory(write, tmp_path):
    for inside, expected in (({"P_TRAIN.ts": TS, "P_TEST.ts": TS, "P.txt": "words"}, LabelledSet), ({"R.tsf": TSF}, SeriesSet)):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, text in inside.items():
                archive.writestr(name, text)
        before = sorted(tmp_path.iterdir())
        path = write("P.zip", out.getvalue())
        assert isinstance(data.read(path), expected)
        path.unlink()
        assert sorted(tmp_path.iterdir()) == before


def test_npz(write):
    x, y = np.arange(6.0).reshape(2, 3), np.array([-1, 1])
    found = data.read(write("P.npz", npz(X_train=x, y_train=y, X_test=x, y_test=y)))
    assert found.x_train.shape == (2, 1, 3) and found.x_train.dtype == np.float32 and found.classes == ("-1", "1")


def test_plain_arrays_are_series(write):
    values = np.arange(6.0).reshape(2, 3)
    out = io.BytesIO()
    np.save(out, values)
    for path in (write("p.npy", out.getvalue()), write("p.npz", npz(values=values))):
        np.testing.assert_array_equal(data.read(path).series[0], values)
    many = data.read(write("q.npz", npz(north=values[0], south=values[1, :2])))
    assert many.ids == ("north", "south") and [s.shape for s in many.series] == [(1, 3), (1, 2)]
    assert "cannot be read as series" in refused(write("p.npy", out.getvalue()[:20]))


def test_arrays_tensors_lists_and_series():
    values = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]])
    for same in (values, torch.tensor(values), torch.tensor(values, requires_grad=True), pd.DataFrame(values.T)):
        np.testing.assert_array_equal(data.as_series_set(same).series[0], values)
    assert data.as_series_set([1, 2, 3]).series[0].tolist() == [[1, 2, 3]]
    np.testing.assert_array_equal(data.as_series_set([1, None, 3]).series[0], [[1, np.nan, 3]])
    assert len(data.as_series_set(np.zeros((4, 2, 3)))) == 4
    assert [s.shape for s in data.as_series_set([np.zeros(3), torch.zeros(5)]).series] == [(1, 3), (1, 5)]
    dated = data.as_series_set(pd.Series([1.0, 2.0], index=pd.period_range("2024-01", periods=2, freq="M")))
    assert dated.frequency == "MS" and dated.stamps[0][1] == pd.Timestamp("2024-02-01")
    assert data.as_series_set(dated) is dated


def refused(path) -> str:
    with pytest.raises(TsfmError) as caught:
        data.read(path)
    sentence = str(caught.value)
    assert path.name in sentence and "\n" not in sentence and ": " in sentence
    return sentence


@pytest.mark.parametrize("name", ["mine.csv.gz", "mine.tsf.gz"])
@pytest.mark.parametrize("harm", ["cut", "bit"])
def test_damaged_gzip(write, name, harm):
    whole = gzip.compress((WIDE * 50).encode())
    broken = whole[: len(whole) // 2] if harm == "cut" else whole[:40] + bytes([whole[40] ^ 255]) + whole[41:]
    assert "is cut short or damaged" in refused(write(name, broken))


def test_damaged_zip(write):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("P_TRAIN.ts", TS)
    assert "is cut short or damaged" in refused(write("P.zip", out.getvalue()[:-30]))
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    assert "holds no file this library reads: expected" in refused(write("E.zip", empty.getvalue()))


def test_damaged_npz(write):
    x, y = np.random.default_rng(0).normal(size=(20, 30)), np.zeros(20, int)
    whole = npz(X_train=x, y_train=y, X_test=x, y_test=y)
    middle = len(whole) // 3
    for broken in (whole[:middle], whole[:middle] + bytes(50) + whole[middle + 50 :]):
        assert "cannot be read as npz" in refused(write("P.npz", broken))
    assert "holds objects" in refused(write("P.npz", npz(X_train=np.array([{}], dtype=object), y_train=y, X_test=x, y_test=y)))


def test_npz_with_other_arrays(write):
    x, y = np.zeros((2, 3)), np.zeros(2, int)
    assert "got ['X_train', 'y_train'] without X_test, y_test" in refused(write("P.npz", npz(X_train=x, y_train=y)))
    assert "y_test should hold 2 labels" in refused(write("P.npz", npz(X_train=x, y_train=y, X_test=x, y_test=y[:1])))
    silent = np.full((2, 3), np.nan)
    assert "test series 0 holds no number" in refused(write("P.npz", npz(X_train=x, y_train=y, X_test=silent, y_test=y)))


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("@data\n", "", "line 9: expected a line that begins with # or @ before @data"),
        (TSF[TSF.index("@data") :], "", "has no @data line after 8 lines"),
        ("T2:2013-05-01 12-30-00:4,5,6,7", "T2:2013-05", "line 11: expected series_name:start_timestamp:values, got 2 fields"),
        ("T2:2013-05-01 12-30-00:4,5,6,7", "T2:2013-05-01 12-30-00:", "line 11: expected series_name:start_timestamp:values"),
        ("4,5,6,7", "4,5,six,7", "line 11, value 3: 'six' is not a number: write ?"),
        ("4,5,6,7", "4,,6,7", "line 11, value 2: '' is not a number"),
        ("4,5,6,7", "4,inf,6,7", "line 11, value 2 is infinite"),
        ("4,5,6,7", "?,?", "series 'T2' holds no number"),
        ("2013-05-01 12-30-00", "2013-15-01 12-30-00", "line 11: the start '2013-15-01 12-30-00' is not a time stamp"),
        ("@equallength false", "@equallength true", "series 'T2' has 4 values, the first 3"),
        (TSF[TSF.index("T1") :], "", "holds no series"),
    ],
)  # fmt: skip
def test_bad_tsf(write, old, new, said):
    assert old in TSF
    assert said in refused(write("mine.tsf", TSF.replace(old, new)))


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("4,5,6:right", "4,5,6", "line 8: expected 2 channels and a class label"),
        ("@dimensions 2", "@dimensions two", "line 5: @dimensions should be a number of channels, got 'two'"),
        (TS[TS.index("@dimensions") :], "@data\n1,2,3\n", "line 6: expected 1 channels and a class label"),
        (":right", ":up", "got 3 fields ending in 'up'"),
        ("8,9", "8,x", "line 9, channel 2, value 2: 'x' is not a number"),
        (TS[TS.index("@data") :], "", "has no @data line"),
        ("@timeStamps false", "@timeStamps true", "line 3: @timestamps true is not supported"),
        ("7,?:8,9", "?,?:?,?", "train series 1 holds no number"),
        (TS[TS.index("1,2") :], "", "holds no training series"),
    ],
)  # fmt: skip
def test_bad_ts(write, old, new, said):
    assert old in TS
    assert said in refused(write("P_TRAIN.ts", TS.replace(old, new)))


def test_bad_ucr_tables(write):
    assert "line 2, value 1: 'x' is not a number" in refused(write("P_TRAIN.tsv", "1\t2\t3\n1\tx\t4\n"))
    assert "expected a label and equally many values on each line" in refused(write("P_TRAIN.tsv", "1\t2\t3\n1\t3\t4\t5\n"))
    assert "train series 1 has a value that is infinite or beyond 3e38" in refused(write("P_TRAIN.tsv", "1\t2\t3\n1\t3\t1e60\n"))


@pytest.mark.parametrize(
    "old, new, said",
    [
        (",5\n", ",5 kW\n", "line 3, column 'b': '5 kW' is not a number: leave missing values empty"),
        (",5\n", ",inf\n", "line 3, column 'b': the value is infinite"),
        ("01:00:00", "00:00:00", "line 3, column 'date': time stamp 2024-01-01 00:00:00 repeats the one before"),
        ("02:00:00", "00:30:00", "line 4, column 'date': time stamp 2024-01-01 00:30:00 comes after 2024-01-01 01:00:00"),
        ("2024-01-01 01:00:00", "yesterday", "line 3, column 'date': 'yesterday' is not a time stamp"),
        ("2024-01-01 01:00:00", "", "line 3, column 'date': "),
        ("3,6.5", "3", "line 4: expected 3 columns, got 2"),
        ("3,6.5", "3,6,5", "line 4: expected 3 columns, got 4"),
        ("date,a,b", "date,a,a", "column 'a' appears twice"),
        (WIDE[WIDE.index("2024") :], "", "has no rows"),
        (WIDE, "", "is empty"),
        (WIDE, "date\n2024-01-01\n", "has only the column 'date'"),
        (WIDE, "date,a\n2024-01-01,\n2024-01-02,\n", "column 'a' holds no number, only missing values"),
        (WIDE, "unique_id,ds,price\nA,2024-01-01,1\n", "a long table needs a column of values (y, target or value)"),
        (WIDE, "unique_id,day,y\nA,2024-01-01,1\n", "a long table needs a column of times"),
        (WIDE, "unique_id,ds,y\nA,2024-01-01,1\nA,2024-01-01,2\n", "line 3, series 'A': time stamp 2024-01-01 00:00:00 repeats"),
        (WIDE, "unique_id,ds,y\nA,2024-01-01,1\nB,2024-01-01,\n", "series 'B' holds no number"),
        (WIDE, "unique_id,ds,y\nA,1,1\nB,5,1\nA,1,2\n", "line 4, series 'A': time stamp 1 repeats"),
        (WIDE, "unique_id,ds,y\nA,2,1\nA,1,2\n", "line 3, series 'A': time stamp 1 comes after 2"),
        (WIDE, "unique_id,ds,y\nA,1,1\nA,,2\n", "line 3, series 'A': the time stamp is missing"),
        (WIDE, "unique_id,ds,y\nA,2024-01-01,1\nB,,2\nA,,2\n", "line 4, series 'A': the time stamp is missing"),
        (WIDE, "unique_id,ds,y\nA,,1\nB,2024-01-01,2\nB,soon,2\n", "line 4, column 'ds': 'soon' is not a time stamp"),
        (WIDE, "unique_id,ds,y\nA,1,1\n,2,2\n", "line 3, column 'unique_id': the id is missing"),
        (WIDE, "t,y\n1,5\n1,6\n0,7\n", "line 3, column 't': time stamp 1 repeats"),
        (WIDE, "t,y\n1,5\n,6\n3,7\n", "line 3, column 't': the time stamp is missing"),
        (WIDE, "inf,2\n3,4\n", "line 1, column '0': the value is infinite"),
        (WIDE, "unique_id,ds,y\nA,2024-01-01,x\n", "line 2, column 'y': 'x' is not a number"),
    ],
)  # fmt: skip
def test_bad_csv(write, old, new, said):
    assert old in WIDE
    assert said in refused(write("mine.csv", WIDE.replace(old, new, 1)))


def test_bytes_that_are_no_text(write):
    assert "is not UTF-8 text" in refused(write("mine.csv", bytes(range(128, 256)) * 4))


@pytest.mark.parametrize("name", ["mine.json", "mine.parquet", "mine.xlsx", "mine.json.gz"])
def test_other_endings_are_refused_with_those_that_are_read(write, name):
    assert "expected one of .tsf, .ts, .tsv, .txt, .csv, .gz, .zip, .npz, .npy" in refused(write(name, b"PK anything"))


def test_what_is_no_path_is_refused():
    for bad in (None, np.zeros(3)):
        with pytest.raises(TsfmError, match="expected the path of a file, got"):
            data.read(bad)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(TsfmError, match="there is no file"):
        data.read(tmp_path / "none.csv")
    with pytest.raises(TsfmError, match="holds no NAME_TRAIN and NAME_TEST files"):
        data.read(tmp_path)


@pytest.mark.parametrize(
    "bad, said",
    [
        ([], "series '0' is empty"),
        (np.full(5, np.nan), "series '0' holds no number"),
        ([[1.0, 2.0], [np.nan]], "series '1' holds no number"),
        (np.array([1.0, np.inf]), "some values are infinite"),
        (["a", "b"], "series 0: expected numbers, got str"),
        ([np.zeros((2, 3)), np.zeros((1, 3))], "equally many channels"),
        (np.zeros((1, 1, 1, 2)), "expected series [T] or [V, T]"),
        (pd.DataFrame({"a": [1.0]}, index=pd.to_datetime(["2024"])).iloc[:0], "has no rows"),
        (pd.DataFrame(index=[0, 1]), "has no rows"),
        (pd.Series([1.0, 2.0], index=pd.to_datetime(["2024-01-02", "2024-01-01"])), "row 1, column 'index': time stamp"),
        (pd.Series([1.0, 2.0], index=[1, 1]), "row 1, column 'index': time stamp 1 repeats"),
        (pd.Series(["1", "b"]), "row 1, column 'data': 'b' is not a number"),
    ],
)  # fmt: skip
def test_bad_arrays_and_frames(bad, said):
    with pytest.raises(TsfmError) as caught:
        data.as_series_set(bad)
    assert said in str(caught.value)
