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

from vac_lightning.commands import app, words
from vac_lightning.names import shown
from vac_lightning.runs import Run

if TYPE_CHECKING:
    from vac_lightning.data.images.decoding import Pixels


def main() -> int:
    sys.argv[1:] = words.positional(sys.argv[1:], "photos")
    return app.main("predict", predict)


def predict(config: DictConfig) -> None:
    """Print each photograph's highest-scoring labels and write its overlays to out/<name>.png."""
    import torch
    from rich.table import Table

    from vac_lightning.commands import assembly
    from vac_lightning.data.reading import squashed
    from vac_lightning.report.figures import overlays, rgb

    with app.usage():
        if not config.photos:
            raise ValueError("no photograph given: vac predict PHOTO... run=RUN")
        samples = [_files(photo) for photo in config.photos]
        run = Run(Path(config.run))
        trained = assembly.run_config(run)
        task = assembly.load_task(run, trained, config.checkpoint).eval()
        photos = [(files[0], pixels(files, task.channels, merged_files(trained))) for files in samples]
    console = app.console()
    side = task.views.size
    taken: set[str] = set()
    for path, photo in photos:
        image = squashed(photo, side)
        with torch.inference_mode():
            output = task(image[None])
        scores = output.logits[0].sigmoid()
        top = scores.topk(min(config.top_k, len(scores)))
        console.print(shown(str(path)), soft_wrap=True)
        table = Table("label", "score")
        for score, j in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            table.add_row(task.labels[j], f"{score:.3f}", style="bold" if score > 0.5 else "")
        console.print(table)
        name = shown(path.stem)
        while name in taken:
            name += "_"
        taken.add(name)
        target = Path(config.out) / f"{name}.png"
        captions = [
            f"{task.labels[j]} {score:.2f}" for score, j in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]
        overlays(target, rgb(photo), output.heatmaps[0, top.indices].float().numpy(), captions)
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
    """A sample as the network takes it, uint8 (H, W, C); of so many files merged together to RGB, where they are."""
    from vac_lightning.data.images.decoding import decode, grey
    from vac_lightning.data.reading import merged

    names = ",".join(map(str, files))
    expected = together or channels
    if len(files) != expected and (len(files), channels) != (1, 3):
        remedies = {
            1: "give one photograph a sample",
            3: f"give a photograph, or {expected} files, joined by commas",
        }
        remedy = remedies.get(channels, f"give the {channels} files of a sample, a channel each, joined by commas")
        raise ValueError(f"{names}: the network takes images of {channels} channels: {remedy}")
    parts = [decode(path, upright=True) for path in files]
    if len({part.shape for part in parts}) > 1:
        sizes = ", ".join(f"{part.shape[1]} x {part.shape[0]}" for part in parts)
        raise ValueError(f"{names}: the files of a sample differ in size ({sizes})")
    if channels == 3 and len(parts) == 1:
        return parts[0]
    return merged([grey(part) for part in parts], "rgb" if together else "stack")


if __name__ == "__main__":
    sys.exit(main())
