"""Executed notebooks as web pages that need no network: no script, pictures inside the page, equations drawn as SVG."""

import copy
import html
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import pass_context
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from .equations import svg

BARE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js_requirejs %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_css %}<style>
  .formula { display: block; text-align: center; margin: .8em 0; font-size: 1.4em } code.formula { white-space: pre-wrap }
  body.jp-Notebook { max-width: 76em; margin: 0 auto }
</style>{% endblock %}"""

INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64em; margin: 2em auto; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse; width: 100% }} td, th {{ text-align: left; padding: .3em .8em .3em 0; border-bottom: 1px solid #ddd }}
td, th {{ vertical-align: top }} table.dataframe {{ font-size: .85em }} .FAIL {{ color: #b00; font-weight: bold }}
</style></head><body><h1>{title}</h1><table><tr><th>notebook</th><th>seconds</th><th>result</th></tr>
{rows}
</table>{tail}</body></html>
"""


class Renderer(IPythonRenderer):
    """Markdown whose formulas are drawn here instead of by a script in the browser."""

    def block_math(self, body: str) -> str:
        return svg(body, display=True)

    multiline_math = block_math

    def inline_math(self, body: str) -> str:
        return svg(body)


class PageExporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context, source: str) -> str:
        path = context.get("resources", {}).get("metadata", {}).get("path", "")
        return markdown(source, path, context.get("cell", {}).get("attachments", {}))


def markdown(source: str, path: str = "", attachments: dict | None = None) -> str:
    """HTML of one markdown cell.

    >>> "<svg" in markdown("the loss $x^2$") and "<svg" not in markdown("`$x$`")
    True
    """
    renderer = Renderer(escape=False, attachments=attachments or {}, embed_images=True, path=path)
    return MarkdownWithMath(renderer=renderer).render(source)


def page(notebook: NotebookNode, title: str, folder: Path) -> str:
    """One notebook as one self-contained HTML text; `folder` is where its relative pictures are looked for."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:              # formulas that code displays go the same way as those in the text
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/latex" in data and "text/html" not in data:
                data["text/html"] = svg(data["text/latex"].strip().strip("$"), display=True)
    exporter = PageExporter(raw_template=BARE, embed_images=True, exclude_input_prompt=False)
    text, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title, "path": str(folder)}})
    return re.sub(r'href="(\d\d_[\w.-]+)\.ipynb', r'href="\1.html', text)


def first_heading(notebook: NotebookNode) -> str:
    """The title a reader sees; empty when the notebook has none."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^#\s+(.+)$", cell.source, re.M)):
            return found.group(1).strip()
    return ""


def index(title: str, rows: Sequence[tuple[str, str, str, str]], tail: str = "") -> str:
    """The page that links the others; rows are (file stem, title, seconds, what happened), `tail` is HTML below them."""
    body = "\n".join(
        f'<tr><td><a href="{stem}.html">{html.escape(stem)}</a> {html.escape(heading)}</td><td>{seconds}</td>'
        f'<td class="{word.split()[0] if word else ""}">{html.escape(word)}</td></tr>'
        for stem, heading, seconds, word in rows)
    return INDEX.format(title=html.escape(title), rows=body, tail=tail)
