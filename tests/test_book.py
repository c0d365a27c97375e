"""The book from the committed notebooks: links, figures and solutions by reading it; how it shows and searches in a headless Chromium."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote

import nbformat
import pytest

from tests import browser
from tsfm_lib import claims, paths
from tsfm_lib.batch import book, pictures
from tsfm_lib.batch.run import Settings

NOTEBOOKS = sorted(path.stem for path in paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
PAGES = ["index", *NOTEBOOKS, "scoreboard", "figures"]           # in the order of reading


class Read(HTMLParser):
    """Ids, links and pictures of one page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.pictures, self.tags, self.steps = [], [], [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.tags.append(tag)
        if "id" in known:
            self.ids.append(known["id"])
        if tag in ("a", "link") and "href" in known:
            self.links.append(known["href"])
        if tag == "script":
            self.links.append(known["src"])
        if tag == "img":
            self.pictures.append(known)
        if known.get("rel") in ("prev", "next"):
            self.steps[known["rel"]] = known["href"].removesuffix(".html")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return book.build(Settings(build=tmp_path_factory.mktemp("build"))).parent


@pytest.fixture(scope="module")
def read(place):
    return {path.stem: Read(path.read_text(encoding="utf-8")) for path in place.glob("*.html")}


def test_every_notebook_is_a_page_and_every_link_leads_somewhere(place, read):
    assert sorted(read) == sorted([*PAGES, "search"])
    for name, page in read.items():
        assert len(page.ids) == len(set(page.ids)), f"{name}: two elements with one id"
        for link in page.links:
            target, _, anchor = link.partition("#")
            assert not target.startswith(("/", "..", "file:")), f"{name}: {link}"
            if not re.match(r"[a-z]+:", target):
                assert (place / (target or f"{name}.html")).exists(), f"{name}: {link}"
                assert not anchor or {anchor, unquote(anchor)} & set(read[target.removesuffix(".html") or name].ids), f"{name}: {link}"


def test_nothing_is_loaded_from_a_network(place):
    for file in (*place.glob("*.html"), *place.glob("*.css"), place / "site.js"):
        assert not re.findall(r"""(?:src=|url\(|@import|fetch\()\s*["']?(?:https?:)?//""", file.read_text(encoding="utf-8")), file.name


def test_every_picture_is_there_and_says_what_it_shows(place, read):
    for name, page in read.items():
        for picture in page.pictures:
            assert len(picture["alt"].split()) > 1, f"{name}: {picture}"
            assert picture["src"].startswith("data:") or (place / picture["src"]).stat().st_size > 500, f"{name}: {picture['src']}"


def test_every_figure_is_in_the_index_with_what_it_answers(read):
    shown = 0
    for stem in NOTEBOOKS:
        notebook = nbformat.read(paths.NOTEBOOKS / f"{stem}.ipynb", as_version=4)
        drawn = sum("image/png" in out.get("data", {}) for cell in notebook.cells for out in cell.get("outputs", []))
        anchors = [f"{stem}.html#{id}" for id in read[stem].ids if id.startswith("figure-")]
        assert len(anchors) == drawn and set(anchors) <= set(read["figures"].links), stem
        shown += drawn
    assert len(read["figures"].pictures) == shown > 0


@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_the_figures_that_a_notebook_says_answer_a_paper_are_figures_of_it(stem):
    cells = nbformat.read(paths.NOTEBOOKS / f"{stem}.ipynb", as_version=4).cells
    names = {pictures.named(cell.source)[0] for cell in cells if any("image/png" in out.get("data", {}) for out in cell.get("outputs", []))}
    stated = pictures.answers(cells[0].source)
    assert ("Figures answered" in cells[0].source) == bool(stated), "a line that cannot be read: *Figures answered:* `name`: what; ..."
    assert set(stated) <= names


def test_solutions_are_folded_in(place):
    for stem in NOTEBOOKS:
        asked, text = len(re.findall(r"<h\d[^>]*>[^<]*Exercise \d", page := (place / f"{stem}.html").read_text(encoding="utf-8"))), page
        assert len(re.findall(r"<details><summary>Solution of exercise \d", text)) == asked, stem


def test_previous_and_next_lead_from_the_map_to_the_figures_and_back(read):
    assert [read[name].steps.get("next") for name in PAGES] == [*PAGES[1:], None]
    assert [read[name].steps.get("prev") for name in PAGES] == [None, *PAGES[:-1]]


def test_the_map_and_the_scoreboard_are_complete(place, read):
    assert {f"{stem}.html" for stem in NOTEBOOKS} <= set(read["index"].links)
    assert set(claims.CLAIMS) <= set(read["scoreboard"].ids)
    assert re.search(r"<br>\w[^<]{20,}</li>", (place / "index.html").read_text(encoding="utf-8")), "a sentence for each notebook"


def test_a_run_of_other_cells_is_not_shown(tmp_path, place):
    stem = NOTEBOOKS[0]
    settings = Settings(build=tmp_path)
    (settings.place / ".state").mkdir(parents=True)
    (settings.place / ".state" / f"{stem}.json").write_text('{"ok": true, "seconds": 90.0}')
    notebook = nbformat.read(paths.NOTEBOOKS / f"{stem}.ipynb", as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="of this run")]
    nbformat.write(notebook, settings.place / f"{stem}.ipynb")
    committed = paths.NOTEBOOKS / f"{stem}.ipynb"
    shown, minutes = book.chosen(committed, settings)
    assert shown.cells[1].outputs[0].text == "of this run" and minutes == "1.5"
    notebook.cells[1].source += "\nedited = 1"
    nbformat.write(notebook, settings.place / f"{stem}.ipynb")
    shown, minutes = book.chosen(committed, settings)
    assert not shown.cells[1].outputs and minutes == ""


