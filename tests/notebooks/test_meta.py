"""Every committed notebook keeps the collection's rules, and the checker of those rules notices each breach."""

import hashlib
import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tsfm_lib import paths

from .checker import WIDGET, breaches, collection, stale_weights

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in NOTEBOOKS])
def test_a_committed_notebook_keeps_the_rules(path):
    assert breaches(path) == []


def test_numbers_are_unique_and_readme_lists_every_notebook():
    assert collection(NOTEBOOKS, (paths.ROOT / "README.md").read_text(encoding="utf-8")) == []


def test_every_solution_belongs_to_a_notebook():
    named = {path.stem for path in (paths.NOTEBOOKS / "solutions").glob("*.*") if path.suffix in (".ipynb", ".py")}
    assert named <= {path.stem for path in NOTEBOOKS}


def test_recorded_rows_were_made_with_the_weights_that_ship():
    assert stale_weights(paths.FIGURES, paths.WEIGHTS) == []


# ---- the checker itself ----------------------------------------------------------------------------------------------

def good():
    """A small notebook without fault."""
    source = 'profile = "quick"  # quick | laptop | full\nseed = 0'
    first = new_code_cell(source, id="a", execution_count=1, metadata={"tags": ["parameters"]})
    second = new_code_cell("print(1 + 1)", id="b", execution_count=2, metadata={"tags": ["nbval-check-output"]},
                           outputs=[new_output("stream", name="stdout", text="2\n")])
    words = "# Title\n\n[another](other.md), [web](https://example.org), `[code](gone.md)` and\n\n## Exercise 1\n\nWhy?"
    return new_notebook(cells=[new_markdown_cell(words, id="m"), first, second])


def stored(folder, notebook, solution="## Exercise 1\n\nBecause."):
    (folder / "solutions").mkdir()
    (folder / "other.md").write_text("here")
    if solution:
        nbformat.write(new_notebook(cells=[new_markdown_cell(solution)]), folder / "solutions" / "05_small.ipynb")
    path = folder / "05_small.ipynb"
    path.write_text(json.dumps(notebook))
    return path


def test_a_good_notebook_has_no_breach(tmp_path):
    assert breaches(stored(tmp_path, good())) == []


def spoil_literal(n): n.cells[1].source = "import os\n" + n.cells[1].source
def spoil_call(n): n.cells[1].source += "\ncount = int(3)"
def spoil_profile(n): n.cells[1].source = n.cells[1].source.replace('"quick"', '"laptop"')
def spoil_comment(n): n.cells[1].source = 'profile = "quick"\nseed = 0'
def spoil_seed(n): n.cells[1].source = 'profile = "quick"  # quick | laptop | full'
def spoil_tag(n): n.cells[1].metadata.tags = []
def spoil_count(n): n.cells[2].execution_count = 5
def spoil_unrun(n): n.cells[2].execution_count = None
def spoil_error(n): n.cells[2].outputs.append(new_output("error", ename="E", evalue="e", traceback=[]))
def spoil_compared(n): n.cells[2].metadata.tags = []
def spoil_empty(n): n.cells[2].outputs = []
def spoil_svg(n): n.cells[2].outputs.append(new_output("display_data", data={"image/svg+xml": "<svg/>"}))
def spoil_path(n): n.cells[2].outputs[0].text = "/home/somebody/lib.py:3: UserWarning\n"
def spoil_source_path(n): n.cells[2].source = 'open("/Users/me/data.csv")'
def spoil_papermill(n): n.metadata["papermill"] = {}
def spoil_execution(n): n.cells[2].metadata["execution"] = {}
def spoil_widget_state(n): n.metadata["widgets"] = {}
def spoil_widget(n): n.cells[2].outputs.append(new_output("display_data", data={WIDGET: {}}))
def spoil_injected(n): n.cells[2].metadata.tags.append("injected-parameters")
def spoil_length(n): n.cells[2].source = "1\n" * 31
def spoil_link(n): n.cells[0].source += "\n[gone](gone.md)"
def spoil_image(n): n.cells[0].source += '\n<img src="../figures/gone.png">'
def spoil_id(n): n.cells[2].id = "a"
def spoil_exercise(n): n.cells[0].source += "\n\n### Exercise 2"
def spoil_size(n): n.cells[0].source += "x" * 2_000_000


BREACHES = {
    spoil_literal: "literals only", spoil_call: "literals only", spoil_profile: "profile", spoil_comment: "allowed values",
    spoil_seed: "seed", spoil_tag: "tagged `parameters`", spoil_count: "execution counts", spoil_unrun: "stores no output",
    spoil_error: "holds an error", spoil_compared: "no cell is tagged", spoil_empty: "stores no output", spoil_svg: "SVG",
    spoil_path: "absolute path", spoil_source_path: "absolute path", spoil_papermill: "papermill", spoil_execution: "execution",
    spoil_widget_state: "widgets", spoil_widget: "widget", spoil_injected: "injected", spoil_length: "31 lines",
    spoil_link: "gone.md", spoil_image: "gone.png", spoil_id: "id of its own", spoil_exercise: "exercise 2", spoil_size: "bytes",
}


@pytest.mark.parametrize("spoil", BREACHES, ids=lambda spoil: spoil.__name__)
def test_each_breach_is_noticed(tmp_path, spoil):
    notebook = good()
    spoil(notebook)
    found = breaches(stored(tmp_path, notebook))
    assert any(BREACHES[spoil] in breach for breach in found), found


def test_an_exercise_without_a_solution_file_is_noticed(tmp_path):
    assert breaches(stored(tmp_path, good(), solution="")) == ["05_small.ipynb: exercise 1 has no solution in solutions/"]


def test_double_numbers_odd_names_and_unlisted_notebooks_are_noticed(tmp_path):
    names = [tmp_path / name for name in ("05_small.ipynb", "05_other.ipynb", "Six.ipynb")]
    found = collection(names, "05_small.ipynb 05_other.ipynb Six.ipynb")
    assert found == ["Six.ipynb is not named NN_words.ipynb", "number 05 is used 2 times"]
    assert collection(names[:1], "nothing") == ["05_small.ipynb is not listed in README.md"]


def test_rows_of_other_weights_are_noticed(tmp_path):
    figures, weights = tmp_path / "figures" / "05_small", tmp_path / "weights" / "tiny"
    figures.mkdir(parents=True), weights.mkdir(parents=True)
    (weights / "model.safetensors").write_bytes(b"new")

    def record(named):
        (figures / "provenance.laptop.json").write_text(json.dumps({"weights": named}))
        return stale_weights(figures.parent, weights.parent)

    assert record({"tiny/model.safetensors": hashlib.sha256(b"new").hexdigest()}) == []
    assert "other weights of 'tiny/" in record({"tiny/model.safetensors": hashlib.sha256(b"old").hexdigest()})[0]
    assert "does not ship" in record({"tiny/gone.safetensors": "0"})[0]
    assert record({"official-checkpoint/model.safetensors": "0"}) == []
