"""Where a run is watched: Weights & Biases, online when it can be and offline when not, or TensorBoard."""

from __future__ import annotations

__all__ = ["close_wandb", "conclude", "tensorboard", "wandb"]

import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from vac_lightning import uploads
from vac_lightning.account import answers, quiet_client

log = logging.getLogger(__name__)


def wandb(
    save_dir: Path,
    name: str,
    group: str,
    hyperparameters: dict[str, Any],
    project: str,
    entity: str | None = None,
    resumed: bool = False,
    finish_seconds: float = 30.0,
) -> WandbLogger:
    """A W&B logger that never prompts and never stops a run.

    Online when logged in and the server answers; else offline under save_dir/wandb, to be sent later with
    `vac sync`. WANDB_MODE, where set, decides. name = the row and seed, group = the experiment and row, so that a
    group is the seeds of one row; the experiment is also the job type. A `resumed` run goes on in the W&B run that
    save_dir holds, if any: offline where that was not sent yet, for what comes later must not reach W&B first. An
    online run whose server goes away is written locally, sent on when the server is back, and given up
    `finish_seconds` after its end: `close_wandb` then says how to send the rest.
    """
    client = quiet_client()
    before = uploads.latest(Path(save_dir)) if resumed else None
    waits = before is not None and not before.online and not before.sent
    mode = os.environ.get("WANDB_MODE") or ("offline" if waits else _mode())
    options: dict[str, Any] = {
        "project": project,
        "entity": entity,
        "name": name,
        "group": group,
        "save_dir": save_dir,
        "job_type": hyperparameters.get("experiment"),
        "id": before and before.id,
        # Not of a new run: `wandb sync` would ask the server where to go on, and add what it has already once more.
        "resume": "allow" if before else None,
        "config": hyperparameters,
        "settings": client.Settings(
            init_timeout=30,
            finish_timeout=finish_seconds,
            finish_timeout_raises=True,
            # By default W&B gives up for good on a server that is away for long; finish_timeout is bound enough.
            x_file_stream_retry_max=_FOR_EVER,
            x_file_transfer_retry_max=_FOR_EVER,
            x_graphql_retry_max=_FOR_EVER,
        ),
    }
    logger = _Unbreakable(mode=mode, offline=mode == "offline", **options)
    try:
        _start(logger)
    except Exception as error:  # W&B raises types of its own, by version; whatever fails there must not stop a run.
        log.warning("W&B could not be started (%s); this run is logged offline", error)
        _failure_within(_SERVICE_SECONDS, client.teardown)
        logger = _Unbreakable(mode="offline", offline=True, **options)
        _start(logger)
    if mode == "offline":
        log.info("W&B is offline; send this run later with: vac sync %s", save_dir)
    logger.show_best("val/mAP")
    return logger


def conclude(logger: Logger, metrics: Mapping[str, Mapping[str, Any]], positives: Mapping[str, int]) -> None:
    """Write what a run came to where W&B's table of runs shows it, and the AP of every label as a table.

    The summary gets, as best/ and last/: epoch, val/mAP, test/<metric>, of the best also chosen_on and
    test/AP/<label>.

    Args:
        logger: of the run; one that is not W&B's gets nothing.
        metrics: "best" and "last" -> "epoch", "val" and "test", as in results.json.
        positives: label -> positive samples of the test split.
    """
    if not isinstance(logger, _Unbreakable):
        return
    summary: dict[str, Any] = {"best/chosen_on": metrics["best"]["chosen_on"]}
    for name in ("best", "last"):
        summary[f"{name}/epoch"] = metrics[name]["epoch"]
        summary |= {f"{name}/val/mAP": value for key, value in metrics[name]["val"].items() if key == "mAP"}
        summary |= {
            f"{name}/test/{key}": value
            for key, value in metrics[name]["test"].items()
            if math.isfinite(value) and (name == "best" or not key.startswith("AP/"))
        }
    logger.log_summary(summary)
    ap = {name: metrics[name]["test"] for name in ("best", "last")}
    rows = [[label, count, *(ap[name].get(f"AP/{label}") for name in ap)] for label, count in positives.items()]
    logger.log_table("test/AP_by_label", columns=["label", "positives", "AP, best epoch", "AP, last epoch"], data=rows)


