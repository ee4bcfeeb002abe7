"""What is wrong with data, or worth a look: one finding a row, as text that a terminal and a spreadsheet can show."""

from __future__ import annotations

__all__ = ["Finding", "as_csv", "table"]

import csv
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vac_lightning.names import shown


class Finding(NamedTuple):
    """One finding.

    severity: "error" where a run would stop or learn something wrong, "warning" where it is worth a look.
    kind: in a few words that all findings of a kind share, such as "box outside".
    split: the split it is in, by the roles that it plays.
    sample: a sample it concerns, its position in the split; None where it concerns no one sample.
    file: the image file, relative to the root of the data where it lies inside.
    box: x, y, w, h as annotated.
    label: the label it concerns.
    detail: in one line, what was found and what it means.
    """

    severity: str
    kind: str
    split: str
    sample: int | None = None
    file: str = ""
    box: tuple[float, ...] | None = None
    label: str = ""
    detail: str = ""


def as_csv(findings: Iterable[Finding]) -> str:
    """The findings as CSV, a column a field."""
    rows = (
        (
            *(finding.severity, finding.kind, finding.split),
            "" if finding.sample is None else finding.sample,
            _path(finding.file),
            "" if finding.box is None else f"[{', '.join(f'{value:.12g}' for value in finding.box)}]",
            finding.label,
            finding.detail,
        )
        for finding in findings
    )
    return table(Finding._fields, rows)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV of names and numbers. Texts are escaped as on a terminal, and no spreadsheet takes one for a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_harmless(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()


def _path(name: str) -> str:
    """A path that begins like no formula, and still names the same file."""
    return f"./{name}" if name.startswith(_FORMULA) else name


def _harmless(text: str) -> str:
    text = shown(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


_FORMULA = ("=", "+", "-", "@")
