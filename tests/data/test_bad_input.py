"""Bad input of every kind: one error that names the file, the record and the remedy, as early as it can be known."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from vac_lightning.data.base import DataError
from vac_lightning.data.coco import coco
from vac_lightning.data.datamodule import DataModule
from vac_lightning.data.images.decoding import ImageFile
from vac_lightning.data.images.inspection import inspect_files
from vac_lightning.data.pa100k import pa100k
from vac_lightning.data.reading import Photo, Photos, crop
from vac_lightning.data.table import table
from vac_lightning.data.wider import wider

SPLITS = {"train": "train", "val": "val", "test": "test"}


def noise(size: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))


def encoded(suffix: str, **options: Any) -> bytes:
    file = io.BytesIO()
    noise().save(file, suffix, **options)
    return file.getvalue()


def refused(read: Callable[[], object], *named: str) -> None:
    """`read` raises one DataError of one line that holds `named`."""
    with pytest.raises(DataError) as error:
        read()
    message = str(error.value)
    assert "\n" not in message and len(message) < 1000, message
    for words in named:
        assert re.search(words, message), f"no {words!r} in: {message}"


# Images: the second of three photographs is bad. It is found where it is met, by an inspection, and by screening.


def plain(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere.jpg")


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes with a header of so many pixels, whose checksum is right."""
    data = bytearray(encoded("PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def jpeg_that_claims(width: int, height: int) -> bytes:
    data = bytearray(encoded("JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def animation(suffix: str) -> bytes:
    return encoded(suffix, save_all=True, append_images=[noise().rotate(90)])


def floats(path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(path, "TIFF")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"

IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "No such file"),
    "empty": (plain(b""), "the file is empty"),
    "truncated JPEG": (plain(encoded("JPEG")[:-200]), "truncated|broken"),
    "JPEG cut within its header": (plain(encoded("JPEG")[:100]), "Truncated|broken|cannot identify"),
    "truncated PNG": (plain(encoded("PNG")[:-200]), "truncated|broken"),
    "PNG with changed bytes": (plain(encoded("PNG").replace(b"IDAT", b"IDAX")), "broken|cannot|truncated"),
    "text": (plain(b"no photograph\n"), "cannot identify"),
    "web page": (plain(b"<!doctype html><title>404</title>"), "cannot identify"),
    "zip": (plain(b"PK\x03\x04" + bytes(100)), "cannot identify"),
    "PostScript": (plain(EPS), "PostScript, save it as PNG"),
    "folder": (Path.mkdir, "a folder"),
    "pipe": (pipe, "pipe"),
    "symlink loop": (loop, "symbolic links"),
    "dangling symlink": (dangling, "No such file"),
    "animated GIF": (plain(animation("GIF")), "animation .* of 2 frames, save the frame"),
    "animated PNG": (plain(animation("PNG")), "animation .* of 2 frames, save the frame"),
    "animated WebP": (plain(animation("WEBP")), "animation .* of 2 frames, save the frame"),
    "stack of TIFFs": (plain(animation("TIFF")), "stack of 2 frames, save the frame"),
    "PNG bomb": (plain(png_that_claims(50_000, 50_000)), "2500000000 pixels|50000 x 50000 pixels"),
    "JPEG bomb": (plain(jpeg_that_claims(65_500, 65_500)), "65500 x 65500 pixels .* save it smaller"),
    "float TIFF": (floats, "floats of unknown range, save it with 8 bits"),
}


def three(root: Path, cache: Path, on_bad_image: str = "raise") -> Photos:
    """Three photographs, the second of two people."""
    photos = [Photo(root / f"{name}.jpg") for name in "abbc"]
    return Photos(
        photos,
        np.eye(4, dtype=np.int8),
        "wxyz",
        [8],
        root,
        on_bad_image=on_bad_image,  # type: ignore[arg-type]
        cache_dir=str(cache),
    )


@pytest.mark.parametrize("kind", IMAGES)
def test_a_bad_image_is_named_and_skipped_only_on_request(tmp_path: Path, kind: str) -> None:
    make, reason = IMAGES[kind]
    root = tmp_path / "photographs"
    root.mkdir()
    for name in "ac":
        (root / f"{name}.jpg").write_bytes(encoded("JPEG"))
    bad = root / "b.jpg"
    make(bad)

    photos = three(root, tmp_path)
    for index in (1, 2):
        refused(lambda index=index: photos[index], f"^sample {index}: cannot read {bad} ", reason, "check data.root")
    assert len(photos) == 4 and photos.left_out == []
    errors = [facts.error for facts in inspect_files([root / f"{name}.jpg" for name in "abc"])]
    assert [bool(error) for error in errors] == [False, True, False] and re.search(reason, errors[1])

    kept = three(root, tmp_path, "skip")
    ((file, why, samples),) = kept.left_out
    assert (file, samples, kept.inspected) == ("b.jpg", 2, 3) and re.search(reason, why)
    assert [kept.source(i) for i in range(len(kept))] == ["a.jpg", "c.jpg"]
    assert kept.targets.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    assert [sample.index for sample in kept] == [0, 1]


def unprivileged(act: Callable[[], str]) -> str:
    """What `act` returns in a process that may not read everything."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            os.write(send, act().encode())
        finally:
            os._exit(0)
    os.close(send)
    os.waitpid(child, 0)
    with os.fdopen(receive) as answer:
        return answer.read()


@pytest.mark.parametrize("kind", ["image", "annotations"])
def test_a_file_that_may_not_be_read_is_named(kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        annotated(root)
        bad = root / ("all/1.jpg" if kind == "image" else "annotations/instances_all.json")
        bad.chmod(0)

        def act() -> str:
            try:
                coco_split(root)[1]
            except DataError as error:
                return str(error)
            return "it was read"

        message = unprivileged(act)
    assert str(bad) in message and "Permission denied" in message and "check" in message, message


def test_a_missing_first_image_is_skipped_like_any_other(tmp_path: Path) -> None:
    skip = {"on_bad_image": "skip", "cache_dir": str(tmp_path / "kept")}
    annotated(tmp_path)
    (tmp_path / "all" / "0.jpg").unlink()
    split = coco("train", [8], root=str(tmp_path), splits={"train": "all"}, **skip)
    assert [split.source(i) for i in range(len(split))] == ["all/1.jpg", "all/2.jpg"]

    wider_split(tmp_path, [person()])
    (tmp_path / "Image/train/0--Parade/0.jpg").unlink()
    assert len(wider("train", [8], root=str(tmp_path), splits=SPLITS, **skip)) == 1

    table_split(tmp_path, csv_text())
    (tmp_path / "a.jpg").unlink()
    words = {"labels": ["cup", "plate"], "boxes": ["x", "y", "w", "h"]}
    assert len(table("train", [8], table=str(tmp_path / "labels.csv"), **words, **skip)) == 1


# Annotations in COCO's format


def annotated(root: Path, content: object = None) -> Path:
    """Three photographs and their annotations; content: the file's, as text, bytes, or what becomes JSON."""
    (root / "all").mkdir()
    (root / "annotations").mkdir()
    for i in range(3):
        (root / "all" / f"{i}.jpg").write_bytes(encoded("JPEG"))
    file = root / "annotations" / "instances_all.json"
    content = instances() if content is None else content
    content = content if isinstance(content, str | bytes) else json.dumps(content)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def instances(**changed: object) -> dict[str, Any]:
    content: dict[str, Any] = {
        "images": [{"id": 10 + i, "file_name": f"{i}.jpg"} for i in range(3)],
        "annotations": [{"id": 70 + i, "image_id": 10 + i, "category_id": 1 + i % 2} for i in range(3)],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "plate"}],
    }
    return {**content, **changed}


def changed(key: str, position: int, **values: object) -> dict[str, Any]:
    """The annotations with one record changed; a value that is `...` takes its key out."""
    content = instances()
    record = {**content[key][position], **values}
    content[key][position] = {name: value for name, value in record.items() if value is not ...}
    return content


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in instances().items() if name != key}


