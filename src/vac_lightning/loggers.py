"""Where a run is watched: Weights & Biases, online when it can be and offline when not, or TensorBoard."""

from __future__ import annotations

__all__ = ["close_wandb", "tensorboard", "wandb"]

import http.client
import logging
import os
import re
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

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
    `wandb sync`. WANDB_MODE, where set, decides. name = the row and seed, group = the sweep. A `resumed` run goes on
    in the W&B run that save_dir holds, if any. An online run whose server goes away is written locally, sent on when
    the server is back, and given up `finish_seconds` after its end: `close_wandb` then says how to send the rest.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    # W&B's reports about itself hold up the end of a process for 10 s where its server does not answer.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb as client

    mode = os.environ.get("WANDB_MODE") or _mode()
    options: dict[str, Any] = {
        "project": project,
        "entity": entity,
        "name": name,
        "group": group,
        "save_dir": save_dir,
        "id": _last_id(Path(save_dir)) if resumed else None,
        "resume": "allow",
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
        log.info("W&B is offline; send this run later with: wandb sync %s", Path(save_dir) / "wandb" / "offline-run-*")
    return logger


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
_RUN_FILE = re.compile(r"(?:offline-)?run-(?P<time>\d{8}_\d{6})[^/]*/run-(?P<id>[^/]+)\.wandb")


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

    @rank_zero_only
    def _log_table(self, key: str, *args: Any, **kwargs: Any) -> None:
        # All else goes through W&B's files, but for a table it asks the server first, and waits 19 s for an answer.
        if not self._offline and not _answers(self.experiment.settings.base_url):
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
    return "online" if logged_in and _answers(client.setup().settings.base_url) else "offline"


def _answers(url: str, seconds: float = 5.0) -> bool:
    """Whether an HTTP server says anything at all, be it that there is no such page; through a proxy if one is set."""
    try:
        with urllib.request.urlopen(url, timeout=seconds):
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # W&B has settings of its own for certificates
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _last_id(save_dir: Path) -> str | None:
    """The id of the W&B run that save_dir was last logged to; of the file's name, for a folder's may have a suffix."""
    names = [path.relative_to(save_dir / "wandb").as_posix() for path in save_dir.glob("wandb/*run-*/run-*.wandb")]
    found = [match for name in names if (match := _RUN_FILE.fullmatch(name))]
    return max(found, key=lambda match: match["time"])["id"] if found else None


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
