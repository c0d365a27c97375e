"""SCALING.md says what was measured and what follows from it, and its commands exist."""

import re
import subprocess
import tomllib

import harness
import pytest
import scale

from tests.train.test_ranks import TOLERANCE
from tsfm_lib import paths
from tsfm_lib.models.moment import MomentConfig
from tsfm_lib.synth import corpus
from tsfm_lib.train.__main__ import parser
from tsfm_lib.train.recipes import RECIPES

PAGE = scale.PAGE.read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def test_the_tables_are_what_the_measurements_and_the_formulas_give():
    between = PAGE.split(scale.BEGIN)[1].split(scale.END)[0]
    assert between.strip() == scale.table(scale.read()), "run python tests/benchmarks/scale.py --write"


def test_the_page_states_what_is_assumed_and_how_equal_ranks_are():
    for stated in (f"sustains {scale.SUSTAINED} TFLOP/s", f"{scale.FORECASTS:,} forecasts", f"{scale.BYTES} bytes a parameter",
                   ", ".join(map(str, list(scale.TERMS.values())[:2])) + f" or {scale.TERMS['long']} steps",
                   f"batches of {scale.ROWS} series", f"up to {scale.CORPORA[-1]:,} series"):  # fmt: skip
        assert stated in " ".join(PAGE.split()), stated
    bounds = re.search(r"to (\S+) relative plus (\S+) absolute", PAGE).groups()
    assert [float(bound) for bound in bounds] == [TOLERANCE["rtol"], TOLERANCE["atol"]]


def test_an_estimate_is_in_proportion_or_by_the_fitted_power():
    got = {f"CauKer, {n} series of 512": 1e-3 * n**0.9 for n in scale.CORPORA}
    grown = {"CauKer, series": scale.exponent(scale.CORPORA, [got[f"CauKer, {n} series of 512"] for n in scale.CORPORA])}
    made = scale.corpus(got, grown)
    assert made.low * scale.DAY == pytest.approx(1e-3 * 1e7**0.9) and made.high * scale.DAY == pytest.approx(1e-3 * 16_000**0.9 * 625)
    assert made.gb == pytest.approx(20.48) and made.beyond == 625
    assert scale.terms() == {"short": 55, "medium": 21, "long": 21}


def test_the_benchmark_measures_what_is_committed():
    import bench_scale  # noqa: F401  registers its functions

    committed = scale.read()
    made = {row.name: row.ours for row in harness.run(["scale"], quick=True)}
    assert len(made) >= 8 and made.keys() <= committed.keys()
    for name in made:
        if name.endswith((", work", ", parameters")):                # counted, not timed
            assert made[name] == pytest.approx(committed[name], rel=1e-3), name


def test_the_commands_exist():
    told = subprocess.run([paths.ROOT / "run_all.sh", "--help"], capture_output=True, text=True).stdout
    commands = blocks("bash")
    assert len(commands) == 4
    for block in commands:
        assert subprocess.run(["bash", "-n"], input=block, text=True).returncode == 0, block
        for line in block.replace("\\\n", " ").splitlines():
            if "run_all.sh " in line and " train " not in line:
                assert all(option in told for option in re.findall(r"--[a-z]+", line)), line
            if found := re.search(r"(?:run_all.sh train|-m tsfm_lib.train) (.*)", line):
                assert parser().parse_args(found[1].split()).name in RECIPES


def test_the_script_trains(tmp_path, monkeypatch):
    corpus.make(tmp_path / "cauker", 64, 64, progress=False)
    script, dask = blocks("python")
    monkeypatch.setattr(MomentConfig, "large", MomentConfig.tiny)
    said = script.replace("/cluster/corpora/cauker", str(tmp_path / "cauker")).replace("/cluster", str(tmp_path))
    exec(compile(said.replace("195_312", "2").replace("batch=512", "batch=8"), "SCALING.md", "exec"), {})
    assert (tmp_path / "moment-large" / "model.safetensors").exists()
    assert int(re.search(r"steps=([\d_]+)", script)[1]) == 10_000_000 * 10 // 512
    compile(dask, "SCALING.md", "exec")
    extra = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["scale"]
    assert all(f'"{package}"' in PAGE for package in extra)
