"""The book: all notebooks as one static site that works from the file system, without a network and on a phone.

`build` reads executed notebooks and recorded rows and runs nothing. A notebook's outputs are those of the last `run` at quick when
its cells are those that are committed, otherwise the committed ones. Pages have no script but for the search, whose index is a
script file, because a page opened from a folder may not fetch.
"""

import html
import io
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from .. import claims
from .pages import PAGE, STYLE, Body, Figure, first_heading, plain, solution_of
from .run import Settings, selected

SEARCH = Path(__file__).with_name("site.js")
THUMB = 320             # pixels across
FIRST, LAST = "First steps", "The collection as one"        # the groups of notebooks that belong to no paper


@dataclass(frozen=True)
class Chapter:
    stem: str
    title: str
    sentence: str
    minutes: str               # of a run at quick
    body: Body


def chosen(path: Path, settings: Settings) -> tuple[NotebookNode, str]:
    """The notebook with the outputs to show, and the minutes of its run if it was run here."""
    notebook = nbformat.read(path, as_version=4)
    run, report = settings.place / path.name, settings.place / ".state" / f"{path.stem}.json"
    if run.exists() and report.exists():
        executed, result = nbformat.read(run, as_version=4), json.loads(report.read_text(encoding="utf-8"))
        if result.get("ok") and [cell.source for cell in executed.cells] == [cell.source for cell in notebook.cells]:
            return executed, f"{result['seconds'] / 60:.1f}"
    return notebook, ""


def told(readme: str) -> dict[str, tuple[str, str]]:
    """What the README's map says of each notebook: its sentence and its minutes, the second and the last cell of its row.

    >>> told("| [10](notebooks/10_a.ipynb) | who chooses (K2) | 1 |")
    {'10_a': ('who chooses (K2)', '1')}
    """
    rows = ([cell.strip() for cell in line.strip().strip("|").split("|")] for line in readme.splitlines() if line.startswith("|"))
    named = ((re.search(r"(\d\d_\w+)\.ipynb", row[0]), row) for row in rows if len(row) > 2)
    return {found[1]: (row[1], row[-1]) for found, row in named if found}


def groups(stems: Iterable[str]) -> dict[str, list[str]]:
    """Notebooks by the paper whose claims they test; their tens belong together."""
    paper = {name[0]: one.paper for one in claims.CLAIMS.values() for name in one.notebooks}
    found: dict[str, list[str]] = {}
    for stem in sorted(stems):
        found.setdefault(paper.get(stem[0], FIRST if stem < "1" else LAST), []).append(stem)
    return found


