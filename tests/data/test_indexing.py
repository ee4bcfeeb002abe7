"""The kept index: the same as the first, made anew wherever it could not be."""

import io
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from vac_lightning.data.annotations.indexing import Index, checked, indexed
from vac_lightning.data.annotations.records import collected
from vac_lightning.data.base import DataError

INDEX = Index(["Köln", "a\nb"], ["x.jpg", "日/y.jpg", "z" * 3000 + ".jpg"], np.array([[1, 0], [0, 0], [1, 1]], np.int8))


class Making:
    """Makes INDEX, and counts how often."""

    def __init__(self, seconds: float = 0) -> None:
        self.times = 0
        self.seconds = seconds

    def __call__(self) -> Index:
        self.times += 1
        time.sleep(self.seconds)
        return INDEX


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "annotations.json"
    path.write_bytes(bytes(2**20))
    return path


def same(index: Index) -> bool:
    return [*index[:2]] == [*INDEX[:2]] and index.targets.dtype == np.int8 and np.array_equal(index[2], INDEX[2])


def test_an_index_is_made_once_and_kept(file: Path, tmp_path: Path) -> None:
    make = Making()
    for _ in range(3):
        assert same(indexed(file, "a", make, str(tmp_path / "kept")))
    assert make.times == 1
    assert same(indexed(file, "b", make, str(tmp_path / "kept"))) and make.times == 2
    assert same(indexed(file, "a", make, str(tmp_path / "kept"))) and make.times == 2


def test_a_changed_or_moved_file_is_read_again(file: Path, tmp_path: Path) -> None:
    make = Making()
    indexed(file, "a", make, str(tmp_path / "kept"))
    later = file.stat().st_mtime_ns + 1
    os.utime(file, ns=(later, later))
    for _ in range(2):
        indexed(file, "a", make, str(tmp_path / "kept"))
    assert make.times == 2
    with file.open("ab") as out:
        out.write(b" ")
    os.utime(file, ns=(later, later))
    indexed(file, "a", make, str(tmp_path / "kept"))
    assert make.times == 3
    moved = file.rename(tmp_path / "elsewhere.json")
    indexed(moved, "a", make, str(tmp_path / "kept"))
    assert make.times == 4
    assert len(list((tmp_path / "kept/index").glob("*.npz"))) == 2  # what is stale is replaced


def arrays(**changed: np.ndarray) -> bytes:
    """A kept index of another file, with other arrays."""
    content = {
        "stamp": np.zeros(3, np.int64),
        "labels": np.frombuffer(b'["a", "b"]', np.uint8),
        "names": np.frombuffer(b'["x.jpg"]', np.uint8),
        "targets": np.zeros((1, 2), np.int8),
    }
    out = io.BytesIO()
    np.savez(out, **(content | changed))
    return out.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: b"",
        lambda kept: kept[:-50],
        lambda kept: kept[: len(kept) // 2] + bytes([kept[len(kept) // 2] ^ 255]) + kept[len(kept) // 2 + 1 :],
        lambda kept: b"PK\x03\x04 but no archive",
        lambda kept: b"\x93NUMPY\x01\x00",
        lambda kept: b"\x80\x04]\x94.",  # a pickle
        lambda kept: {"stamp": np.zeros(3, np.int64)},
        lambda kept: {"names": np.frombuffer(b'["../../secret.jpg"]', np.uint8)},
        lambda kept: {"names": np.frombuffer(b'["/secret.jpg"]', np.uint8)},
        lambda kept: {"names": np.frombuffer(b'["x\\u001b.jpg"]', np.uint8)},
        lambda kept: {"names": np.frombuffer(b"[1]", np.uint8)},
        lambda kept: {"names": np.frombuffer(b"\xff", np.uint8)},
        lambda kept: {"names": np.frombuffer(b'["x.jpg", "x.jpg"]', np.uint8), "targets": np.zeros((2, 2), np.int8)},
        lambda kept: {"targets": np.full((1, 2), 2, np.int8)},
        lambda kept: {"targets": np.full((1, 2), -1, np.int8)},
        lambda kept: {"targets": np.zeros((1, 2))},
        lambda kept: {"targets": np.zeros((1, 3), np.int8)},
        lambda kept: {"targets": np.array([[None, None]])},  # an array of objects, which is a pickle
    ],
)
def test_a_damaged_index_is_made_again_without_a_word(file: Path, tmp_path: Path, damage, capfd) -> None:
    make = Making()
    indexed(file, "a", make, str(tmp_path / "kept"))
    (path,) = (tmp_path / "kept/index").glob("*.npz")
    stamp = np.load(path)["stamp"]
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged if isinstance(damaged, bytes) else arrays(**({"stamp": stamp} | damaged)))
    for _ in range(2):
        assert same(indexed(file, "a", make, str(tmp_path / "kept")))
    assert make.times == 2
    assert capfd.readouterr() == ("", "")


