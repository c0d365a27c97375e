"""The solutions run from top to bottom, at the same one thread as the notebooks."""

import os
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from tsfm_lib import paths

SOLUTIONS = sorted((paths.NOTEBOOKS / "solutions").glob("[0-9][0-9]_*.*"))


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in SOLUTIONS if path.suffix == ".ipynb"])
def test_a_solution_notebook_runs(path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(paths.ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in SOLUTIONS if path.suffix == ".py"])
def test_a_solution_script_runs(path):
    surroundings = os.environ | {"PYTHONPATH": str(paths.ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, str(path)], cwd=path.parent, env=surroundings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
