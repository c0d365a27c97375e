"""Which figures a notebook shows: what each is called, what it shows in words, and which figure of a paper it answers.

A figure is called as its cell saves it, `page.save("gains", rows, figure, "gain by density")`, and those words are its alt text.
What it answers stands in the notebook's first cell, in one form for all notebooks:

    *Figures answered:* `map_planted`, `map_co2`: figure 4; `gains`: Table 2. The other figures are ours.
"""

import ast
import re
from fnmatch import fnmatch

ANSWERED = re.compile(r"\*Figures answered:\*(.*?)(?:\n\s*\n|$)", re.S)
ANSWER = re.compile(r"((?:`[\w*]+`[,\s]*(?:and\s+)?)+):\s*(.+?)(?=\s*;|\.(?:\s|$))", re.S)


def answers(first_cell: str) -> dict[str, str]:
    """Names of figures (or patterns such as `map_*`) to what they answer.

    >>> answers("# T\\n\\n*Figures answered:* `a`, `b_*`: figure 4; `c`: the table of section 4.2. The others are ours.\\n\\nMore")
    {'a': 'figure 4', 'b_*': 'figure 4', 'c': 'the table of section 4.2'}
    """
    found = ANSWERED.search(first_cell)
    pairs = ANSWER.findall(found.group(1)) if found else []
    return {name: " ".join(what.split()) for names, what in pairs for name in re.findall(r"`([\w*]+)`", names)}


def answered(name: str, stated: dict[str, str]) -> str:
    """What one figure answers; empty for one of our own.

    >>> answered("map_co2", {"map_*": "figure 4"})
    'figure 4'
    """
    return next((what for pattern, what in stated.items() if name == pattern or fnmatch(name, pattern)), "")


def named(source: str) -> tuple[str, str]:
    """Name and words of the figure that a cell saves; of one that is only drawn there its title.

    >>> named('title = "T"\\nfigure = draw(rows, title=title)\\npage.save(f"map_{name}", rows, figure, f"sizes over {name}")')
    ('map_*', 'sizes over …')
    >>> named('figure = draw(rows, title="How much is covered")')
    ('', 'How much is covered')
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:                # a magic of IPython
        return "", ""
    known = {node.targets[0].id: node.value for node in ast.walk(tree)
             if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)}

    def text(node: ast.expr | None, gap: str) -> str:
        if isinstance(node, ast.Name):
            node = known.get(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.JoinedStr):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else gap for part in node.values)
        return ""

    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    saved = [call for call in calls if ast.unparse(call.func) == "page.save" and len(call.args) > 2]
    if saved:
        last = max(saved, key=lambda call: call.lineno)
        caption = next((word.value for word in last.keywords if word.arg == "caption"), last.args[3] if len(last.args) > 3 else None)
        return text(last.args[0], "*"), text(caption, "…")
    titles = [text(word.value, "…") for call in calls for word in call.keywords if word.arg == "title"]
    return "", next((title for title in titles if title), "")