def coco_split(root: Path) -> Photos:
    """The split, checked as before training."""
    data = DataModule(lambda role, sizes: coco(role, sizes, root=str(root), splits={"train": "all"}), [8], 1)
    split = data.split("train")
    assert isinstance(split, Photos)
    return split


ANNOTATIONS: dict[str, tuple[object, str]] = {
    "empty file": ("", "fetch it again|mend"),
    "malformed": ("{'images': []}", "fetch it again|mend"),
    "truncated": (json.dumps(instances())[:-30], "fetch it again|mend"),
    "a list": ([instances()], "fetch it again|mend"),
    "a text": ('"images"', "fetch it again|mend"),
    "null": ("null", "fetch it again|mend"),
    "nested too deep": ("[" * 100_000, "fetch it again|mend"),
    "not UTF-8": (json.dumps(instances()).replace("cup", "café").encode("latin-1"), "fetch it again|mend"),
    "no images key": (without("images"), "images.*(fetch it again|mend)"),
    "no annotations key": (without("annotations"), "annotations.*(fetch it again|mend)"),
    "no categories key": (without("categories"), "categories.*(fetch it again|mend)"),
    "an image without an id": (changed("images", 1, id=...), "id.*(fetch it again|mend)"),
    "an image without a name": (changed("images", 1, file_name=...), "file_name.*(fetch it again|mend)"),
    "an annotation without a category": (
        changed("annotations", 2, category_id=...),
        "category_id.*(fetch it again|mend)",
    ),
    "a category without a name": (changed("categories", 1, name=...), "name.*(fetch it again|mend)"),
    "a number for a name": (changed("images", 1, file_name=7), "fetch it again|mend"),
    "a list for an id": (changed("images", 1, id=[1]), "fetch it again|mend"),
    "images null": (instances(images=None), "fetch it again|mend"),
    "no image": (instances(images=[], annotations=[]), "0 images.*give it at least one"),
    "no category": (instances(categories=[], annotations=[]), "0 categories.*give it at least one"),
    "two images of one id": (changed("images", 1, id=10), "images.*give each its own id"),
    "two categories of one id": (changed("categories", 1, id=1), "categories.*give each its own id"),
    "an unknown image": (changed("annotations", 1, image_id=99), "71.*image_id.*99.*remove the annotation"),
    "an unknown category": (changed("annotations", 1, category_id=5), "71.*category_id.*5.*remove the annotation"),
    "a path that climbs out": (changed("images", 1, file_name="../../secret.jpg"), "image 1.*outside.*mend its path"),
    "a path that climbs later": (changed("images", 1, file_name="a/../../b.jpg"), "image 1.*outside.*mend its path"),
    "an absolute path": (changed("images", 1, file_name="/etc/passwd"), "image 1.*outside.*mend its path"),
    "a path of backslashes": (changed("images", 1, file_name="..\\..\\b.jpg"), "image 1.*outside.*mend its path"),
    "an empty path": (changed("images", 1, file_name=""), "image 1.*outside.*mend its path"),
    "a name with a newline": (changed("images", 1, file_name="a\nb.jpg"), r"image 1.*a\\nb.*rename the file"),
    "a name with NUL": (changed("images", 1, file_name="a\0b.jpg"), r"image 1.*a\\x00b.*rename the file"),
    "a name that is no UTF-8": (changed("images", 1, file_name="\udcff.jpg"), "rename the file|fetch it again|mend"),
}


