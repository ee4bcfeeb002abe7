"""`vac predict PHOTO...`: labels, scores and heatmap overlays of photographs.

A network of one channel sees a photograph's grey, the brightest of its colours; one of other than 3 a sample of as many
files, a channel each, joined by commas: red.png,green.png,blue.png,yellow.png. Files of a run with data.merge=rgb are
merged as they were in training.
"""

from __future__ import annotations

__all__ = ["main", "merged_files", "pixels", "predict"]

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, ListConfig, OmegaConf

from vac_lightning.commands import app, job, words
from vac_lightning.names import shown
from vac_lightning.runs import Run

if TYPE_CHECKING:
    from vac_lightning.data.images.decoding import Pixels


def main() -> int:
    sys.argv[1:] = words.positional(sys.argv[1:], "photos")
    return app.main("predict", predict)


def predict(config: DictConfig) -> None:
    """Print each photograph's highest-scoring labels and write its overlays to out/<name>.png, one after the other.

    A photograph that cannot be decoded is told in one line, counts as a failure, and the others go on.
    """
    import torch
    from lightning_fabric import Fabric
    from rich.table import Table

    from vac_lightning.commands import assembly
    from vac_lightning.data.reading import squashed
    from vac_lightning.report.figures import overlays, rgb

    app.quieten()
    with app.usage():
        if not config.photos:
            raise ValueError("no photograph given: vac predict PHOTO... run=RUN")
        samples = [_files(photo) for photo in config.photos]
        run = Run(Path(config.run))
        trained = assembly.run_config(run)
        task = assembly.load_task(run, trained, config.checkpoint, config.test_views).eval()
        together = merged_files(trained)
        for files in samples:
            _check_number(files, task.channels, together)
    with app.placement(config.accelerator):
        fabric = Fabric(accelerator=config.accelerator, devices=1, precision=trained.trainer.precision)
    network = fabric.setup_module(task)
    console = app.console()
    side = task.views.size
    taken: set[str] = set()
    for files in samples:
        try:
            photo = pixels(files, task.channels, together)
        except ValueError as error:
            job.failed("predict", app.RunError(str(error)))
            continue
        image = squashed(photo, side)
        with torch.inference_mode():
            output = network(image[None].to(fabric.device))
        scores = output.logits[0].sigmoid().cpu()
        top = scores.topk(min(config.top_k, len(scores)))
        console.print(shown(str(files[0])), soft_wrap=True)
        table = Table("label", "score")
        for score, j in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            table.add_row(task.labels[j], f"{score:.3f}", style="bold" if score > 0.5 else "")
        console.print(table)
        name = shown(files[0].stem)
        while name in taken:
            name += "_"
        taken.add(name)
        target = Path(config.out) / f"{name}.png"
        captions = [
            f"{task.labels[j]} {score:.2f}" for score, j in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]
        heatmaps = output.heatmaps[0].cpu()[top.indices]
        overlays(target, rgb(photo), heatmaps.float().numpy(), captions)
        console.print(f"overlays: {target}", soft_wrap=True)


def _files(photo: str) -> list[Path]:
    """The files of a sample: one, whose name may hold commas, or several joined by commas."""
    files = [Path(photo)] if Path(photo).is_file() else [Path(part) for part in photo.split(",")]
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path}: no such photograph; give paths of image files")
    return files


def merged_files(trained: DictConfig) -> int | None:
    """How many files of a sample the run's data set merged to red, green and blue, if it did."""
    paths = OmegaConf.select(trained, "data.paths")
    merge = OmegaConf.select(trained, "data.merge")
    return len(paths) if merge == "rgb" and isinstance(paths, ListConfig) and len(paths) > 1 else None


def pixels(files: list[Path], channels: int, together: int | None) -> Pixels:
    """A sample as the network takes it, uint8 (H, W, C); of so many files merged together to RGB, where they are.

    Raises:
        ValueError: another number of files than the network takes, files that cannot be decoded, or differ in size.
    """
    from vac_lightning.data.images.decoding import decode, grey
    from vac_lightning.data.reading import merged

    _check_number(files, channels, together)
    parts = [decode(path, upright=True) for path in files]
    if len({part.shape for part in parts}) > 1:
        sizes = ", ".join(f"{part.shape[1]} x {part.shape[0]}" for part in parts)
        raise ValueError(f"{_names(files)}: the files of a sample differ in size ({sizes})")
    if channels == 3 and len(parts) == 1:
        return parts[0]
    return merged([grey(part) for part in parts], "rgb" if together else "stack")


def _check_number(files: list[Path], channels: int, together: int | None) -> None:
    expected = together or channels
    if len(files) != expected and (len(files), channels) != (1, 3):
        remedies = {
            1: "give one photograph a sample",
            3: f"give a photograph, or {expected} files, joined by commas",
        }
        remedy = remedies.get(channels, f"give the {channels} files of a sample, a channel each, joined by commas")
        raise ValueError(f"{_names(files)}: the network takes images of {channels} channels: {remedy}")


def _names(files: list[Path]) -> str:
    return ",".join(map(str, files))


if __name__ == "__main__":
    sys.exit(main())
