"""Names that others chose: what is shown can be printed, and what is inside a folder stays there."""

from __future__ import annotations

import itertools
import os
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vac_lightning.names import inside, is_printable, shown


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_shown_is_printable_and_one_line(text: str) -> None:
    assert is_printable(shown(text))
    assert len(shown(text).splitlines()) <= 1
    assert shown(text) == text or not is_printable(text)
    shown(text).encode()


@pytest.mark.parametrize("text", ["circle", "été", "停止标志", "क्‍ष", "👩‍🚀", "<b>", "$x_1$", "a|b", "a b"])
def test_names_of_all_languages_are_shown_as_they_are(text: str) -> None:
    assert is_printable(text)
    assert shown(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\x1b[2Jb", "a\\x1b[2Jb"), ("a\nb", "a\\nb"), ("\u202egnp", "\\u202egnp"), ("\x9b", "\\x9b")],
)
def test_what_steers_a_terminal_is_escaped(text: str, expected: str) -> None:
    assert shown(text) == expected


@given(st.lists(st.sampled_from(["..", ".", "a", "", "...", "\\", "~", "b.jpg"])).map("/".join))
def test_a_path_that_is_inside_leads_nowhere_else(path: str) -> None:
    leads_to = os.path.normpath(os.path.join("/folder", path))  # noqa: PTH118  (by its letters alone)
    assert not inside(path) or leads_to == "/folder" or leads_to.startswith("/folder/")


@pytest.mark.parametrize("path", ["a.jpg", "a/b.jpg", "a..b/c...jpg", "~a/b", ".hidden", "./a"])
def test_ordinary_paths_are_inside(path: str) -> None:
    assert inside(path)


@pytest.mark.parametrize("path", ["", "..", "../a", "a/../b", "a/..", "/a", "a\\..\\b", "a\0"])
def test_paths_that_could_lead_out_are_not(path: str) -> None:
    assert not inside(path)


def test_a_path_is_inside_as_the_system_reads_it() -> None:
    """The quick way through a hundred thousand names decides as pathlib does, here and on Windows."""
    for letters in itertools.product("a.:/\\~", repeat=5):
        path = "".join(letters)
        parts, native = path.replace("\\", "/").split("/"), PurePath(path)
        rooted = native.is_absolute() or bool(native.drive) or path.startswith("\\")
        assert inside(path) == (".." not in parts and not rooted)


def test_what_python_calls_printable_steers_nothing() -> None:
    for number in range(0x110000):
        assert not chr(number).isprintable() or shown(chr(number)) == chr(number)
