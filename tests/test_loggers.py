"""W&B that goes away: the server, its service process or the machine under a run, and runs that go on."""

from __future__ import annotations

import base64
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SMOKE
from wandb_server import KEY, Server, environment

from vac_lightning import loggers, uploads
from vac_lightning.account import answers
from vac_lightning.runs import Run


@pytest.fixture
def start_server() -> Iterator[Callable[[], Server]]:
    servers: list[Server] = []

    def start() -> Server:
        servers.append(Server())
        return servers[-1]

    yield start
    for server in servers:
        server.released.set()
        server.refuse()


@pytest.fixture
def server(start_server: Callable[[], Server]) -> Server:
    return start_server()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    loggers.close_wandb(exit_code=0)
    sys.modules["wandb"].teardown()


_VAC = "import sys; from vac_lightning.cli import main; sys.exit(main())"


def _until(true: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, "the process ended too early"
        assert time.monotonic() < limit, f"not after {seconds} s"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("vanish", [Server.refuse, Server.hang])
def test_a_run_whose_server_vanishes_goes_on_and_can_be_sent_later(
    start_server: Callable[[], Server], tmp_path: Path, vanish: Callable[[Server], None]
) -> None:
    server = start_server()
    run = Run(tmp_path / "run")
    words = [
        "logger=wandb",
        "logger.finish_seconds=5",
        "transform=none",
        "trainer.max_epochs=12",
        f"run_dir={run.path}",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", _VAC, "train", *SMOKE, *words],
        env=environment(server, tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    _until(lambda: (run.checkpoints / "last.ckpt").exists(), process)
    vanish(server)
    vanished = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert time.monotonic() - vanished < 45
    assert not server.exit_codes
    results = run.results()
    assert results["metrics"]["last"]["epoch"] == 11
    (line,) = [line for line in (run.path / "train.log").read_text().splitlines() if "wandb sync" in line]
    _assert_nothing_holds_the_key(run.path)

    later = start_server()
    command = re.search(r"wandb sync .*", line)
    assert command, line
    subprocess.run(
        [sys.executable, "-m", *shlex.split(command[0])],
        cwd=tmp_path,  # wandb sync writes its log into the folder it is started in
        env=environment(later, tmp_path),
        check=True,
        capture_output=True,
        timeout=30,
    )
    history = later.streamed("wandb-history.jsonl")
    validated = {row["epoch"]: row["val/mAP"] for row in history if "val/mAP" in row}
    assert validated == {epoch: row["val/mAP"] for epoch, row in run.history().items() if "val/mAP" in row}
    tested = [row["test/mAP"] for row in history if "test/mAP" in row]
    assert tested == [results["metrics"][name]["test"]["mAP"] for name in ("last", "best")]
    assert later.exit_codes == [0]


def _assert_nothing_holds_the_key(folder: Path) -> None:
    secrets = (KEY.encode(), base64.b64encode(f"api:{KEY}".encode()))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "debug-internal.log" for path in files)
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if any(secret in path.read_bytes() for secret in secrets)] == []


_PREEMPTED = """
import signal, sys, time
from vac_lightning import loggers

signals = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: signals.append(number))
logger = loggers.wandb(sys.argv[1], "row", "experiment", {}, "vac")
logger.log_metrics({"epoch": 0.0}, step=0)
print("started", flush=True)
while not signals:
    time.sleep(0.05)
time.sleep(1)
logger.log_metrics({"epoch": 1.0}, step=1)
began = time.monotonic()
loggers.close_wandb(exit_code=128 + signals[0], preempted=True)
print(time.monotonic() - began, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "vanish"),
    [(signal.SIGTERM, None), (signal.SIGINT, None), (signal.SIGTERM, Server.hang), (signal.SIGTERM, Server.refuse)],
)
def test_a_preempted_run_is_closed_before_its_process_is_killed(
    start_server: Callable[[], Server], tmp_path: Path, number: signal.Signals, vanish: Callable[[Server], None] | None
) -> None:
    """The signal goes to the whole process group, as from a terminal or a batch system."""
    server = start_server()
    process = subprocess.Popen(
        [sys.executable, "-c", _PREEMPTED, str(tmp_path)],
        env=environment(server, tmp_path / "home"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    _until(lambda: bool(server.operations("UpsertBucket")), process)
    if vanish is not None:
        vanish(server)
    signalled = time.monotonic()
    os.killpg(process.pid, number)
    seconds, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert float(seconds) < 8
    assert time.monotonic() - signalled < 10
    if vanish is None:
        assert errors == ""
        assert server.exit_codes == [128 + number]
        assert [row["epoch"] for row in server.streamed("wandb-history.jsonl")] == [0, 1]
        assert any(body.get("preempting") for _, body in server.received)
    else:
        assert errors.count("wandb sync --include-online") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_a_resumed_run_goes_on_in_the_same_wandb_run(tmp_path: Path) -> None:
    def identity(resumed: bool) -> str:
        logger = loggers.wandb(tmp_path, "row", "experiment", {}, "vac", resumed=resumed)
        loggers.close_wandb(exit_code=0)
        assert isinstance(logger.version, str)
        return logger.version

    first = identity(resumed=True)
    # Two starts in one second: W&B gives the second folder a suffix, which is no part of the id.
    assert [identity(resumed=True) for _ in range(2)] == [first, first]
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 3
    time.sleep(1)
    other = identity(resumed=False)
    assert other != first
    assert identity(resumed=True) == other


_RESUMED = """
import sys
from vac_lightning import loggers

logger = loggers.wandb(sys.argv[1], "row", "experiment", {}, "vac", resumed=True)
logger.log_metrics({"epoch": 0.0}, step=int(sys.argv[2]))
loggers.close_wandb(exit_code=0)
"""


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_wandb_run_online(server: Server, tmp_path: Path) -> None:
    for step in range(2):
        command = [sys.executable, "-c", _RESUMED, str(tmp_path), str(step)]
        subprocess.run(command, env=environment(server, tmp_path / "home"), check=True, timeout=120)
    ids = {variables["name"] for variables in server.operations("UpsertBucket")}
    assert len(ids) == 1
    history = server.streamed("wandb-history.jsonl")
    assert [(row["_step"], row["trainer/global_step"]) for row in history] == [(0, 0), (1, 1)]
    (parts,) = uploads.find([tmp_path])
    assert [(part.online, part.sent) for part in parts] == [(True, True), (True, True)]

    # What was logged offline must reach the server before what comes after it.
    unsent = tmp_path / "wandb" / f"offline-run-99990101_000000-{parts[0].id}" / parts[0].file.name
    unsent.parent.mkdir()
    unsent.write_bytes(b"not sent yet")
    calls = len(server.operations("UpsertBucket"))
    subprocess.run([*command[:-1], "2"], env=environment(server, tmp_path / "home"), check=True, timeout=120)
    assert len(server.operations("UpsertBucket")) == calls
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the service process in /proc")
@pytest.mark.usefixtures("offline")
def test_a_wandb_service_that_is_killed_ends_neither_a_run_nor_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = loggers.wandb(tmp_path / "first", "row", "experiment", {}, "vac")
    logger.log_metrics({"epoch": 0.0}, step=0)
    os.kill(_service(), signal.SIGTERM)
    time.sleep(0.5)
    for step in (1, 2):
        logger.log_metrics({"epoch": 1.0}, step=step)
        logger.log_table("table", columns=["label"], data=[["car"]])
        logger.log_image("panel", [tmp_path / "missing.png"])
    loggers.close_wandb(exit_code=0)
    assert [message.partition(" (")[0] for message in _warnings(caplog)] == [
        "W&B did not log something",
        "W&B did not get all of this run",
    ]
    caplog.clear()
    second = loggers.wandb(tmp_path / "second", "row", "experiment", {}, "vac")
    assert second.version != logger.version
    second.log_metrics({"epoch": 0.0}, step=0)
    loggers.close_wandb(exit_code=0)
    assert _warnings(caplog) == []
    assert list((tmp_path / "second").rglob("run-*.wandb"))


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == loggers.__name__ and record.levelno >= 30]


def _service() -> int:
    """The process id of W&B's service, a child of this process."""
    texts = {path.parent.name: path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()}
    ours = f"(wandb-core) {{}} {os.getpid()} "
    (found,) = [pid for pid, text in texts.items() if any(ours.format(state) in text for state in "SR")]
    return int(found)


def test_a_server_answers_only_if_it_says_something(server: Server) -> None:
    assert answers(server.url)
    server.hang()
    assert not answers(server.url, seconds=0.2)
    assert not answers("http://127.0.0.1:9")
    assert not answers("no address")


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_a_run_with_wandb_disabled_leaves_nothing_and_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = loggers.wandb(tmp_path, "row", "experiment", {}, "vac")
    logger.log_metrics({"epoch": 0.0}, step=0)
    logger.log_table("table", columns=["label"], data=[["car"]])
    loggers.close_wandb(exit_code=0)
    assert _warnings(caplog) == []
    assert list(tmp_path.rglob("*.wandb*")) == []


def test_closing_without_a_wandb_run_does_nothing() -> None:
    loggers.close_wandb(exit_code=0)
    loggers.close_wandb(exit_code=1, preempted=True)
