"""An executed notebook written back over its source: outputs and counts change, everything else stays byte for byte."""

import copy
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbval.plugin import coalesce_streams

WIDGET = "application/vnd.jupyter.widget-view+json"


def cleaned(source: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """The source with the outputs and counts of the executed copy; no metadata of papermill or widgets comes along."""
    result = copy.deepcopy(source)
    result.metadata.pop("papermill", None)
    result.metadata.pop("widgets", None)
    done = {cell.get("id"): cell for cell in executed.cells if cell.cell_type == "code"}
    count = 0
    for cell in result.cells:
        for leftover in ("papermill", "execution", "collapsed"):
            cell.metadata.pop(leftover, None)
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = coalesce_streams([
            copy.deepcopy(output) for output in done[cell.get("id")].outputs if WIDGET not in output.get("data", {})
        ])
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    return result


def write(notebook: NotebookNode, path: Path) -> bool:
    """Write in one fixed form (sorted keys, one blank of indent, one newline at the end); True when the file changed."""
    text = nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    half = path.with_suffix(".half")
    half.write_text(text, encoding="utf-8")
    half.replace(path)
    return True
