"""`vac doctor data=...`: what is wrong with a data set, or worth a look, before hours are spent on it."""

from __future__ import annotations

__all__ = ["doctor", "main"]

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from omegaconf import DictConfig

from vac_lightning.commands import app

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console


def main() -> int:
    return app.main("doctor", doctor)


def doctor(config: DictConfig) -> None:
    """Print what the splits of all roles hold and what is wrong with them; write it to out/findings.csv, labels.csv.

    Raises:
        RunError: errors were found, or, where strict, anything.
    """
    from vac_lightning.commands import diagnosis
    from vac_lightning.commands.dataset import dataset
    from vac_lightning.data.doctor import checks
    from vac_lightning.data.doctor.findings import as_csv
    from vac_lightning.data.doctor.overview import overview
    from vac_lightning.runs import write_atomically

    app.quieten()
    console, out = app.console(), Path(config.out)
    with app.usage():
        splits, findings = checks.read_splits(dataset(config), (config.image_size, *config.small_sizes))
    with _progress(console) as progress:
        facts = checks.inspect_splits(splits, config.threads, progress)
    findings += checks.check(splits, facts, skips=config.data.get("on_bad_image") == "skip")
    findings.sort(key=lambda finding: finding.severity)  # errors first
    overviews = {name: overview(split, facts) for name, split in splits.items()}
    texts = {"findings.csv": as_csv(findings), "labels.csv": diagnosis.labels_csv(overviews)}
    with app.usage():
        for name, text in texts.items():
            write_atomically(out / name, partial(_write, text))
    diagnosis.print_splits(console, overviews)
    diagnosis.print_labels(console, overviews)
    diagnosis.print_findings(console, findings)
    for name in texts:
        console.print(f"{name.partition('.')[0]}: {out / name}", soft_wrap=True)
    errors = sum(finding.severity == "error" for finding in findings)
    found = f"errors: {errors}, warnings: {len(findings) - errors}"
    if errors or (config.strict and findings):
        raise app.RunError(f"{found}; see {out / 'findings.csv'}")
    console.print(found)


def _write(text: str, file: BinaryIO) -> None:
    file.write(text.encode())


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing in a pipe; decoders' warnings are left out: what matters is among the findings."""
    from rich.progress import Progress

    with warnings.catch_warnings(), Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        warnings.simplefilter("ignore")
        task = bar.add_task("files decoded", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    sys.exit(main())
