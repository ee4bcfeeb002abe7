"""experiments/: every row is composed from the real configuration, and is what the paper's row says it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Vac
from omegaconf import DictConfig, OmegaConf

from vac_lightning import experiments
from vac_lightning.commands.composition import composer
from vac_lightning.commands.finished import plain_words
from vac_lightning.commands.words import as_text
from vac_lightning.configurations import config_hash
from vac_lightning.experiments import Experiment

BACKBONES = {"R50": "resnet50", "R101": "resnet101", "ResNet101": "resnet101", "ResNet101star": "resnet101"}
# image, small copy, batch, epochs, short batch dropped, epochs to a step, its factor: as in the paper and its code
WIDER = (224, [192], 16, 12, False, 3, 0.5)
COCO = (288, [256], 24, 14, True, 6, 0.1)
PAIRS = {"table6": (0.6, 0.6, 0.8)}
_COMPOSED: dict[tuple[str, str], DictConfig] = {}
# Harmonic means of P-O and R-O that the paper prints off by 0.2.
ODD = {"R50+f", "R50+ACr"}


def found(name: str) -> Experiment:
    experiment = experiments.find(name)
    assert experiment is not None
    return experiment


@pytest.fixture
def composed(vac: Vac) -> dict[tuple[str, str], DictConfig]:
    """Every row of every experiment, checked as on the command line: (experiment, row) -> configuration."""
    if not _COMPOSED:
        vac("train", "--cfg", "job")  # registers the resolvers
        with composer("train", None) as compose:
            for name in experiments.names():
                for row in found(name).rows:
                    config = compose([f"+{name}={as_text(row.file.stem)}"])
                    _COMPOSED[name, row.name] = OmegaConf.masked_copy(config, [w for w in config if w != "hydra"])
    return _COMPOSED


@pytest.mark.slow
def test_every_row_is_what_its_name_says(composed: dict[tuple[str, str], DictConfig]) -> None:
    assert len(composed) >= 16 + 9 + 5 + 4 + 5 + 11 + 3
    for (name, row), c in composed.items():
        [file] = [each for each in found(name).rows if each.name == row]
        assert (c.row, c.experiment) == (row, file.experiment), (name, row)
        if name in ("demo", "shapes"):
            assert c.backbone_name == "Tiny"
            continue
        backbone, _, views = row.replace("-", "+", row.startswith("ResNet101-")).partition("+")
        views, _, weight = views.partition("_lambda=")
        assert c.backbone.name == BACKBONES[backbone], row
        assert c.backbone.weights == "IMAGENET1K_V1"
        assert c.transform == (views.removeprefix("AC") or "none"), row
        if views:
            assert c["lambda"] == (float(weight or 1) if views.startswith("AC") else 0), row
        assert (c.augmentation is not None) == row.endswith("star")
        assert (c.norm, c.detach, c.protocol) == ("mse", True, "vac")
        sizes = (c.image_size, c.small_sizes, c.batch_size, c.trainer.max_epochs, c.drop_last)
        assert (*sizes, c.scheduler.step_size, c.scheduler.gamma) == (COCO if name == "table6" else WIDER)
        assert tuple(c.pair_weights.values()) == PAIRS.get(name, (1.0, 1.0, 1.0))
        assert (c.optimizer.lr, c.optimizer.momentum, c.optimizer.weight_decay) == (1e-3, 0.9, 5e-4)
        # The paper reports the best epoch on the test set.
        splits = {"train": "train2014", "val": "val2014", "test": "val2014"}
        assert c.data.splits == (splits if name == "table6" else {"train": "trainval", "val": "test", "test": "test"})


@pytest.mark.slow
def test_the_same_run_is_the_same_in_every_experiment(composed: dict[tuple[str, str], DictConfig]) -> None:
    """Rows of Table 4 and Figure 5 that lie among Table 1's are one configuration, so none is trained twice."""
    for (name, row), c in composed.items():
        if c.experiment != name:
            twin = composed[c.experiment, row]
            assert config_hash(plain_words(c)[1]) == config_hash(plain_words(twin)[1])
            assert plain_words(c)[1]["run_dir"] == plain_words(twin)[1]["run_dir"]


@pytest.mark.parametrize(("name", "rows"), [("table1", 16), ("table4", 9), ("table6", 5)])
def test_every_published_row_that_can_be_run_has_a_file_and_the_reverse(name: str, rows: int) -> None:
    experiment = found(name)
    published = [row.row for row in experiment.published if row.row is not None]
    assert [row.name for row in experiment.rows] == published  # in the paper's order
    assert len(published) == rows
    without = {row.method for row in experiment.published if row.row is None}
    assert (
        without
        == {
            "table1": set(),
            "table4": {"R-CNN", "R*CNN", "DHC", "AR", "SRN", "VAA"},
            "table6": {"WARP", "CNN-RNN", "ResNet101-SRN"},
        }[name]
    )


def test_published_numbers_are_percent_and_fit_each_other() -> None:
    """The paper's F1-O is the harmonic mean of its P-O and R-O."""
    checked = 0
    for name in ("table1", "table4", "table6"):
        for row in found(name).published:
            assert row.metrics and all(50 < value < 100 for value in row.metrics.values())
            for top in ("", "top3_"):
                if {f"{top}F1-O", f"{top}P-O", f"{top}R-O"} <= row.metrics.keys() and row.method not in ODD:
                    p, r = row.metrics[f"{top}P-O"], row.metrics[f"{top}R-O"]
                    assert 2 * p * r / (p + r) == pytest.approx(row.metrics[f"{top}F1-O"], abs=0.13), row.method
                    checked += 1
    assert checked == 14 + 8 + 6 + 8


def test_an_experiment_on_other_data_has_the_same_rows_and_nothing_published() -> None:
    there, here = found("table4"), found("table4_on_shapes")
    assert [row.name for row in here.rows] == [row.name for row in there.rows]
    assert {row.experiment for row in here.rows} == {"table1_on_shapes", "table4_on_shapes"}
    assert here.published == ()
    assert experiments.find("table9") is experiments.find("table9_on_shapes") is None


def test_a_persons_own_folder_is_looked_into(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "b.yaml").write_text("row: B\nexperiment: mine\n")
    (folder / "a.yaml").write_text("transform: f\nlambda: 0.5\n")
    (folder / "published.csv").write_text("method,row,mAP\nB by others,B,81.5\n")
    experiment = experiments.find("mine", tmp_path)
    assert experiment is not None
    assert [(row.name, row.experiment) for row in experiment.rows] == [("B", "mine"), ("Tiny+ACf_lambda=0.5", "mine")]
    assert [(row.method, row.row, row.metrics) for row in experiment.published] == [("B by others", "B", {"mAP": 81.5})]
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "ours.yaml").write_text("backbone_name: Ours\n")
    (folder / "a.yaml").write_text("defaults:\n  - override /backbone: ours\ntransform: f\n")
    experiment = experiments.find("mine", tmp_path)
    assert experiment is not None and experiment.rows[1].name == "Ours+ACf"
    (folder / "published.csv").write_text("method,mAP\nB,81.5\n")
    with pytest.raises(ValueError, match=r"published\.csv: expected the columns method, row"):
        experiments.find("mine", tmp_path)
    (folder / "published.csv").unlink()
    (folder / "b.yaml").write_text("row: [")
    with pytest.raises(ValueError, match=r"b\.yaml cannot be read"):
        experiments.find("mine", tmp_path)
