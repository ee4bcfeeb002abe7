"""The report and the saved view of a sweep in W&B, as they are defined; no server is asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vac_lightning.report import workspace
from vac_lightning.report.contents import Contents, Curve, Row
from vac_lightning.runs import Run

ROWS = ("R50+f", "R50+ACf", 'it\'s "a" row')


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    """Three rows of two seeds and one of other authors."""
    rows = []
    for i, name in enumerate(ROWS):
        runs = tuple(Run(tmp_path / str(i) / f"seed={seed}") for seed in range(2))
        logger = {"project": "vac", "entity": None}
        for run in runs:
            run.write_results({"row": name, "experiment": "table1", "config": {"logger": logger}})
        metrics = {"best": {"mAP": (80.0, 82.0)}, "last": {"mAP": (79.0, 79.0)}}
        rows.append(Row(name, "done", runs, (0, 1), metrics=metrics, published={"mAP": 81.5}))
    rows.append(Row("SRN | <b>", "published", published={"mAP": 86.2}))
    curves = tuple(Curve(ROWS[0], 0, name, (0,), (1.0,)) for name in ("train/loss_c", "train/loss_a/f", "val/mAP"))
    return Contents("table1", "vac", ("mAP",), tuple(rows), notes=("chosen on <test>",), curves=curves)


@pytest.fixture
def spec(contents: Contents) -> dict[str, Any]:
    """What W&B is sent of the report."""
    report = workspace.definition(contents, "us", "vac")
    return json.loads(report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))


def test_every_grid_shows_these_runs_grouped_by_row_with_a_colour_a_row(spec: dict[str, Any]) -> None:
    grids = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    assert len(grids) == 3
    for grid in grids:
        (runs,) = grid["runSets"]
        assert [(key["section"], key["name"]) for key in runs["grouping"]] == [("config", "row.value")]
        assert {item["key"]["name"]: item["value"] for item in runs["filters"]["filters"]} == {
            "experiment": ["table1"],
            "row": list(ROWS),
        }
        assert {"config:row.value", "config:seed.value", "config:lambda.value", "summary:best/test/mAP"} <= set(
            runs["runFeed"]["columnPinned"]
        )
        colors = grid["customRunColors"]
        assert {key.partition("row.value:")[2] for key in colors if "row.value:" in key} == set(ROWS)
        assert len({colors[key] for key in colors if "row.value:" in key}) == len(ROWS)


def test_the_panels_show_what_is_logged(spec: dict[str, Any]) -> None:
    grids = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    panels = [panel for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]]
    kinds = [panel["viewType"] for panel in panels]
    assert kinds[:3] == ["Bar Chart", "Scatter Plot", "Run Comparer"]
    bars, scatter = panels[0]["config"], panels[1]["config"]
    assert (bars["metrics"], bars["groupBy"]) == (["summary_metrics.best/test/mAP"], "row.value")
    assert (scatter["xAxis"], scatter["yAxis"]) == ("config:lambda.value", "summary:best/test/mAP")
    lines = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert [line["metrics"] for line in lines] == [["train/loss_c"], ["train/loss_a/f"], ["val/mAP"]]
    assert {(line["groupBy"], line["groupArea"], line["xAxis"]) for line in lines} == {
        ("row.value", "stddev", "trainer/global_step")
    }
    (media,) = [panel["config"] for panel in panels if panel["viewType"] == "Media Browser"]
    assert media["mediaKeys"] == ["val/heatmaps"]
    assert "test/AP_by_label" in json.dumps(panels[-1])


def test_the_text_holds_ours_beside_the_published_and_no_markup_of_others(spec: dict[str, Any]) -> None:
    (text,) = [block["content"] for block in spec["blocks"] if block["type"] == "markdown-block"]
    assert "| R50+f | 81.5 | 81.0 ± 1.4 | 79.0 ± 0.0 | 0, 1 |" in text
    assert "| SRN \\| &lt;b&gt; | 86.2 |  |  |  |" in text
    assert "<" not in text


def test_the_saved_view_is_of_these_runs_grouped_and_coloured_by_row(contents: Contents) -> None:
    model = workspace.view(contents, "us", "vac")._to_model()
    (runs,) = model.spec.section.run_sets
    assert [key.name for key in runs.grouping] == ["row.value"]
    assert [key.key.name for key in runs.sort.keys] == ["row", "lambda", "seed"]
    assert len(set(model.spec.section.custom_run_colors.values())) == len(ROWS)


def test_runs_of_several_projects_or_of_none_are_refused(contents: Contents, tmp_path: Path) -> None:
    assert workspace.destination(contents) == (None, "vac")
    other = {"row": "R50+f", "experiment": "table1", "config": {"logger": {"project": "other", "entity": "us"}}}
    contents.rows[0].runs[0].write_results(other)
    with pytest.raises(ValueError, match="several W&B projects"):
        workspace.destination(contents)
    with pytest.raises(ValueError, match="no finished run"):
        workspace.definition(Contents("empty", "vac", ("mAP",), ()), "us", "vac")


def test_what_keeps_a_report_from_w_and_b_is_said(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(PermissionError, match="wandb login"):
        workspace.publish(contents, "us", "vac")
    sys.modules["wandb"].teardown()
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(ValueError, match="wandb-report"):
        workspace.publish(contents, "us", "vac")


@pytest.mark.slow
@pytest.mark.parametrize("titles", [[], ["another"], ["another", "table1"]])
def test_a_report_of_the_same_title_is_renewed(
    contents: Contents, monkeypatch: pytest.MonkeyPatch, titles: list[str]
) -> None:
    import wandb
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.workspaces import Workspace

    there = [SimpleNamespace(display_name=title, id=f"id of {title}") for title in titles]
    saved: list[Any] = []
    monkeypatch.setattr(workspace.account, "login", lambda: "https://wandb.test")
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(default_entity="us", reports=lambda path: there))
    monkeypatch.setattr(Report, "save", lambda self: saved.append(self))
    monkeypatch.setattr(Workspace, "save", lambda self: saved.append(self))
    monkeypatch.setattr(Report, "url", property(lambda self: f"{self.entity}/{self.project}/{self.title}"))
    assert workspace.publish(contents, None, "vac") == "us/vac/table1"
    report, *views = saved
    assert report.id == ("id of table1" if "table1" in titles else "")
    assert len(views) == (0 if "table1" in titles else 1)
