"""A sweep's report in W&B, and a saved view of its runs: grouped, coloured and sorted by row, seed and lambda."""

from __future__ import annotations

__all__ = ["definition", "destination", "publish", "view"]

import colorsys
from typing import TYPE_CHECKING, Any

from vac_lightning import account
from vac_lightning.report.contents import Contents, Row
from vac_lightning.report.table import as_text, cell, plain

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.workspaces import Workspace


def definition(contents: Contents, entity: str, project: str) -> Report:
    """The report as W&B is to draw it; asks no server.

    Above the panels stand the notes and the published numbers, which no W&B run holds.

    Raises:
        ValueError: the extra "wandb-report" is not installed, or there is no finished run.
    """
    wr = _reports()
    names = _row_names(contents)
    curves = list(dict.fromkeys(curve.name for curve in contents.curves)) or list(_CURVES)

    def grid(*panels: Any) -> Any:
        runs = wr.Runset(
            name=_RUNS,
            filters=_filter(contents),
            groupby=["config.row"],
            order=[wr.OrderBy(wr.Config("row"), ascending=True), wr.OrderBy(wr.Config("seed"), ascending=True)],
            pinned_columns=list(_COLUMNS),
        )
        colors = {
            wr.RunsetGroup(_RUNS, (wr.RunsetGroupKey(wr.Config("row"), name),)): color
            for name, color in zip(names, _colors(len(names)), strict=True)
        }
        return wr.PanelGrid(runsets=[runs], panels=list(panels), custom_run_colors=colors)

    of_rows = {"groupby": wr.Config("row"), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    lines = [
        wr.LinePlot(
            title=name,
            x="trainer/global_step",
            y=[name],
            max_runs_to_show=len(names),
            layout=_place(wr, i),
            **of_rows,
        )
        for i, name in enumerate(curves)
    ]
    bars = wr.BarPlot(
        title="test mAP at the best epoch, mean over seeds",
        metrics=[wr.SummaryMetric("best/test/mAP")],
        max_bars_to_show=len(names),
        layout=wr.Layout(x=0, y=0, w=12, h=10),
        **of_rows,
    )
    scatter = wr.ScatterPlot(
        title="test mAP at the best epoch against lambda",
        x=wr.Config("lambda"),
        y=wr.SummaryMetric("best/test/mAP"),
        layout=wr.Layout(x=12, y=0, w=12, h=10),
    )
    comparer = wr.RunComparer(diff_only="split", layout=wr.Layout(x=0, y=10, w=24, h=12))
    media = wr.MediaBrowser(
        title="heatmaps by epoch", media_keys=["val/heatmaps"], layout=wr.Layout(x=0, y=0, w=24, h=14)
    )
    table = wr.WeavePanelSummaryTable(table_name="test/AP_by_label", layout=wr.Layout(x=0, y=14, w=24, h=10))
    return wr.Report(
        project=project,
        entity=entity,
        title=contents.title[:128],  # W&B takes no longer one
        description=f"Metrics in percent, protocol {contents.protocol}; made by vac report",
        width="fluid",
        blocks=[
            wr.MarkdownBlock(_markdown(contents)),
            wr.H2("Results"),
            grid(bars, scatter, comparer),
            wr.H2("Learning curves by loss term"),
            grid(*lines),
            wr.H2("Heatmaps, and AP by label"),
            grid(media, table),
        ],
    )


def view(contents: Contents, entity: str, project: str) -> Workspace:
    """A saved view of the project: these runs alone, grouped by row, a colour a row, best/test/mAP beside each name.

    Raises:
        ValueError: as `definition`.
    """
    _reports()
    import wandb_workspaces.workspaces as ws

    names = _row_names(contents)
    settings = ws.RunsetSettings(
        filters=_filter(contents),
        groupby=[ws.Config("row")],
        order=[ws.Ordering(ws.Config(word), ascending=True) for word in ("row", "lambda", "seed")],
        group_colors=dict(zip(names, _colors(len(names)), strict=True)),
        pinned_columns=list(_COLUMNS),
    )
    return ws.Workspace(
        entity=entity,
        project=project,
        name=contents.title.encode("ascii", "ignore").decode()[:128] or "vac report",  # W&B takes no emoji here
        settings=ws.WorkspaceSettings(x_axis="trainer/global_step", max_runs=max(10, len(names))),
        runset_settings=settings,
        auto_generate_panels=True,
    )


def destination(contents: Contents) -> tuple[str | None, str]:
    """Entity (None: the login's own) and project that the runs were logged to.

    Raises:
        ValueError: no run was logged to W&B, or runs were logged to several projects.
    """
    nodes = [results["config"].get("logger") for results in _results(contents)]
    found = {(node.get("entity"), node["project"]) for node in nodes if node and "project" in node}
    if len(found) != 1:
        said = "of several W&B projects: report them apart" if found else "not logged to W&B: train with logger=wandb"
        raise ValueError(f"these runs are {said}")
    return found.pop()


def publish(contents: Contents, entity: str | None, project: str) -> str:
    """Create the report in W&B, or renew the one of the same title, and return its address.

    The first time the saved view is created too.

    Raises:
        ValueError: as `definition`.
        PermissionError: not logged in.
        ConnectionError: the server does not answer, or does not take the report.
    """
    _reports()
    account.login()
    import wandb

    try:
        api = wandb.Api()
        entity = entity or str(api.default_entity)
        report = definition(contents, entity, project)
        before = [old for old in _existing(api, entity, project) if old.display_name == report.title]
        if before:
            report.id = before[0].id
        report.save()
        if not before:
            view(contents, entity, project).save()
    except Exception as error:  # W&B raises types of its own, by version
        raise ConnectionError(f"W&B did not take the report: {error}") from error
    return str(report.url)


_RUNS = "rows"
_CURVES = ("train/loss", "train/loss_c", "train/loss_a", "val/mAP")
_COLUMNS = (
    "run:displayName",
    "config:row.value",
    "config:seed.value",
    "config:lambda.value",
    "config:transform.value",
    "config:backbone_name.value",
    "summary:best/test/mAP",
    "summary:last/test/mAP",
    "summary:best/epoch",
)


def _reports() -> Any:
    try:
        import wandb_workspaces.reports.v2 as reports
    except ModuleNotFoundError as error:
        raise ValueError('--wandb: not installed; pip install "vac_lightning[wandb-report]"') from error
    return reports


def _existing(api: Any, entity: str, project: str) -> list[Any]:
    try:
        return list(api.reports(f"{entity}/{project}"))
    except ValueError:  # W&B's word for a project that does not exist yet
        return []


def _results(contents: Contents) -> list[dict[str, Any]]:
    results = [run.results() for row in contents.rows for run in row.runs]
    if not results:
        raise ValueError("there is no finished run to report to W&B")
    return results


def _row_names(contents: Contents) -> list[str]:
    return list(dict.fromkeys(str(results["row"]) for results in _results(contents)))


def _filter(contents: Contents) -> str:
    experiments = sorted({str(results["experiment"]) for results in _results(contents)})
    # A Python expression, whose strings Python itself quotes; of lists of names W&B's own quoting breaks at a quote.
    return f'Config("experiment") in {experiments!r} and Config("row") in {_row_names(contents)!r}'


def _colors(count: int) -> list[str]:
    """As many hues, evenly spaced, as #rrggbb."""
    hues = [colorsys.hls_to_rgb(i / count, 0.45, 0.65) for i in range(count)]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in hue) for hue in hues]


def _place(wr: Any, number: int) -> Any:
    """Three panels a line, on W&B's grid of 24 columns."""
    return wr.Layout(x=8 * (number % 3), y=8 * (number // 3), w=8, h=8)


def _markdown(contents: Contents) -> str:
    lines = [f"- {as_text(note)}" for note in contents.notes]
    lines += ["", "| row | published mAP | best epoch | last epoch | seeds |", "|---|---:|---:|---:|---:|"]
    for row in contents.rows:
        cells = [as_text(row.name), plain(row.published.get("mAP")), *(_mean(row, epoch) for epoch in ("best", "last"))]
        lines.append("| " + " | ".join([*cells, ", ".join(map(str, row.seeds))]) + " |")
    return "\n".join(lines).strip() + "\n"


def _mean(row: Row, epoch: str) -> str:
    return "missing" if row.state == "missing" else cell(row.metrics.get(epoch, {}).get("mAP", ()))
