"""`python benchmarks`: each in a process of its own, one table."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """benchmarks/__main__.py over two scripts in tmp_path: one tells a figure, one fails after it told one."""
    spec = importlib.util.spec_from_file_location("runner", BENCHMARKS / "__main__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "runner", module)
    spec.loader.exec_module(module)
    told = '{"what": "WHAT", "ours": "1 s", "rival": "2 s", "ratio": 0.5, "least": 0.9, "most": null}'
    tell = f"import os; open(os.environ['VAC_BENCH_RESULTS'], 'w').write('''{told}\\n''');"
    (tmp_path / "broken.py").write_text(tell.replace("WHAT", "before it broke") + "raise SystemExit(3)")
    (tmp_path / "good.py").write_text(
        tell.replace("WHAT", "a|good one") + "assert os.environ['OMP_NUM_THREADS'] == '1'"
    )
    scripts = {"broken": module.Script(), "good": module.Script(threads=1)}
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "SCRIPTS", scripts)
    return module


def test_one_that_fails_is_listed_and_the_others_go_on(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    assert runner.main() == 1
    (page,) = (tmp_path / "results").iterdir()
    text = page.read_text()
    assert "Failed: broken (exit code 3)." in text
    assert "| before it broke | 1 s | 2 s | 0.500 | >= 0.9 | **no** |" in text
    assert "| a/good one | 1 s |" in text
    assert "Limits: 0 of 2 are met." in text
    assert "torch" in text and "cores" in text


def test_a_limit_that_is_not_met_is_no_failure_and_some_keep_no_table(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "good"])
    assert runner.main() == 0
    assert not (tmp_path / "results").exists()


def test_a_name_that_is_none_is_answered_with_those_there_are(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "sped"])
    with pytest.raises(SystemExit, match="2"):
        runner.main()
    assert "no benchmark sped; there are broken, good" in capsys.readouterr().err


def test_every_benchmark_is_run() -> None:
    """A script without a place in the table of scripts would be forgotten by `make bench`."""
    code = (BENCHMARKS / "__main__.py").read_text()
    scripts = [path.stem for path in BENCHMARKS.glob("[a-z]*.py") if "def main(" in path.read_text()]
    assert len(scripts) > 5
    assert [name for name in scripts if f'"{name}": Script(' not in code] == []


def test_a_device_gives_the_file_its_name(runner: ModuleType) -> None:
    assert runner.slug("Some(R) CPU @ 2.50GHz, 2 cores") == "some-r-cpu-2-50ghz-2-cores"