def picture(figure: Figure, folder: Path) -> str:
    """Writes a figure's picture and its thumbnail; the address as seen from a page."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{figure.id}.{figure.mime.partition('/')[2].partition('+')[0]}"
    file.write_bytes(figure.picture)
    if figure.mime != "image/svg+xml":
        small = Image.open(io.BytesIO(figure.picture)).convert("RGB")
        small.thumbnail((THUMB, THUMB), reducing_gap=2.0)
        small.save(folder / f"{figure.id}.small.jpg", quality=85)
    return f"img/{folder.name}/{file.name}"


def thumb(stem: str, figure: Figure) -> str:
    return f"img/{stem}/{figure.id}.{'svg' if figure.mime == 'image/svg+xml' else 'small.jpg'}"


# ---- pages -----------------------------------------------------------------------------------------------------------

def step(rel: str, target: tuple[str, str] | None) -> str:
    arrow = {"prev": "← {}", "next": "{} →"}[rel]
    return f'<a rel="{rel}" href="{target[0]}.html">{arrow.format(html.escape(target[1]))}</a>' if target else "<span></span>"


def framed(name: str, title: str, inside: str, before: tuple[str, str] | None, after: tuple[str, str] | None, scripts: str = "") -> str:
    """A page of the book: what is the same on all of them around what is its own."""
    steps = f'<nav class="steps" aria-label="pages">{step("prev", before)}{step("next", after)}</nav>'
    box = '<form action="search.html"><input type="search" name="q" placeholder="search all pages" aria-label="search all pages"></form>'
    here = "".join(f'<a href="{page}.html"{" aria-current=page" * (page == name)}>{word}</a>'
                   for page, word in (("index", "map"), ("scoreboard", "scoreboard"), ("figures", "figures")))
    body = f'<header><nav aria-label="book">{here}</nav>{box}</header>\n<main>\n{steps}\n{inside}\n{steps}\n</main>{scripts}'
    return PAGE.format(title=html.escape(title), style='<link rel="stylesheet" href="site.css">', body=body)


def contents(body: Body) -> str:
    """The sections of one notebook, folded."""
    items = "".join(f'<li><a href="#{html.escape(s.id)}">{html.escape(s.title)}</a></li>' for s in body.sections if s.level == 2 and s.id)
    return f'<details class="contents"><summary>Sections</summary><ul>{items}</ul></details>' if items else ""


WELCOME = """<h1>tsfm_lib: the notebooks</h1>
<p>Time series foundation models re-implemented in one vocabulary, and the claims of five papers put to a test whose rule was written down
before the run. Each notebook says what was claimed and by whom, what would make it false, what was measured, and what to believe now.
The <a href="scoreboard.html">scoreboard</a> has all verdicts, the <a href="figures.html">figures</a> all pictures.</p>"""


def map_page(chapters: Sequence[Chapter]) -> str:
    by_stem = {chapter.stem: chapter for chapter in chapters}
    lines = [WELCOME]
    for group, stems in groups(by_stem).items():
        lines.append(f'<h2>{html.escape(group)}</h2><ul class="map">')
        for one in (by_stem[stem] for stem in stems):
            took = f" <small>{html.escape(one.minutes)} min</small>" if one.minutes else ""
            lines.append(f'<li><a href="{one.stem}.html">{html.escape(one.title)}</a>{took}<br>{html.escape(one.sentence)}</li>')
        lines.append("</ul>")
    return "\n".join([*lines, "<p><small>Minutes: a run at the profile <code>quick</code> on one thread.</small></p>"])


def table(kind: str, heads: Sequence[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{word}</th>" for word in heads)
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(rows)}\n</tbody></table></div>'


def scoreboard_page(stems: set[str]) -> str:
    """Every claim with what was said, what was measured and its verdict, as computed now from the recorded rows."""
    board = claims.table()
    counted = ", ".join(f"{n} {word}" for word, n in board["verdict"].value_counts().items())
    rows = []
    for row in board.to_dict("records"):
        id, _, words = str(row["quantity"]).partition(" ")
        cells = "".join(f"<td>{html.escape(str(row[name]))}</td>" for name in ("verdict", "said by", "said", "recorded", "interval"))
        links = ", ".join(f'<a href="{name}.html">{name[:2]}</a>' for name in claims.claim(id).notebooks if name in stems)
        kind = str(row["verdict"]).split()[0]
        rows.append(f'<tr id="{id}" class="{kind}"><td><b>{id}</b> {html.escape(words)}</td>{cells}<td>{links}</td></tr>')
    heads = ("claim", "verdict", "said by", "said", "recorded here", "95 % interval", "notebook")
    said = (f"{len(board)} claims: {counted}. Verdicts are computed from the rows recorded in <code>figures/</code> by rules fixed "
            f"before the runs; nobody types one in. {html.escape(str(claims.by_chance()))}")
    return f"<h1>Scoreboard</h1>\n<p>{said}</p>\n{table('claims', heads, rows)}"


def card(stem: str, figure: Figure) -> str:
    alt, said = html.escape(figure.alt), f"answers {html.escape(figure.answers)}" if figure.answers else "ours"
    return (f'<a class="card" href="{stem}.html#{figure.id}"><img loading="lazy" src="{thumb(stem, figure)}" alt="{alt}"><span>{alt}</span>'
            f"<small>{html.escape(figure.section.title)} · <b>{said}</b></small></a>")


def figures_page(chapters: Sequence[Chapter]) -> str:
    """Every figure: a thumbnail, its place, and the paper's figure or table that it answers, or 'ours'."""
    papers = {stem: paper for paper, stems in groups(chapter.stem for chapter in chapters).items() for stem in stems}
    answering: dict[tuple[str, str], list[str]] = {}
    for chapter in chapters:
        for figure in chapter.body.figures:
            if figure.answers:
                link = f'<a href="{chapter.stem}.html#{figure.id}">{chapter.stem[:2]}: {html.escape(figure.alt)}</a>'
                answering.setdefault((papers[chapter.stem], figure.answers), []).append(link)
    rows = [f"<tr><td>{html.escape(paper)}: {html.escape(what)}</td><td>{'<br>'.join(links)}</td></tr>"
            for (paper, what), links in answering.items()]
    count, total = sum(map(len, answering.values())), sum(len(chapter.body.figures) for chapter in chapters)
    lines = ["<h1>Figures</h1>", f"<p>{total} figures. {count} of them answer a figure or table of a paper; the others are ours.</p>",
             table("answers", ("the paper's", "ours"), rows) if rows else ""]
    for chapter in chapters:
        if chapter.body.figures:
            cards = "\n".join(card(chapter.stem, figure) for figure in chapter.body.figures)
            lines.append(f'<h2><a href="{chapter.stem}.html">{html.escape(chapter.title)}</a></h2>\n<div class="grid">\n{cards}\n</div>')
    return "\n".join(lines)


