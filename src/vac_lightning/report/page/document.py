"""The file itself: template, style, scripts, data and pictures put together so that nothing is fetched."""

from __future__ import annotations

__all__ = ["html", "write"]

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from vac_lightning.names import shown
from vac_lightning.report.contents import EPOCHS, Contents
from vac_lightning.report.page import drawings, gallery, tables
from vac_lightning.runs import write_atomically

SCRIPTS = ("ink", "plot", "chips", "table", "intervals", "curves", "labels", "attention", "gallery", "start")
"""The page's own scripts in the order in which they run; all of one scope."""

SECTIONS = {
    "results": "Results",
    "comparisons": "Is the difference real?",
    "curves": "Learning curves",
    "lambda": "The weight λ",
    "labels": "Label by label",
    "consistency": "Does attention follow?",
    "localisation": "Does attention find it?",
    "gallery": "Heatmaps",
    "differences": "What differs",
    "costs": "Cost",
    "versions": "Versions",
}


def write(contents: Contents, path: Path) -> None:
    """Write the page: one HTML file below 20 MB that asks nobody for anything and opens from a disk or in a mail."""
    text = html(contents)
    write_atomically(path, lambda file: file.write(text.encode()))


def html(contents: Contents) -> str:
    """The page. Every text of others is escaped: by Jinja in HTML, as \\u003c in the data, in JavaScript for plotly."""
    environment = Environment(
        loader=PackageLoader("vac_lightning.report.page", "assets"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: shown(value) if type(value) is str else value,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "ensure_ascii": False}
    environment.filters["breakable"] = _breakable
    pictures = gallery.pictures(contents.rows)
    grids = tables.others(contents)
    filled = {name for name, grid in grids.items() if grid.lines} | {
        name
        for name, what in (
            ("results", True),
            ("curves", contents.curves),
            ("gallery", pictures),
            ("differences", contents.differences),
        )
        if what
    }
    scripts = [get_plotlyjs().replace("\r\n", "\n"), '"use strict";\n{\n' + "\n".join(map(_script, SCRIPTS)) + "\n}\n"]
    return environment.get_template("page.html").render(
        contents=contents,
        epochs=EPOCHS,
        policy=_policy(scripts),
        scripts=[Markup(script) for script in scripts],
        style=Markup(_asset("page.css")),
        data=drawings.data(contents, pictures),
        sections={name: title for name, title in SECTIONS.items() if name in filled},
        results=tables.results(contents),
        grids=grids,
    )


def _breakable(name: str) -> Markup:
    """A row's name, which a narrow column may break where it says something else."""
    return escape(shown(name)).replace("_", Markup("_<wbr>"))


def _script(name: str) -> str:
    return _asset(f"{name}.js")


def _asset(name: str) -> str:
    return (files("vac_lightning.report.page") / "assets" / name).read_text(encoding="utf-8")


def _policy(scripts: list[str]) -> str:
    """Nothing may be fetched, and no script may run but these, whatever else came into the page."""
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    return (
        f"default-src 'none'; script-src {' '.join(hashes)}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
