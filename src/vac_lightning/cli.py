"""`vac <command> [overrides]`: imports nothing heavy until a command is chosen."""

from __future__ import annotations

__all__ = ["main"]

import sys
from importlib import import_module

COMMANDS = {
    "train": "train one run, or a sweep with -m; leaves one folder a run",
    "evaluate": "metrics of a trained run on any of its splits, or of the predictions it left",
    "predict": "labels, scores and heatmap overlays of your own photographs",
    "report": "tables, comparisons and figures of finished runs, beside the published numbers",
    "reproduce": "every row of a published table for several seeds, interrupted and gone on with as need be",
    "status": "how far runs are, from any terminal",
    "sync": "send to W&B what was logged offline",
    "doctor": "what is wrong with a data set, or worth a look, before hours are spent on it",
    "data": "stats: label frequencies and co-occurrence as a picture",
}

HELP = f"""usage: vac <command> [words]

commands:
{chr(10).join(f"  {name:<10} {text}" for name, text in COMMANDS.items())}

examples:
  vac train                                                  the embedded data, on whatever machine this is
  vac train backbone=r50 transform=fs lambda=1 data=wider data.root=/data/wider
  vac train -m backbone=r50,r101 transform=t,r,s,f,fs lambda=0,0.5,1
  vac reproduce table1 data_dir=/data/wider
  vac status
  vac evaluate runs/shapes/Tiny+ACfs/seed=0 split=val
  vac evaluate runs/shapes/Tiny+ACfs/seed=0/predictions.npz protocol=all
  vac predict photo.jpg run=runs/shapes/Tiny+ACfs/seed=0
  vac report runs/shapes
  vac sync runs/shapes
  vac doctor data=wider data.root=/data/wider
  vac data stats data=wider data.root=/data/wider

vac <command> --help lists a command's words."""


def main() -> int:
    """Entry point of the console script; returns the exit code (2: the words given cannot be used)."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if arguments[0] in ("--version", "version"):
        from vac_lightning import __version__

        print(f"vac_lightning {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        print(f"vac: unknown command {arguments[0]!r}; the commands are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module = import_module(f"vac_lightning.commands.{arguments[0]}")
    # Lightning starts further processes by running sys.argv again; the command's own file is what they must run.
    sys.argv = [str(module.__file__), *arguments[1:]]
    return int(module.main())


if __name__ == "__main__":  # python -m vac_lightning.cli, as torchrun -m starts it
    sys.exit(main())
