"""Tables: three ways to write labels against one oracle, files, boxes and splits, and every kind of broken cell."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import hydra
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from vac_lightning.commands.targets import instantiate
from vac_lightning.data.annotations.records import collected
from vac_lightning.data.base import DataError
from vac_lightning.data.table import table

ROOT = Path(__file__).parents[2]
LABELS = ["cat", "dog", "owl"]
TARGETS = [[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]]
TAGS = [[label for label, target in zip(LABELS, row, strict=True) if target] for row in TARGETS]
FILES = [f"{number}.png" for number in range(4)]
SAME = {"splits": {"train": "a", "val": "a", "test": "a"}}


@pytest.fixture
def folder(tmp_path):
    """A folder of four photographs, each of one grey, 10 x 8 pixels."""
    for number, name in enumerate(FILES):
        Image.new("RGB", (10, 8), (40 * number,) * 3).save(tmp_path / name)
    return tmp_path


def write(folder: Path, columns: dict[str, list], name: str = "t.csv", split: str | None = "a") -> Path:
    """A table of columns, all of its rows in one split, if any."""
    if split is not None:
        columns = columns | {"split": [split] * len(next(iter(columns.values())))}
    path = folder / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        with path.open("w", newline="") as out:
            writer = csv.writer(out, delimiter="\t" if name.endswith(".tsv") else ",")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    return path


def read(path: Path, role: str = "train", **words: object):
    return table(role, [8, 4], table=str(path), **{**SAME, **words})


def hot(*types: type) -> dict[str, list]:
    """The columns of labels, each in a type of its own."""
    return {name: [kind(row[j]) for row in TARGETS] for j, (name, kind) in enumerate(zip(LABELS, types, strict=True))}


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "T.CSV"])
@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (hot(int, int, int), {}),
        (hot(int, bool, float), {"labels": LABELS}),
        ({"tags": list(map("|".join, TAGS))}, {"label_column": "tags"}),
        ({"tags": list(map(" ".join, TAGS))}, {"label_column": "tags", "separator": " "}),
        ({"tags": list(map(json.dumps, TAGS))}, {"label_column": "tags"}),
        ({"tags": list(map("; ".join, TAGS))}, {"label_column": "tags", "separator": ";", "label_names": LABELS}),
    ],
    ids=["multi-hot", "types", "delimited", "spaces", "json", "semicolons"],
)
def test_labels_are_read_alike_however_they_are_written(folder, name, columns, words):
    photos = read(write(folder, {"path": FILES} | columns, name), **words)
    assert photos.labels == tuple(LABELS) and photos.targets.dtype == np.int8
    assert photos.targets.tolist() == TARGETS
    assert [photos.source(i) for i in range(4)] == FILES
    assert [image.unique().tolist() for image in photos[2].images] == [[80], [80]]
    assert [tuple(image.shape) for image in photos[2].images] == [(3, 8, 8), (3, 4, 4)]


def test_a_list_column_of_parquet(folder):
    photos = read(
        write(folder, {"path": FILES, "tags": [["b", "a"], [], None, ["c"]]}, "t.parquet"), label_column="tags"
    )
    assert photos.labels == ("a", "b", "c")
    assert photos.targets.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_an_empty_cell_of_a_labels_column_is_unspecified(folder, name):
    columns = {"path": FILES, "a": [1, None, 0, -1], "b": ["", "true", "FALSE", "1.0"]}
    path = write(folder, columns, name)
    assert read(path).targets.tolist() == [[1, -1], [-1, 1], [0, 0], [-1, 1]]
    assert read(path, empty="negative").targets.tolist() == [[1, 0], [0, 1], [0, 0], [-1, 1]]


@pytest.mark.parametrize(("empty", "row"), [(None, [0, 0]), ("negative", [0, 0]), ("unspecified", [-1, -1])])
def test_an_empty_cell_of_a_column_that_lists_labels(folder, empty, row):
    path = write(folder, {"path": FILES, "tags": ["a", "", "[]", "b|a|"]})
    assert read(path, label_column="tags", empty=empty).targets.tolist() == [[1, 0], row, [0, 0], [1, 1]]


def test_values_say_what_cells_mean(folder):
    wider = {"positive": 1, "negative": -1, "unspecified": [0, "?"]}
    photos = read(write(folder, {"path": FILES, "hat": [1, -1, 0, "?"]}), labels=["hat"], values=wider)
    assert photos.targets[:, 0].tolist() == [1, 0, -1, -1]


@pytest.mark.parametrize(
    ("label_names", "labels"),
    [
        (["Nucleoplasm", "Membrane", "Nucleoli"], ["Nucleoplasm", "Membrane", "Nucleoli"]),
        ({2: "Nucleoli", 0: "Nucleoplasm", 1: "Membrane"}, ["Nucleoli", "Nucleoplasm", "Membrane"]),
        (None, ["0", "2"]),
    ],
)
def test_codes_become_the_labels_they_stand_for(folder, label_names, labels):
    path = write(folder, {"path": FILES, "Target": ["2 0", "0", "2", "2"]})
    photos = read(path, label_column="Target", separator=" ", label_names=label_names)
    assert photos.labels == tuple(labels)
    zero, two = (labels.index(name) for name in (("Nucleoplasm", "Nucleoli") if label_names else ("0", "2")))
    assert photos.targets[:, zero].tolist() == [1, 1, 0, 0] and photos.targets[:, two].tolist() == [1, 0, 1, 1]
    assert photos.targets.sum() == 5


def test_labels_in_number_order_and_columns_by_other_names(folder):
    path = write(folder, {"path": FILES, "codes": ["10|9", "9", "100", ""], "a": [1, 0, 0, 0], "b": [0, 0, 1, 0]})
    assert read(path, label_column="codes").labels == ("9", "10", "100")
    assert read(path, labels=["b", "a"], label_names=["Bee", "Ape"]).labels == ("Bee", "Ape")
    assert read(path, labels=["b", "a"], label_names={"a": "Ape"}).labels == ("b", "Ape")


def test_columns_of_other_things_are_no_labels(folder):
    columns = {"": [0, 1, 2, 3], "path": FILES, "note": ["", "", "x", ""], "nothing": [""] * 4, "cat": [1, 0, 0, ""]}
    assert read(write(folder, columns | {"age": [1, 31, 40, 7]})).labels == ("cat",)


def test_files_of_one_image_become_channels_or_colours(folder):
    for number, colour in enumerate(["red", "green", "blue", "yellow"]):
        (folder / "train").mkdir(exist_ok=True)
        Image.new("L", (6, 6), 20 + 40 * number).save(folder / "train" / f"cell_{colour}.png")
    path = write(folder, {"Id": ["cell"], "Target": ["16 0"]})
    paths = [f"train/{{Id}}_{colour}.png" for colour in ("red", "green", "blue", "yellow")]
    words = {"paths": paths, "label_column": "Target", "separator": " "}
    stacked = read(path, **words)
    assert stacked[0].images[0][:, 0, 0].tolist() == [20, 60, 100, 140]
    assert stacked.source(0) == " + ".join(f"train/cell_{colour}.png" for colour in ("red", "green", "blue", "yellow"))
    assert read(path, **words, merge="rgb")[0].images[0][:, 0, 0].tolist() == [90, 130, 100]


def test_a_pattern_over_several_columns_and_a_list_of_columns(folder):
    path = write(folder, {"n": [0, 1], "end": ["png", "png"], "other": ["2.png", "./3.png"], "cat": [0, 1]})
    photos = read(path, paths=["{n}.{end}", "other"], labels=["cat"])
    assert [photos.source(i) for i in range(2)] == ["0.png + 2.png", "1.png + 3.png"]


def test_paths_may_be_absolute_below_a_root_that_is_not_the_tables(folder):
    (folder / "tables").mkdir()
    path = write(folder, {"path": ["0.png", str(folder / "1.png")], "cat": [0, 1]}, "tables/t.csv")
    for words in ({"table": str(path)}, {"table": "tables/t.csv"}):
        photos = table("train", [8], root=str(folder), **words, **SAME)
        assert [photos.source(i) for i in range(2)] == ["0.png", "1.png"]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_boxes_in_both_formats_and_none(folder, name):
    noise = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
    Image.fromarray(noise).save(folder / "0.png")
    columns = {"path": ["0.png", "0.png"], "x": [2, None], "y": [1.5, None], "u": [5, None], "v": [4.5, None]}
    path = write(folder, columns | {"cat": [0, 1]}, name)
    sized = read(path, boxes=["x", "y", "u", "v"], labels=["cat"])
    cornered = read(path, boxes=["x", "y", "u", "v"], labels=["cat"], box_format="xyxy")
    assert sized.source(0) == "0.png [2, 1.5, 5, 4.5]" and cornered.source(0) == "0.png [2, 1.5, 3, 3]"
    np.testing.assert_array_equal(sized.crop(0), noise[2:6, 2:7])
    np.testing.assert_array_equal(cornered.crop(0), noise[2:4, 2:5])
    np.testing.assert_array_equal(sized.crop(1), noise)


def test_words_of_the_command_line_reach_the_table(folder):
    path = write(folder, {"id": range(5), "cat": ["yes", "no", "?", "NA", "no"], "fold": [0, 1, 1, 2, 5]}, split=None)
    (folder / "4.png").touch()
    words = [
        "data=table", f"data.table={path}", "data.paths='{id}.png'", "data.split_column=fold", "data.labels=[cat]",
        "data.values.positive=yes", "data.values.negative=no", "data.values.unspecified=['?', NA]",
        "data.splits.train=[0,1]", "data.splits.val=2", "data.splits.test=2", "+data.splits.unused=5",
        "data.label_names={cat: Cat}",
    ]  # fmt: skip
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = hydra.compose("train", words)
    photos = instantiate(config.data, "data")("train", [8])
    assert photos.labels == ("Cat",) and photos.targets[:, 0].tolist() == [1, 0, -1]
    assert photos.upright and photos.reading == "fast" and "ema" in config.callbacks


HEADER = "path,cat,x,y,w,h,split\n"
GOOD = "0.png,1,,,,,a\n"
BOXES = {"boxes": ["x", "y", "w", "h"]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1.png,2,,,,,a", "'cat' has '2', not one of 1, true, 0, false, -1, or nothing"),
        ("1.png,yes,,,,,a", "'cat' has 'yes'"),
        ("1.png,nan,,,,,a", "'cat' has 'nan'"),
        ("1.png,__import__('os').abort(),,,,,a", "'cat' has .__import__"),
        (",1,,,,,a", "'path' is empty"),
        ("../1.png,1,,,,,a", "outside"),
        ("/etc/passwd,1,,,,,a", "outside"),
        ("a/../../1.png,1,,,,,a", "outside"),
        ('"1\n.png",1,,,,,a', "control characters"),
        ("1\x1b[31m.png,1,,,,,a", "control characters"),
        ("1.png,1,1,1,0,5,a", "smaller than a pixel"),
        ("1.png,1,1,1,5,0.2,a", "smaller than a pixel"),
        ("1.png,1,1,1,-5,5,a", "smaller than a pixel"),
        ("1.png,1,-2,1,5,5,a", "negative edge"),
        ("1.png,1,nan,1,5,5,a", "finite"),
        ("1.png,1,1,1,inf,5,a", "finite"),
        ("1.png,1,1,1e999,5,5,a", "finite"),
        ("1.png,1,one,1,5,5,a", "finite"),
        ("1.png,1,1,1,5,,a", "in part"),
        ("1.png,1,,,,,b", "'split' has 'b', not one of a"),
        ("1.png,1,,,,,", "'split' has ''"),
        ("1.png,1,,,,a", "6 cells where the header names 7"),
        ("1.png,1,,,,,a,", "8 cells where the header names 7"),
        ("0.png,1,,,,,a", r"the same file and box as .*t\.csv, line 2:"),
        (".//0.png,0,,,,,a", r"the same file and box as .*t\.csv, line 2:"),
        ('1.png,"1,,,,,a', "quotes"),
        ('1.png,"1"1,,,,,a', "quotes"),
        ("1.png,\0,,,,,a", "NUL"),
    ],
)
def test_a_broken_row_is_one_line_with_file_line_and_remedy(folder, row, reason):
    path = folder / "t.csv"
    path.write_bytes(f"{HEADER}{GOOD}\n{row}\n{GOOD.replace('0.png', '3.png')}".encode())
    with pytest.raises(DataError, match=reason) as error:
        read(path, **BOXES, labels=["cat"])
    message = str(error.value)
    assert f"{path}, line 4" in message and "\n" not in message and ("; " in message or ": " in message)


def test_swapped_corners(folder):
    path = folder / "t.csv"
    path.write_text(f"{HEADER}0.png,1,5,5,1,9,a\n")
    with pytest.raises(DataError, match=r"line 2: the box \(x=5, y=5, w=1, h=9\) has its corners swapped"):
        read(path, **BOXES, labels=["cat"], box_format="xyxy")


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("['a', 'b']", "no list as JSON"),
        ("[" * 100_000 + "]", "no list as JSON"),
        ('[{"a": 1}]', "not a name"),
        ("[true]", "not a name"),
        ("a|zebra", "'zebra', which data.label_names does not know"),
        ("28", "'28', which data.label_names does not know"),
    ],
)
def test_a_broken_list_of_labels_is_named(folder, cell, reason):
    path = write(folder, {"path": FILES[:2], "tags": ["a", cell]})
    with pytest.raises(DataError, match=rf"t\.csv, line 3: column 'tags' .*{reason}"):
        read(path, label_column="tags", label_names=["a", "b"])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.csv", b"", "no columns"),
        ("t.csv", b"path,cat,split\n", "no rows"),
        ("t.csv", b"path,cat,cat\n0.png,1,1\n", "two columns are named 'cat'"),
        ("t.csv", b"path,,split\n0.png,1,a\n", "column 2 has no name"),
        ("t.csv", b"file,cat,split\n0.png,1,a\n", r"no column 'path', which data\.paths asks for; it has file, cat"),
        ("t.csv", b"path;cat;split\n0.png;1;a\n", "no column 'path'.*not parted by commas"),
        ("t.csv", b"path,note,split\n0.png,fine,a\n", "no column holds 1, 0, -1"),
        ("t.csv", b"path,cat,split\n0.png,1,a\n\xe9.png,0,a\n", "line 3: not UTF-8"),
        ("t.csv", "path,cat,split\n0.png,1,a\n".encode("utf-16"), "line 1: not UTF-8"),
        ("t.csv", b"\xef\xbb\xbfpath,cat,split\r\n0.png,5,a\r\n", "line 2: column 'cat'"),
        ("t.xlsx", b"PK\3\4", r"ends in one of \.csv, \.tsv, \.parquet"),
        ("t.parquet", b"path,cat\n", "cannot be read as Parquet"),
        ("t.parquet", b"", "cannot be read as Parquet"),
        ("t.parquet", b"PAR1" + b"\7" * 40 + b"PAR1", "cannot be read as Parquet"),
    ],
)
def test_a_broken_table_is_named_with_what_is_wrong(folder, name, content, reason):
    path = folder / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as error:
        read(path, **({"labels": ["cat"]} if b"5" in content else {}))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_truncated_parquet_and_rows_counted_from_0(folder):
    path = write(folder, {"path": FILES, "cat": [0, 1, 2, 1], "noise": np.random.default_rng(0).random(4)}, "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet, row 2 \(counted from 0\): column 'cat' has 2, not one of"):
        read(path, labels=["cat"])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(path, labels=["cat"])


def test_all_broken_rows_are_collected_and_nothing_is_written(folder):
    rows = ["0.png,1", "1.png,7", "../up,1", "2.png", "3.png,0", "0.png,1"]
    (folder / "t.csv").write_text("\n".join(["path,cat", *rows]))
    with collected() as errors:
        shares = {"train": 0.5, "val": 0.5}
        words = {"split_shares": shares, "splits": {"train": "train", "val": "val"}, "labels": ["cat"]}
        photos = read(folder / "t.csv", **words)
    assert len(photos) == 1
    assert sorted(re.findall(r"t\.csv, line (\d)", str(error))[0] for error in errors) == ["3", "4", "5", "7"]
    assert sorted(path.name for path in folder.iterdir()) == [*FILES, "t.csv"]


def test_a_broken_row_is_left_out_of_the_split_it_names(folder):
    path = write(folder, {"path": FILES, "cat": [1, 7, 0, 1]})
    with collected() as errors:
        photos = read(path, labels=["cat"])
    assert [photos.source(i) for i in range(len(photos))] == ["0.png", "2.png", "3.png"] and len(errors) == 1


def test_lines_are_counted_as_an_editor_does(folder):
    rows = ['0.png,"two\nlines",1,a', "", "1.png,,1,a", "2.png,\u2028\x0b,4,a"]
    for end in ("\n", "\r\n", "\r"):
        (folder / "t.csv").write_bytes("\n".join(["path,note,cat,split", *rows]).replace("\n", end).encode())
        with pytest.raises(DataError, match=r"line 6: column 'cat' has '4'"):
            read(folder / "t.csv", labels=["cat"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"boxes": ["x", "y"]}, "name four columns"),
        ({"box_format": "cxcywh"}, "choose xywh or xyxy"),
        ({"labels": ["cat"], "label_column": "cat"}, "one of the two"),
        ({"labels": "cat"}, "give a list of columns"),
        ({"paths": []}, r"data\.paths=\[\]"),
        ({"boxes": "bbox"}, "name four columns"),
        ({"label_names": "cat"}, "give a list of names"),
        ({"labels": ["path"]}, "both name the column 'path'"),
        ({"labels": ["dog"]}, r"no column 'dog', which data\.labels asks for"),
        ({"separator": "", "label_column": "cat"}, "separator"),
        ({"values": {"maybe": 2}}, r"values\.maybe"),
        ({"values": {"positive": [1], "negative": [1.0]}}, "means one thing"),
        ({"empty": "zero"}, r"data\.empty=zero"),
        ({"empty": "zero", "label_column": "cat"}, r"data\.empty=zero"),
        ({"label_names": ["a", "b"]}, "2 names for 1 columns"),
        ({"label_names": {"dog": "Dog"}}, "'dog' is not a column of labels"),
        ({"paths": "{id}.png"}, "no column 'id'"),
        ({"paths": "{path.__class__}"}, "no column 'path.__class__'"),
        ({"role": "predict"}, "role='predict' has no split"),
        ({"splits": {"train": "a", "val": None}}, "role='val' has no split"),
    ],
)
def test_words_that_cannot_be_are_refused(folder, words, reason):
    path = write(folder, {"path": FILES, "cat": [0, 1, 0, 1]})
    with pytest.raises(ValueError, match=reason):
        read(path, **words)


def test_missing_files_and_roles_without_rows_say_what_to_do(folder):
    with pytest.raises(DataError, match=r"not found: .*none\.csv\. .*data\.table=FILE"):
        read(folder / "none.csv")
    path = write(folder, {"path": ["gone.png"], "cat": [1]})
    with pytest.raises(DataError, match=rf"not found: {folder}/gone\.png, of the first sample of train .*data\.root="):
        read(path)
    with collected() as errors:  # who lists what is broken looks at every file
        assert len(read(path)) == 1 and errors == []
    with pytest.raises(DataError, match=r"t\.csv has no row for val: see data\.splits"):
        read(path, "val", splits={"train": "a", "val": "b"})
    path = write(folder, {"path": FILES[:2], "cat": [1, 0]}, split=None)
    with pytest.raises(DataError, match=r"no row for val: .*data\.split_shares"):
        read(path, "val", splits={"train": "train", "val": "val"}, split_shares={"train": 0.99, "val": 0.01})


def test_roles_may_have_several_splits_and_share_them(folder):
    path = write(folder, {"path": FILES, "cat": [1, 0, 0, 1], "fold": [0, 1, 2, 3]}, split=None)
    splits = {"train": [0, 1], "val": 2, "test": 2, "unused": 3}
    words = {"splits": splits, "split_column": "fold", "labels": ["cat"]}
    found = {role: [p.source(i) for i in range(len(p))] for role in splits for p in [read(path, role, **words)]}
    assert found == {"train": ["0.png", "1.png"], "val": ["2.png"], "test": ["2.png"], "unused": ["3.png"]}


def people(folder: Path, count: int = 300, seed: int = 0) -> Path:
    """A table without splits: people with boxes in photographs that several share, families of photographs, labels."""
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, count // 2, count)
    hot = (rng.random((count, 3)) < [0.5, 0.2, 0.06]).astype(int)
    columns = {"path": [f"{n}.jpg" for n in photo], "family": (photo // 2).tolist(), "x": list(range(count))}
    columns |= {"y": [0] * count, "w": [5] * count, "h": [5] * count, **dict(zip(LABELS, hot.T.tolist(), strict=True))}
    for n in range(count // 2):
        (folder / f"{n}.jpg").touch()
    return write(folder, columns, split=None)


SHARES = {"split_shares": {"train": 0.6, "val": 0.2, "test": 0.2}, "splits": {r: r for r in ("train", "val", "test")}}


@pytest.mark.parametrize("group_column", [None, "family"])
def test_a_made_split_parts_no_file_and_no_group_and_is_alike_in_labels(tmp_path, group_column):
    path = people(tmp_path)
    words = {**SHARES, **BOXES, "labels": LABELS, "group_column": group_column}
    parts = {role: read(path, role, **words) for role in SHARES["splits"]}
    assert sum(map(len, parts.values())) == 300
    files = {role: {photo.path for photo in photos.photos} for role, photos in parts.items()}
    assert sum(map(len, files.values())) == len(set.union(*files.values()))
    if group_column:
        families = [{int(file.stem) // 2 for file in files[role]} for role in files]
        assert sum(map(len, families)) == len(set.union(*families))
    for role, share in SHARES["split_shares"].items():
        assert len(parts[role]) == pytest.approx(share * 300, abs=20)
        ratio = parts[role].targets.mean(0) / np.concatenate([p.targets for p in parts.values()]).mean(0)
        np.testing.assert_allclose(ratio, 1, atol=0.35)


def test_rows_that_are_linked_by_any_of_their_files_are_not_parted(tmp_path):
    first, second = np.random.default_rng(0).integers(0, 60, (2, 50))
    names = {*first.tolist(), *second.tolist()}
    for n in names:
        (tmp_path / f"{n}.png").touch()
    columns = {"a": [f"{n}.png" for n in first], "b": [f"{n}.png" for n in second], "cat": [0, 1] * 25}
    words = {**SHARES, "paths": ["a", "b"], "labels": ["cat"]}
    path = write(tmp_path, columns, split=None)
    files = [{file for pair in read(path, role, **words).photos for file in pair.path} for role in SHARES["splits"]]
    assert sum(map(len, files)) == len(names)


def test_a_made_split_is_kept_and_used_as_it_stands(tmp_path):
    path = people(tmp_path)
    words = {**SHARES, **BOXES, "labels": LABELS}
    first = [read(path, role, **words).source(0) for role in SHARES["splits"]]
    kept = tmp_path / "t.csv.split.csv"
    comment, *rows = kept.read_text().splitlines()
    assert comment.startswith("#") and rows[0] == "path,x,y,w,h,split" and len(rows) == 301
    assert Counter(row.rsplit(",", 1)[1] for row in rows[1:]).keys() == {"train", "val", "test"}
    header, *body = path.read_text().splitlines()
    path.write_text("\n".join([header, *body[::-1]]))  # the table in another order has the same split
    assert first == [(p := read(path, role, **words)).source(len(p) - 1) for role in SHARES["splits"]]
    kept.write_text("\n".join([comment, rows[0], *(f"{row.rsplit(',', 1)[0]},val" for row in rows[1:])]))
    assert len(read(path, "val", **words)) == 300  # as somebody chose by hand


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.rsplit("\n", 2)[0] + "\n", "does not fit the table, it lacks .*delete it"),
        (lambda text: text + "other.jpg,1,2,3,4,train\n", "does not fit the table, it has 301 samples for 300: delete"),
        (lambda text: text.replace(",val\n", ",vla\n"), "names the split 'vla'"),
        (lambda text: text.replace("split_seed=0", "split_seed=1"), "made by .*split_seed=1 .*say the same, or delete"),
        (lambda text: text.replace('"val": 0.2', '"val": 0.1'), "made by .*say the same, or delete it"),
        (lambda text: text.replace(",train\n", ',"train\n'), "mend it"),
    ],
)
def test_a_kept_split_that_does_not_fit_is_refused(tmp_path, change, reason):
    path = people(tmp_path)
    words = {**SHARES, **BOXES, "labels": LABELS}
    read(path, **words)
    kept = tmp_path / "t.csv.split.csv"
    kept.write_text(change(kept.read_text()))
    with pytest.raises(DataError, match=rf"t\.csv\.split\.csv.*{reason}"):
        read(path, **words)


def test_where_nothing_can_be_written_beside_the_table_the_split_is_kept_elsewhere(tmp_path, monkeypatch):
    path = people(tmp_path)
    (tmp_path / "t.csv.split.csv").mkdir()  # no file can take its place
    words = {**SHARES, **BOXES, "labels": LABELS, "cache_dir": str(tmp_path / "kept")}
    first = read(path, "val", **words)
    (kept,) = (tmp_path / "kept" / "splits").iterdir()
    kept.write_text(kept.read_text().replace(",train\n", ",val\n"))
    changed = read(path, "val", **words)
    assert len(changed) > len(first)
    header, *body = path.read_text().splitlines()
    path.write_text("\n".join([header, *body[::-1]]))  # the table in another order has the same split
    assert read(path, "val", **words).source(0) == changed.source(len(changed) - 1)
    with pytest.raises(DataError, match=r"splits/t\.csv\..*say the same, or delete it"):
        read(path, "val", **words, split_seed=1)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be kept, neither .*data\.cache_dir=FOLDER"):
        read(path, **{**words, "cache_dir": str(tmp_path / "file")})
    assert not list(tmp_path.glob(".t.csv*"))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"split_shares": {"train": 0.7, "val": 0.2}}, "add up to 1"),
        ({"split_shares": {"train": 1.0}}, "two or more"),
        ({"split_shares": {"train": 1.5, "val": -0.5}}, "add up to 1"),
        ({"split_shares": {"train": 0.5, "val": 0.5, "test": 0}}, r"data\.splits\.test=test: data\.split_shares makes"),
    ],
)
def test_shares_that_cannot_be_are_refused(folder, words, reason):
    path = write(folder, {"path": FILES, "cat": [0, 1, 0, 1]}, split=None)
    with pytest.raises(ValueError, match=reason):
        read(path, **{**SHARES, **words})
    assert not (folder / "t.csv.split.csv").exists()


@pytest.mark.slow
def test_vac_train_on_a_table(smoke, vac, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).save(tmp_path / f"{number}.png")
    tags = {"path": [f"{n}.png" for n in range(24)], "tags": ["cat", "dog cat", "", "owl"] * 6}
    path = write(tmp_path, tags, "mine.csv", split=None)
    words = ["data=table", f"data.table={path}", "data.label_column=tags", "data.separator=' '"]
    run = tmp_path / "runs" / "table" / "Tiny+ACf" / "seed=0"
    outcome = vac(
        "train", *words, "recipe=smoke", "backbone=tiny", "transform=f", "logger=csv", "callbacks.progress=null",
        "trainer.enable_progress_bar=false", "trainer.max_epochs=1", f"runs_dir={tmp_path / 'runs'}",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    results = json.loads((run / "results.json").read_text())
    assert results["labels"] == LABELS and (tmp_path / "mine.csv.split.csv").is_file()
    (tmp_path / "moved").mkdir()
    for file in tmp_path.glob("*.*"):
        file.rename(tmp_path / "moved" / file.name)
    outcome = vac("evaluate", f"run={run}", f"data.root={tmp_path / 'moved'}")  # the table lies where its images do
    assert outcome.code == 0 and "owl" in outcome.out, outcome.err
    outcome = vac("train", "data=table", "recipe=smoke")
    assert outcome.code == 2 and "data.table is needed: say data.table=FILE" in outcome.err
