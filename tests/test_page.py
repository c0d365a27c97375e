"""A page keeps its numbers where they belong, whatever is killed, added or run again."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from tsfm_lib import page as module
from tsfm_lib import paths, plotting
from tsfm_lib.errors import TsfmError
from tsfm_lib.page import open_page, publish

NAME = "11_kairos_mosdp_vs_fixed"


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def rows(value=1.0):
    return pd.DataFrame({"seed": [0, 1], "variant": ["none", "adaptive"], "WQL": [value, np.nan]})


def figure(level=1.0):
    return plotting.heat(np.full((2, 2), level))


@pytest.mark.parametrize("wrong, message", [
    (("11_kairos", "quikc", 0), "did you mean 'quick'"), (("kairos", "quick", 0), "a notebook is called like"),
    (("11_kairos", "quick", -1), "whole number from 0"), (("11_kairos", "quick", True), "whole number from 0")])
def test_unknown_values_are_refused(wrong, message):
    with pytest.raises(TsfmError, match=message):
        open_page(*wrong)


def test_batch_runs_compute_with_one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    open_page(NAME)
    assert torch.get_num_threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert open_page(NAME).provenance()["threads"] == torch.get_num_threads() == 2


def test_an_added_purpose_does_not_shift_the_others():
    alone, together = open_page(NAME), open_page(NAME)
    together.rng("mask").normal(size=10)
    together.generator("mask")
    assert (alone.rng("data").normal(size=5) == together.rng("data").normal(size=5)).all()
    assert torch.equal(torch.rand(5, generator=alone.generator("init")), torch.rand(5, generator=together.generator("init")))


def test_purposes_and_seeds_draw_apart():
    first, other = open_page(NAME), open_page(NAME, seed=1)
    draws = {tuple(p.rng(purpose).integers(0, 2**62, 2)) for p in (first, other) for purpose in ("data", "init")}
    torch_draws = {torch.rand(1, generator=p.generator(purpose)).item() for p in (first, other) for purpose in ("data", "init")}
    assert len(draws) == len(torch_draws) == 4
    assert len(first.seeds(5)) == 5 and not set(first.seeds(5)) & set(other.seeds(5))
    assert first.seeds(3) == first.seeds(5)[:3]


def test_opening_a_page_leaves_global_randomness_alone():
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    expected = np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    page = open_page(NAME, seed=9)
    page.rng("a").normal()
    torch.rand(1, generator=page.generator("a"))
    assert (np.random.rand(), torch.rand(1).item()) == expected  # noqa: NPY002


def test_saving_writes_under_build_and_displays_nothing(capsys):
    page = open_page(NAME)
    page.save("density", rows(), figure(), "what to notice")
    assert sorted(f.name for f in page.folder.iterdir()) == ["density.csv", "density.png", "density.svg", "provenance.json"]
    assert page.folder == paths.BUILD / "quick" / NAME and not paths.FIGURES.exists()
    assert capsys.readouterr().out == ""
    assert (page.folder / "density.csv").read_text().splitlines()[0] == "experiment,profile,seed,variant,WQL"


def test_provenance_says_where_numbers_come_from(tmp_path):
    weights = tmp_path / "toy-nano"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"abc")
    page = open_page(NAME, "laptop", 4)
    page.used(weights)
    page.save("density", rows(), figure(), "what to notice")
    noted = json.loads((page.folder / "provenance.json").read_text())
    assert noted["weights"] == {"toy-nano/model.safetensors": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    assert (noted["profile"], noted["seed"], noted["captions"]) == ("laptop", 4, {"density": "what to notice"})
    assert {"commit", "dirty", "date", "seconds", "device", "threads", "versions"} <= set(noted) and noted["versions"]["torch"]
    with pytest.raises(TsfmError, match="name of shipped weights"):
        page.used("no-such-weights")


def test_observed_values_of_a_benchmark_are_refused_and_generated_ones_are_not():
    page = open_page(NAME)
    held = rows().assign(dataset="ETTh1", target=1.0)
    with pytest.raises(TsfmError, match="'target' with the values of ETTh1"):
        page.save("windows", held)
    assert not page.folder.exists()
    page.save("windows", held.assign(dataset="planted-density"))
    page.save("windows", held.drop(columns="target"))


def test_rows_of_another_profile_or_an_odd_name_are_refused():
    page = open_page(NAME, "laptop")
    with pytest.raises(TsfmError, match="rows of profile 'quick'"):
        page.save("density", rows().assign(profile="quick"))
    with pytest.raises(TsfmError, match="small letters"):
        page.save("../density", rows())
    page.save("density", rows().assign(profile="full"))  # a figure of a short run may be drawn from those of a longer one
    assert set(pd.read_csv(page.folder / "density.csv")["profile"]) == {"full"}


def test_recorded_rows_are_those_of_the_highest_profile():
    page = open_page(NAME)
    nothing = page.recorded("density")
    assert nothing.empty and "holds no density" in nothing.attrs["reason"]
    for profile, value in (("quick", 1.0), ("laptop", 2.0)):
        assert page.recorded("density").empty  # a quick run is no evidence
        open_page(NAME, profile).save("density", rows(value))
        publish(profile)
    found = page.recorded("density")
    assert list(found["profile"]) == ["laptop"] * 2 and found["WQL"][0] == 2.0 and np.isnan(found["WQL"][1])
    assert list(found["variant"]) == ["none", "adaptive"]
    assert found.attrs["recorded"].startswith("laptop, 20")


def test_a_figure_is_drawn_from_the_better_rows_and_says_so(capsys):
    quick = open_page(NAME)
    assert quick.shown("density", rows(1.0))["WQL"][0] == 1.0
    open_page(NAME, "laptop").save("density", rows(2.0))
    publish("laptop")
    assert quick.shown("density", rows(1.0))["WQL"][0] == 2.0
    assert open_page(NAME, "laptop").shown("density", rows(3.0))["WQL"][0] == 3.0
    assert open_page(NAME, "full").shown("density", rows().iloc[:0])["WQL"][0] == 2.0  # no run, so what is known
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "density: drawn from this run, quick" and said[1].startswith("density: drawn from laptop, 20")


def test_provenance_says_what_a_sweep_cost_even_when_its_cells_were_run_before(monkeypatch):
    monkeypatch.setattr(module, "_now", iter(["2026-01-01", "2026-01-02", *["2026-01-03"] * 9]).__next__)
    burn = lambda size: {"error": sum(range(10**6)) / size}
    open_page(NAME).sweep("sizes", [{"size": 1}, {"size": 2}], burn)
    again = open_page(NAME)
    again.sweep("sizes", [{"size": 1}, {"size": 2}], burn)
    noted = again.provenance()["sweeps"]["sizes"]
    assert (noted["cells"], noted["from"], noted["to"]) == (2, "2026-01-01", "2026-01-02") and noted["cpu_seconds"] > 0.005


def test_a_quick_run_never_replaces_pictures_of_laptop():
    open_page(NAME, "laptop").save("density", rows(), figure(1.0))
    publish("laptop")
    picture = (paths.FIGURES / NAME / "density.png").read_bytes()
    quick = open_page(NAME)
    quick.save("density", rows(), figure(2.0))
    quick.save("only_quick", rows(), figure(4.0))
    written = {f.name for f in publish("quick")}
    assert written == {"density.quick.csv", "only_quick.quick.csv", "only_quick.png", "only_quick.svg", "provenance.quick.json"}
    assert (paths.FIGURES / NAME / "density.png").read_bytes() == picture
    open_page(NAME, "full").save("density", rows(), figure(3.0))
    publish("full", [NAME])
    assert (paths.FIGURES / NAME / "density.png").read_bytes() != picture
    assert publish("full", ["12_kairos_iarope"]) == []
    with pytest.raises(TsfmError, match="did you mean 'laptop'"):
        publish("laptp")


def test_what_an_older_version_of_a_notebook_saved_is_not_published():
    open_page(NAME).save("old_name", rows())
    open_page(NAME).save("density", rows())
    assert {f.name for f in publish("quick")} == {"density.quick.csv", "provenance.quick.json"}


def test_a_killed_sweep_goes_on_where_it_was():
    ran = []

    def run(size, seed):
        if size == 3 and not resumed:
            raise KeyboardInterrupt
        ran.append(size)
        return {"WQL": np.float32(size / 2), "curve": None, "missing": float("nan")}

    cells = [{"size": size, "seed": 0} for size in (1, 2, 3, 4)]
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        open_page(NAME).sweep("sizes", cells, run)
    resumed = True
    found = open_page(NAME).sweep("sizes", cells, run)
    assert ran == [1, 2, 3, 4]
    assert list(found["size"]) == [1, 2, 3, 4] and list(found["WQL"]) == [0.5, 1.0, 1.5, 2.0]
    assert set(found["experiment"]) == {"sizes"} and set(found["profile"]) == {"quick"} and found["missing"].isna().all()


def test_a_damaged_row_file_is_made_again_and_other_profiles_and_code_are_apart():
    calls = []

    def run(size):
        calls.append(size)
        return [{"a": size}, {"a": -size}]

    page = open_page(NAME)
    first = page.sweep("sizes", [{"size": 1}], run)
    (file,) = (paths.BUILD / "rows" / NAME / "sizes").glob("*.json")
    file.write_text('[{"a":')
    again = page.sweep("sizes", [{"size": 1}], run)
    pd.testing.assert_frame_equal(first, again)
    open_page(NAME, "laptop").sweep("sizes", [{"size": 1}], run)
    open_page(NAME, seed=1).sweep("sizes", [{"size": 1}], run)
    assert len(calls) == 4

    def run(size):
        calls.append(size)
        return pd.DataFrame({"a": [size + 1]})

    assert list(page.sweep("sizes", [{"size": 1}], run)["a"]) == [2] and len(calls) == 5
    with pytest.raises(TsfmError, match="must return a dict"):
        page.sweep("other", [{"size": 1}], lambda size: size)
    assert page.sweep("none", [], run).empty


def test_a_missing_benchmark_is_said_in_one_line(monkeypatch, capsys):
    from tsfm_lib import data

    monkeypatch.setattr(data, "available", lambda name: name == "nile")
    page = open_page(NAME)
    assert page.needs("nile") and capsys.readouterr().out == ""
    assert not page.needs("ETTh1")
    assert capsys.readouterr().out.count("\n") == 1


def test_claims_read_what_was_published():
    from tsfm_lib import claims

    iarope = "12_kairos_iarope"
    rng = np.random.default_rng(0)
    order = ("own", "intra-shuffled", "inter-shuffled", "fixed-rope")
    made = pd.DataFrame([{"seed": s, "variant": v, "WQL": 1 + i / 10 + rng.normal(0, 0.01)} for s in range(6) for i, v in enumerate(order)])
    before = claims.table()
    assert set(before["verdict"]) == {"not yet measured"} and claims.table(recorded_only=True).empty
    open_page(iarope, "laptop").save("iarope", made)
    assert set(claims.table()["verdict"]) == {"not yet measured"}
    publish("laptop")
    (line,) = claims.table(recorded_only=True).to_dict("records")
    assert line["quantity"].startswith("K3 ") and line["verdict"] == "direction holds"
    assert claims.judge("K3", open_page(iarope).recorded("iarope")).recorded.startswith("laptop, 20")


def test_half_written_files_are_never_seen(monkeypatch):
    page = open_page(NAME)
    page.save("density", rows(1.0))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        page.save("density", rows(2.0))
    assert float(pd.read_csv(page.folder / "density.csv")["WQL"][0]) == 1.0