@pytest.mark.parametrize("kind", ANNOTATIONS)
def test_bad_annotations_are_named_before_training(tmp_path: Path, kind: str) -> None:
    content, named = ANNOTATIONS[kind]
    file = annotated(tmp_path, content)
    refused(lambda: coco_split(tmp_path), str(file), named)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("cup", "'cup', is given twice: rename"),
        ("  ", "is not a name: rename"),
        ("\x1b[2J", "control characters: rename"),
    ],
)
def test_a_bad_label_is_named_before_training(tmp_path: Path, name: str, named: str) -> None:
    annotated(tmp_path, changed("categories", 1, name=name))
    refused(lambda: coco_split(tmp_path), named)


def test_the_healthy_annotations_are_read(tmp_path: Path) -> None:
    """What the cases above change one thing of."""
    annotated(tmp_path)
    assert len([*coco_split(tmp_path)]) == 3


# WIDER Attribute: people and their boxes


def person(**changes: object) -> dict[str, object]:
    return {"bbox": [2, 3, 10, 12], "attribute": [1, -1, 0], **changes}


def wider_split(root: Path, people: object, **changes: object) -> Photos:
    """Three people in two photographs; the second photograph's are given."""
    images = [{"file_name": f"train/0--Parade/{i}.jpg", "targets": [person()] if i == 0 else people} for i in range(2)]
    for image in images:
        path = root / "Image" / str(image["file_name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded("JPEG"))
    content = {"images": images, "attribute_id_map": {str(i): name for i, name in enumerate("abc")}, **changes}
    (root / "wider_attribute_trainval.json").write_text(json.dumps(content))
    data = DataModule(lambda role, sizes: wider(role, sizes, root=str(root), splits=SPLITS), [8], 1)
    split = data.split("train")
    assert isinstance(split, Photos)
    return split


PEOPLE: dict[str, tuple[dict[str, object], str]] = {
    "too few attributes": (person(attribute=[1, -1]), "2 attributes where attribute_id_map names 3"),
    "too many attributes": (person(attribute=[1, -1, 0, 0]), "4 attributes where attribute_id_map names 3"),
    "attribute out of range": (person(attribute=[1, -1, 2]), "attribute value 2, not 1, -1 or 0"),
    "attribute of text": (person(attribute=[1, -1, "1"]), "attribute value '1'"),
    "attribute null": (person(attribute=[1, -1, None]), "attribute value None"),
    "no attributes": ({"bbox": [2, 3, 10, 12]}, "attribute.* is missing"),
    "no box": ({"attribute": [1, -1, 0]}, "bbox.* is missing"),
    "box of NaN": (person(bbox=[2, 3, float("nan"), 12]), "four finite numbers"),
    "box of infinity": (person(bbox=[2, 3, float("inf"), 12]), "four finite numbers"),
    "box of three numbers": (person(bbox=[2, 3, 10]), "four finite numbers"),
    "box of five numbers": (person(bbox=[2, 3, 10, 12, 1]), "four finite numbers"),
    "box of text": (person(bbox=["2", 3, 10, 12]), "str"),
    "box null": (person(bbox=None), "NoneType"),
    "box beyond any number": (person(bbox=[2, 3, 10**400, 12]), "too large"),
}


@pytest.mark.parametrize("kind", PEOPLE)
def test_a_bad_person_is_named_before_training(tmp_path: Path, kind: str) -> None:
    people, named = PEOPLE[kind]
    place = f"{tmp_path / 'wider_attribute_trainval.json'}, image train/0--Parade/1.jpg, person 1"
    refused(lambda: wider_split(tmp_path, [person(), people]), re.escape(place), named, "fetch it again|mend")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": []}, "no person in an image of train/: fetch the file again"),
        ({"images": [{"file_name": "val/a.jpg", "targets": [person()]}]}, "no person in an image of train/: fetch"),
        ({"attribute_id_map": {}}, "(fetch it again|mend)"),
        ({"attribute_id_map": {"zero": "a"}}, "zero.*(fetch it again|mend)"),
        ({"attribute_id_map": {"0": "a", "1": "a", "2": "b"}}, "'a', is given twice: rename"),
    ],
)
def test_bad_people_as_a_whole_are_named_before_training(tmp_path: Path, change: dict[str, object], named: str) -> None:
    refused(lambda: wider_split(tmp_path, [person()], **change), named)


