"""A report's table in LaTeX, set as in the paper: booktabs, the best in bold and the second underlined."""

from __future__ import annotations

__all__ = ["as_text", "document"]

from collections.abc import Sequence

from vac_lightning.names import shown
from vac_lightning.report import table
from vac_lightning.report.contents import Contents, Row


def document(contents: Contents) -> str:
    """Two tables, of the best and of the last epoch, to \\input in a paper that has the packages its first line names.

    A row that has published numbers has them in a line of their own below ours.
    """
    tables = "\n".join(_table(contents, epoch) for epoch in ("best", "last"))
    packages = "booktabs,graphicx" if r"\resizebox" in tables else "booktabs"
    return f"% needs \\usepackage{{{packages}}}\n{tables}"


def as_text(text: str) -> str:
    """A text of others as it stands: no command, no formula, no comment; what pdfLaTeX lacks by its number."""
    return "".join(map(_character, shown(text))).replace("--", "-{-}")  # two would be a dash


def _table(contents: Contents, epoch: str) -> str:
    metrics = [name for name in contents.metrics if epoch == "best" or not name.startswith("top3_")]
    marked = {metric: table.ranks(table.means(contents.rows, epoch, metric)) for metric in metrics}
    lines: list[str] = []
    for row in contents.rows:
        if row.state == "published":
            if epoch == "best":
                lines.append(_line(f"{as_text(row.name)} (published)", _published(row, metrics)))
            continue
        ours = [_cell(row, epoch, metric, marked[metric].get(row.name)) for metric in metrics]
        name = as_text(row.name) + ("" if row.runs else " (missing)")
        lines.append(_line(name, ours if row.runs else ["--"] * len(metrics)))
        if epoch == "best" and row.published:
            lines.append(_line(r"\quad published", _published(row, metrics)))
    chosen = ", ".join(dict.fromkeys(row.chosen_on for row in contents.rows if row.runs))
    which = f"the best epoch, chosen on {chosen}" if epoch == "best" and chosen else f"the {epoch} epoch"
    caption = f"{contents.title or 'Runs'}: test metrics in percent of {which}; protocol {contents.protocol}."
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\caption{" + as_text(caption) + "}",
            r"\resizebox{\linewidth}{!}{%" if len(metrics) > 8 else r"\small",
            r"\begin{tabular}{l" + "c" * len(metrics) + "}",
            r"\toprule",
            _line("", [as_text(name) for name in metrics]),
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}" + ("}" if len(metrics) > 8 else ""),
            r"\end{table}",
            "",
        ]
    )


def _line(name: str, cells: Sequence[str]) -> str:
    # A line that began with [ would be the length that the \\ before it may take.
    return " & ".join([f"{{{name}}}" if name else "", *cells]) + r" \\"


def _cell(row: Row, epoch: str, metric: str, rank: str | None) -> str:
    text = table.cell(row.metrics[epoch][metric] if row.runs else ())
    mean, _, std = text.partition(" ± ")
    mean = {"best": rf"\textbf{{{mean}}}", "second": rf"\underline{{{mean}}}"}.get(rank or "", mean)
    return mean + (rf" {{\scriptsize$\pm${std}}}" if std else "")


def _published(row: Row, metrics: Sequence[str]) -> list[str]:
    return [table.plain(row.published.get(metric)) or "--" for metric in metrics]


def _character(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    own = ord(char) < _EUROPEAN and char not in _NOT_IN_OT1
    return char if own else f"U+{ord(char):04X}"


_EUROPEAN = 0x180  # Latin letters below are pdfLaTeX's own, but for those that its first font encoding lacks
_NOT_IN_OT1 = frozenset("«»ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ")
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "λ": r"$\lambda$",
    "−": "$-$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
}
