"""Executed notebooks as web pages that need no network: no script, equations drawn as SVG, one style for runs and book.

`page` makes one self-contained file (what a run writes beside each executed notebook); `Body` is what a page holds, with its
sections and figures as lists, from which the book makes its indexes.
"""

import base64
import html
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbconvert.filters.ansi import strip_ansi
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from .clean import WIDGET
from .equations import svg
from .pictures import answered, answers, named

STYLE = Path(__file__).with_name("site.css")
EXERCISE = re.compile(r"#+\s.*?\bExercise\s+(\d+)")
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
{style}</head><body>
{body}
</body></html>
"""


class Renderer(IPythonRenderer):
    """Markdown whose formulas are drawn here instead of by a script in the browser, and whose tables scroll when they are wide."""

    def block_math(self, body: str) -> str:
        return svg(body, display=True)

    multiline_math = block_math

    def inline_math(self, body: str) -> str:
        return svg(body)

    def table(self, text: str) -> str:
        return f'<div class="scroll"><table>{text}</table></div>\n'


def markdown(source: str, path: str = "", attachments: dict | None = None, anchors: bool = True) -> str:
    """HTML of one markdown cell.

    >>> "<svg" in markdown("the loss $x^2$") and "<svg" not in markdown("`$x$`")
    True
    """
    renderer = Renderer(escape=False, attachments=attachments or {}, embed_images=True, path=path, exclude_anchor_links=not anchors)
    return relinked(MarkdownWithMath(renderer=renderer).render(source))


def relinked(text: str) -> str:
    """Links between notebooks become links between pages; solutions are folded in under their exercises; files that are no page are named.

    >>> relinked('href="../10_a.ipynb#x" href="solutions/10_a.ipynb" href="https://e.org/b.ipynb"')
    'href="10_a.html#x" href="#Exercises" href="https://e.org/b.ipynb"'
    >>> relinked('<a href="../tests/test_a.py">test_a</a>')
    'test_a'
    """
    text = re.sub(r'href="solutions/\d\d_[\w.-]+\.(?:ipynb|py)"', 'href="#Exercises"', text)
    text = re.sub(r'href="(?:\.\./)?(\d\d_[\w.-]+)\.ipynb', r'href="\1.html', text)
    return re.sub(r'<a href="\.\./[^"]*"[^>]*>(.*?)</a>', r'\1', text, flags=re.S)


def plain(text: str) -> str:
    """The words of a piece of HTML, formulas as their TeX.

    >>> plain('<p>a &amp; <b>b</b>') + plain(svg("x^2"))
    'a & bx^2'
    """
    text = re.sub(r'<svg[^>]* aria-label="([^"]*)".*?</svg>', r"\1", text, flags=re.S)
    text = re.sub(r'<style.*?</style>|<a class="anchor-link".*?</a>', "", text, flags=re.S)
    text = re.sub(r"</(p|t[dhr]|li|h\d|div|pre|summary)>", " ", text)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).split())


def chunks(source: str) -> list[str]:
    """A markdown cell cut before each of its headings; fenced code stays whole.

    >>> chunks("a\\n## b\\n```\\n# c\\n```\\n### d")
    ['a', '## b\\n```\\n# c\\n```', '### d']
    """
    fenced, found = False, [[]]
    for line in source.split("\n"):
        fenced ^= line.lstrip().startswith("```")
        if not fenced and re.match(r"#{1,6}\s", line) and found[-1]:
            found.append([])
        found[-1].append(line)
    return ["\n".join(lines) for lines in found]


def code(source: str, count: int | None = None) -> str:
    mark = "" if count is None else f'<span class="count">[{count}]</span>'
    return f'<div class="code">{mark}{highlight(source.rstrip(), PythonLexer(), HtmlFormatter(cssclass="highlight"))}</div>'


@dataclass
class Section:
    """A heading and the words below it, for the table of contents and the search."""
    id: str
    title: str
    level: int
    words: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Figure:
    id: str
    name: str                  # as the notebook saves it; the cell's id where it does not
    alt: str
    section: Section
    answers: str               # the paper's figure or table; empty: ours
    picture: bytes
    mime: str

    @property
    def size(self) -> str:
        """Width and height as attributes, so that nothing jumps while pictures load."""
        if self.mime != "image/png" or len(self.picture) < 24:
            return ""
        return 'width="{}" height="{}"'.format(*struct.unpack(">II", self.picture[16:24]))


def inline(figure: Figure) -> str:
    """The address of a picture that is part of the page."""
    return f"data:{figure.mime};base64,{base64.b64encode(figure.picture).decode()}"


class Body:
    """What one notebook's page holds: `html`, `sections`, `figures`. `place` says where a figure's picture is found."""

    def __init__(self, notebook: NotebookNode, folder: Path = Path(), solution: NotebookNode | None = None,
                 place: Callable[[Figure], str] = inline):
        self.folder, self.place, self.pending = str(folder), place, ""
        self.sections, self.figures, self.lines = [Section("", "", 1)], [], []
        self.stated = answers(notebook.cells[0].source if notebook.cells else "")
        self.solved = solutions(solution) if solution else {}
        self.drawn = ("", "")
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                self._text(cell)
            elif cell.cell_type == "code":
                self._code(cell)
        self._unfold()

    @property
    def html(self) -> str:
        return "\n".join(self.lines)

    def _text(self, cell: NotebookNode) -> None:
        for chunk in chunks(cell.source):
            made = markdown(chunk, self.folder, cell.get("attachments", {}))
            if heading := re.match(r'<h(\d)(?: id="([^"]*)")?>(.*?)</h\1>', made, re.S):
                self._unfold()
                self.sections.append(Section(html.unescape(heading[2] or ""), plain(heading[3]), int(heading[1])))
            if exercise := EXERCISE.match(chunk):
                self.pending = exercise[1]
            self.sections[-1].words.append(plain(made))
            self.lines.append(made)

    def _code(self, cell: NotebookNode) -> None:
        self.sections[-1].words.append(cell.source)
        self.lines.append(code(cell.source, cell.get("execution_count")))
        for output in cell.get("outputs", []):
            self.lines.append(self._output(output, cell))

    def _output(self, output: NotebookNode, cell: NotebookNode) -> str:
        data = output.get("data", {})
        if output.output_type == "stream" or output.output_type == "error":
            text = output.get("text") or "\n".join(output.get("traceback", []))
            return self._printed("\n".join(line.rsplit("\r", 1)[-1] for line in text.rstrip("\r\n").split("\n")))
        if WIDGET in data:
            return '<p class="note">A slider is here when the notebook is open in JupyterLab (./run_all.sh lab).</p>'
        if "text/html" in data:
            self.sections[-1].words.append(plain(data["text/html"]))
            return f'<div class="scroll out">{relinked(data["text/html"])}</div>'
        if "text/latex" in data:               # formulas that code displays go the same way as those in the text
            return svg(data["text/latex"].strip().strip("$"), display=True)
        if "text/markdown" in data:
            return markdown(data["text/markdown"], self.folder)
        for mime in ("image/svg+xml", "image/png", "image/jpeg"):
            if mime in data:
                raw = "".join(data[mime])
                return self._figure(cell, raw.encode() if mime == "image/svg+xml" else base64.b64decode(raw), mime)
        return self._printed(data.get("text/plain", ""))

    def _printed(self, text: str) -> str:
        text = strip_ansi(text)
        self.sections[-1].words.append(text)
        return f'<pre class="out">{html.escape(text)}</pre>' if text.strip() else ""

    def _figure(self, cell: NotebookNode, picture: bytes, mime: str) -> str:
        name, words = named(cell.source)
        if not (name or words):                # the second of two that an earlier cell drew in a loop
            name, words = self.drawn
        self.drawn = (name, words)
        section = self.sections[-1]
        id = f"figure-{re.sub(r'[^a-z0-9_]+', '', name.lower()) or cell.get('id', 'of')}"
        taken = sum(figure.id == id or figure.id.startswith(f"{id}-") for figure in self.figures)
        id = f"{id}-{taken + 1}" if taken else id
        name, alt = name or cell.get("id", ""), words or section.title or "a figure"
        figure = Figure(id, name, alt, section, answered(name, self.stated), picture, mime)
        self.figures.append(figure)
        said = f"<figcaption>Answers, in the paper: {html.escape(figure.answers)}.</figcaption>" if figure.answers else ""
        return f'<figure id="{id}"><img src="{self.place(figure)}" alt="{html.escape(alt)}" {figure.size}>{said}</figure>'

    def _unfold(self) -> None:
        """The solution of the exercise that ends here, folded."""
        cells = self.solved.get(self.pending)
        if cells:
            made = [code(source) if kind == "code" else markdown(source, self.folder, anchors=False) for kind, source in cells]
            inside = "\n".join(made)
            self.sections[-1].words.append(plain(inside))
            self.lines.append(f"<details><summary>Solution of exercise {self.pending}</summary>\n{inside}\n</details>")
        self.pending = ""


def solution_of(path: Path) -> NotebookNode | None:
    """The notebook with the solutions of another one's exercises, if there is one."""
    solved = path.parent / "solutions" / path.name
    return nbformat.read(solved, as_version=4) if solved.exists() else None


