"""A report's Markdown, LaTeX and CSV: the numbers in them, and texts of others that must stay text."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from folders import Kind, write_run, write_sweep

from vac_lightning.report import latex, markdown, spreadsheet, table
from vac_lightning.report.contents import Contents, Row
from vac_lightning.report.gathering import gather

HOSTILE = ("<script>alert(1)</script>", "$x_1$ & 50 %", "a|b", "two\nlines", "\\input{/etc/passwd}", "#~^{}", "[x](y)")


@pytest.fixture
def hostile(tmp_path: Path) -> Contents:
    """Two rows of one kind, whose names and labels would steer whatever shows them."""
    runs = [write_run(tmp_path / "a", Kind("R50", "f", 1.0), row=HOSTILE[0] + HOSTILE[4], labels=HOSTILE)]
    runs += [write_run(tmp_path / "b", Kind("R50", "f", 0.0), row="|".join(HOSTILE), labels=HOSTILE)]
    return gather(runs, resamples=100)


def test_ranks_go_by_unrounded_means_and_equal_ones_share() -> None:
    assert table.ranks({"a": 80.04, "b": 80.01, "c": 79.9}) == {"a": "best", "b": "second"}
    assert table.ranks({"a": 80.0, "b": 80.0, "c": 79.0, "d": 79.0, "e": 1}) == {
        "a": "best",
        "b": "best",
        "c": "second",
        "d": "second",
    }
    assert table.ranks({}) == {}


def test_cells() -> None:
    assert table.cell((80.0, 81.0, 82.0)) == "81.0 ± 1.0"
    assert [table.cell(values) for values in ((80.04,), (80.0, np.nan), ())] == ["80.0", "n/a", ""]
    assert [table.signed(value) for value in (1.25, -0.54, None)] == ["+1.2", "−0.5", ""]


def _cells(text: str, heading: str, row: str) -> list[str]:
    """The cells of a row in a section of the Markdown, by its first."""
    (section,) = [part for part in text.split("\n## ") if part.startswith(heading)]
    (line,) = [line for line in section.splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_holds_ours_published_and_difference(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, [Kind("R50", "f"), Kind("R50", "f", 0.0)], seeds=3, experiment="table1")
    contents = gather(runs, resamples=100)
    text = markdown.document(contents, "vac report runs/table1", "figure5.png")
    values = np.array([run.results()["metrics"]["best"]["test"]["mAP"] for run in runs[:3]])
    others = np.array([run.results()["metrics"]["best"]["test"]["mAP"] for run in runs[3:]])
    mark = "**{}**" if values.mean() > others.mean() else "<ins>{}</ins>"
    cell = mark.format(f"{values.mean():.1f} ± {values.std(ddof=1):.1f}")
    assert _cells(text, "table1: best epoch", "R50+ACf")[1:5] == ["3", cell, "86.3", f"{values.mean() - 86.3:+.1f}"]
    assert _cells(text, "table1: best epoch", "R101")[1:5] == ["missing", "", "84.8", ""]
    assert _cells(text, "As published", "R101+ACfs")[1] == "**87.5**"
    assert _cells(text, "As published", "R101+ACf")[1] == "<ins>87.1</ins>"
    assert _cells(text, "Difference", "R50+ACf")[1] == f"{values.mean() - 86.3:+.1f}"
    assert "± " in _cells(text, "Last epoch", "R50+ACf")[2]
    (found,) = contents.comparisons
    assert _cells(text, "Comparisons", "R50+ACf better than R50+f")[3] == table.p_value(found.p_value)
    assert "chosen on val/mAP of split 'val'" in text
    assert "vac report runs/table1" in text and "(figure5.png)" in text


def test_markdown_tables_keep_their_columns_and_show_markup_as_text(hostile: Contents) -> None:
    text = markdown.document(hostile)
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not re.search(r"(?<!\\)[$`]", text)
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block
    assert "two\\\\nlines" in text


def test_csv_is_read_back(hostile: Contents) -> None:
    lines = list(csv.DictReader(io.StringIO(spreadsheet.metrics(hostile))))
    assert {line["row"] for line in lines} == {row.name.replace("\n", "\\n") for row in hostile.rows}
    row = next(row for row in hostile.rows if row.name == HOSTILE[0] + HOSTILE[4])
    (mAP,) = [line for line in lines if (line["row"], line["epoch"], line["metric"]) == (row.name, "best", "mAP")]
    assert float(mAP["mean"]) == pytest.approx(row.metrics["best"]["mAP"][0], rel=1e-5)
    assert (mAP["std"], mAP["seeds"]) == ("", "1")
    labels = list(csv.DictReader(io.StringIO(spreadsheet.labels(hostile))))
    assert [line["label"] for line in labels[:7]] == [label.replace("\n", "\\n") for label in HOSTILE]


def test_latex_escapes_what_would_steer_it(hostile: Contents) -> None:
    text = latex.document(hostile)
    assert r"\textbackslash{}input\{/etc/passwd\}" in text and r"\textless{}script\textgreater{}" in text
    assert not re.search(r"(?<!\\)[#%](?! needs)(?!$)", text, flags=re.MULTILINE)
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {len(hostile.metrics)}
    assert [latex.as_text(name) for name in ("R50+ACf_lambda=0.3", "a--b", "a–b", "漢λé", "«ę»")] == [
        r"R50+ACf\_lambda=0.3",
        "a-{-}b",
        r"a\textendash{}b",
        r"U+6F22$\lambda$é",
        "U+00ABU+0119U+00BB",
    ]
    assert "needs \\usepackage{booktabs}\n" in text and "resizebox" not in text
    wide = latex.document(Contents("t", "vac", tuple("abcdefghi"), ()))
    assert wide.startswith("% needs \\usepackage{booktabs,graphicx}") and "resizebox" in wide


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex to compile the tables with")
def test_latex_compiles(hostile: Contents, tmp_path: Path) -> None:
    rows = (
        *hostile.rows,
        Row("R*CNN", "published", published={"mAP": 80.5}),
        Row("[1ex] λ–—−" + "".join(map(chr, range(0xA0, 0x180))), "missing"),
    )
    contents = Contents(**{**vars(hostile), "rows": rows})
    start = "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    (tmp_path / "main.tex").write_text(start + latex.document(contents) + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "main.pdf").is_file()
