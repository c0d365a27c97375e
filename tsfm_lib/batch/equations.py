"""TeX to inline SVG by matplotlib's mathtext, so that a page shows its equations with no network and no script.

Mathtext knows most of TeX's symbols but no environments: `aligned` and its kin are set as lines, and what still does not parse
stays readable as TeX source.
"""

import html
import re
from functools import lru_cache

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextToPath

UNIT = 100              # the font size in which outlines are measured; 100 units are one em on the page
LETTERS = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C", Outline.CLOSEPOLY: "Z"}
SYNONYMS = {            # TeX that mathtext spells otherwise, or can do without
    r"\\le(?![a-zA-Z])": r"\\leq", r"\\ge(?![a-zA-Z])": r"\\geq", r"\\ne(?![a-zA-Z])": r"\\neq", r"\\to(?![a-zA-Z])": r"\\rightarrow",
    r"\\[lr]vert(?![a-zA-Z])": "|", r"\\[lr]Vert(?![a-zA-Z])": r"\\|", r"\\[dt]frac(?![a-zA-Z])": r"\\frac",
    r"\\[bB]igg?[lrm]?(?![a-zA-Z])": "", r"\\(limits|nolimits|displaystyle|textstyle|nonumber|notag)(?![a-zA-Z])": "",
    r"\\(top|intercal)(?![a-zA-Z])": r"\\top", r"\\(tag|label)\{[^}]*\}": "", r"\\lbrace(?![a-zA-Z])": r"\\{",
    r"\\rbrace(?![a-zA-Z])": r"\\}", r"\\iff(?![a-zA-Z])": r"\\Longleftrightarrow", r"\\implies(?![a-zA-Z])": r"\\Longrightarrow",
    r"\\frac\s*(\w)\s*(\w)": r"\\frac{\1}{\2}", r"\\sqrt\s*(\w)": r"\\sqrt{\1}",
    r"\\(text(rm|normal)?|mbox)(?=\{)": r"\\text", r"\\coloneqq(?![a-zA-Z])": ":=", r"\\!": "",
}


def lines(tex: str) -> list[str]:
    """The rows of a formula, alignment marks taken out.

    >>> lines(r"\\begin{aligned} a &= b \\\\ c &= d \\end{aligned}")
    ['a = b', 'c = d']
    """
    tex = re.sub(r"\\(begin|end)\{(aligned|align\*?|gathered|gather\*?|split|equation\*?|array|cases)\}(\{[lcr|]+\})?", " ", tex)
    rows = (" ".join(re.sub(r"(?<!\\)&", " ", row).split()) for row in re.split(r"\\\\(?:\[[^\]]*\])?", tex))
    return [row for row in rows if row]


def outline(tex: str, display: bool = False) -> tuple[str, float, float, float] | None:
    """The drawing commands of one row with its width, height and depth in units; None when mathtext cannot read it.

    In a displayed formula numerators and denominators are as large as the rest.
    """
    for pattern, plain in SYNONYMS.items():
        tex = re.sub(pattern, plain, tex)
    tex = re.sub(r"\\frac(?![a-zA-Z])", r"\\dfrac", tex) if display else tex
    font = FontProperties(size=UNIT, math_fontfamily="stix")
    try:
        scale = TextToPath()
        vertices, codes = scale.get_text_path(font, f"${tex}$", ismath=True)
        width, height, depth = scale.get_text_width_height_descent(f"${tex}$", font, ismath=True)
    except (ValueError, RuntimeError):
        return None
    size = UNIT / scale.FONT_SCALE
    if len(codes) == 0:
        return None
    commands = []
    for points, code in Outline(np.asarray(vertices) * size, codes).iter_segments(curves=True, simplify=False):
        pairs = "" if code == Outline.CLOSEPOLY else " ".join(f"{v:.1f}" for v in points * ([1, -1] * (len(points) // 2)))
        commands.append(LETTERS[code] + pairs)
    return "".join(commands), float(width), float(height), float(depth)


@lru_cache(maxsize=4096)
def svg(tex: str, display: bool = False) -> str:
    """HTML for one formula.

    >>> svg(r"\\frac{a}{b}").startswith('<svg')
    True
    >>> svg(r"\\unknown{a}")
    '<code class="tex">\\\\unknown{a}</code>'
    """
    drawn = []
    for row in lines(tex):
        found = outline(row, display)
        if found is None:
            drawn = []
            break
        d, width, height, depth = found
        name = html.escape(row, quote=True)
        drawn.append(
            f'<svg role="img" aria-label="{name}" '
            f'style="height:{height / UNIT:.3f}em;vertical-align:{-depth / UNIT:.3f}em;overflow:visible" '
            f'viewBox="0 {depth - height:.1f} {width:.1f} {height:.1f}"><title>{name}</title><path fill="currentColor" d="{d}"/></svg>')
    if not drawn:
        whole = html.escape(tex.strip())
        return f'<code class="tex{" formula" if display else ""}">{whole}</code>'
    if display:
        return "".join(f'<span class="formula">{row}</span>' for row in drawn)
    return " ".join(drawn)