def solutions(notebook: NotebookNode) -> dict[str, list[tuple[str, str]]]:
    """The cells (kind, source) that solve each exercise; what comes before the first, imports mostly, is part of the first."""
    found: dict[str, list[tuple[str, str]]] = {"": []}
    number = ""
    for cell in notebook.cells:
        for chunk in chunks(cell.source) if cell.cell_type == "markdown" else [cell.source]:
            if cell.cell_type == "markdown" and (exercise := EXERCISE.match(chunk)):
                number, chunk = exercise[1], chunk.partition("\n")[2]
            if chunk.strip() and (number or cell.cell_type == "code"):
                found.setdefault(number, []).append((cell.cell_type, chunk))
    before, numbers = found.pop(""), sorted(found, key=int)
    if numbers:
        found[numbers[0]] = before + found[numbers[0]]
    return found


def page(notebook: NotebookNode, title: str, folder: Path, solution: NotebookNode | None = None) -> str:
    """One notebook as one self-contained HTML text; `folder` is where its relative pictures are looked for."""
    return _alone(title, Body(notebook, folder, solution).html)


def _alone(title: str, inside: str) -> str:
    style = f"<style>{STYLE.read_text(encoding='utf-8')}</style>"
    return PAGE.format(title=html.escape(title), style=style, body=f"<main>{inside}</main>")


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
    table = f'<div class="scroll"><table><tr><th>notebook</th><th>seconds</th><th>result</th></tr>\n{body}\n</table></div>'
    return _alone(title, f"<h1>{html.escape(title)}</h1>{table}{tail}")
