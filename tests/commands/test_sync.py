"""`vac sync`: what W&B lacks of runs is sent once, in order, and nothing stops at one bad file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Vac
from wandb_server import Server, environment

from vac_lightning import uploads
from vac_lightning.runs import Run

_LOGGED = """
import sys
from pathlib import Path
from vac_lightning import loggers

folder = Path(sys.argv[1])
for row, resumed in (("R50", False), ("R50+f", False), ("R50", True)):
    logger = loggers.wandb(folder / row, row, "experiment", {}, "vac", resumed=resumed)
    logger.log_metrics({"epoch": 1.0 if resumed else 0.0}, step=int(resumed))
    loggers.close_wandb(exit_code=0)
"""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that were logged offline, the first in two parts."""
    folder = tmp_path_factory.mktemp("runs")
    server = Server()
    offline = {**environment(server, folder), "WANDB_MODE": "offline"}
    subprocess.run([sys.executable, "-c", _LOGGED, str(folder)], env=offline, check=True, timeout=120)
    server.refuse()
    return folder


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    """W&B reads its environment once a process, and other tests have had it read another."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A W&B server that this process, and `wandb sync` below it, is logged in to."""
    server = Server()
    for name, value in environment(server, tmp_path).items():
        monkeypatch.setenv(name, value)
    yield server
    server.refuse()


@pytest.mark.slow
def test_runs_are_sent_once_in_order_and_a_broken_file_stops_no_other(vac: Vac, logged: Path, server: Server) -> None:
    empty, broken = (
        _part(logged / name, "offline-run-20260101_000000-00000000", text)
        for name, text in (("empty", b""), ("broken", b"no W&B file"))
    )
    (first, second), (other,) = uploads.find([logged / "R50"])[0], uploads.find([logged / "R50+f"])[0]
    outcome = vac("sync", str(logged), "processes=2")
    assert outcome.code == 1
    assert "failed: 1" in outcome.err and "sent: 2" in outcome.err and str(broken) in outcome.err
    assert [row["epoch"] for row in server.history(first.id)] == [0, 1]
    assert [row["epoch"] for row in server.history(other.id)] == [0]
    assert [part.sent for part in (first, second, other)] == [True, True, True]
    assert not uploads.Part(broken).sent and not uploads.Part(empty).sent

    broken.unlink()
    server.received.clear()
    outcome = vac("sync", str(logged))
    assert outcome.code == 0, outcome.err
    assert "sent before: 3" in outcome.out
    assert server.operations("UpsertBucket") == [] and server.streamed("wandb-history.jsonl") == []

    # Without the marks, as where sending was cut: what the server has is not added once more.
    uploads.Part(other.file)._mark.unlink()
    server.received.clear()
    server.received.append(("/files/us/vac/" + other.id + "/file_stream", _lines('{"epoch": 0.0}')))
    assert vac("sync", str(logged / "R50+f")).code == 0
    assert [row["epoch"] for row in server.history(other.id)] == [0]


@pytest.mark.slow
def test_a_run_that_is_in_use_is_left_alone(vac: Vac, tmp_path: Path, server: Server) -> None:
    part = _part(tmp_path / "run", "offline-run-20260101_000000-00000000", b"still being written")
    with Run(tmp_path / "run").alone(seconds=0):
        outcome = vac("sync", str(tmp_path / "run"))
    assert outcome.code == 0
    assert "in use: 1" in outcome.out
    assert not uploads.Part(part).sent and not server.operations("UpsertBucket")


def test_a_part_that_the_server_went_on_from_is_not_sent(tmp_path: Path) -> None:
    names = ["run-20260101_000000-id", "run-20260101_000002-id", "offline-run-20260101_000001-id"]
    parts = [uploads.Part(_part(tmp_path, name, b"W&B")) for name in names]
    (found,) = uploads.find([tmp_path])
    assert [part.time for part in found] == sorted(part.time for part in parts)
    assert uploads.to_send(found) == [parts[1]]
    later = uploads.Part(_part(tmp_path, "offline-run-20260101_000003-id", b"W&B"))
    assert uploads.to_send(uploads.find([tmp_path])[0]) == [parts[1], later]
    parts[1].mark_sent()
    assert uploads.to_send(uploads.find([tmp_path])[0]) == [later]
    assert uploads.latest(tmp_path) == later


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "no runs given"),
        (("/nowhere",), 2, "/nowhere does not exist"),
        (("RUN", "processes=0"), 2, "processes=0: expected a whole number of at least 1"),
        (("RUN", "processes=some"), 2, "processes=some: expected a whole number"),
        (("RUN",), 2, "WANDB_API_KEY"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    vac: Vac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, says: str
) -> None:
    _part(tmp_path, "offline-run-20260101_000000-id", b"W&B")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    outcome = vac("sync", *(str(tmp_path) if word == "RUN" else word for word in words))
    assert outcome.code == code
    assert says in outcome.err and outcome.err.count("\n") == 1


def test_a_server_that_does_not_answer_is_said_in_one_line(
    vac: Vac, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _part(tmp_path, "offline-run-20260101_000000-id", b"W&B")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    outcome = vac("sync", str(tmp_path))
    assert outcome.code == 1
    assert "does not answer" in outcome.err and outcome.err.count("\n") == 1


def _part(run_dir: Path, folder: str, content: bytes) -> Path:
    file = run_dir / "wandb" / folder / f"run-{folder.rpartition('-')[2]}.wandb"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file


def _lines(*lines: str) -> dict[str, object]:
    return {"files": {"wandb-history.jsonl": {"offset": 0, "content": list(lines)}}}
