"""A newcomer's first minutes: JupyterLab, 00, Run All, and the slider, by a headless Chromium."""

import json
import os
import secrets
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest

from tests import browser
from tsfm_lib import paths

WIDGETS = Path(sys.prefix, "share", "jupyter", "labextensions", "@jupyter-widgets", "jupyterlab-manager")
NAME = "00_start_here.ipynb"
PANEL = "[...window.jupyterapp?.shell.widgets('main') ?? []].find(panel => panel.sessionContext)"
CODE = f"{PANEL}.content.widgets.filter(cell => cell.model.type === 'code')"
SLIDER = f"{PANEL}.content.widgets.find(cell => cell.model.type === 'code' && cell.model.sharedModel.source.startsWith('months, picture'))"


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab of its own, over a copy of the notebook."""
    notebooks, token = tmp_path / "notebooks", secrets.token_hex(16)
    notebooks.mkdir()
    notebook = nbformat.read(paths.NOTEBOOKS / NAME, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":             # what is there afterwards was made by this run
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, notebooks / NAME)
    surroundings = {name: value for name, value in os.environ.items() if name != "MPLBACKEND" and not name.startswith("JUPYTER")}
    surroundings |= {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    surroundings |= {f"JUPYTERLAB_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("SETTINGS", "WORKSPACES")}
    surroundings |= {"JUPYTER_PREFER_ENV_PATH": "1", "IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONPATH": str(paths.ROOT)}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", f"--IdentityProvider.token={token}",
               "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=", f"--ServerApp.root_dir={notebooks}"]
    with open(tmp_path / "lab.log", "w") as log:
        server = subprocess.Popen(command, cwd=notebooks, env=surroundings, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        def address():
            assert server.poll() is None, (tmp_path / "lab.log").read_text()[-3000:]
            notes = [note for note in (tmp_path / "runtime").glob("jpserver-*.json") if note.stat().st_size]
            return json.loads(notes[0].read_text())["url"] if notes else ""

        yield f"{browser.until('JupyterLab to start', address, 120)}lab/tree/{NAME}?token={token}"
    finally:
        browser.end(server)


@browser.needs_chromium
@pytest.mark.skipif(not WIDGETS.exists(), reason=f"JupyterLab's widgets are not installed: {WIDGETS.name} is not there")
def test_run_all_in_jupyterlab_and_a_slider_that_redraws(lab):
    with browser.Browser() as page:
        page.resize(1400, 1000)
        page.open(lab)
        page.wait(f"{PANEL}?.sessionContext.session?.kernel?.status === 'idle' && {CODE}.length > 10", 240)
        page.evaluate(f"jupyterapp.shell.activateById({PANEL}.id)")
        page.wait(f"jupyterapp.shell.currentWidget === {PANEL}", 60)
        page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells'), 0")
        errors = f"{CODE}.flatMap(cell => cell.model.outputs.toJSON()).filter(output => output.output_type === 'error')"
        page.wait(f"{errors}.length || {CODE}.at(-1).model.executionCount && {PANEL}.sessionContext.session.kernel.status === 'idle'", 600)
        assert page.evaluate(errors) == []
        assert page.evaluate(f"{CODE}.map(cell => cell.model.executionCount)") == list(range(1, page.evaluate(f"{CODE}.length") + 1))

        page.evaluate(f"{SLIDER}.node.scrollIntoView({{block: 'start'}})")
        picture = f"{SLIDER}.node.querySelector('img.widget-image, .widget-image img')?.src"
        first = page.wait(picture, 60)
        track = f"""(() => {{ const track = {SLIDER}.node.querySelector('.noUi-base')?.getBoundingClientRect();
            return track?.width && [track.left + 0.9 * track.width, track.top + track.height / 2]; }})()"""
        for _ in range(12):                            # a page that is still laying itself out moves the slider away from under a click
            page.click(*page.wait(track, 60))
            with suppress(TimeoutError):
                page.wait(f"{picture} && {picture} !== {json.dumps(first)}", 5)
                break
            page.evaluate(f"{SLIDER}.node.scrollIntoView({{block: 'start'}})")
        page.wait(f"{picture} && {picture} !== {json.dumps(first)}", 5)
        assert int(page.evaluate(f"{SLIDER}.node.querySelector('.noUi-handle').getAttribute('aria-valuenow').split('.')[0]")) > 36
