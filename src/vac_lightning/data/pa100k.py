"""PA-100K: 100,000 pedestrians, an image each, 26 attributes that are positive or negative."""

from __future__ import annotations

__all__ = ["pa100k"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vac_lightning.data import obtaining
from vac_lightning.data.annotations.indexing import Index, checked
from vac_lightning.data.annotations.matlab import Value, variables
from vac_lightning.data.annotations.records import blame, needs_first_file, record, split_of
from vac_lightning.data.base import DataError, Published
from vac_lightning.data.reading import PhotoIndex, Photos


def pa100k(
    role: str,
    sizes: Sequence[int],
    *,
    root: str,
    splits: Mapping[str, str],
    **options: Any,
) -> Photos:
    """One split of PA-100K (Liu et al., HydraPlus-Net, ICCV 2017), a sample for each image.

    role: "train", "val" or "test"; `splits` maps it to one of the official splits, "train", "val", "test", or to
        "trainval".
    sizes: sides in pixels of the square images a sample holds.
    root: the folder that holds annotation.mat, by itself or in annotation/, and, in any of the usual places, the
        images.
    options: those of Photos: how an image is read.

    Raises:
        DataError: an unknown role or split; files that are missing or malformed.
    """
    split = split_of(role, splits, _PARTS)
    base = Path(root).expanduser()
    places = [base / "annotation.mat", base / "annotation" / "annotation.mat"]
    file = next(filter(Path.is_file, places), None)
    if file is None:
        raise DataError(f"not found: {' or '.join(map(str, places))}. {obtaining.PA100K}")
    index = _index(file, _PARTS[split], base / _FOLDERS[0])
    needed = index.names[:1] if needs_first_file(options) else index.names
    folders = (base / folder for name in needed for folder in _FOLDERS if (base / folder / name).is_file())
    folder = next(folders, None)
    if folder is None:
        raise DataError(
            f"not found: {base / _FOLDERS[0] / needed[0]}, the first image of {split!r} that {file} names (nor in "
            f"{', '.join(_FOLDERS[1:-1])} or beside it). {obtaining.PA100K}"
        )
    photos = PhotoIndex(folder, index.names, np.arange(len(index.names), dtype=np.int32))
    return Photos(photos, index.targets, index.labels, sizes, base, role=role, published=_PUBLISHED[split], **options)


_FOLDERS = ("release_data", "release_data/release_data", "data", ".")
_PARTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}
_RATIO = (
    "0.460444 0.013456 0.924378 0.062167 0.352667 0.294622 0.352711 0.043544 0.179978 0.185000 0.192733 0.160100 "
    "0.009522 0.583400 0.416600 0.049478 0.151044 0.107756 0.041911 0.004722 0.016889 0.032411 0.711711 0.173444 "
    "0.114844 0.006000"
)
_PUBLISHED = {
    "train": Published(80_000, 80_000, tuple(map(float, _RATIO.split()))),
    "val": Published(10_000, 10_000),
    "trainval": Published(90_000, 90_000),
    "test": Published(10_000, 10_000),
}


def _index(file: Path, parts: Sequence[str], folder: Path) -> Index:
    names: list[str] = []
    targets: list[NDArray[np.int8]] = []
    with blame(file):
        content = variables(file, {"attributes", *(f"{part}_{key}" for part in parts for key in _KEYS)})
        labels = _texts(content, "attributes")
        for part in parts:
            own, values = _texts(content, f"{part}_{_KEYS[0]}"), content[f"{part}_{_KEYS[1]}"]
            if not isinstance(values, np.ndarray) or values.shape != (len(own), len(labels)):
                size = " x ".join(map(str, values.shape)) if isinstance(values, np.ndarray) else "no matrix of numbers"
                raise ValueError(
                    f"{part}_label is {size}, where {len(own)} images and {len(labels)} attributes are named"
                )
            known = np.isin(values, (0, 1))
            good = known.all(1)
            for row in np.flatnonzero(~good).tolist():
                with record(f"{file}, {part} image {row} ({own[row]})"):
                    column = int(known[row].argmin())
                    raise ValueError(f"{labels[column]!r} is {values[row, column]}, neither 1 nor 0")
            names += [own[row] for row in np.flatnonzero(good).tolist()]
            targets.append(values[good].astype(np.int8))
    index = checked(Index(labels, names, np.concatenate(targets)), file, folder)
    if not index.names:
        raise DataError(f"{file} has no image of {' or '.join(parts)}: fetch the file again")
    return index


_KEYS = ("images_name", "label")


def _texts(content: Mapping[str, Value], key: str) -> list[str]:
    """The texts of cells, N x 1 of one text each."""
    cells = content[key]
    if not isinstance(cells, list):
        raise ValueError(f"{key} is no column of cells")
    for number, cell in enumerate(cells):
        if not isinstance(cell, str) or not cell:
            raise ValueError(f"cell {number} of {key} is no text")
    return [str(cell) for cell in cells]
