"""What `vac doctor` prints: splits, labels and findings as tables, and labels.csv."""

from __future__ import annotations

__all__ = ["labels_csv", "print_findings", "print_labels", "print_splits"]

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from vac_lightning.data.doctor.checks import PUBLISHED_RATIO_TOLERANCE
from vac_lightning.data.doctor.findings import Finding, table
from vac_lightning.data.doctor.overview import Overview
from vac_lightning.names import shown


def labels_csv(overviews: Mapping[str, Overview]) -> str:
    """Every label of every split: its samples by what they are, p, and the published p."""
    columns = ("split", "label", "positive", "negative", "unspecified", "p", "published")
    rows: list[Sequence[object]] = []
    for name, of in overviews.items():
        counts = zip(of.positive.tolist(), of.negative.tolist(), of.unspecified.tolist(), strict=True)
        ratios = zip((f"{p:.6f}" for p in of.ratio), _published(of), strict=True)
        rows += [(name, label, *c, *r) for label, c, r in zip(of.labels, counts, ratios, strict=True)]
    return table(columns, rows)


def print_splits(console: Console, overviews: Mapping[str, Overview]) -> None:
    """A line a split, and a line on its files."""
    if not overviews:
        return
    grid = Table("split", title="splits")
    for column in ("images", "published", "samples", "published", "labels", "positive a sample", "unspecified"):
        grid.add_column(column, justify="right")
    for name, of in overviews.items():
        cells = of.samples * len(of.labels)
        grid.add_row(
            name,
            *map(_count, (of.images, of.published.images, of.samples, of.published.samples, len(of.labels))),
            f"{of.positive.sum() / of.samples:.2f}",
            f"{of.unspecified.sum() / cells:.1%}",
        )
    console.print(grid)
    for name, of in overviews.items():
        if of.images is None:
            console.print(f"{name}: not photographs from files, so there are none to inspect", soft_wrap=True)
        elif of.sizes:
            console.print(f"{name}: {_of_files(of)}", soft_wrap=True)


def _of_files(of: Overview) -> str:
    """Formats, sizes and orientations of a split's files, in a line."""
    total = of.sizes.total()
    sides = np.repeat(np.array(list(of.sizes)), list(of.sizes.values()), axis=0)
    spans = (
        f"{side} {values.min()} to {values.max()}, median {np.median(values):.0f}"
        for side, values in zip(("width", "height"), sides.T, strict=True)
    )
    common = ", ".join(f"{w} x {h} ({count / total:.0%})" for (w, h), count in of.sizes.most_common(3))
    formats = ", ".join(f"{count:,} {shown(name)}" for name, count in of.formats.most_common())
    turned = f"; {of.turned:,} turned by EXIF" if of.turned else ""
    return f"{formats}; {'; '.join(spans)}; most often {common}{turned}"


def print_labels(console: Console, overviews: Mapping[str, Overview]) -> None:
    """A line a label: its positive samples by split, p, the published p, the share of unspecified samples."""
    labels = next((of.labels for of in overviews.values()), ())
    if not labels or any(of.labels != labels for of in overviews.values()):
        return  # what differs is among the findings
    grid = Table("label", title="labels: positive samples, p their share")
    columns = []
    for name, of in overviews.items():
        for title, cells in _label_columns(name, of).items():
            grid.add_column(title, justify="right")
            columns.append(cells)
    for j, label in enumerate(labels[:_MOST_LABELS]):
        grid.add_row(shown(label), *(cells[j] for cells in columns))
    console.print(grid)
    if len(labels) > _MOST_LABELS:
        console.print(f"and {len(labels) - _MOST_LABELS} more labels in labels.csv")


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """A line a kind of finding, with how many there are and the first of them."""
    if not findings:
        return
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.kind), []).append(finding)
    grid = Table("severity", "kind", title="findings")
    grid.add_column("count", justify="right")
    grid.add_column(f"the first {_EXAMPLES}", overflow="fold")
    for (severity, kind), found in kinds.items():
        examples = "\n".join(map(_example, found[:_EXAMPLES]))
        grid.add_row(severity, kind, f"{len(found):,}", examples)
    console.print(grid)


def _label_columns(name: str, of: Overview) -> dict[str, list[str]]:
    """The columns of a split in the table of labels."""
    columns = {name: [f"{count:,}" for count in of.positive], f"p ({name})": [f"{p:.4f}" for p in of.ratio]}
    published = _published(of)
    if any(published):
        off = [None if p is None else own - p for own, p in zip(of.ratio.tolist(), published, strict=True)]
        columns["published"] = ["" if p is None else f"{p:.4f}" for p in published]
        columns["difference"] = [
            "" if by is None else f"{by:+.4f}{' !' if abs(by) > PUBLISHED_RATIO_TOLERANCE else ''}" for by in off
        ]
    if of.unspecified.any():
        columns["unspecified"] = [f"{count / of.samples:.1%}" for count in of.unspecified]
    return columns


def _example(finding: Finding) -> str:
    sample = "" if finding.sample is None else f"sample {finding.sample}"
    box = "" if finding.box is None else f"[{', '.join(f'{value:g}' for value in finding.box)}]"
    where = " ".join(filter(None, (finding.split, sample, finding.file, box, finding.label)))
    return shown(f"{where}: {finding.detail}")


def _published(of: Overview) -> Sequence[float | None]:
    """The published p of every label, where there are as many as labels."""
    ratios = of.published.positive_ratio
    return ratios if ratios is not None and len(ratios) == len(of.labels) else [None] * len(of.labels)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


_EXAMPLES = 2
_MOST_LABELS = 100
