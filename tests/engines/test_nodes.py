"""One run on two nodes, each a network of its own, started with torchrun as people start it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import SMOKE
from test_multirun import PLAIN

from vac_lightning.runs import find_runs

Node = tuple[list[str], dict[str, str]]


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    """For each of two nodes, what a command starts with there, and its environment; the first is at 10.99.0.1.

    They are network namespaces joined by a cable: neither sees the other's loopback device.
    """
    address, device = "10.99.0.{}", "vac{}"
    with ExitStack() as stack:

        def ip(*words: str) -> bool:
            return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0

        names = [f"vac-test-{os.getpid()}-{node}" for node in (1, 2)]
        for name in names:
            stack.callback(subprocess.run, ["ip", "netns", "del", name], capture_output=True, check=False)
        ends = [device.format(node) for node in (1, 2)]
        if shutil.which("ip") is None or not all(ip("netns", "add", name) for name in names):
            pytest.skip("network namespaces need root and iproute2")
        first, second = names
        assert ip("-n", first, "link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", second)
        made = []
        for node, (name, end) in enumerate(zip(names, ends, strict=True), start=1):
            assert ip("-n", name, "address", "add", f"{address.format(node)}/24", "dev", end)
            assert ip("-n", name, "link", "set", end, "up") and ip("-n", name, "link", "set", "lo", "up")
            made.append((["ip", "netns", "exec", name], {"GLOO_SOCKET_IFNAME": end}))
        yield made


@pytest.mark.slow
def test_two_nodes_leave_one_run_as_of_one_process(nodes: list[Node], tmp_path: Path) -> None:
    vac = tmp_path / "vac"  # as the console script is
    vac.write_text("import sys\nfrom vac_lightning.cli import main\nsys.exit(main())\n")
    words = ["train", *SMOKE, *PLAIN, "transform=f"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = []
    for rank, (prefix, its) in enumerate(nodes):
        torchrun = [
            *(*prefix, sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
            *(f"--node-rank={rank}", "--master-addr=10.99.0.1", "--master-port=29400"),
        ]
        node = ["trainer.num_nodes=2", "trainer.devices=1", "trainer.strategy=ddp", f"runs_dir={tmp_path / 'two'}"]
        with (tmp_path / f"node{rank}.txt").open("wb") as output:
            started.append(
                subprocess.Popen(
                    [*torchrun, str(vac), *words, *node], env={**environment, **its}, stdout=output, stderr=output
                )
            )
    try:
        codes = [process.wait(400) for process in started]
    finally:
        for process in started:
            process.kill()
    assert codes == [0, 0], "\n".join(path.read_text()[-3000:] for path in tmp_path.glob("node*.txt"))
    done = subprocess.run(
        [sys.executable, str(vac), *words, f"runs_dir={tmp_path / 'one'}"], env=environment, check=False
    )
    assert done.returncode == 0
    ((two,), (one,)) = (find_runs([tmp_path / name]) for name in ("two", "one"))
    assert two.results()["device"].startswith("2 x cpu")
    for name in ("last", "best"):
        a, b = (run.results()["metrics"][name] for run in (one, two))
        assert a["epoch"] == b["epoch"]
        for split in ("val", "test"):
            assert a[split] == pytest.approx(b[split], rel=1e-9, nan_ok=True)
    assert {path.name for path in two.path.iterdir()} == {path.name for path in one.path.iterdir()}