# ---- in a browser ----------------------------------------------------------------------------------------------------

LOOK = """(async () => {
  const pictures = [...document.images];
  pictures.forEach(one => one.loading = "eager");
  await Promise.all(pictures.map(one => one.decode().catch(() => 0)));
  const formulas = [...document.querySelectorAll("svg[role=img]")].filter(one => !one.closest("details"));
  return {
    width: document.documentElement.scrollWidth,
    missing: pictures.filter(one => !one.naturalWidth).map(one => one.src),
    formulas: formulas.length,
    flat: formulas.filter(one => Math.min(one.getBoundingClientRect().height, one.getBoundingClientRect().width) < 1)
                  .map(one => one.getAttribute("aria-label")),
    wide: formulas.filter(one => !one.closest(".formula, .scroll") && one.getBoundingClientRect().right > 391).length,
  };
})()"""


@pytest.fixture(scope="module")
def chromium():
    with browser.Browser() as page:
        yield page


@browser.needs_chromium
def test_pages_fit_a_phone_without_an_error_or_a_missing_picture(place, chromium):
    chromium.resize(390)
    formulas = 0
    for name in [*PAGES, "search"]:
        chromium.open((place / f"{name}.html").as_uri())
        seen = chromium.evaluate(LOOK)
        assert chromium.problems == [], name
        assert seen["missing"] == [] and seen["flat"] == [], name
        assert seen["width"] <= 390 and seen["wide"] == 0, f"{name} is {seen['width']} pixels wide on a phone of 390"
        source = (place / f"{name}.html").read_text(encoding="utf-8")
        assert "$$" not in re.sub(r"<pre.*?</pre>|<title>.*?</title>", "", source, flags=re.S), f"{name}: a formula that was not drawn"
        formulas += seen["formulas"]
    assert formulas > 100


@browser.needs_chromium
def test_next_leads_through_the_book(place, chromium):
    chromium.open((place / "index.html").as_uri())
    walked = []
    while True:
        walked.append(chromium.evaluate("location.pathname.split('/').pop().replace('.html', '')"))
        there = chromium.evaluate("document.querySelector('a[rel=next]')?.href")
        if not there or len(walked) > len(PAGES):
            break
        chromium.open(there)
    assert walked == PAGES


@browser.needs_chromium
def test_the_search_finds_marks_and_leads_there(place, chromium):
    chromium.open((place / "index.html").as_uri())
    chromium.evaluate("document.querySelector('header input').value = 'Null Experts', document.querySelector('header form').submit()")
    chromium.wait("location.pathname.endsWith('search.html') && document.querySelectorAll('#found li').length")
    first = chromium.evaluate("({href: document.querySelector('#found a').href, mark: document.querySelector('#found mark').textContent})")
    assert "11_kairos" in first["href"] and first["mark"].lower() in ("null", "experts")
    chromium.evaluate("""(() => { const input = document.querySelector('main input');
        input.value = 'zzzz <b>nothing</b>'; input.dispatchEvent(new Event('input')); })()""")
    count, items = chromium.evaluate("[document.getElementById('count').textContent, document.querySelectorAll('#found li').length]")
    assert count == "0 sections" and items == 0
    chromium.open(first["href"])
    assert chromium.problems == [] and chromium.evaluate("document.getElementById(decodeURIComponent(location.hash.slice(1))) !== null")
