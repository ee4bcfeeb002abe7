"""`vac predict PHOTO...`: labels, scores and heatmap overlays of photographs."""

from __future__ import annotations

__all__ = ["main", "predict"]

import sys
from pathlib import Path

from omegaconf import DictConfig

from vac_lightning.commands import app, words
from vac_lightning.names import shown
from vac_lightning.runs import Run


def main() -> int:
    sys.argv[1:] = words.positional(sys.argv[1:], "photos")
    return app.main("predict", predict)


def predict(config: DictConfig) -> None:
    """Print each photograph's highest-scoring labels and write its overlays to out/<name>.png."""
    import torch
    from rich.table import Table

    from vac_lightning.commands import assembly
    from vac_lightning.data.decoding import decode
    from vac_lightning.data.reading import squashed
    from vac_lightning.report.figures import overlays

    with app.usage():
        if not config.photos:
            raise ValueError("no photograph given: vac predict PHOTO... run=RUN")
        for path in config.photos:
            if not Path(path).is_file():
                raise ValueError(f"{path}: no such photograph; give paths of image files")
        photos = [(Path(path), decode(path, upright=True)) for path in config.photos]
        run = Run(Path(config.run))
        task = assembly.load_task(run, assembly.run_config(run), config.checkpoint).eval()
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
        overlays(target, photo, output.heatmaps[0, top.indices].float().numpy(), captions)
        console.print(f"overlays: {target}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