@pytest.mark.parametrize(
    "box", [[2, 3, 0, 12], [2, 3, 10, 0], [2, 3, -4, 12], [-2, 3, 10, 12], [500, 3, 10, 12], [2, 500, 10, 12]]
)
def test_a_box_of_no_area_or_outside_is_the_whole_image_by_the_papers_rule(tmp_path: Path, box: list[float]) -> None:
    split = wider_split(tmp_path, [person(bbox=box), person(bbox=[0, 0, 24, 24])])
    empty, whole = split[1].images[0], split[2].images[0]
    assert empty.equal(whole) and not empty.equal(split[0].images[0])
    file = ImageFile(tmp_path / "Image/train/0--Parade/1.jpg")
    assert crop(file, tuple(box)).shape == (24, 24, 3)  # type: ignore[arg-type]


# Tables of one's own


HEADER = "path,cup,plate,x,y,w,h,split"
ROWS = ("a.jpg,1,0,,,,,train", "b.jpg,0,1,1,2,10,12,train", "b.jpg,1,,3,3,9,9,val")


def csv_text(line: int | None = None, row: str = "") -> bytes:
    """The healthy table; or with another row at a line from 1, as an editor counts them."""
    lines = [HEADER, *ROWS]
    if line is not None:
        lines[line - 1 : line] = [row]
    return "\n".join([*lines, ""]).encode()


