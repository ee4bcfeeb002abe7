"""A sweep on a real Ray cluster, started on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_multirun import sweep

from vac_lightning.runs import find_runs

pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.mark.slow
def test_ray_runs_jobs_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    # 24 samples do not fill 32: that job cannot start.
    words = ("batch_size=8,32,12", "drop_last=true", "transform=none", "hydra/launcher=ray")
    done = sweep(tmp_path, *words, OMP_NUM_THREADS="1")
    assert done.returncode == 2, done.stderr[-3000:]
    assert "batch_size=32 is larger than the train split (24 samples)" in done.stderr
    rows = {run.results()["row"] for run in find_runs([tmp_path])}
    assert rows == {"Linear_batch_size=8", "Linear_batch_size=12"}
