"""The page: what its tables say, that nothing of others gets out of its place, and what fits."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sample_report import LABELS, ROWS, contents, large

from vac_lightning.report.contents import Contents, Row
from vac_lightning.report.page import write
from vac_lightning.report.page.document import html
from vac_lightning.report.page.gallery import pictures
from vac_lightning.report.page.tables import others, results


def row(name: str, *mAP: float, last: float = 50.0, **rest: object) -> Row:
    return Row(
        name,
        "done",
        seeds=tuple(range(len(mAP))),
        metrics={"best": {"mAP": mAP}, "last": {"mAP": (last,)}},
        epochs={"best": (2,) * len(mAP), "last": (3,) * len(mAP)},
        **rest,  # type: ignore[arg-type]
    )


def report(*rows: Row) -> Contents:
    return Contents("title", "vac", ("mAP",), rows)


def test_cells_hold_mean_deviation_difference_and_rank() -> None:
    a = row("a", 80.0, 82.0, published={"mAP": 81.4})
    b = row("b", 83.0)
    missing = Row("c", "missing", published={"mAP": 85.0})
    cells = [line.cells[0]["best"] for line in results(report(a, b, missing))]
    assert [cell.ours for cell in cells] == ["81.0 ± 1.4", "83.0", ""]
    assert [cell.paper for cell in cells] == ["81.4", "", "85.0"]
    assert [cell.difference for cell in cells] == ["−0.4", "", ""]
    assert [cell.rank for cell in cells] == ["second", "best", ""]
    assert [cell.paper_rank for cell in cells] == ["second", "", "best"]
    assert [cell.order for cell in cells] == [81.0, 83.0, 85.0]


def test_equal_numbers_share_a_rank_and_unequal_ones_do_not() -> None:
    lines = results(report(row("a", 80.04), row("b", 80.04), row("c", 80.01)))
    assert [line.cells[0]["best"].rank for line in lines] == ["best", "best", "second"]
    assert [line.cells[0]["last"].rank for line in lines] == ["best"] * 3


def test_an_undefined_metric_is_named_and_wins_nothing() -> None:
    lines = results(report(row("a", math.nan, 80.0), row("b", 70.0)))
    cell = lines[0].cells[0]["best"]
    assert (cell.ours, cell.rank, cell.order) == ("n/a", "", None)


def test_a_difference_that_rounds_to_nothing_has_no_sign() -> None:
    lines = results(report(row("a", 80.0, published={"mAP": 80.04})))
    assert lines[0].cells[0]["best"].difference == "0.0"


def test_texts_of_others_stay_texts(tmp_path: Path) -> None:
    report = contents(tmp_path)
    page = html(report)
    scripts = re.findall(r"<script[^>]*>", page)
    assert scripts == ['<script type="application/json" id="data">', "<script>", "<script>"]
    assert page.count("</script") == 3
    held = json.loads(page.split(scripts[0])[1].split("</script>")[0])
    assert held["labels"] == list(LABELS)
    assert held["rows"][: len(ROWS)] == list(ROWS)
    assert "<b>x</b>" not in page and "<a href=" + '"https://example.org"' not in page


def test_steering_characters_are_shown_not_obeyed() -> None:
    page = html(replace(report(row("a\u202eb", 80.0)), title="x\x1b[2J"))
    assert "\u202e" not in page and "\x1b" not in page
    assert "a\\u202eb" in page


def test_numbers_without_a_value_are_null_in_the_data(tmp_path: Path) -> None:
    report = contents(tmp_path)
    curve = replace(report.curves[0], values=(math.nan, math.inf, 1.0, 2.0))
    page = html(replace(report, curves=(curve,)))
    held = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert held["curves"][curve.name][0][3] == [None, None, 1.0, 2.0]


def test_a_section_without_contents_is_left_out() -> None:
    page = html(report(row("a", 80.0)))
    assert re.findall(r'<section id="(\w+)"', page) == ["results"]
    assert re.findall(r'<li><a href="#(\w+)"', page) == ["results"]


def test_pictures_are_of_the_first_seed_and_damaged_ones_are_left_out(tmp_path: Path) -> None:
    rows = contents(tmp_path).rows
    made = pictures(rows)
    assert [(p.row, p.seed, len(p.samples), [epoch for epoch, _ in p.panels]) for p in made] == [
        (name, 0, 2, [0, 5, 11]) for name in ROWS
    ]
    assert made[0].samples[0].scale == 0.75
    first = rows[0].runs[0].heatmaps
    (first / "test.npz").write_bytes(b"PK damaged")
    (first / "epoch=005.png").write_bytes(b"damaged")
    damaged = pictures(rows)[0]
    assert damaged.samples == () and [epoch for epoch, _ in damaged.panels] == [0, 11]


def test_pictures_keep_to_the_budget(tmp_path: Path) -> None:
    rows = contents(tmp_path).rows

    def size(budget: int) -> int:
        made = pictures(rows, budget)
        tiles = [uri for p in made for sample in p.samples for uri in sample.tiles.values()]
        return sum(map(len, tiles + [uri for p in made for _, uri in p.panels]))

    whole = size(10**9)
    assert size(0) == 0
    assert 0 < size(whole // 2) <= whole // 2


def test_localisation_and_cost_show_what_is_not_known(tmp_path: Path) -> None:
    grids = others(contents(tmp_path))
    assert grids["costs"].lines[0][-1] == "2.0" and grids["costs"].lines[1][-1] == "–"
    assert grids["localisation"].head[1:3] == ("pointing game", "pointing game, chance")


@pytest.mark.slow
def test_a_page_of_200_runs_is_written_fast_and_small(tmp_path: Path) -> None:
    report = large()
    before = time.process_time()
    write(report, tmp_path / "report.html")
    assert time.process_time() - before < 3
    assert (tmp_path / "report.html").stat().st_size < 20e6