def table_split(root: Path, content: bytes, name: str = "labels.csv", **options: Any) -> Photos:
    for photo in "ab":
        (root / f"{photo}.jpg").write_bytes(encoded("JPEG"))
    (root / name).write_bytes(content)
    options = {"labels": ["cup", "plate"], "boxes": ["x", "y", "w", "h"], **options}
    data = DataModule(lambda role, sizes: table(role, sizes, table=str(root / name), **options), [8], 1)
    split = data.split("train")
    assert isinstance(split, Photos)
    return split


def boxed(box: str) -> bytes:
    return csv_text(3, f"b.jpg,0,1,{box},train")


TABLES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "labels.csv.*(empty|no columns)"),
    "no row": (f"{HEADER}\n".encode(), "no rows: the table is empty"),
    "no header": ("\n".join(ROWS).encode(), "column 4 has no name: give it one in the first line"),
    "not UTF-8": (csv_text(3, "café.jpg,0,1,,,,,train").decode().encode("latin-1"), "UTF-8.*save"),
    "NUL": (csv_text(3, "b\0.jpg,0,1,,,,,train"), "labels.csv, line 3.*(NUL|control).*(save|rename)"),
    "a row too short": (csv_text(3, "b.jpg,0,1"), "line 3.*3 cells"),
    "a row too long": (csv_text(3, "b.jpg,0,1,,,,,train,more"), "line 3.*9 cells"),
    "two columns of one name": (csv_text(1, "path,cup,cup,x,y,w,h,split"), "two columns are named 'cup': rename"),
    "a column without a name": (csv_text(1, "path,cup,,x,y,w,h,split"), "column 3 has no name: give it one"),
    "a column that is not there": (csv_text(1, "path,cup,dish,x,y,w,h,split"), "no column 'plate', which data.labels"),
    "semicolons": (csv_text().replace(b",", b";"), "no column .*not parted by commas"),
    "a label out of range": (csv_text(3, "b.jpg,0,2,,,,,train"), "line 3.*'plate' has '2'.*mend the cell"),
    "a label of text": (csv_text(3, "b.jpg,0,yes,,,,,train"), "line 3.*'plate' has 'yes'.*mend the cell"),
    "no path": (csv_text(3, ",0,1,,,,,train"), "line 3.*'path' is empty.*name a file"),
    "a path that climbs out": (csv_text(3, "../b.jpg,0,1,,,,,train"), "line 3.*outside.*mend its path"),
    "an absolute path": (csv_text(3, "/etc/passwd,0,1,,,,,train"), "line 3.*outside.*mend its path"),
    "a name with a newline": (csv_text(3, '"b\n.jpg",0,1,,,,,train'), r"line \d.*b\\n.jpg.*rename the file"),
    "a row twice": (csv_text(3, ROWS[0]), "line 3.*same file and box as .*line 2: take one of them out"),
    "no row for the role": (csv_text().replace(b"train", b"test"), "no row for train: see data.splits"),
    "a missing first file": (csv_text(2, "c.jpg,1,0,,,,,train"), "not found: .*c.jpg.*set data.root"),
    "a box of no area": (boxed("1,2,0,12"), "line 3.*smaller than a pixel: mend it"),
    "a box of less than a pixel": (boxed("1,2,0.3,12"), "line 3.*smaller than a pixel: mend it"),
    "a box of negative width": (boxed("1,2,-4,12"), "line 3.*smaller than a pixel: mend it"),
    "a box at a negative edge": (boxed("-1,2,4,12"), "line 3.*begins outside .*clip it"),
    "a box of NaN": (boxed("1,nan,4,12"), "line 3.*not four finite numbers: mend it"),
    "a box of infinity": (boxed("1,2,inf,12"), "line 3.*not four finite numbers: mend it"),
    "a box of text": (boxed("1,2,four,12"), "line 3.*not four finite numbers: mend it"),
    "a box in part": (boxed("1,2,4,"), "line 3.*given in part: fill in all four"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_a_bad_table_is_named_before_training(tmp_path: Path, kind: str) -> None:
    content, named = TABLES[kind]
    refused(lambda: table_split(tmp_path, content), str(tmp_path), named)


def test_swapped_corners_are_named_before_training(tmp_path: Path) -> None:
    named = "line 3.*corners swapped: give left, top, right, bottom"
    refused(lambda: table_split(tmp_path, boxed("9,9,2,3"), box_format="xyxy"), named)


def test_a_table_of_another_format_is_named_before_training(tmp_path: Path) -> None:
    refused(lambda: table_split(tmp_path, csv_text(), "labels.xlsx"), "labels.xlsx.*csv")
    refused(lambda: table_split(tmp_path, csv_text(), "labels.parquet"), "labels.parquet.*Parquet")


def test_the_healthy_table_is_read(tmp_path: Path) -> None:
    assert table_split(tmp_path, csv_text()).targets.tolist() == [[1, 0], [0, 1]]


# PA-100K: a MATLAB file


def cells(texts: list[Any]) -> np.ndarray:
    array = np.empty((len(texts), 1), object)
    array[:, 0] = texts
    return array


def mat_split(root: Path, content: dict[str, object] | bytes) -> Photos:
    (root / "release_data").mkdir()
    for i in range(3):
        (root / "release_data" / f"{i}.jpg").write_bytes(encoded("JPEG"))
    if isinstance(content, bytes):
        (root / "annotation.mat").write_bytes(content)
    else:
        scipy.io.savemat(root / "annotation.mat", content)
    splits = {"train": "train", "val": "val", "test": "test"}
    data = DataModule(lambda role, sizes: pa100k(role, sizes, root=str(root), splits=splits), [8], 1)
    split = data.split("train")
    assert isinstance(split, Photos)
    return split


def mat(**changes: object) -> dict[str, object]:
    """What a healthy file holds, of the part that is read; `...` takes a variable out."""
    whole = {
        "attributes": cells(["Female", "Hat"]),
        "train_images_name": cells(["0.jpg", "1.jpg", "2.jpg"]),
        "train_label": np.array([[0, 1], [1, 0], [1, 1]], np.uint8),
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not ...}


def saved(content: dict[str, object]) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, content)
    return file.getvalue()


