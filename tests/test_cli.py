"""The words on the command line: what is refused, in one line, and what a help text costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from conftest import ROOT, Vac
from omegaconf import OmegaConf

from vac_lightning import cli
from vac_lightning.commands import words
from vac_lightning.commands.targets import instantiate
from vac_lightning.commands.words import check
from vac_lightning.metrics import PROTOCOLS


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("train lamda=1", ["'lamda'", "did you mean lambda?"]),
        ("train trainer.max_epoch=3", ["trainer.max_epoch", "did you mean trainer.max_epochs?"]),
        ("train modell=x", ["'modell'", "backbone"]),
        ("train backbone=r5", ["backbone=r5", "r101, r18, r50, timm, tiny"]),
        ("train recipe=papr", ["recipe=papr", "paper_coco, paper_wider"]),
        ("train loss=x", ["loss=x", "weighted_bce"]),
        ("train lambda=-1", ["lambda=-1", "at least 0"]),
        ("train lambda=much", ["lambda=much", "a number"]),
        ("train lambda=nan", ["lambda=nan", "a number"]),
        ("train transform=q", ["transform=q", "f, r, s, t"]),
        ("train transform=ff", ["transform=ff", "distinct"]),
        ("train batch_size=0", ["batch_size=0", "at least 1"]),
        ("train batch_size=1.5", ["batch_size=1.5", "whole number"]),
        ("train seed=-1", ["seed=-1", "at least 0"]),
        ("train norm=l3", ["norm=l3", "mse", "l2"]),
        ("train loss.unspecified=foo", ["loss.unspecified=foo", "negative or ignore"]),
        ("train detach=maybe", ["detach=maybe", "true or false"]),
        ("train pair_weights.large=-1", ["pair_weights.large=-1"]),
        ("train small_sizes=[]", ["small_sizes=[]", "[192]"]),
        ("train trainer.limit_val_batches=0", ["trainer.limit_val_batches=0", "above 0"]),
        ("train backbone=timm", ["backbone.name is needed"]),
        ("train augmentation=strong ~data.augmentation", ["augmentation", "takes none"]),
        ("train +augmentation.blur._target_=albumentations.GaussianBlur", ["augmentation=srn", "strong"]),
        ("train runs_dir=/proc/none", ["/proc/none"]),
        ("train data.difficulty=abc", ["abc"]),
        ("train protocol=mine", ["protocol=mine", "vac, srn, csra"]),
        ("train protocol=all", ["protocol=all", "vac, srn, csra", "vac evaluate"]),
        ("train -m protocol=srn,all", ["protocol=all"]),
        ("train +trainer.max_steps=9", ["trainer.max_steps=9", "trainer.max_epochs"]),
        ("train +trainer.fast_dev_run=true", ["trainer.fast_dev_run=True", "recipe=smoke"]),
        ("train scheduler={gamma:1}", ["scheduler is a choice of a file", "scheduler.WORD=VALUE"]),
        ("train checkpoints.every_n_steps=0", ["checkpoints.every_n_steps=0", "at least 1"]),
        ("train checkpoints.every_n_minutes=-1", ["checkpoints.every_n_minutes=-1", "at least 0"]),
        ("train trainer.max_epochs=0", ["trainer.max_epochs=0", "at least 1"]),
        ("train lambda", ["lambda", "EQUAL"]),
        ("train -m transform=f,q lambda=0,1", ["transform=q"]),
        ("train -m lambda=0,1 batch_size=8,0", ["batch_size=0"]),
        ("train -m backbone=tiny,r5", ["backbone=r5"]),
        ("train data=coco data.root=/nowhere", ["/nowhere", "data.root=", "cocodataset.org"]),
        ("train data=wider data.root=/nowhere", ["/nowhere", "data.root=", "WIDERAttribute"]),
        ("train data=pa100k data.root=/nowhere", ["/nowhere", "data.root=", "HydraPlus-Net"]),
        ("train data=coco_clean data.holdout=1", ["data.holdout=1", "a share between 0 and 1, or null"]),
        ("train data=coco data.holdout=0.1", ["data.holdout=0.1", "data.splits.val=holdout"]),
        ("train data=coco data.crowd=some", ["data.crowd=some", "true or false"]),
        ("train backbone=r18 backbone.weights=/no.pth", ["/no.pth", "IMAGENET1K_V1", "null"]),
        ("train data.difficulty=4", ["difficulty=4"]),
        ("train trainer.precision=17", ["17", "bf16-mixed"]),
        ("evaluate", ["run=", "predictions=", "one of the two"]),
        ("evaluate run=/nowhere", ["/nowhere", "not a run folder"]),
        ("evaluate run=/nowhere test_views=true", ["test_views=True", "none, or letters"]),
        ("evaluate run=/nowhere split=half", ["split=half", "train, val or test"]),
        ("train data=table data.table=a.csv data.num_workers=2", ["'data.num_workers'", "label_column", "paths"]),
        ("doctor data=coco data.table=a.csv", ["'data.table'", "annotations", "images"]),
        ("predict", ["no photograph"]),
        ("predict no.jpg", ["no.jpg"]),
        ("predict seed=0/no.jpg", ["unknown word 'seed'"]),
        ("predict runs/seed=0/no.jpg", ["runs/seed=0/no.jpg", "no such photograph"]),
        ("report", ["no runs given"]),
        ("report /nowhere", ["/nowhere", "does not exist"]),
        ("fly", ["'fly'", "train, evaluate, predict, report"]),
    ],
)
def test_words_that_cannot_be_used_get_one_line_and_code_2(
    vac: Vac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, named: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = vac(*arguments.split(), *(["logger=csv"] if arguments.startswith("train") else []))
    assert outcome.code == 2
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("vac")
    assert all(text in lines[0] for text in named), lines[0]


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; from vac_lightning.cli import main; sys.argv = ['vac', '--help']; code = main();"
        "heavy = {'torch', 'hydra', 'pytorch_lightning', 'numpy', 'wandb'} & set(sys.modules);"
        "sys.exit(code or len(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"  {command} " in done.stdout for command in cli.COMMANDS)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["transform: fs", "loss=asymmetric, bce, focal, weighted_bce", "lambda: 1.0 # weight"]),
        ("evaluate", ["run: null", "protocol: null # vac, srn, csra", "split: test # train, val or test"]),
        ("predict", ["photos: []", "top_k: 5"]),
        ("report", ["runs: []", "labels: null"]),
    ],
)
def test_help_of_a_command_shows_its_words_and_not_hydras(vac: Vac, command: str, words: list[str]) -> None:
    outcome = vac(command, "--help")
    assert outcome.code == 0
    assert all(word in outcome.out for word in words)
    assert "hydra:" not in outcome.out


def test_composing_imports_no_torch() -> None:
    program = (
        "import sys; from vac_lightning.cli import main; sys.argv = ['vac', 'train', '--cfg', 'job'];"
        "code = main(); sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "backbone_name: Tiny" in done.stdout


def _choices() -> list[str]:
    groups = [path for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name not in ("hydra", "photographs")]
    return sorted(f"{group.name}={file.stem}" for group in groups for file in group.glob("*.yaml"))


@pytest.mark.parametrize("choice", _choices())
def test_every_choice_composes_and_its_objects_can_be_made(vac: Vac, choice: str) -> None:
    vac("train", "--cfg", "job")  # registers the resolvers
    needed = {
        "backbone=timm": ["backbone.name=resnet18", "backbone.pretrained=false"],
        "augmentation=strong": ["data=coco"],
        "data=table": ["data.table=labels.csv"],
    }
    extra = needed.get(choice, [])
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = hydra.compose("train", [choice, *extra])
    check(config)
    assert OmegaConf.to_container(config, resolve=True)
    for word in ("views", "loss", "optimizer", "scheduler", "data", "augmentation"):
        made = instantiate(config[word], word)
        assert callable(made) or word in ("views",) or made is None
    if choice.startswith("backbone=") and choice != "backbone=r101":
        weights = {"weights": None} if "weights" in config.backbone else {}
        assert instantiate(config.backbone, "backbone", **weights).channels in (256, 512, 2048)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("data=wider", (224, [192], 16, 12, 1.0, 0.5, 3, False, "R50")),
        ("data=coco", (288, [256], 24, 14, 0.6, 0.1, 6, True, "R50")),
        ("data=wider_clean", (224, [192], 16, 12, 1.0, 0.5, 3, False, "R50")),
        ("data=coco_clean", (288, [256], 24, 14, 0.6, 0.1, 6, True, "R50")),
        ("data=pa100k", (224, [192], 16, 12, 1.0, 0.5, 3, False, "R50")),
        ("recipe=paper_wider", (224, [192], 16, 12, 1.0, 0.5, 3, False, "Tiny")),
    ],
)
def test_the_papers_settings_come_with_the_data_set(choice: str, expected: tuple) -> None:
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        c = hydra.compose("train", [choice])
    assert expected == (
        c.image_size,
        c.small_sizes,
        c.batch_size,
        c.trainer.max_epochs,
        c.pair_weights.large,
        c.scheduler.gamma,
        c.scheduler.step_size,
        c.drop_last,
        c.backbone_name,
    )
    assert (c.optimizer.lr, c.optimizer.momentum, c.optimizer.weight_decay) == (1e-3, 0.9, 5e-4)


@pytest.mark.parametrize("data", ["wider", "coco"])
def test_the_clean_protocol_differs_in_its_splits_and_its_name(vac: Vac, data: str) -> None:
    vac("train", "--cfg", "job")  # registers the resolvers
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        paper, clean = (hydra.compose("train", [f"data={name}", "run_dir=here"]) for name in (data, f"{data}_clean"))
    assert (paper.experiment, clean.experiment) == (data, f"{data}_clean")
    assert paper.data.splits.val == paper.data.splits.test == clean.data.splits.test
    assert len(set(clean.data.splits.values())) == 3
    paper.data.splits, paper.experiment = clean.data.splits, clean.experiment
    if data == "coco":
        paper.data.holdout = clean.data.holdout
    assert OmegaConf.to_container(paper, resolve=True) == OmegaConf.to_container(clean, resolve=True)


def test_a_word_on_the_command_line_wins_over_what_a_data_set_brings() -> None:
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        c = hydra.compose("train", ["data=coco", "recipe=modern", "backbone=r18", "batch_size=7"])
    assert (c.backbone_name, c.batch_size, c.trainer.precision) == ("R18", 7, "auto")
    assert "ema" in c.callbacks


def test_the_protocols_offered_are_those_the_metrics_know() -> None:
    assert words.PROTOCOLS == PROTOCOLS


@pytest.mark.parametrize("name", ["a'b", "a\\b", "a\\'b", "a\\", "${oc.env:HOME}", "a=b, c", "[x]{y}"])
def test_paths_are_taken_word_for_word(vac: Vac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert f"{name} has no finished run" in vac("report", name).err
