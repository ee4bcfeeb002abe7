"""Sentences on what must be known to read a report's numbers."""

from __future__ import annotations

__all__ = ["notes"]

from collections.abc import Mapping, Sequence

import numpy as np

from vac_lightning.report.contents import Comparison, Row
from vac_lightning.report.results import Result
from vac_lightning.runs import Place, Run


def notes(
    rows: Sequence[Row],
    results: Mapping[Run, Result],
    begun: Mapping[Run, Place],
    compared: Sequence[Comparison],
    resamples: int,
) -> list[str]:
    """rows, results: of the report. begun: unfinished runs. compared: by how many resamples."""
    done = [row for row in rows if row.runs]
    everything = list(results.values())
    said: list[str] = []
    if done:
        said.append(
            "Metrics are in percent on the test split, mean ± standard deviation over seeds (n - 1), of the best epoch"
            " unless said otherwise."
        )
        chosen = dict.fromkeys(row.chosen_on for row in done)
        said.append(f"The best epoch was chosen on {'; or on '.join(chosen)}.")
        if any("'test'" in each for each in chosen):
            said.append(
                "Where that split is the test split, as in the authors' code, the best epoch is chosen on what it is"
                " tested on, and flatters; the last epoch does not."
            )
    if any(row.published for row in rows):
        said.append(
            "Published numbers are the paper's, of one training; a difference is ours less published, in points."
        )
    if any(name.startswith("top3_") for row in done for name in row.metrics["best"]):
        said.append(
            "The top-3 metrics are of the three highest-scoring labels of each sample, and of the best epoch alone."
        )
    seeds = {len(row.seeds) for row in done}
    if len(seeds) > 1:
        said.append(
            "Rows have different numbers of seeds: " + ", ".join(f"{r.name} {len(r.seeds)}" for r in done) + "."
        )
    elif seeds == {1}:
        said.append("Each row is a single training: how far seeds differ is not known.")
    if begun:
        of_rows = sorted({place.row for place in begun.values()})
        said.append(f"Not finished yet, and not in the table: {len(begun)} runs, of {', '.join(of_rows)}.")
    missing = [row.name for row in rows if row.state == "missing"]
    if missing:
        said.append(f"No finished run of: {', '.join(missing)}.")
    without = _without_positives(everything)
    if without:
        said.append(f"Left out of mAP, as the test split has no positive sample of it: {', '.join(without)}.")
    if len({result.data for result in everything if result.data}) > 1:
        said.append("The runs were tested on different data.")
    if len({tuple(sorted(result.versions.items())) for result in everything if result.versions}) > 1:
        said.append("The runs were made with different versions of packages.")
    devices = sorted({result.device for result in everything if result.device})
    if len(devices) > 1:
        said.append(f"The runs were made on different devices: {', '.join(devices)}.")
    if compared:
        said.append(
            "Compared is the mAP of the best epoch of each row with attention consistency, with the row of its"
            " transform as plain augmentation and with the row without a transform, over the seeds that both have:"
            f" {resamples} resamples of the test samples, the same for both rows and all seeds; 95 % percentile"
            " interval; p is one-sided. The bootstrap is over samples: how far trainings differ is not in its interval"
            " or p, and the number of seeds in which the row is better says something of it."
        )
    return said


def _without_positives(results: Sequence[Result]) -> list[str]:
    return sorted(
        {
            label
            for result in results
            for label in result.labels
            if np.isnan(result.metrics["best"].get(f"AP/{label}", 0.0))
        }
    )