SEARCH_PAGE = """<h1>Search</h1>
<form class="search"><input type="search" name="q" autofocus aria-label="words to find"></form>
<p id="count" role="status"></p><ol id="found"></ol><noscript><p>The search needs scripts; everything else does not.</p></noscript>"""


def index_script(chapters: Sequence[Chapter], others: Sequence[tuple[str, str, str]]) -> str:
    """What the search looks through: one entry per section, [page, anchor, page's title, section's title, words]."""
    entries = [[f"{chapter.stem}.html", section.id, chapter.title, section.title, "\n".join(filter(None, section.words))]
               for chapter in chapters for section in chapter.body.sections if any(section.words)]
    entries += [[f"{name}.html", "", title, title, plain(text)] for name, title, text in others]
    return f"const ENTRIES = {json.dumps(entries, ensure_ascii=False, separators=(',', ':'))};\n"


def build(settings: Settings) -> Path:
    """Writes the book; the whole of it, or nothing."""
    target, half = settings.build / "book", settings.build / "book.half"
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    readme = settings.notebooks.parent / "README.md"
    said = told(readme.read_text(encoding="utf-8")) if readme.exists() else {}
    chapters = []
    for path in selected(settings.notebooks, ()):
        notebook, minutes = chosen(path, settings)
        sentence, usual = said.get(path.stem, ("", ""))
        body = Body(notebook, path.parent, solution_of(path), lambda figure, stem=path.stem: picture(figure, half / "img" / stem))
        chapters.append(Chapter(path.stem, first_heading(notebook) or path.stem, sentence, minutes or usual, body))
    names = {chapter.stem for chapter in chapters}
    pages = [("index", "tsfm_lib", map_page(chapters)),
             *((c.stem, c.title, f'<article>{contents(c.body)}{c.body.html}</article>') for c in chapters),
             ("scoreboard", "Scoreboard", scoreboard_page(names)), ("figures", "Figures", figures_page(chapters))]
    for i, (name, title, inside) in enumerate(pages):
        before, after = (pages[j][:2] if 0 <= j < len(pages) else None for j in (i - 1, i + 1))
        (half / f"{name}.html").write_text(framed(name, title, inside, before, after), encoding="utf-8")
    scripts = '<script src="entries.js"></script><script src="site.js"></script>'
    (half / "search.html").write_text(framed("search", "Search", SEARCH_PAGE, None, None, scripts), encoding="utf-8")
    (half / "entries.js").write_text(index_script(chapters, [p for p in pages if p[0] not in names]), encoding="utf-8")
    for file in (STYLE, SEARCH):
        shutil.copy(file, half / file.name)
    shutil.rmtree(target, ignore_errors=True)
    half.replace(target)
    return target / "index.html"
