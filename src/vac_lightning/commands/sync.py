"""`vac sync RUNS...`: send to W&B what it does not have of runs yet; said again, it sends nothing twice."""

from __future__ import annotations

__all__ = ["main", "sync"]

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from vac_lightning.commands import app, words
from vac_lightning.names import shown

if TYPE_CHECKING:
    from vac_lightning.uploads import Part


def main() -> int:
    sys.argv[1:] = words.positional(sys.argv[1:], "runs")
    return app.main("sync", sync)


def sync(config: DictConfig) -> None:
    """Send every run that was logged offline, or whose server went away, in or below the folders given.

    Raises:
        UsageError: nothing to look in, or not logged in.
        RunError: the server does not answer, or a run could not be sent; the others were.
    """
    from vac_lightning import account, uploads

    console = app.console()
    with app.usage():
        if not config.runs:
            raise ValueError("no runs given: vac sync runs/table1")
        if not isinstance(config.processes, int) or config.processes < 1:
            raise ValueError(f"processes={config.processes}: expected a whole number of at least 1")
        runs = uploads.find(map(Path, config.runs))
    waiting = [parts for parts in runs if uploads.to_send(parts)]
    if config.dry_run:
        for parts in waiting:
            for part in uploads.to_send(parts):
                console.print(shown(str(part.file)), soft_wrap=True)
    elif waiting:
        try:
            account.login()
        except PermissionError as error:
            raise app.UsageError(str(error)) from error
        except ConnectionError as error:
            raise app.RunError(str(error)) from error
    results: Counter[str] = Counter({"sent before": len(runs) - len(waiting)})
    failed: list[str] = []
    if config.dry_run:
        results["to send"] = len(waiting)
    else:
        with ThreadPoolExecutor(config.processes) as pool:
            for parts, (result, why) in zip(waiting, pool.map(_send, waiting), strict=True):
                results[result] += 1
                failed += [why] if result == "failed" else []
                line = f"{result}: {parts[0].run_dir}" if not why else f"{result}: {why}"
                console.print(shown(line), soft_wrap=True)
    text = ", ".join(f"{name}: {count}" for name, count in results.items()) if runs else "nothing logged to W&B there"
    if failed:
        raise app.RunError(f"{text}; first failure: {failed[0]}")
    console.print(text)


def _send(parts: list[Part]) -> tuple[str, str]:
    """What became of one run, and why where it was not sent."""
    from vac_lightning import uploads
    from vac_lightning.runs import Run

    try:
        with Run(parts[0].run_dir).alone(seconds=0):
            unsent = uploads.to_send(parts)  # another `vac sync` may have sent it meanwhile
            if not unsent:
                return "sent before", ""
            why = uploads.send(unsent)
    except BlockingIOError:
        return "in use", f"{parts[0].run_dir} trains, or is being sent by another process"
    except OSError as error:
        why = str(error)
    return ("failed", why) if why else ("sent", "")


if __name__ == "__main__":
    sys.exit(main())