def close_wandb(exit_code: int, preempted: bool = False) -> None:
    """Finish the active W&B run, if there is one, as crashed where exit_code is not 0.

    Never raises. Returns finish_seconds after it was called where the server does not answer, or 5 s after where the
    run is `preempted`, which W&B is then told; what was not sent by then stays in the run folder.
    """
    client: Any = sys.modules.get("wandb")
    run = getattr(client, "run", None)
    if run is None:
        return

    def finish() -> None:
        if preempted:
            run.mark_preempting()
        run.finish(exit_code)

    # W&B keeps to its own limit, unless its service does not answer either.
    seconds = _PREEMPTED_SECONDS if preempted else run.settings.finish_timeout + _SERVICE_SECONDS
    failure = _failure_within(seconds, finish)
    if failure is not None:
        # Ends the service, and with it whatever is still waited for, here and when this process exits.
        _failure_within(_SERVICE_SECONDS, lambda: client.teardown(exit_code))
        client.run = None  # or the next job of a sweep would go on in this run
        send = f"wandb sync{'' if run.offline else ' --include-online'} {Path(run.dir).parent}"
        log.warning("W&B did not get all of this run (%r); send it later with: %s", failure, send)
    elif not run.offline and not run.disabled:
        with suppress(OSError):  # without the mark it is sent once more, and nothing twice
            uploads.Part(Path(run.settings.sync_file)).mark_sent()


def tensorboard(
    save_dir: Path, name: str, group: str, hyperparameters: dict[str, Any], resumed: bool = False
) -> TensorBoardLogger:
    """A TensorBoard logger in save_dir/tensorboard; a resumed run adds a file. Needs the extra "tensorboard"."""
    try:
        return TensorBoardLogger(save_dir, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise ValueError('logger=tensorboard: not installed; pip install "vac_lightning[tensorboard]"') from error


_FOR_EVER = 100_000  # attempts, at most a minute apart
_PREEMPTED_SECONDS = 5.0
_SERVICE_SECONDS = 5.0


class _Unbreakable(WandbLogger):
    """A WandbLogger whose failures, such as a full disk or a killed W&B service, are said once and passed over."""

    _failed = False

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        self._attempt(super().log_hyperparams, *args, **kwargs)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._attempt(super().log_metrics, metrics, step)

    def log_table(self, *args: Any, **kwargs: Any) -> None:
        self._attempt(self._log_table, *args, **kwargs)

    def log_image(self, *args: Any, **kwargs: Any) -> None:
        self._attempt(super().log_image, *args, **kwargs)

    def show_best(self, name: str) -> None:
        """Have W&B's table of runs show the highest value of a metric beside its last one."""
        self._attempt(self._show_best, name)

    def log_summary(self, values: Mapping[str, Any]) -> None:
        self._attempt(self._log_summary, values)

    @rank_zero_only
    def _show_best(self, name: str) -> None:
        options = {"step_metric": "trainer/global_step", "step_sync": True, "summary": "max,last"}
        self.experiment.define_metric(name, **options)

    @rank_zero_only
    def _log_summary(self, values: Mapping[str, Any]) -> None:
        self.experiment.summary.update(dict(values))

    @rank_zero_only
    def _log_table(self, key: str, *args: Any, **kwargs: Any) -> None:
        # All else goes through W&B's files, but for a table it asks the server first, and waits 19 s for an answer.
        asks = not (self._offline or self.experiment.disabled)
        if asks and not answers(self.experiment.settings.base_url):
            raise ConnectionError(f"the server does not answer, and was to be asked about the table {key}")
        super().log_table(key, *args, **kwargs)

    def _attempt(self, act: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        try:
            act(*args, **kwargs)
        except Exception as error:
            if not self._failed:
                log.warning("W&B did not log something (%r); this run goes on", error)
            self._failed = True


@rank_zero_only
def _start(logger: WandbLogger) -> None:
    logger.experiment  # noqa: B018  (the property starts the run)


def _mode() -> str:
    import wandb as client

    try:
        logged_in = client.login(prompt=False, verify=False)
    except Exception as error:
        log.warning("W&B credentials could not be read (%s)", error)
        return "offline"
    return "online" if logged_in and answers(client.setup().settings.base_url) else "offline"


def _failure_within(seconds: float, act: Callable[[], object]) -> BaseException | None:
    """What stops `act`, run on a thread of its own: its exception, or TimeoutError where it is not done in time."""
    outcome: list[BaseException | None] = []

    def attempt() -> None:
        try:
            act()
            outcome.append(None)
        except BaseException as error:  # W&B also raises SystemExit
            outcome.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else TimeoutError(f"no answer within {seconds:g} s")
