"""MATLAB files: what SciPy writes is read, and no damage brings more than one error."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from vac_lightning.data.annotations.matlab import variables
from vac_lightning.data.base import DataError

TEXTS = ["", "a", "000001.jpg", "Skirt&Dress", "Köln", "停止", "x" * 1000]


def written(path: Path, content: object, **options: object) -> Path:
    scipy.io.savemat(path, content, **options)
    return path


def cells(values: list[object]) -> np.ndarray:
    column = np.empty((len(values), 1), object)
    column[:, 0] = values
    return column


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "numbers",
    [np.dtype(kind).newbyteorder("<") for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "?")],
    ids=str,
)
def test_numbers_are_read_as_scipy_reads_them(tmp_path: Path, numbers: np.dtype, compressed: bool) -> None:
    for shape in ((1, 1), (3, 4), (0, 5), (2, 3, 4)):
        matrix = (np.arange(np.prod(shape)) % 2).reshape(shape).astype(numbers)
        file = written(tmp_path / "a.mat", {"m": matrix, "other": 1}, do_compression=compressed)
        value = variables(file, {"m", "absent"})["m"]
        np.testing.assert_array_equal(value, scipy.io.loadmat(file)["m"])


def test_cells_of_texts_and_of_cells(tmp_path: Path) -> None:
    content = {"texts": cells(TEXTS), "one": "text", "nested": cells([np.eye(2), cells(["a", 2.0])]), "none": cells([])}
    found = variables(written(tmp_path / "a.mat", content), content)
    assert found["texts"] == TEXTS and found["one"] == "text" and found["none"] == []
    np.testing.assert_array_equal(found["nested"][0], np.eye(2))
    assert found["nested"][1][0] == "a" and found["nested"][1][1].item() == 2


def test_what_is_neither_is_none_and_no_obstacle(tmp_path: Path) -> None:
    content = {
        "struct": {"a": 1}, "complex": np.eye(2) * 1j, "sparse": scipy.sparse.eye(3).tocsc(),
        "rows": np.array(["ab", "cd"]), "after": "text",
    }  # fmt: skip
    found = variables(written(tmp_path / "a.mat", content), content)
    assert found == dict.fromkeys(content) | {"after": "text"}
    assert variables(tmp_path / "a.mat", ["after"]) == {"after": "text"}


def test_a_file_of_the_other_byte_order(tmp_path: Path) -> None:
    """SciPy writes only that of its machine: the numbers of a small file, turned around one by one."""
    text, number = "ab".encode("utf-16-be"), np.array([[1.5]], ">f8").tobytes()
    element = lambda kind, data: np.array([kind, len(data)], ">u4").tobytes() + data + bytes(-len(data) % 8)  # noqa: E731
    flags = lambda kind: element(6, np.array([kind, 0], ">u4").tobytes())  # noqa: E731
    size = lambda *shape: element(5, np.array(shape, ">i4").tobytes())  # noqa: E731
    first = element(14, flags(4) + size(1, 2) + element(1, b"t") + element(4, text))
    second = element(14, flags(6) + size(1, 1) + element(1, b"n") + element(9, number))
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + first + second)
    assert variables(tmp_path / "a.mat", "tn") == {"t": "ab", "n": 1.5}
    assert scipy.io.loadmat(tmp_path / "a.mat")["t"] == "ab"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: b"", "no MATLAB file of version 5"),
        (lambda content: content[:90], "no MATLAB file of version 5"),
        (lambda content: b'{"images": []}' * 40, "no MATLAB file of version 5"),
        (lambda content: b"\x89HDF\r\n\x1a\n" + bytes(512), r"version 7\.3 \(HDF5\): save it with -v7"),
        (lambda content: content[:124] + b"\x00\x02IM" + content[128:], r"version 7\.3 \(HDF5\): save it with -v7"),
        (lambda content: content[:-60], r"damaged MATLAB file \(it ends too early\)"),
        (lambda content: content[:132], "damaged MATLAB file"),
        (lambda content: content.replace(b"\x09\0\0\0\x88\x02", b"\x08\0\0\0\x88\x02"), r"\(data of the kind 8\)"),
        (lambda content: content.replace(b"\x09\0\0\0\t\0\0\0", b"\x09\0\0\0\x08\0\0\0"), "reshape"),
        (lambda content: content[:128] + bytes(200), "damaged MATLAB file .*kind 0"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(tmp_path: Path, damage, reason: str) -> None:
    file = written(tmp_path / "a.mat", {"m": np.eye(9)})
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=reason) as error:
        variables(file, {"m"})
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)


def test_a_variable_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vac_lightning.data.annotations.matlab._LARGEST", 2**16)
    file = written(tmp_path / "a.mat", {"m": np.zeros((2**13, 1))}, do_compression=True)
    with pytest.raises(DataError, match="larger than 65536 bytes"):
        variables(file, {"m"})


@pytest.mark.parametrize("compressed", [False, True])
def test_a_flipped_byte_brings_no_other_error(tmp_path: Path, compressed: bool) -> None:
    """Of which SciPy does not come back: on some of these it ends the process."""
    content = {"texts": cells(TEXTS), "m": np.eye(3), "s": {"a": 1}, "z": scipy.sparse.eye(3).tocsc()}
    file = written(tmp_path / "a.mat", content, do_compression=compressed)
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] = rng.integers(256)
        file.write_bytes(flipped)
        with suppress(DataError):
            variables(file, content)
