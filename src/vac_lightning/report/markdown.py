"""A report as GitHub Markdown: everything that a README can show."""

from __future__ import annotations

__all__ = ["document"]

from collections.abc import Iterable, Mapping, Sequence

from vac_lightning.report import table
from vac_lightning.report.contents import Contents, Row
from vac_lightning.report.table import as_text


def document(contents: Contents, command: str = "", figure: str = "") -> str:
    """The whole report. command: that made it. figure: the file name of Figure 5, where there is one."""
    published = [row for row in contents.rows if row.published]
    sections = [
        (f"{contents.title}: best epoch", _results(contents, "best")),
        ("Last epoch", _results(contents, "last")),
        ("As published", _published(contents, published)),
        ("Difference from published, in points", _differences(contents, published)),
        ("Comparisons", _comparisons(contents)),
        ("mAP against lambda", _lambdas(contents)),
        ("Consistency error by transform", _attention(contents)),
        ("Heatmaps against masks, in percent", _localisation(contents)),
        ("AP by label", _labels(contents)),
        ("Figure 5", f"![Heatmaps of one label on the mirrored, the original and the smaller image]({figure})\n"),
        (f"Configuration against {next(iter(contents.differences), '')}", _configurations(contents)),
        ("Cost", _costs(contents)),
        ("Notes", _listed(contents.notes)),
        ("Made with", _made_with(contents, command)),
    ]
    if not figure:
        sections = [section for section in sections if section[0] != "Figure 5"]
    shown_sections = [f"## {as_text(title)}\n\n{body}" for title, body in sections if body]
    heading = f"# {as_text(contents.title or 'report')}\n\nTest metrics in percent, protocol {contents.protocol}.\n"
    return "\n".join([heading, *shown_sections])


def _results(contents: Contents, epoch: str) -> str:
    """Our numbers, the best of a column in bold and the second underlined; of mAP also the published ones."""
    metrics = [m for m in contents.metrics if epoch == "best" or not m.startswith("top3_")]
    beside = epoch == "best" and any("mAP" in row.published for row in contents.rows)
    names = ["row", "seeds"]
    for metric in metrics:
        names += [metric, "published", "difference"] if metric == "mAP" and beside else [metric]
    lines = []
    marked = {metric: table.ranks(table.means(contents.rows, epoch, metric)) for metric in metrics}
    for row in contents.rows:
        if row.state == "published" and not beside:
            continue
        cells = [as_text(row.name), str(len(row.seeds)) if row.runs else row.state]
        for metric in metrics:
            cells.append(_marked(table.cell(_values(row, epoch, metric)), marked[metric].get(row.name)))
            if metric == "mAP" and beside:
                cells.append(table.plain(row.published.get("mAP")))
                cells.append(table.signed(table.difference(row, epoch, "mAP")))
        lines.append(cells)
    return _grid(names, lines)


def _published(contents: Contents, rows: Sequence[Row]) -> str:
    metrics = [metric for metric in contents.metrics if any(metric in row.published for row in rows)]
    marked = {m: table.ranks({row.name: row.published[m] for row in rows if m in row.published}) for m in metrics}
    lines = [
        [as_text(row.name), *(_marked(table.plain(row.published.get(m)), marked[m].get(row.name)) for m in metrics)]
        for row in rows
    ]
    return _grid(["row", *metrics], lines)


def _differences(contents: Contents, rows: Sequence[Row]) -> str:
    done = [row for row in rows if row.runs]
    metrics = [metric for metric in contents.metrics if any(metric in row.published for row in done)]
    lines = [
        [as_text(row.name), *(table.signed(table.difference(row, "best", metric)) for metric in metrics)]
        for row in done
    ]
    return _grid(["row", *metrics], lines)


def _comparisons(contents: Contents) -> str:
    lines = [
        [
            f"{as_text(each.row)} better than {as_text(each.baseline)}",
            table.signed(each.difference, 2),
            f"{table.signed(each.low, 2)} to {table.signed(each.high, 2)}",
            table.p_value(each.p_value),
            f"{each.seeds_better} of {len(each.seeds)}",
            str(each.samples),
        ]
        for each in contents.comparisons
    ]
    return _grid(["mAP, best epoch", "difference", "95 % interval", "p", "seeds in which better", "samples"], lines)


