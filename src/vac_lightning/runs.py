"""The run folder: what is in it, writing it atomically, finding and reading many."""

from __future__ import annotations

__all__ = [
    "Place",
    "Run",
    "find_folders",
    "find_runs",
    "find_unfinished",
    "read_arrays",
    "read_predictions",
    "row_name",
    "run_dir",
    "versions",
    "write_atomically",
]

import csv
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREDICTIONS = ("index", "logits", "targets")
"""The arrays of predictions.npz: (N,), (N, L) and (N, L), of one split in its order."""


@dataclass(frozen=True)
class Run:
    """One run folder: `.hydra/`, `results.json`, `predictions.npz`, `metrics.csv`, `checkpoints/`, `heatmaps/`.

    results.json is written last and atomically, so a folder that has one is a finished run.
    """

    path: Path

    @property
    def finished(self) -> bool:
        return (self.path / "results.json").is_file()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def heatmaps(self) -> Path:
        return self.path / "heatmaps"

    @contextmanager
    def alone(self, seconds: float) -> Iterator[None]:
        """Keep other processes from writing here inside the block; a killed process keeps nobody.

        Waits so long for one that is there already. A file system without locks keeps nobody either.

        Raises:
            BlockingIOError: another process is still there.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / ".lock"
        deadline = time.monotonic() + seconds
        while True:
            with path.open("w") as file:
                try:
                    if fcntl is not None:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(0.2)
                    continue
                except OSError:
                    pass
                if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                    continue  # the one before removed it in between
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return

    def results(self) -> dict[str, Any]:
        """The contents of results.json. Raises FileNotFoundError for an unfinished run."""
        return dict(json.loads((self.path / "results.json").read_text()))

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write results.json whole or not at all; a NaN (a label without positives) becomes null."""
        text = json.dumps(_without_nan(results), indent=2, allow_nan=False) + "\n"
        write_atomically(self.path / "results.json", lambda file: file.write(text.encode()))

    def attention(self) -> dict[str, Any] | None:
        """The contents of attention.json, None where the run was not asked for it.

        "before" and "after" training: letter -> {"relative", "mse"}; "localisation": name -> percent, or None.
        """
        path = self.path / "attention.json"
        return dict(json.loads(path.read_text())) if path.is_file() else None

    def write_attention(self, found: Mapping[str, Any]) -> None:
        """Write attention.json whole or not at all."""
        text = json.dumps(_without_nan(found), indent=2, allow_nan=False) + "\n"
        write_atomically(self.path / "attention.json", lambda file: file.write(text.encode()))

    def predictions(self) -> dict[str, np.ndarray]:
        """index (N,), logits (N, L) and targets (N, L) of the test split at the best epoch."""
        return read_predictions(self.path / "predictions.npz")

    def write_predictions(self, index: np.ndarray, logits: np.ndarray, targets: np.ndarray) -> None:
        """Write predictions.npz whole or not at all."""
        arrays = {"index": index, "logits": logits, "targets": targets}
        write_atomically(self.path / "predictions.npz", lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]

    def remove_unfinished_files(self) -> None:
        """Remove what a process that was killed in the middle of `write_atomically` left."""
        for folder in (self.path, self.checkpoints, self.heatmaps, self.path / ".hydra"):
            for path in folder.glob(".*.[0-9]*"):
                if path.is_file() and path.suffix[1:].isdigit():
                    path.unlink(missing_ok=True)

    def history(self) -> dict[int, dict[str, float]]:
        """Epoch -> the metrics logged in it, from metrics.csv; of a name logged more than once, the last value.

        A line without an epoch, as the learning rate's, belongs to the epoch that the next line names.
        """
        epochs: dict[int, dict[str, float]] = {}
        path = self.path / "metrics.csv"
        rows = csv.DictReader(io.StringIO(path.read_text())) if path.is_file() else ()
        waiting: dict[str, float] = {}
        for row in rows:
            waiting |= {name: float(value) for name, value in row.items() if value not in (None, "")}
            if "epoch" in waiting:
                epochs.setdefault(int(waiting.pop("epoch")), {}).update(waiting)
                waiting = {}
        return epochs


def find_runs(paths: Iterable[Path | str]) -> list[Run]:
    """All finished runs at or below the given folders, sorted by path.

    Raises:
        FileNotFoundError: a path that does not exist, or one without a finished run.
    """
    found: set[Path] = set()
    for path in map(Path, paths):
        below = {folder for folder, files in _walk(path) if "results.json" in files}
        if not below:
            state = "has no finished run (no results.json) in or below it" if path.exists() else "does not exist"
            raise FileNotFoundError(f"{path} {state}")
        found |= below
    return [Run(path) for path in sorted(found)]


