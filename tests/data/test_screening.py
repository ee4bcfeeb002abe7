"""Screening: what was found in images is kept, trusted only while they are as they were, and shared by processes."""

from __future__ import annotations

import logging
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vac_lightning.data.base import DataError
from vac_lightning.data.images.screening import screened
from vac_lightning.data.reading import Photo, Photos

COUNT = 6


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six photographs, of which the third is cut short."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(COUNT):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f"{i}.png")
    cut(folder / "2.png")
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def left(root: Path, **options: Any) -> list[str]:
    """The files left out of a sample each."""
    names = [f"{i}.png" for i in range(COUNT)]
    files = np.arange(COUNT, dtype=np.int32)[:, None]
    keep, left_out = screened(root, names, files, root=root, cache_dir=str(root.parent / "kept"), **options)
    assert [name for name, kept in zip(names, keep, strict=True) if not kept] == [file for file, _, _ in left_out]
    return [file for file, _, _ in left_out]


def kept_file(root: Path) -> Path:
    (file,) = (path for path in (root.parent / "kept" / "inspected").iterdir() if path.suffix != ".lock")
    return file


def spoilt_unseen(path: Path) -> None:
    """Change bytes of a file, but neither its size nor its time of change."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_was_found_is_kept_while_a_file_is_as_it_was(root: Path) -> None:
    assert left(root) == ["2.png"]
    spoilt_unseen(root / "4.png")
    assert left(root) == ["2.png"]  # not looked at again
    (root / "4.png").touch()
    assert left(root) == ["2.png", "4.png"]
    (root / "5.png").unlink()
    Image.new("RGB", (20, 20)).save(root / "2.png")  # put right
    assert left(root) == ["4.png", "5.png"]


def test_one_that_breaks_after_the_inspection_still_raises(root: Path) -> None:
    photos = [Photo(root / f"{i}.png") for i in range(COUNT)]
    targets, kept = np.zeros((COUNT, 1), np.int8), str(root.parent / "kept")
    split = Photos(photos, targets, "a", [8], root, on_bad_image="skip", cache_dir=kept)
    cut(root / "3.png")
    assert split[1].index == 1
    with pytest.raises(DataError, match=r"^sample 2: cannot read .*3\.png.*fetch the file again"):
        split[2]


def test_how_a_file_is_read_is_part_of_what_is_kept(root: Path) -> None:
    left(root)
    spoilt_unseen(root / "4.png")
    assert left(root, upright=True) == ["2.png", "4.png"]


@pytest.mark.parametrize("damage", [b"", b"\xff" * 160, b"torn"])
def test_a_damaged_record_of_what_was_found_is_made_anew(root: Path, damage: bytes) -> None:
    left(root)
    healthy = kept_file(root).read_bytes()
    assert len(healthy) == 16 * (COUNT - 1)
    spoilt_unseen(root / "4.png")
    if damage == b"torn":  # within the last but one of the five
        kept_file(root).write_bytes(healthy[:-24])
        assert left(root) == ["2.png", "4.png"]
        assert kept_file(root).read_bytes() == healthy[:-32] + healthy[-16:]
    else:
        kept_file(root).write_bytes(damage)
        assert left(root) == ["2.png", "4.png"]


def test_where_nothing_can_be_kept_it_is_said_and_inspected_all_the_same(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root.parent / "kept").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        assert left(root) == left(root) == ["2.png"]
    assert "set data.cache_dir=FOLDER" in caplog.text


def _screen(root: Path, start: Any, found: Any) -> None:
    start.wait()
    found.put(left(root))


def test_processes_that_start_at_once_inspect_each_file_once(root: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, found = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_screen, args=(root, start, found)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [found.get(timeout=60) for _ in processes] == [["2.png"]] * 3
    for process in processes:
        process.join()
    assert len(kept_file(root).read_bytes()) == 16 * (COUNT - 1)


def test_a_sample_of_several_files_needs_all_of_them(root: Path) -> None:
    (root / "5.png").unlink()
    files = np.array([[0, 1], [1, 2], [2, 5], [3, 4], [4, 5]], np.int32)
    names = [f"{i}.png" for i in range(COUNT)]
    keep, left_out = screened(root, names, files, root=root, cache_dir=str(root.parent / "kept"))
    assert keep.tolist() == [True, False, False, True, False]
    assert [(file, samples) for file, _, samples in left_out] == [("2.png", 2), ("5.png", 1)]


def test_a_split_of_which_nothing_is_left_is_an_error(root: Path) -> None:
    with pytest.raises(DataError, match=r"none of 2 samples can be read; the first: cannot read .*2\.png.*fetch"):
        screened(root, ["2.png"], np.zeros((2, 1), np.int32), root=root, cache_dir=str(root.parent / "kept"))
