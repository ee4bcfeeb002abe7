"""What the README shows how to add is added, word for word, and trains."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, SMOKE, Vac


def _lesson(title: str) -> tuple[str, str, list[str]]:
    """The Python file of a section of the README, the modules it vouches for, and its command."""
    section = re.split(r"^## ", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(title)]
    (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (command,) = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    assert len(program.strip().splitlines()) < 30
    vouched, vac, *words = shlex.split(command)
    assert vouched.startswith("VAC_ALLOW=") and vac == "vac"
    return program, vouched.removeprefix("VAC_ALLOW="), words


@pytest.mark.slow
@pytest.mark.parametrize("title", ["Add a transform", "Add a backbone", "Add a data set"])
def test_the_lessons_run_as_they_stand(title: str, vac: Vac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, vouched, words = _lesson(title)
    monkeypatch.setenv("VAC_ALLOW", vouched)
    (tmp_path / "mine.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    for role in ("train", "val", "test"):
        for label in ("left", "right"):
            folder = tmp_path / "pictures" / role / label
            folder.mkdir(parents=True)
            for number in range(2):
                cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 30, 3), 40 * number, np.uint8))
    smoke = [word for word in SMOKE if "scenes" not in word or title != "Add a data set"]
    outcome = vac(*words, *smoke)
    assert outcome.code == 0, outcome.err
    assert list(tmp_path.rglob("results.json"))
