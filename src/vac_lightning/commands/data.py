"""`vac data stats data=...`: label frequencies and co-occurrence of a data set, as a picture."""

from __future__ import annotations

__all__ = ["main", "stats"]

import sys
from pathlib import Path

from omegaconf import DictConfig

from vac_lightning.commands import app


def main() -> int:
    arguments = sys.argv[1:]
    if "stats" in arguments:
        arguments.remove("stats")
    elif not {"-h", "--help"} & set(arguments):
        print("vac data: say what to do with the data: vac data stats data=...", file=sys.stderr)
        return 2
    sys.argv[1:] = arguments
    return app.main("data", stats)


def stats(config: DictConfig) -> None:
    """Draw label frequencies of every split, and the co-occurrence of labels in the first, to out/labels.png."""
    from vac_lightning.commands.dataset import dataset
    from vac_lightning.data.doctor.checks import read_splits
    from vac_lightning.report.labels import label_statistics

    app.quieten()
    with app.usage():
        splits, findings = read_splits(dataset(config), (config.image_size, *config.small_sizes))
        if broken := [finding for finding in findings if finding.severity == "error"]:
            first = f"{broken[0].split}: {broken[0].detail}"
            raise app.RunError(f"errors in the data: {len(broken)}, which vac doctor lists; the first: {first}")
        path = Path(config.out) / "labels.png"
        name = str(config.data["_target_"]).rpartition(".")[2]
        label_statistics(
            path,
            {role: split.targets for role, split in splits.items()},
            next(iter(splits.values())).labels,
            title=name,
            top=config.top,
        )
    app.console().print(f"labels: {path}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
