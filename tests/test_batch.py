"""The batch runner on notebooks of two cells: what it says, what it skips, what it writes and what it leaves alone."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tsfm_lib.batch import clean, compare, pages, run
from tsfm_lib.batch.__main__ import arguments
from tsfm_lib.batch.equations import outline, svg
from tsfm_lib.errors import TsfmError


def notebook(source, printed=None, profile="quick"):
    """Title, parameters, and one cell; with `printed` the cell is compared and this is its committed output."""
    first = new_code_cell(f'profile = "{profile}"  # quick | laptop | full', id="a", execution_count=1, metadata={"tags": ["parameters"]})
    second = new_code_cell(source, id="b", execution_count=2)
    if printed is not None:
        second.metadata["tags"] = ["nbval-check-output"]
        second.outputs = [new_output("stream", name="stdout", text=printed)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=[new_markdown_cell("# A title", id="m"), first, second], metadata=kernel)


@pytest.fixture
def place(tmp_path):
    """A folder of notebooks and the settings to run them."""
    folder = tmp_path / "note books"
    folder.mkdir()
    (tmp_path / "figures").mkdir()

    def make(**sources):
        for name, made in sources.items():
            nbformat.write(made, folder / f"{name.removeprefix('n')}.ipynb")
        return run.Settings(notebooks=folder, build=tmp_path / "build", figures=tmp_path / "figures", timeout=60.0)

    return make


def go(settings):
    said = []
    results = run.Batch(settings, said.append).run()
    return {result.name[:2]: result for result in results}, "\n".join(said)


def test_it_goes_on_after_failures_and_names_the_cell_and_the_reason(place, monkeypatch):
    monkeypatch.setattr(run, "code_hash", lambda figures: "somebody may edit the library while this runs")
    settings = place(n10_good=notebook("print(profile)", "quick\n"), n11_differs=notebook("print(2)", "3\n"),
                     n12_raises=notebook('raise ValueError("forty points\\nare too few")'), n13_dies=notebook("import os; os._exit(1)"),
                     n14_bare=new_notebook(cells=[new_code_cell("1", id="x")]))
    before = {path: path.read_bytes() for path in settings.notebooks.iterdir()}
    results, said = go(settings)
    assert [number for number, result in results.items() if result.ok] == ["10"]
    assert results["10"].note == "1 compared"
    assert results["11"].note == "cell [2] differs from the committed output"
    assert "-3" in said and "+2" in said
    assert results["12"].note == "cell [2] ValueError: forty points"
    assert results["13"].note.startswith("cell [2] the kernel died")
    assert "no parameter `profile`" in results["14"].note
    assert before == {path: path.read_bytes() for path in settings.notebooks.iterdir()}, "no tracked file changed"

    page = (settings.place / "10_good.html").read_text()
    assert "A title" in page and "<script" not in page
    index = run.Batch(settings, str).index(list(results.values()), "K1 reproduced").read_text()
    assert 'href="10_good.html"' in index and "FAIL cell [2] ValueError" in index and "K1 reproduced" in index

    assert go(replace(settings, resume=True, only=("10",)))[0]["10"].kept
    assert run.Batch.earlier(settings.place / ".state" / "11_differs.json", "any") is None, "what failed is not kept"
    nbformat.write(notebook("print(profile)", "other\n"), settings.notebooks / "10_good.ipynb")
    assert not go(replace(settings, resume=True, only=("10",)))[0]["10"].ok, "a kept run is compared with what is committed now"


def test_an_earlier_success_counts_only_for_the_same_cells_parameters_code_and_data(place, monkeypatch):
    monkeypatch.delenv("TSFM_DATA", raising=False)
    settings = place(n10_a=notebook("1"), n11_b=notebook("2"), n12_c=notebook("1", "printed\n"))
    first, other, tagged = run.selected(settings.notebooks, ())
    key = run.key(first, {}, "code")
    assert key == run.key(first, {}, "code")
    different = [run.key(other, {}, "code"), run.key(tagged, {}, "code"), run.key(first, {"profile": "full"}, "code"),
                 run.key(first, {}, "edited")]
    monkeypatch.setenv("TSFM_DATA", str(settings.notebooks))
    different.append(run.key(first, {}, "code"))
    assert key not in different and len(set(different)) == 5


def test_a_recorded_number_is_part_of_the_code(tmp_path):
    before = run.code_hash(tmp_path)
    assert run.code_hash(tmp_path) == before
    (tmp_path / "rows.laptop.csv").write_text("a\n1\n")
    assert run.code_hash(tmp_path) != before


def test_a_notebook_that_takes_too_long_fails(place):
    results, _ = go(replace(place(n10_slow=notebook("1")), timeout=0.2))
    assert results["10"].note == "took longer than 0.2 s"


def test_ending_a_process_ends_its_kernel(place):
    settings = place(n10_slow=notebook("import os, pathlib, time; pathlib.Path('../pid').write_text(str(os.getpid())); time.sleep(600)"))
    batch, pid = run.Batch(settings, str), settings.notebooks.parent / "pid"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(batch.run)
        while not (waiting.done() or (pid.exists() and pid.read_text())):
            time.sleep(0.05)
        for child in list(batch.running):
            run.end(child)
        assert not waiting.result()[0].ok
    kernel, tries = int(pid.read_text()), iter(range(200))  # a busy machine takes its time to end a process
    while alive(kernel) and next(tries, None) is not None:
        time.sleep(0.05)
    assert not alive(kernel)


def alive(process):
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_another_profile_is_given_as_a_parameter_and_not_compared(place):
    settings = replace(place(n10_tells=notebook("assert profile == 'laptop'", "never printed\n")), profile="laptop")
    results, _ = go(settings)
    assert results["10"].ok and (settings.build / "laptop" / "10_tells.ipynb").exists()


def test_update_writes_outputs_back_and_runs_again_when_recorded_numbers_changed(place):
    source = notebook("print(len(list(__import__('pathlib').Path('../figures').glob('*.csv'))))", "5\n")
    settings = replace(place(n10_counts=source, n11_raises=notebook("1/0", "old\n")), update=True)
    failing = (settings.notebooks / "11_raises.ipynb").read_bytes()
    published = []

    def publish(profile, names):
        published.append((profile, names))
        (settings.figures / "rows.quick.csv").write_text("a\n1\n")

    batch = run.Batch(settings, str)
    results = run.update(batch, batch.run(), publish)
    assert published == [("quick", ["10_counts"])]
    assert [result.ok for result in results] == [True, False]
    written = nbformat.read(settings.notebooks / "10_counts.ipynb", as_version=4)
    assert written.cells[2].outputs[0].text == "1\n", "computed from the numbers that are committed beside it"
    assert [cell.id for cell in written.cells] == ["m", "a", "b"]
    assert (settings.notebooks / "11_raises.ipynb").read_bytes() == failing


def test_what_is_written_back_differs_in_outputs_only():
    source, executed = notebook("print(1)", "1\n"), notebook("print(1)", "2\n")
    executed.metadata["papermill"] = executed.metadata["widgets"] = {}
    executed.cells[2].metadata |= {"papermill": {}, "execution": {}, "tags": ["nbval-check-output"]}
    executed.cells[2].execution_count = 7
    executed.cells[2].outputs += [new_output("stream", name="stdout", text="3\n"), new_output("display_data", data={clean.WIDGET: {}}),
                                  new_output("execute_result", data={"text/plain": "4"}, execution_count=7)]
    executed.cells.insert(1, new_code_cell("profile = 'laptop'", id="injected"))
    got = clean.cleaned(source, executed)
    assert got.metadata == source.metadata and [cell.metadata for cell in got.cells] == [cell.metadata for cell in source.cells]
    assert [cell.source for cell in got.cells] == [cell.source for cell in source.cells]
    assert [out.get("text") for out in got.cells[2].outputs] == ["2\n3\n", None]
    assert got.cells[2].execution_count == got.cells[2].outputs[1].execution_count == 2


def test_writing_twice_gives_the_same_bytes(tmp_path):
    path = tmp_path / "10_a.ipynb"
    assert clean.write(notebook("1"), path) and not clean.write(nbformat.read(path, as_version=4), path)
    assert list(tmp_path.iterdir()) == [path]


def stream(text):
    return new_output("stream", name="stdout", text=text)


def show(**data):
    return new_output("display_data", data={name.replace("_", "/"): value for name, value in data.items()})


@pytest.mark.parametrize("committed, now, same", [
    ([stream("a\nb\n")], [stream("a\n"), stream("b\n")], True),
    ([stream("a\n")], [stream("b\n")], False),
    ([stream("a\n")], [], False),
    ([], [stream("a\n")], False),
    ([show(image_png="x", text_plain="<Figure>")], [show(image_png="y", text_plain="<Figure>")], True),
    ([show(text_plain="1.0")], [show(text_plain="1.1")], False),
    ([show(text_html="<b>1</b>")], [show(text_html="<b>2</b>")], False),
    ([stream("50%\r100%\n")], [stream("100%\n")], True),
])
def test_outputs_are_judged_by_nbvals_rules(committed, now, same):
    assert (compare.difference(committed, now) == ()) is same


def test_a_compared_cell_that_was_never_run_is_a_difference():
    committed = notebook("print(1)", "1\n")
    executed = notebook("print(1)", "1\n")
    assert compare.compare(committed, executed) == (1, [])
    committed.cells[2].execution_count = None
    assert "never run" in compare.compare(committed, executed)[1][0].lines[0]


def test_pages_show_equations_and_pictures_without_a_network(tmp_path):
    (tmp_path / "dot.png").write_bytes(b"\x89PNG")
    made = notebook("1")
    formula = r"$$\begin{aligned} a &= \frac{b}{c} \\ d &\le e \end{aligned}$$"
    made.cells[0].source = f"# T\n\n{formula}\n\n![p](dot.png) [next](11_b.ipynb#x) $\\oddity$"
    page = pages.page(made, "T", tmp_path)
    assert page.count('role="img"') == 2 and '<code class="tex">\\oddity</code>' in page
    assert 'src="data:image/png;base64' in page and 'href="11_b.html#x"' in page
    assert "<script" not in page and "cdnjs" not in page and "unpkg" not in page


@pytest.mark.parametrize("tex", [
    r"\frac12 + \sqrt 2 + \frac1B", r"x \le y \ne z", r"\lVert x \rVert_2^2", r"\bigl(a\bigr)", r"\mathbb{R}^{B \times T}", r"\text{word}",
    r"\begin{cases} 1 & x > 0 \\ 0 & \text{else} \end{cases}",
])
def test_the_usual_formulas_are_drawn(tex):
    assert svg(tex).startswith("<svg")


def test_a_displayed_fraction_is_not_shrunk():
    high = {display: outline(r"\frac{a}{b}", display)[2] for display in (False, True)}
    assert high[True] > 1.5 * high[False] and 'class="formula"' in svg(r"\frac{a}{b}", display=True)


@pytest.mark.parametrize("given, words", [
    (["--profile", "quik"], "did you mean 'quick'"), (["--jobs", "0"], "at least 1"), (["--timeout", "-1"], "above 0"),
])
def test_values_that_make_no_sense_are_refused(given, words):
    with pytest.raises(TsfmError, match=words):
        arguments(["run", *given])


def test_notebooks_are_chosen_by_the_beginning_of_their_names(place):
    settings = place(n10_a=notebook("1"), n11_b=notebook("1"), n20_c=notebook("1"))

    def names(*only):
        return [path.stem for path in run.selected(settings.notebooks, only)]

    assert names() == ["10_a", "11_b", "20_c"] and names("1") == ["10_a", "11_b"] and names("20", "10") == ["10_a", "20_c"]
    with pytest.raises(TsfmError, match="no notebook begins with '12'.*there are 10, 11, 20"):
        names("10", "12")
    with pytest.raises(TsfmError, match="no notebooks"):
        run.selected(settings.build, ())