def test_the_arrays_above_would_be_an_index_but_for_their_damage(file: Path, tmp_path: Path) -> None:
    make = Making()
    indexed(file, "a", make, str(tmp_path / "kept"))
    (path,) = (tmp_path / "kept/index").glob("*.npz")
    path.write_bytes(arrays(stamp=np.load(path)["stamp"]))
    assert indexed(file, "a", make, str(tmp_path / "kept")).names == ["x.jpg"] and make.times == 1


@pytest.mark.parametrize("place", ["a file", "/proc/nothing"])
def test_a_folder_that_cannot_be_written_stops_nothing(file: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").touch()
    make = Making()
    for _ in range(2):
        assert same(indexed(file, "a", make, str(tmp_path / place)))
    assert make.times == 2


def test_a_disk_that_is_full_stops_nothing(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **arrays: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    assert same(indexed(file, "a", Making(), str(tmp_path / "kept")))
    assert not list((tmp_path / "kept/index").glob("*npz*[0-9]"))


def test_a_small_file_is_read_each_time_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "small.json").write_bytes(b"{}")
    make = Making()
    for _ in range(2):
        indexed(tmp_path / "small.json", "a", make, str(tmp_path / "kept"))
    assert make.times == 2 and not (tmp_path / "kept").exists()


def test_who_collects_errors_reads_the_file_itself_and_keeps_nothing(file: Path, tmp_path: Path) -> None:
    make = Making()
    with collected():
        indexed(file, "a", make, str(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()
    indexed(file, "a", make, str(tmp_path / "kept"))
    with collected():
        indexed(file, "a", make, str(tmp_path / "kept"))
    assert make.times == 3


def test_several_at_once_make_it_once(file: Path, tmp_path: Path) -> None:
    make, found = Making(seconds=0.05), []
    threads = [
        threading.Thread(target=lambda: found.append(indexed(file, "a", make, str(tmp_path / "kept"))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4 and all(map(same, found)) and make.times == 1


def test_a_broken_index_is_blamed_and_not_kept(file: Path, tmp_path: Path) -> None:
    def make() -> Index:
        return checked(Index(["a"], ["x.jpg", "../y.jpg"], np.zeros((2, 1), np.int8)), file, tmp_path)

    for _ in range(2):
        with pytest.raises(DataError, match=r"annotations\.json, image 1 names the file '\.\./y\.jpg', outside"):
            indexed(file, "a", make, str(tmp_path / "kept"))


def test_names_that_cannot_be_used_are_left_out_where_errors_are_collected(tmp_path: Path) -> None:
    names = ["a.jpg", "/b.jpg", "a.jpg", "c\x07.jpg", "d.jpg"]
    with collected() as errors:
        index = checked(Index(["a"], names, np.arange(5, dtype=np.int8)[:, None] % 2), Path("f.json"), tmp_path)
    assert [*index.names] == ["a.jpg", "d.jpg"] and index.targets.tolist() == [[0], [0]]
    assert [str(error).split(":")[0][:28] for error in errors] == [
        "f.json, image 1 names the fi", "f.json", "f.json, image 3 names the fi",
    ]  # fmt: skip
    assert "images 0 and 2 are both 'a.jpg'" in str(errors[1])
