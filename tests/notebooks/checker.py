"""The rules every committed notebook keeps. Each rule yields one sentence per breach; no breach, no sentence."""

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import nbformat
from nbformat import NotebookNode

from tsfm_lib.batch.clean import WIDGET
from tsfm_lib.batch.compare import is_compared

LONGEST = 30            # lines of a code cell: what is longer belongs in tsfm_lib
LARGEST = 2_000_000     # bytes of a notebook
NAME = re.compile(r"\d\d_[a-z0-9_]+")
ABSOLUTE = re.compile(r"(?<![\w./:~-])(/(home|Users|root|tmp|var|opt|mnt|work|private|usr|data)/[\w.-]+|[A-Z]:\\\w+)")
LINK = re.compile(r"""\]\(\s*<?([^)\s>]+)>?(?:\s+["'][^)]*)?\)|(?:src|href)=["']([^"']+)["']""")
EXERCISE = re.compile(r"^#+\s.*?\bExercise\s+(\d+)", re.M)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_literal(statement: ast.stmt) -> bool:
    if not (isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name)):
        return False
    try:
        ast.literal_eval(statement.value)
    except ValueError:
        return False
    return True


def parameters(notebook: NotebookNode) -> Iterator[str]:
    cells = [cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        yield f"needs one code cell tagged `parameters`, has {len(cells)}"
        return
    statements = ast.parse(cells[0].source).body
    for statement in statements:
        if not is_literal(statement):
            yield f"parameters hold literals only, got `{ast.unparse(statement)}`"
    values = {s.targets[0].id: ast.literal_eval(s.value) for s in statements if is_literal(s)}
    if values.get("profile") != "quick":
        yield f"parameters need `profile = \"quick\"`, got {values.get('profile')!r}"
    if "seed" not in values:
        yield "parameters need `seed`"
    for line in cells[0].source.splitlines():
        if line.startswith("profile") and not all(word in line.partition("#")[2] for word in ("quick", "laptop", "full")):
            yield "the line of `profile` names its allowed values in a comment: # quick | laptop | full"


def counts(notebook: NotebookNode) -> Iterator[str]:
    found = [cell.execution_count for cell in code_cells(notebook)]
    if found != list(range(1, len(found) + 1)):
        yield f"execution counts run 1 to {len(found)}, got {found}: write it back with ./run_all.sh --update"


def errors(notebook: NotebookNode) -> Iterator[str]:
    for number, cell in enumerate(code_cells(notebook), 1):
        if any(output.output_type == "error" for output in cell.outputs):
            yield f"cell [{number}] holds an error"


def compared(notebook: NotebookNode) -> Iterator[str]:
    marked = [cell for cell in code_cells(notebook) if is_compared(cell)]
    if not marked:
        yield "no cell is tagged `nbval-check-output`"
    for cell in marked:
        if not cell.outputs or cell.execution_count is None:
            yield f"a compared cell stores no output: {cell.source.splitlines()[0]!r}"
        if any("image/svg+xml" in output.get("data", {}) for output in cell.outputs):
            yield "a compared cell stores an SVG picture, which no other machine draws to the same bytes"


def texts(notebook: NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield output.get("text", "")
            yield "\n".join(output.get("traceback", []))
            yield from (str(text) for mime, text in output.get("data", {}).items() if not mime.startswith("image/"))


def absolute_paths(notebook: NotebookNode) -> Iterator[str]:
    for text in texts(notebook):
        for found in ABSOLUTE.finditer(text):
            yield f"absolute path {found.group(0)!r}"


def leftovers(notebook: NotebookNode) -> Iterator[str]:
    for kind in ("papermill", "widgets"):
        if kind in notebook.metadata:
            yield f"metadata of {kind} in the notebook"
    for cell in notebook.cells:
        for kind in ("papermill", "execution"):
            if kind in cell.metadata:
                yield f"metadata of {kind} in a cell"
        if {"injected-parameters", "papermill-error-cell-tag"} & set(cell.metadata.get("tags", [])):
            yield "a cell injected by papermill"
        if any(WIDGET in output.get("data", {}) for output in cell.get("outputs", [])):
            yield "the output of a widget"


def lengths(notebook: NotebookNode) -> Iterator[str]:
    for number, cell in enumerate(code_cells(notebook), 1):
        if (lines := len(cell.source.splitlines())) > LONGEST:
            yield f"cell [{number}] has {lines} lines, at most {LONGEST} are read with pleasure"


def links(notebook: NotebookNode, folder: Path) -> Iterator[str]:
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        prose = re.sub(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", " ", cell.source, flags=re.S)
        for one, other in LINK.findall(prose):
            target = unquote((one or other).partition("#")[0])
            if target and not re.match(r"[a-z]+:", target) and not (folder / target).exists():
                yield f"link to {target}, which is not there"


def ids(notebook: NotebookNode) -> Iterator[str]:
    found = [cell.get("id") for cell in notebook.cells]
    if None in found or len(set(found)) != len(found) or (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        yield "every cell has an id of its own (nbformat 4.5)"


def exercises(notebook: NotebookNode) -> set[str]:
    """The numbers of the exercises a notebook (or its solution) has headings for."""
    return {number for cell in notebook.cells if cell.cell_type == "markdown" for number in EXERCISE.findall(cell.source)}


def unsolved(path: Path) -> Iterator[str]:
    asked = exercises(nbformat.read(path, as_version=4))
    solution, script = path.parent / "solutions" / path.name, path.parent / "solutions" / f"{path.stem}.py"
    solved: set[str] = set()
    if solution.exists():
        solved = exercises(nbformat.read(solution, as_version=4))
    elif script.exists():
        solved = set(re.findall(r"Exercise\s+(\d+)", script.read_text(encoding="utf-8")))
    for number in sorted(asked - solved):
        yield f"exercise {number} has no solution in solutions/"


def breaches(path: Path) -> list[str]:
    """Everything that is wrong with one committed notebook."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    notebook = nbformat.from_dict(raw)         # as stored: reading through nbformat would mend what is to be checked
    for cell in notebook.cells:
        cell.source = "".join(cell.source)
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = "".join(output.text)
    found = [*ids(notebook), *parameters(notebook), *counts(notebook), *errors(notebook), *compared(notebook), *absolute_paths(notebook),
             *leftovers(notebook), *lengths(notebook), *links(notebook, path.parent), *unsolved(path)]
    if path.stat().st_size > LARGEST:
        found.append(f"{path.stat().st_size} bytes, at most {LARGEST}")
    return [f"{path.name}: {breach}" for breach in found]


def collection(paths: list[Path], readme: str) -> list[str]:
    """What can only be seen by looking at all notebooks."""
    found = [f"{path.name} is not named NN_words.ipynb" for path in paths if not NAME.fullmatch(path.stem)]
    numbers = [path.stem[:2] for path in paths]
    found += [f"number {number} is used {numbers.count(number)} times" for number in sorted(set(numbers)) if numbers.count(number) > 1]
    return found + [f"{path.name} is not listed in README.md" for path in paths if path.name not in readme]


def stale_weights(figures: Path, weights: Path) -> list[str]:
    """Recorded rows that name shipped weights (`folder/file`) but were made with other bytes than those that ship."""
    found = []
    for provenance in sorted(figures.glob("*/provenance.*.json")):
        named = json.loads(provenance.read_text(encoding="utf-8")).get("weights", {})
        for name, recorded in named.items():
            file = weights / name
            if not file.parent.exists():               # an official checkpoint or a model trained there: nothing ships to compare with
                continue
            if not file.exists():
                found.append(f"{provenance.parent.name}/{provenance.name} names {name!r}, a file that does not ship")
            elif hashlib.sha256(file.read_bytes()).hexdigest() != recorded:
                found.append(f"{provenance.parent.name}/{provenance.name} was made with other weights of {name!r} than those that ship")
    return found