def _lambdas(contents: Contents) -> str:
    lambdas = sorted({value for series in contents.lambdas for value in series.lambdas})
    lines = []
    for series in contents.lambdas:
        of = {value: table.cell(mAP) for value, mAP in zip(series.lambdas, series.mAP, strict=True)}
        lines.append([as_text(series.name), *(of.get(value, "") for value in lambdas)])
    return _grid(["lambda", *(f"{value:g}" for value in lambdas)], lines)


def _attention(contents: Contents) -> str:
    letters = list(dict.fromkeys(x for each in contents.attention for x in [*each.before, *each.after]))
    lines = [
        [as_text(each.row), *(_change(each.before.get(letter), each.after.get(letter)) for letter in letters)]
        for each in contents.attention
        if each.before or each.after
    ]
    text = _grid(["row", *map(as_text, letters)], lines)
    return text and f"Before -> after training; 0 for heatmaps that follow exactly, 1 for unrelated ones.\n\n{text}"


def _change(before: float | None, after: float | None) -> str:
    return " -> ".join("n/a" if value is None else f"{value:.3f}" for value in (before, after))


def _localisation(contents: Contents) -> str:
    names = list(dict.fromkeys(name for each in contents.attention for name in each.localisation))
    lines = [
        [as_text(each.row), *(table.plain(each.localisation.get(name)) for name in names)]
        for each in contents.attention
        if each.localisation
    ]
    return _grid(["row", *map(as_text, names)], lines)


def _labels(contents: Contents) -> str:
    """A line a label, a column a row, unless there are more rows than fit a page: then labels.csv alone has them."""
    if not contents.labels or len(contents.label_ap) > _MOST_COLUMNS or len(contents.labels) > _MOST_LABELS:
        return "In labels.csv.\n" if contents.labels else ""
    lines = []
    for label in contents.labels:
        values = {row: of_row.get(label, ()) for row, of_row in contents.label_ap.items()}
        of_rows = {row: table.summary(each).mean for row, each in values.items()}
        marked = table.ranks({row: value for row, value in of_rows.items() if value == value})
        lines.append([as_text(label), *(_marked(table.plain(of_rows[row]), marked.get(row)) for row in values)])
    return _grid(["label", *map(as_text, contents.label_ap)], lines)


def _configurations(contents: Contents) -> str:
    differing = {row: words for row, words in contents.differences.items() if words}
    return _listed([f"{row}: {', '.join(words)}" for row, words in differing.items()])


def _costs(contents: Contents) -> str:
    lines = [
        [
            as_text(cost.row),
            as_text(cost.device),
            f"{cost.device_hours:.2f}",
            "" if cost.images_per_s is None else f"{cost.images_per_s:.0f}",
            "" if cost.peak_memory_bytes is None else f"{cost.peak_memory_bytes / 2**30:.1f}",
        ]
        for cost in contents.costs
    ]
    return _grid(["row", "device", "device hours", "images/s", "peak GiB a device"], lines)


def _made_with(contents: Contents, command: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in contents.versions.items())
    return "".join(f"{as_text(part)}\n\n" for part in (command, versions) if part).rstrip("\n") + "\n"


def _grid(names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text; "" without a line."""
    rows = ["| " + " | ".join(cells) + " |\n" for cells in lines]
    return "".join([f"| {' | '.join(names)} |\n", f"|---{'|---:' * (len(names) - 1)}|\n", *rows]) if rows else ""


def _listed(sentences: Iterable[str]) -> str:
    return "".join(f"- {as_text(sentence)}\n" for sentence in sentences)


def _values(row: Row, epoch: str, metric: str) -> Sequence[float]:
    return row.metrics[epoch].get(metric, ()) if row.runs else ()


def _marked(text: str, rank: str | None) -> str:
    return _MARKS[rank].format(text) if rank and text else text


_MARKS: Mapping[str, str] = {"best": "**{}**", "second": "<ins>{}</ins>"}
_MOST_COLUMNS = 12
_MOST_LABELS = 100
