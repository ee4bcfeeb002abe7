"""Where what is kept lies."""

import pwd
from pathlib import Path

import pytest

from vac_lightning.data.keeping.places import kept_folder


def test_the_word_comes_before_the_environment_and_that_before_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("VAC_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert kept_folder() == tmp_path / ".cache" / "vac_lightning"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert kept_folder() == Path("/xdg/vac_lightning")
    monkeypatch.setenv("VAC_CACHE", "~/own")
    assert kept_folder() == tmp_path / "own"
    monkeypatch.chdir(tmp_path)
    assert kept_folder("here") == tmp_path / "here"


def test_without_a_home_the_error_says_what_to_set(monkeypatch):
    for name in ("HOME", "VAC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(OSError, match=r"set VAC_CACHE or data\.cache_dir=FOLDER"):
        kept_folder()
