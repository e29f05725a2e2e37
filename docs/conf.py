"""The documentation site: pages in Markdown, formulas, and the API reference from the docstrings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

from zeuxis import __version__

HERE = Path(__file__).parent

project = "Zeuxis"
author = "the Zeuxis contributors"
copyright = "the Zeuxis contributors"  # noqa: A001 (Sphinx's own name)
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
nb_execution_mode = "off"  # notebooks hold their output; `make course` renews it
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_site", "extra"]
html_extra_path = ["extra"]  # pages as they are
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"Zeuxis {version}"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#2f6690", "color-brand-content": "#2f6690"},
    "dark_css_variables": {"color-brand-primary": "#7fb2d6", "color-brand-content": "#7fb2d6"},
}
autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_use_rtype = False
napoleon_use_ivar = True  # what a docstring lists as attributes is not listed again


def to_rst(lines: list[str]) -> list[str]:
    """Turns the Markdown of our docstrings, code in backticks, tables and set-off formulas, into Sphinx's markup."""
    made: list[str] = []
    table: list[list[str]] = []
    for line in [*lines, ""]:
        cells = re.fullmatch(r"\|(.*)\|", line.strip())
        if cells:
            if not re.fullmatch(r"[|\- ]+", line.strip()):
                table.append([cell.strip() for cell in cells[1].split(" | ")])
            continue
        if table:
            made += ["", ".. list-table::", "   :header-rows: 1", ""]
            for row in table:
                made += [f"   {'*' if i == 0 else ' '} - {in_code(cell)}" for i, cell in enumerate(row)]
            made.append("")
            table = []
        indented = line.startswith("  ")
        after_text = len(made) > 1 and not made[-1] and made[-2] and not made[-2].startswith(" ")
        if indented and after_text:  # a formula, set off
            made += ["::", ""]
        made.append(line if indented and "::" in made[-12:] else in_code(line))
    return made[:-1]


def in_code(text: str) -> str:
    """Single backticks to double ones, and what else means something to Sphinx alone is escaped."""
    text = re.sub(r"(?<!`)(?<!:)`([^`]+)`(?!`)", r"``\1``", text)
    parts = re.split(r"(``[^`]*``|:math:`[^`]*`)", text)
    special = re.compile(r"([|]|\*(?=\w)|(?<=\w)_(?=\W|$))")
    return "".join(part if i % 2 else special.sub(r"\\\1", part) for i, part in enumerate(parts))


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Before Sphinx reads a docstring."""
    lines[:] = to_rst(lines)


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leaves out what pydantic adds to every part of a recipe."""
    return True if name.startswith("model_") and what == "class" else None


def mathml(formula: str, display: str) -> str:
    """Turns TeX into MathML; browsers know letters of other shapes as characters of their own."""
    made = convert(formula, display=display)
    for shape, plain, shaped in (("double-struck", "E", "𝔼"), ("script", "N", "𝒩")):
        made = made.replace(f'<mi mathvariant="{shape}">{plain}</mi>', f"<mi>{shaped}</mi>")
    return made


def inline_formula(writer: Any, node: Any) -> None:
    """MathML, which browsers draw by themselves: nothing is fetched, and pages read offline."""
    writer.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def set_off_formula(writer: Any, node: Any) -> None:
    """The same for a formula on lines of its own."""
    writer.body.append(f'<div class="math" style="overflow-x: auto">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Connects the above."""
    app.add_html_math_renderer("mathml", (inline_formula, None), (set_off_formula, None))
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-skip-member", skip)
