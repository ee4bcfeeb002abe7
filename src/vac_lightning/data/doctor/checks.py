"""What can be wrong with a data set, found before hours are spent on it: all checks, and those of labels and counts."""

from __future__ import annotations

__all__ = ["PUBLISHED_RATIO_TOLERANCE", "check", "check_published", "check_targets", "inspect_splits", "read_splits"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from vac_lightning.data.annotations.records import collected
from vac_lightning.data.base import DataError, Dataset, Published, check_labels, fingerprint
from vac_lightning.data.doctor import sources
from vac_lightning.data.doctor.duplicates import check_duplicates, check_repeated
from vac_lightning.data.doctor.findings import Finding
from vac_lightning.data.doctor.photos import check_boxes, check_files
from vac_lightning.data.images.inspection import FileFacts, inspect_files
from vac_lightning.data.reading import Photos

ROLES = ("train", "val", "test")
PUBLISHED_RATIO_TOLERANCE = 0.005
"""How far p_j may be from the published one, which is rounded and may be of a slightly different release."""


def read_splits(
    dataset: Callable[[str, Sequence[int]], Dataset], sizes: Sequence[int]
) -> tuple[dict[str, Dataset], list[Finding]]:
    """The splits by the roles that they play ("train", "val, test" where two roles share one), and what is broken.

    Broken records are left out and listed. A split that cannot be used at all is left out too.

    dataset: (role, sizes) -> a split.
    """
    roles: dict[str, list[str]] = {}  # by what the roles see
    seen: dict[str, Dataset] = {}
    broken: dict[tuple[str, str], list[str]] = {}  # by kind and message
    for role in ROLES:
        with collected() as errors:
            try:
                split = dataset(role, sizes)
                key = _key(split)
                seen.setdefault(key, split)
                roles.setdefault(key, []).append(role)
            except DataError as error:
                broken.setdefault(("split", str(error)), []).append(role)
        for record in errors:
            broken.setdefault(("record", str(record)), []).append(role)
    findings = [
        Finding("error", kind, ", ".join(dict.fromkeys(where)), detail=detail)
        for (kind, detail), where in broken.items()
    ]
    splits = {", ".join(roles[key]): split for key, split in seen.items()}
    findings += [
        Finding("warning", "leak", name, detail="trained on and evaluated on: give the roles splits of their own")
        for name in splits
        if name.startswith("train,")
    ]
    return splits, [*findings, *_differing_labels(splits)]


def inspect_splits(
    splits: Mapping[str, Dataset], threads: int | None = None, progress: Callable[[int, int], None] | None = None
) -> dict[Path, FileFacts]:
    """Facts about every file of the splits, each inspected once; see `inspect_files`."""
    facts: dict[Path, FileFacts] = {}
    for upright in (False, True):
        of_these = [split for split in splits.values() if isinstance(split, Photos) and split.upright == upright]
        paths = list(dict.fromkeys(path for split in of_these for path in sources.files(split)))
        found = inspect_files(paths, digests=True, upright=upright, threads=threads, progress=progress)
        facts.update(zip(paths, found, strict=True))
    return facts


def check(splits: Mapping[str, Dataset], facts: Mapping[Path, FileFacts], skips: bool = False) -> list[Finding]:
    """All findings about splits that could be read.

    splits: by the roles they play, those trained on first.
    facts: of every file of `sources.files`, with digests.
    skips: a run leaves out files that cannot be decoded.
    """
    findings: list[Finding] = []
    for name, split in splits.items():
        findings += check_targets(name, split)
        if isinstance(split, Photos):
            if split.published is not None:
                findings += check_published(name, split, split.published)
            findings += check_files(name, split, facts, skips)
            findings += check_boxes(name, split, facts)
            findings += check_repeated(name, split)
    return [*findings, *check_duplicates(splits, facts)]


def check_targets(name: str, split: Dataset) -> Iterator[Finding]:
    """Targets outside 1, 0, -1; labels that a split cannot teach or test; labels that are mostly unspecified."""
    targets = split.targets
    for sample, j in np.argwhere(~np.isin(targets, (1, 0, -1))).tolist():
        detail = f"the target {targets[sample, j]} is not 1 (positive), 0 (negative) or -1 (unspecified)"
        yield Finding("error", "target", name, sample, split.source(sample), label=split.labels[j], detail=detail)
    positive, negative, unspecified = ((targets == value).sum(0).tolist() for value in (1, 0, -1))
    for j, label in enumerate(split.labels):
        for count, what, effect in (
            (positive[j], "positive", "nothing to learn and no AP"),
            (negative[j], "negative", "any score is right"),
        ):
            if count == 0:
                detail = f"none of {len(split)} samples is {what}: {effect}"
                yield Finding("warning", f"label without {what}", name, label=label, detail=detail)
        if unspecified[j] * 2 > len(split):
            detail = f"{unspecified[j]} of {len(split)} samples are unspecified, which counts as negative in training"
            yield Finding("warning", "mostly unspecified", name, label=label, detail=detail)


def check_published(name: str, split: Dataset, published: Published) -> Iterator[Finding]:
    """Counts and p_j that differ from the published ones."""
    images = len(sources.images(split).files) if isinstance(split, Photos) else None
    for what, count, expected in (("images", images, published.images), ("samples", len(split), published.samples)):
        if None not in (count, expected) and count != expected:
            detail = f"{count} {what}, published are {expected}: records or files may be missing"
            yield Finding("warning", "published count", name, detail=detail)
    ratios = published.positive_ratio
    if ratios is None:
        return
    if len(ratios) != len(split.labels):
        detail = f"{len(split.labels)} labels, published are {len(ratios)}"
        yield Finding("warning", "published count", name, detail=detail)
        return
    for label, p, expected_p in zip(split.labels, (split.targets == 1).mean(0).tolist(), ratios, strict=True):
        if abs(p - expected_p) > PUBLISHED_RATIO_TOLERANCE:
            detail = f"p = {p:.4f}, published is {expected_p:.4f}: a difference of {p - expected_p:+.4f}"
            yield Finding("warning", "published ratio", name, label=label, detail=detail)


def _key(split: Dataset) -> str:
    """The same for roles that see the same samples.

    Raises:
        DataError: a split that no run would start with.
    """
    if len(split) == 0:
        raise DataError("the split is empty: check its name and its annotation file")
    check_labels(split.labels)
    if split.targets.shape != (shape := (len(split), len(split.labels))):
        raise DataError(f"its targets are {split.targets.shape}: give a row a sample and a column a label, {shape}")
    return fingerprint(split)


def _differing_labels(splits: Mapping[str, Dataset]) -> Iterator[Finding]:
    if not splits:
        return
    (first, known), *others = splits.items()
    for name, split in others:
        if split.labels != known.labels:
            odd = sorted({*split.labels} ^ {*known.labels})[:5]
            what = f"only one of them has {', '.join(odd)}" if odd else "their order differs"
            yield Finding("error", "labels differ", name, detail=f"not the labels of {first}: {what}")