MATS: dict[str, tuple[dict[str, object] | bytes, str]] = {
    "empty file": (b"", "fetch it again"),
    "text": (b"attributes: Female, Hat\n" * 20, "no MATLAB file of version 5: fetch it again"),
    "truncated": (saved(mat())[:-100], "fetch it again"),
    "version 7.3": (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400), "7.3 .*save it with -v7|fetch it"),
    "no attributes": (mat(attributes=...), "'attributes' is missing.*fetch it again"),
    "no names": (mat(train_images_name=...), "'train_images_name' is missing.*fetch it again"),
    "no labels": (mat(train_label=...), "'train_label' is missing.*fetch it again"),
    "labels of another shape": (mat(train_label=np.zeros((3, 3), np.uint8)), "train_label is 3 x 3, .*fetch it again"),
    "labels of too few images": (mat(train_label=np.zeros((2, 2), np.uint8)), "train_label is 2 x 2, .*fetch it again"),
    "labels of text": (mat(train_label=cells(["0", "1", "1"])), "train_label is no matrix of numbers.*fetch it again"),
    "a label out of range": (
        mat(train_label=np.array([[0, 1], [7, 0], [1, 1]])),
        r"train image 1 \(1.jpg\).*'Female' is 7, neither 1 nor 0.*fetch it again",
    ),
    "a label of NaN": (mat(train_label=np.array([[0, 1], [1, 0], [1, np.nan]])), r"image 2 .*nan, neither.*fetch"),
    "names of numbers": (mat(train_images_name=cells([1.0, 2.0, 3.0])), "cell 0 of train_images_name.*fetch it again"),
    "no image": (mat(train_images_name=cells([]), train_label=np.zeros((0, 2))), "no image of train: fetch"),
    "a path that climbs out": (mat(train_images_name=cells(["0.jpg", "../1.jpg", "2.jpg"])), "outside.*mend its path"),
    "an attribute twice": (mat(attributes=cells(["Hat", "Hat"])), "'Hat', is given twice: rename"),
}


@pytest.mark.parametrize("kind", MATS)
def test_a_bad_matlab_file_is_named_before_training(tmp_path: Path, kind: str) -> None:
    content, named = MATS[kind]
    place = () if kind == "an attribute twice" else (str(tmp_path / "annotation.mat"),)
    refused(lambda: mat_split(tmp_path, content), *place, named)


def test_the_healthy_matlab_file_is_read(tmp_path: Path) -> None:
    assert mat_split(tmp_path, mat()).targets.tolist() == [[0, 1], [1, 0], [1, 1]]
