"""MS-COCO, and any data set in its format: labels are the categories present in an image."""

from __future__ import annotations

__all__ = ["coco"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vac_lightning.data import obtaining
from vac_lightning.data.annotations.indexing import indexed
from vac_lightning.data.annotations.instances import presence
from vac_lightning.data.annotations.records import needs_first_file, record, split_of
from vac_lightning.data.annotations.splitting import stratified
from vac_lightning.data.base import DataError, Published
from vac_lightning.data.reading import PhotoIndex, Photos


def coco(
    role: str,
    sizes: Sequence[int],
    *,
    root: str,
    splits: Mapping[str, str],
    annotations: str | None = None,
    images: str | None = None,
    crowd: bool = True,
    holdout: float | None = None,
    holdout_seed: int = 0,
    cache_dir: str | None = None,
    **options: Any,
) -> Photos:
    """One split of a data set in COCO's format.

    Every category of the file is a label, in the order of their ids, and every image is a sample. A label is
    positive where the image has any annotation of it and negative elsewhere, also in images without annotations:
    the presence the paper evaluates, as the authors' code reads it.

    role: "train", "val" or "test"; `splits` maps it to a split's name, such as "train2014".
    sizes: sides in pixels of the square images a sample holds.
    root: the folder that the patterns are relative to.
    annotations: pattern of the instances file, by default "annotations/instances_{split}.json", else
        "instances_{split}.json". Where one file is that of several splits, see `_of_split`.
    images: pattern of the image folder, by default "{split}", else "images/{split}".
    crowd: whether annotations of crowds count, as they do in the paper.
    holdout: the share of the training split that becomes the split "holdout", alike in its labels.
    holdout_seed: of what is held out.
    cache_dir: where the index of a large instances file is kept, see `kept_folder`.
    options: those of Photos: how an image is read.

    Raises:
        DataError: an unknown role; files that are missing, malformed, or name unknown images or
            categories or files outside their folder.
        ValueError: a split whose name is no text; a holdout that is no share, leaves nothing, or that no role uses.
    """
    if odd := [name for name in splits.values() if not isinstance(name, str | None)]:
        raise ValueError(f"data.splits names the split {odd[0]!r}: give a text, numbers in quotes")
    split = split_of(role, splits)
    source = split
    if holdout is not None:
        _check_holdout(holdout, splits)
        source = splits["train"] if split == _HOLDOUT else split
    base = Path(root).expanduser()
    file, folder = _found(base, source, annotations, images)
    index = indexed(file, f"coco crowd={crowd}", lambda: presence(file, folder, crowd), cache_dir)
    own = np.arange(len(index.names))
    shared = {*filter(None, splits.values())} - ({_HOLDOUT} if holdout is not None else set())
    if annotations and "{split}" not in annotations and len(shared) > 1:
        own = own[_of_split(source, shared, index.names, base, images, file)]
    if not len(own):
        held_out = " or set data.holdout, the share of train to hold out" if source == _HOLDOUT else ""
        raise DataError(f"{file} has no image of the split {source!r}: check data.splits and data.images{held_out}")
    first = folder / index.names[int(own[0])]
    if needs_first_file(options) and not first.is_file():
        raise DataError(f"not found: {first}, the first image that {file} names. {obtaining.coco(source)}")
    published = None if annotations else _PUBLISHED.get(source)
    if holdout is not None and source == splits["train"]:
        parts = stratified(index.targets[own], (1 - holdout, holdout), holdout_seed)
        count, own, published = len(own), own[(parts == 1) == (split == _HOLDOUT)], None
        if not len(own):
            raise ValueError(f"data.holdout={holdout} of {count} images leaves none for {split!r}: choose another")
    names = [index.names[i] for i in own.tolist()]
    photos = PhotoIndex(folder, names, np.arange(len(names), dtype=np.int32))
    options = {"role": role, "cache_dir": cache_dir, "published": published} | options
    return Photos(photos, index.targets[own], index.labels, sizes, base, **options)


_HOLDOUT = "holdout"
_PUBLISHED = {
    split: Published(images=count, samples=count)
    for split, count in (("train2014", 82783), ("val2014", 40504), ("train2017", 118287), ("val2017", 5000))
}


def _check_holdout(holdout: float, splits: Mapping[str, str]) -> None:
    if not 0 < holdout < 1:
        raise ValueError(f"data.holdout={holdout}: expected a share between 0 and 1, or null")
    if splits.get("train") in (None, _HOLDOUT) or _HOLDOUT not in splits.values():
        raise ValueError(
            f"data.holdout={holdout}: say data.splits.val=holdout to select on what is held out of the training split, "
            "or data.holdout=null"
        )


def _found(base: Path, split: str, annotations: str | None, images: str | None) -> tuple[Path, Path]:
    """The instances file of a split and the folder of its images."""
    patterns = [annotations] if annotations else ["annotations/instances_{split}.json", "instances_{split}.json"]
    files = [base / pattern.replace("{split}", split) for pattern in patterns]
    folders = _folders(base, split, images)
    file, folder = next(filter(Path.is_file, files), None), next(filter(Path.is_dir, folders), None)
    if file is None or folder is None:
        missing = [places for found, places in ((file, files), (folder, folders)) if found is None]
        raise DataError(
            f"not found: {' and '.join(' or '.join(map(str, each)) for each in missing)}. {obtaining.coco(split)}"
        )
    return file, folder


def _folders(base: Path, split: str, images: str | None) -> list[Path]:
    patterns = [images] if images else ["{split}", "images/{split}"]
    return [base / pattern.replace("{split}", split) for pattern in patterns]


def _of_split(
    split: str, splits: set[str], names: Sequence[str], base: Path, images: str | None, file: Path
) -> NDArray[np.bool_]:
    """Which images, of a file that several splits share, are one split's, bool (N,).

    They are those that lie in its folder; where all splits have one folder, those whose name begins with the split.

    Raises:
        DataError: an image that belongs to no split.
    """
    folders = {each: _folders(base, each, images) for each in sorted(splits)}
    by_name = images is not None and "{split}" not in images
    mine = np.zeros(len(names), np.bool_)
    for i, name in enumerate(names):
        with record(file):
            own = {
                each
                for each, places in folders.items()
                if (name.startswith(f"{each}/") if by_name else any((place / name).is_file() for place in places))
            }
            if not own:
                kind = "begins with none of" if by_name else "lies in the folder of none of"
                above = "the folder that file names begin at, such as photos"
                other = "a pattern such as photos/{split}" if by_name else above
                raise DataError(
                    f"{file}: image {i}, {name!r}, {kind} {', '.join(folders)}, the splits that share the file: add it "
                    f"there, take the record out, or set data.images to {other}"
                )
            mine[i] = split in own
    return mine
