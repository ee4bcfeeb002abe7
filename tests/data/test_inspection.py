"""Inspecting files: what they hold as Pillow says it, damage found wherever it is, nothing that depends on threads."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vac_lightning.data.images.inspection import FileFacts, inspect_files


def pixels(seed: int = 0, height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("mode", "format"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("RGB", "WEBP")],
)
def test_facts_are_pillows(tmp_path, mode, format):
    path = tmp_path / "file"
    if mode == "I;16":
        Image.fromarray(pixels()[..., 0].astype(np.uint16)).save(path, format=format)
    else:
        Image.fromarray(pixels()).convert(mode).save(path, format=format)
    with Image.open(path) as image:
        expected = FileFacts(*image.size, image.format, image.mode)
    (facts,) = inspect_files([path], digests=True)
    assert facts == expected._replace(digest=hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest())
    assert inspect_files([path]) == [expected]


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_short_anywhere_is_an_error(tmp_path, progressive):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(pixels()).save(whole, quality=90, progressive=progressive)
    data = whole.read_bytes()
    cuts = [*range(1, len(data) - 100, 97), *range(len(data) - 40, len(data))]
    for cut in cuts:
        (tmp_path / f"{cut}.jpg").write_bytes(data[:cut])
    facts = inspect_files([whole, *(tmp_path / f"{cut}.jpg" for cut in cuts)])
    assert facts[0].error == "" and (facts[0].width, facts[0].height) == (40, 30)
    assert all(fact.error and fact.problem in ("truncated", "unreadable") and fact.width == 0 for fact in facts[1:])
    assert all(fact.problem == "truncated" for fact in facts[-40:])


def damaged(folder: Path) -> dict[str, Path]:
    """A file of every kind of problem, by that kind."""
    made = {kind: folder / kind for kind in ("missing", "empty", "truncated", "animated", "unreadable")}
    made["empty"].touch()
    Image.fromarray(pixels()).save(made["truncated"], format="PNG")
    made["truncated"].write_bytes(made["truncated"].read_bytes()[:-700])
    frames = [Image.fromarray(pixels(seed)) for seed in range(2)]
    frames[0].save(made["animated"], format="GIF", save_all=True, append_images=frames[1:])
    made["unreadable"].write_text("<html>not found</html>")
    return made


def test_every_problem_has_its_kind_and_one_line_that_names_the_file(tmp_path):
    paths = damaged(tmp_path)
    facts = inspect_files(list(paths.values()))
    assert [fact.problem for fact in facts] == list(paths)
    for path, fact in zip(paths.values(), facts, strict=True):
        assert str(path) in fact.error and "\n" not in fact.error


def test_the_order_is_that_of_the_paths_whatever_the_threads(tmp_path):
    paths = [tmp_path / f"{i}.jpg" for i in range(70)]
    for i, path in enumerate(paths[:-1]):  # the last one is missing
        Image.fromarray(pixels(i, 8 + i, 100 - i)).save(path)
    looks: list[tuple[int, int]] = []
    one, many = (
        inspect_files(paths, digests=True, threads=threads, progress=progress)
        for threads, progress in ((1, None), (5, lambda done, total: looks.append((done, total))))
    )
    assert one == many
    assert [(fact.width, fact.height) for fact in one[:-1]] == [(100 - i, 8 + i) for i in range(69)]
    assert one[-1].problem == "missing" and len({fact.digest for fact in one}) == 70
    assert looks == sorted(looks) and looks[-1] == (70, 70)


def test_what_the_progress_raises_ends_the_inspection(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_files([tmp_path / "none.jpg"] * 100, progress=stop)


@pytest.mark.parametrize("upright", [False, True])
def test_orientation_is_told_and_followed_where_asked(tmp_path, upright):
    paths = [tmp_path / f"{turn}.jpg" for turn in range(1, 9)]
    for turn, path in enumerate(paths, 1):
        exif = Image.Exif()
        exif[0x0112] = turn
        Image.fromarray(pixels()).save(path, exif=exif)
    facts = inspect_files(paths, upright=upright)
    assert [fact.turn for fact in facts] == list(range(1, 9))
    assert [(fact.width, fact.height) for fact in facts] == [(40, 30)] * 4 + [(30, 40) if upright else (40, 30)] * 4