def find_folders(path: Path) -> list[Run]:
    """All runs at or below a folder, finished or not, sorted by path."""
    marks = ("results.json", "status.json", ".hydra/config.yaml")
    found: list[Run] = []
    for folder, below, _ in os.walk(path):
        below.sort()
        if any(Path(folder, mark).is_file() for mark in marks):
            found.append(Run(Path(folder)))
            below.clear()  # what lies inside a run, such as attempts set aside, is its own
    return sorted(found, key=lambda run: run.path)


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """index (N,), logits (N, L) and targets (N, L) of a predictions.npz; nothing in it is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged or holds code, or arrays that are missing, do not fit, or repeat a sample.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; vac train leaves a predictions.npz in every run folder")
    held = read_arrays(path)
    if missing := [name for name in PREDICTIONS if name not in held]:
        raise ValueError(f"{path} has no {', '.join(missing)}; expected {', '.join(PREDICTIONS)}")
    arrays = {name: held[name] for name in PREDICTIONS}
    index, logits, targets = arrays.values()
    shapes = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
    numbers = index.dtype.kind in "iu" and logits.dtype.kind in "fiu" and targets.dtype.kind in "fiub"
    if not numbers or logits.ndim != 2 or targets.shape != logits.shape or index.shape != logits.shape[:1]:
        raise ValueError(f"{path} holds {shapes}: expected numbers, index (N,), logits (N, L), targets (N, L)")
    samples, times = np.unique(index, return_counts=True)
    if (times > 1).any():
        raise ValueError(f"{path}: index {samples[times > 1][0]} comes more than once, and a sample counts once")
    return arrays


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, which hold data alone: objects would be pickles, and could run code.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds objects.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever zipfile, zlib and NumPy make of bytes that are not theirs
        raise ValueError(f"{path} is damaged or holds objects instead of numbers, and was not loaded") from error


@dataclass(frozen=True)
class Place:
    """Where a run lies below runs/, which names it before it is finished."""

    experiment: str
    row: str
    seed: int


def find_unfinished(paths: Iterable[Path | str]) -> dict[Run, Place]:
    """Run folders at or below the given ones that were begun and are not finished, sorted by path.

    They are known by <experiment>/<row>/seed=<n>: a run that was put elsewhere by run_dir=PATH has no name yet.
    """
    found: dict[Run, Place] = {}
    for folder in sorted({folder for path in paths for folder, _ in _walk(Path(path).absolute())}):
        seed = folder.name.removeprefix("seed=")
        if seed == folder.name or not seed.isdecimal() or len(folder.parts) <= 3:
            continue
        begun = any((folder / name).exists() for name in ("metrics.csv", "status.json", "checkpoints"))
        if begun and not Run(folder).finished:
            found[Run(folder)] = Place(folder.parts[-3], folder.parts[-2], int(seed))
    return found


def row_name(backbone: str, transform: str, lambda_: float, variant: str | None = None) -> str:
    """A row's name as in the paper's Table 1: R50, R50+f (augmentation only), R50+ACf.

    A lambda other than 1 is named, and so is a variant: what else tells it from rows of the same name. A row is one
    folder, so the / of a backbone such as hf-hub:timm/resnet18 becomes a dash.
    """
    attention = "AC" if lambda_ > 0 else ""
    name = backbone if transform == "none" else f"{backbone}+{attention}{transform}"
    if transform != "none" and lambda_ not in (0, 1):
        name += f"_lambda={lambda_:g}"
    return (name if variant is None else f"{name}_{variant}").replace("/", "-")


def run_dir(runs_dir: str, experiment: str, row: str, seed: int) -> str:
    """Where a run lies unless it is told otherwise: runs/<experiment>/<row>/seed=<n>, as an absolute path."""
    return str(Path(runs_dir, str(experiment), str(row), f"seed={seed}").absolute())


def versions() -> dict[str, str]:
    """Versions of the packages a result depends on."""
    names = (
        "vac_lightning",
        "torch",
        "torchvision",
        "pytorch-lightning",
        "torchmetrics",
        "numpy",
        "opencv-python-headless",
    )
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_atomically(path: Path, write: Callable[[BinaryIO], object], previous: Path | None = None) -> None:
    """Write a file beside its place, flush it to the disk, and move it there in one step.

    A file that was there becomes `previous`, where one is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _walk(path: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folder and all below it, and the files of each; one that vanishes meanwhile, as in a sweep, is left out."""
    for folder, _, files in os.walk(path):
        yield Path(folder), files


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nan(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(child) for child in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
