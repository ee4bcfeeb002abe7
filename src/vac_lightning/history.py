"""metrics.csv: written row by row while a run trains, and carried on where a killed run goes on."""

from __future__ import annotations

__all__ = ["MetricsFile"]

import csv
import io
import logging
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from vac_lightning.runs import write_atomically

log = logging.getLogger(__name__)


class MetricsFile(Logger):
    """metrics.csv, a row whenever something is logged, on the disk at once.

    Not Lightning's CSVLogger, which deletes the file of an earlier attempt, and rewrites it in place where a new
    name is logged: a run killed then would lose its history.

    Args:
        path: the file.
        keep: rows of an earlier attempt to keep; what it logged after them is logged again.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        super().__init__()
        self.path = path
        self._rows = _rows(path)[:keep] if keep else []
        self._names = sorted({name for row in self._rows for name in row})
        if len(self._rows) < keep:
            log.warning("%s holds %d of the %d rows logged before", path, len(self._rows), keep)
        self._start()

    @property
    def rows(self) -> int:
        """How many rows were logged so far."""
        return len(self._rows)

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run folder holds the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {name: str(float(value)) for name, value in metrics.items() if name != "epoch"}
        row |= {name: str(int(metrics[name])) for name in ("epoch",) if name in metrics}
        row["step"] = str(len(self._rows) if step is None else step)
        self._rows.append(row)
        if set(row) <= set(self._names):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._names).writerow(row)
        else:
            self._names = sorted({*self._names, *row})
            self._rewrite()

    @rank_zero_only
    def _start(self) -> None:
        if self._rows:
            self._rewrite()
        else:
            self.path.unlink(missing_ok=True)

    def _rewrite(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._names)
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self.path, lambda file: file.write(text.getvalue().encode()))


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv without their empty cells."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if name and value} for row in csv.DictReader(file)]
