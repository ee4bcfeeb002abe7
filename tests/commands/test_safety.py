"""What files and words of somebody else's cannot do: run code, leave their folder, or take a credential along."""

from __future__ import annotations

import json
import logging
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import SMOKE, Outcome, Vac
from hydra.errors import HydraException
from omegaconf import OmegaConf

from vac_lightning.commands import composition, credentials, targets, words
from vac_lightning.metrics import SUMMARY
from vac_lightning.networks.backbones import timm_model
from vac_lightning.report import table
from vac_lightning.runs import Run

Smoke = Callable[..., Outcome]
SECRET = "5ec2e7" * 6 + "0123"


def refused(outcome: Outcome, *named: str) -> None:
    """Exit code 2 and one line that holds `named`."""
    assert outcome.code == 2, outcome.err
    (line,) = outcome.err.strip().splitlines()
    assert all(text in line for text in named), line


# Targets


FORBIDDEN = [
    "os.system",
    "posix.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.Popen",
    "functools.partial",
    "importlib.import_module",
    "pickle.loads",
    "torch.load",
    "torch.hub.load",
    "numpy.load",
    "hydra.utils.get_method",
    "hydra.utils.call",
    "hydra._internal.utils._locate",
    "pytorch_lightning.cli.LightningCLI",
    "pytorch_lightning.seed_everything",
    "vac_lightning.runs.os.system",
    "vac_lightning.runs.write_atomically",
    "vac_lightning.runs.Run",
    "vac_lightning.commands.train.main",
    "vac_lightning.commands.targets.instantiate",
    "vac_lightning.losses.torch.load",
    "vac_lightning.losses.np.load",
    "vac_lightning.losses._positive_weights",
    "vac_lightning.data.wider.json.loads",
    "vac_lightning.data.keeping.store.Store",
    "vac_lightning.data.doctor.findings.as_csv",
    "vac_lightning.data.coco.Path",
    "vac_lightning.loggers.os.system",
    "vac_lightning.losses.bce.__globals__",
    "vac_lightning.losses.bce.__class__",
    "vac_lightning.views.Views.__init__",
    "vac_lightning.transforms",
    "mine.anything",
    "os",
    "",
    "..",
    "a b",
    None,
    1,
    {"_target_": "vac_lightning.losses.bce"},
]


CARRIED = [
    "torch.optim.sgd.torch.load",
    "torch.optim.optimizer.torch.hub.load",
    "torch.nn.init.zeros_",
    "albumentations.from_dict",
    "albumentations.core.serialization.yaml.load",
    "pytorch_lightning.callbacks.model_checkpoint.pl.LightningModule",
    "pytorch_lightning.loggers.wandb.os.system",
    "pytorch_lightning.callbacks.model_checkpoint.Path",
]


@pytest.mark.parametrize("target", FORBIDDEN)
def test_a_target_outside_the_list_is_refused(target: object) -> None:
    with pytest.raises(HydraException, match=r"^deep\.0\.callbacks\.extra\._target_=.*VAC_ALLOW="):
        targets.check({"deep": [{"callbacks": {"extra": {"_target_": target}}}]})


@pytest.mark.parametrize("target", CARRIED)
def test_what_a_library_carries_along_is_refused(target: str) -> None:
    """Only looking into the library tells what such a name is."""
    with pytest.raises(HydraException, match=rf"^callbacks\.extra\._target_={target} .*VAC_ALLOW="):
        targets.instantiate(OmegaConf.create({"_target_": target}), "callbacks.extra")


@pytest.mark.parametrize("target", ["os.system", "vac_lightning.runs.os.system", "torch.load", "''", "null", "1"])
def test_a_refusal_is_one_line_and_nothing_is_written(smoke: Smoke, tmp_path: Path, target: str) -> None:
    refused(smoke(f"+callbacks.extra={{_target_: {target}}}"), "callbacks.extra._target_=", targets.VOUCHED)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_while_things_are_made_is_one_line_and_no_file_is_written(smoke: Smoke, tmp_path: Path) -> None:
    refused(smoke("+callbacks.extra={_target_: torch.optim.sgd.torch.load}"), "_target_=torch.optim.sgd.torch.load")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_way_out_is_named_and_never_all_of_a_library(smoke: Smoke) -> None:
    refused(smoke("+callbacks.extra={_target_: mine.thing}"), "VAC_ALLOW=mine")
    for target in ("os.system", "torch.load", "vac_lightning.runs.os.system"):
        refused(smoke(f"+callbacks.extra={{_target_: {target}}}"), target, "VAC_ALLOW=MODULE")


@pytest.mark.parametrize(
    "given",
    [
        ("loss._target_=os.system",),
        ("backbone._target_=os.system",),
        ("views.letters.f._target_=os.system",),
        ("optimizer._target_=os.system",),
        ("trainer._target_=os.system",),
        ("data._target_=os.system",),
        ("+anything={deep: [{deeper: {_target_: os.system}}]}",),
        ("+name=os.system", "+callbacks.extra={_target_: '${name}'}"),
        ("-m", "lambda=0,1", "loss._target_=vac_lightning.losses.bce,os.system"),
        ("-m", "+demo=glob(*)", "loss._target_=os.system"),
        ("--cfg", "job", "loss._target_=os.system"),
    ],
)
def test_wherever_a_target_stands_it_is_looked_at_before_anything_is_made(
    smoke: Smoke, tmp_path: Path, given: tuple[str, ...]
) -> None:
    refused(smoke(*given), "_target_=os.system", targets.VOUCHED)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("given", [("--info", "all"), ("--cfg", "all"), ("--hydra-help",)])
def test_asking_hydra_for_something_else_makes_nothing_either(vac: Vac, given: tuple[str, ...]) -> None:
    refused(vac("train", *given, "hydra.hydra_logging.handlers.console.class=os.system"), "console.class=os.system")


def test_augmentations_are_looked_at(vac: Vac) -> None:
    given = ("train", "data=coco", "augmentation=strong", "logger=csv")
    refused(vac(*given, "+augmentation.extra={_target_: os.system}"), "augmentation.extra._target_=os.system")
    within = "+augmentation.some={_target_: albumentations.OneOf, transforms: [{_target_: os.system}]}"
    refused(vac(*given, within), "augmentation.some.transforms.0._target_=os.system")


@pytest.mark.parametrize("place", ["evaluate", "predict", "report"])
def test_every_command_looks(vac: Vac, place: str) -> None:
    run = "runs=[x]" if place == "report" else "run=x"
    refused(vac(place, run, "+x={_target_: os.system}"), "x._target_=os.system")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("+hydra.callbacks.evil._target_=os.system",), "hydra.callbacks.evil._target_=os.system"),
        (("+hydra.callbacks.evil={_target_: hydra.experimental.callbacks.os.system}",), "callbacks.os.system"),
        (("+name={_target_: os.system}", "+hydra.callbacks.evil=${name}"), "hydra.callbacks.evil"),
        (("+hydra.callbacks.evil={_target_: '${now:%Y}'}",), "hydra.callbacks.evil._target_"),
        (("hydra.launcher._target_=os.system", "-m"), "hydra.launcher._target_=os.system"),
        (("hydra.launcher._target_=hydra._internal.core_plugins.basic_launcher.Path",), "hydra.launcher._target_"),
        (("+hydra.launcher.more={_target_: os.system}",), "hydra.launcher.more._target_=os.system"),
        (("hydra.sweeper._target_=os.system", "-m"), "hydra.sweeper._target_=os.system"),
        (("+hydra.sweeper.more={_target_: os.system}",), "hydra.sweeper.more._target_=os.system"),
        (("hydra.job_logging.handlers.file.class=os.system",), "hydra.job_logging.handlers.file.class=os.system"),
        (("+hydra.job_logging.handlers.evil=${name}", "+name={class: os.system}"), "handlers.evil"),
        (("hydra.job_logging.handlers.file.filename='ext://os.environ'",), "ext://os.environ"),
        (("hydra.hydra_logging.handlers.console.class=logging.handlers.SMTPHandler", "-m"), "SMTPHandler"),
        (("+hydra.job.env_set={VAC_ALLOW: os}",), "hydra.job.env_set"),
        (("--experimental-rerun", "x.pickle"), "--experimental-rerun"),
        (("--exp=x.pickle",), "--experimental-rerun"),
        (("--config-path", "/tmp"), "--config-dir"),
        (("-cp", "/tmp"), "--config-dir"),
    ],
)
def test_what_hydra_makes_by_itself_is_looked_at_first(
    smoke: Smoke, tmp_path: Path, given: tuple[str, ...], named: str
) -> None:
    refused(smoke(*given), named)
    assert not (tmp_path / "runs").exists()


def test_hydras_own_callbacks_stay_allowed(smoke: Smoke, tmp_path: Path) -> None:
    kept = "+hydra.callbacks.kept._target_=hydra.experimental.callbacks.LogJobReturnCallback"
    outcome = smoke(kept, "drop_last=true", "batch_size=99")
    assert "batch_size=99 is larger" in outcome.err


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("# @package _global_\nloss: {_target_: os.system}\n", ()),
        ("# @package _global_\ncallbacks: {x: {_target_: os.system}}\n", ("-m", "seed=0,1")),
        ("# @package _global_\nhydra: {callbacks: {x: {_target_: os.system}}}\n", ()),
        ("# @package _global_\nhydra: {job_logging: {handlers: {x: {class: os.system}}}}\n", ("-m",)),
        ("# @package _global_\nhydra: {job_logging: {handlers: {x: {(): os.system, command: id}}}}\n", ()),
        ("# @package _global_\nhydra: {job_logging: {formatters: {x: {(): os.system}}}}\n", ()),
        ("# @package _global_\nhydra: {job_logging: {filters: {x: {(): os.system}}}}\n", ()),
        ("# @package _global_\nhydra: {hydra_logging: {handlers: {x: {(): os.system}}}}\n", ("-m",)),
        ("# @package _global_\nloss: {x: '${oc.create:{_target_: os.system}}'}\n", ()),
        ("# @package _global_\nloss: {x: \"${oc.decode:'{_target_: os.system}'}\"}\n", ()),
        ("# @package _global_\nhidden: {_target_: os.system}\nloss: {x: '${hidden}'}\n", ()),
    ],
)
@pytest.mark.parametrize("chosen", ["+theirs=row", "+theirs=glob(*)"])
def test_a_file_of_somebody_elses_cannot_name_one(
    smoke: Smoke, tmp_path: Path, text: str, given: tuple[str, ...], chosen: str
) -> None:
    if "glob" in chosen and "-m" not in given:
        given = ("-m", *given)
    (tmp_path / "conf" / "theirs").mkdir(parents=True)
    (tmp_path / "conf" / "theirs" / "row.yaml").write_text(text)
    refused(smoke("--config-dir", str(tmp_path / "conf"), chosen, *given), "os.system", targets.VOUCHED)


def test_what_a_sweeper_adds_is_looked_at(smoke: Smoke, tmp_path: Path) -> None:
    (tmp_path / "conf" / "theirs").mkdir(parents=True)
    text = "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {loss._target_: 'os.system,os.kill'}}}\n"
    (tmp_path / "conf" / "theirs" / "row.yaml").write_text(text)
    refused(smoke("--config-dir", str(tmp_path / "conf"), "+theirs=row"), "loss._target_=os.system")


def test_a_whole_configuration_of_somebody_elses_cannot_name_one(vac: Vac, tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text("loss: {_target_: os.system}\n")
    for options in (("--config-dir", str(tmp_path), "--config-name", "theirs"), ("-cd", str(tmp_path), "-cn=theirs")):
        refused(vac("train", *options), "loss._target_=os.system")


def test_a_run_folder_of_somebody_elses_cannot_name_one(vac: Vac, tmp_path: Path) -> None:
    backbone = f"{{_target_: os.system, command: touch {tmp_path / 'taken'}}}"
    views = "{_target_: vac_lightning.views.Views}"
    _run_folder(tmp_path / "run", f"backbone: {backbone}\nviews: {views}\n")
    torch.save({"labels": ["a"], "state_dict": {}}, tmp_path / "run" / "checkpoints" / "best.ckpt")
    refused(vac("evaluate", f"run={tmp_path / 'run'}"), "backbone._target_=os.system")
    assert not (tmp_path / "taken").exists()


def test_a_configuration_that_holds_python_is_not_read(vac: Vac, tmp_path: Path) -> None:
    _run_folder(tmp_path / "run", f"x: !!python/object/apply:os.system ['touch {tmp_path / 'taken'}']\n")
    refused(vac("evaluate", f"run={tmp_path / 'run'}"), "config.yaml", "was not loaded")
    assert not (tmp_path / "taken").exists()


@pytest.mark.parametrize(
    "target",
    [
        "mine.os.system",
        "mine.system",
        "mine.subprocess.Popen",
        "mine.os.path.join",
        "mine.make.__globals__",
        "mine.SETTINGS.update",
        "mine.missing",
        "missing.make",
    ],
)
def test_a_vouched_module_vouches_for_what_it_defines_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    _write_mine(tmp_path, monkeypatch)
    monkeypatch.setenv(targets.VOUCHED, "mine, missing")
    config = OmegaConf.create({"x": {"_target_": target}})
    with pytest.raises(HydraException, match=target):
        targets.instantiate(config.x, "x")


def test_what_a_vouched_module_defines_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_mine(tmp_path, monkeypatch)
    config = OmegaConf.create({name: {"_target_": f"mine.{name}"} for name in ("make", "Thing", "small")})
    with pytest.raises(HydraException, match=r"make\._target_=mine\.make"):
        targets.instantiate(config.make, "make")
    monkeypatch.setenv(targets.VOUCHED, "other,mine")
    assert [targets.instantiate(config[name], name) is not None for name in config] == [True] * 3
    monkeypatch.setenv(targets.VOUCHED, "min")
    with pytest.raises(HydraException):
        targets.instantiate(config.make, "make")


def test_nothing_is_resolved_again_after_it_was_looked_at() -> None:
    hidden = "\\${oc.create:{_target_: os.system, command: 'true'}}"
    config = OmegaConf.create({"x": {"_target_": "datetime.timedelta", "days": hidden}})
    with pytest.raises(HydraException, match=r"x\.days"):
        targets.instantiate(config.x, "x")


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.SGD",
        "torch.optim.sgd.SGD",
        "torch.optim.lr_scheduler.CosineAnnealingLR",
        "torch.nn.Conv2d",
        "pytorch_lightning.Trainer",
        "pytorch_lightning.callbacks.EMAWeightAveraging",
        "pytorch_lightning.callbacks.EarlyStopping",
        "pytorch_lightning.callbacks.progress.rich_progress.RichProgressBarTheme",
        "pytorch_lightning.profilers.SimpleProfiler",
        "pytorch_lightning.strategies.DDPStrategy",
        "pytorch_lightning.plugins.TorchCheckpointIO",
        "pytorch_lightning.plugins.environments.LightningEnvironment",
        "pytorch_lightning.loggers.MLFlowLogger",
        "albumentations.HorizontalFlip",
        "datetime.timedelta",
        "vac_lightning.losses.focal",
        "vac_lightning.transforms.random_flip",
        "vac_lightning.networks.backbones.Backbone",
        "vac_lightning.data.shapes.shapes",
        "vac_lightning.callbacks.HeatmapPanels",
    ],
)
def test_what_people_use_is_allowed(target: str) -> None:
    made = targets.instantiate(OmegaConf.create({"_target_": target, "_partial_": True}), "x")
    assert callable(made)


# Pickles


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.marker}'",)


def _legacy_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def _legacy_torch(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


FORMATS = [_legacy_pickle, _legacy_torch, torch.save]


@pytest.mark.parametrize("save", FORMATS)
def test_a_checkpoint_that_carries_code_is_refused(vac: Vac, tmp_path: Path, save: Callable) -> None:
    """As a bare pickle, as torch wrote files once, and as it does today."""
    marker = tmp_path / "taken"
    _run_folder(tmp_path / "run", "backbone: {}\n")
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    save({"labels": ["a"], "state_dict": {"weight": torch.ones(1)}, "extra": Malicious(marker)}, path)
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.zeros((8, 8, 3), np.uint8))
    refused(vac("evaluate", f"run={tmp_path / 'run'}"), "best.ckpt", "was not loaded")
    refused(vac("predict", str(photo), f"run={tmp_path / 'run'}"), "best.ckpt", "was not loaded")
    assert not marker.exists()
    # The file is what it is said to be: read without care, it runs its command.
    pickle.loads(path.read_bytes()) if save is _legacy_pickle else torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut short"])
def test_a_broken_checkpoint_is_one_line(vac: Vac, tmp_path: Path, content: bytes) -> None:
    _run_folder(tmp_path / "run", "backbone: {}\n")
    (tmp_path / "run" / "checkpoints" / "best.ckpt").write_bytes(content)
    refused(vac("evaluate", f"run={tmp_path / 'run'}"), "best.ckpt", "was not loaded")


def test_labels_of_a_checkpoint_are_looked_at(vac: Vac, tmp_path: Path) -> None:
    _run_folder(tmp_path / "run", "backbone: {}\n")
    torch.save({"labels": ["a\x1b[2J"], "state_dict": {}}, tmp_path / "run" / "checkpoints" / "best.ckpt")
    outcome = vac("evaluate", f"run={tmp_path / 'run'}")
    refused(outcome, "label 0, 'a\\x1b[2J'")
    assert "\x1b" not in outcome.err


@pytest.mark.parametrize("save", FORMATS)
def test_backbone_weights_that_carry_code_are_refused(smoke: Smoke, tmp_path: Path, save: Callable) -> None:
    save({"conv1.weight": Malicious(tmp_path / "taken")}, tmp_path / "weights.pth")
    outcome = smoke("backbone=r18", f"backbone.weights={tmp_path / 'weights.pth'}")
    refused(outcome, "backbone.weights=", "would run code")
    assert not (tmp_path / "taken").exists()


@pytest.mark.parametrize("save", FORMATS)
def test_timm_weights_that_carry_code_are_refused(tmp_path: Path, save: Callable) -> None:
    pytest.importorskip("timm")
    save({"conv1.weight": Malicious(tmp_path / "taken")}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"backbone\.checkpoint_path=.*weights\.pth"):
        timm_model("resnet18", pretrained=False, checkpoint_path=str(tmp_path / "weights.pth"))
    assert not (tmp_path / "taken").exists()


def test_a_library_that_would_read_a_pickle_is_made_to_read_data(
    vac: Vac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(Malicious(tmp_path / "taken"), tmp_path / "file.pt")

    def careless(config: object) -> None:
        torch.load(tmp_path / "file.pt", weights_only=False)

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setattr("vac_lightning.commands.report.report", careless)
    outcome = vac("report")
    assert outcome.code == 1
    assert "UnpicklingError" in outcome.err
    assert not (tmp_path / "taken").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"


def test_predictions_that_carry_code_are_refused(tmp_path: Path) -> None:
    objects = np.array([Malicious(tmp_path / "taken")], dtype=object)
    np.savez(tmp_path / "predictions.npz", index=np.arange(1), logits=objects, targets=np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"predictions\.npz .*was not loaded"):
        Run(tmp_path).predictions()
    (tmp_path / "predictions.npz").write_bytes(pickle.dumps(Malicious(tmp_path / "taken")))
    with pytest.raises(ValueError, match=r"predictions\.npz .*was not loaded"):
        Run(tmp_path).predictions()
    assert not (tmp_path / "taken").exists()


def test_heatmaps_that_carry_code_are_refused(vac: Vac, tmp_path: Path) -> None:
    run = _finished(tmp_path / "run", "Tiny+f")
    run.heatmaps.mkdir()
    objects = np.array([Malicious(tmp_path / "taken")], dtype=object)
    np.savez(run.heatmaps / "test.npz", index=np.arange(1), label=np.zeros(1), names=objects)
    refused(vac("report", str(run.path)), "test.npz", "was not loaded")
    assert not (tmp_path / "taken").exists()
    with np.load(run.heatmaps / "test.npz", allow_pickle=True) as arrays:
        arrays["names"]
    assert (tmp_path / "taken").exists()


# Names


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("experiment=../out",), "experiment=../out"),
        (("experiment=a/../../out",), "experiment=a/../../out"),
        (("experiment=..",), "experiment=.."),
        (("experiment=/tmp/out",), "experiment=/tmp/out"),
        (("experiment=a//b",), "experiment=a//b"),
        (("experiment='~root'",), "home folder"),
        (("experiment='a\x1b[31mb'",), "\\x1b[31m"),
        (("experiment='a\nb'",), "a\\nb"),
        (("experiment='\u202egnp'",), "\\u202e"),
        (("experiment=" + "x" * 201,), "200 bytes"),
        (("row=../../out",), "row=../../out"),
        (("row=a/b",), "row=a/b"),
        (("row=..",), "row=.."),
        (("+backbone_name=..", "transform=none"), "row=.."),
        (("variant='a\x07b'",), "row="),
        (("variant=" + "x" * 201,), "200 bytes"),
        (("hydra.job.name=../../out",), "hydra.job.name=../../out"),
        (("-m", "experiment=good,../bad"), "experiment=../bad"),
    ],
)
def test_a_name_that_could_leave_its_folder_is_refused(
    smoke: Smoke, tmp_path: Path, given: tuple[str, ...], named: str
) -> None:
    outcome = smoke(*(word.replace("+backbone_name", "backbone_name") for word in given))
    refused(outcome, named)
    assert "\x1b" not in outcome.err + outcome.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_experiment_may_nest_and_the_slash_of_a_model_makes_no_folder(smoke: Smoke, tmp_path: Path) -> None:
    given = ("backbone_name='hf-hub:timm/resnet18'", "variant=../../x", "transform=none", "trainer.max_epochs=1")
    outcome = smoke("experiment=first/second", *given)
    assert outcome.code == 0, outcome.err
    run = tmp_path / "runs" / "first" / "second" / "hf-hub:timm-resnet18_..-..-x" / "seed=0"
    assert Run(run).finished
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


HOSTILE = ["<script>alert(1)</script>", "$x_1$", "a|b", "[red]bold[/red]", "**loud**", "[x](javascript:a)", "../up"]


@pytest.mark.slow
def test_labels_and_rows_of_markup_are_shown_as_text(vac: Vac, tmp_path: Path) -> None:
    _coco(tmp_path / "data", HOSTILE)
    smoke = [word for word in SMOKE if "scenes" not in word]
    row = "row='<img src=x onerror=alert(1)> $\\frac{1}$ [red]'"
    place = f"runs_dir={tmp_path / 'runs'}"
    splits = "data.splits={train: all, val: all, test: all}"
    given = ["data=coco", f"data.root={tmp_path / 'data'}", splits, *smoke, "backbone=tiny", "batch_size=4", place, row]
    outcome = vac("train", *given, "experiment=e")
    assert outcome.code == 0, outcome.err
    (results,) = (tmp_path / "runs").rglob("results.json")
    run = Run(results.parent)
    assert run.results()["labels"] == HOSTILE
    assert {f"test/AP/{label}" for label in HOSTILE} <= set().union(*run.history().values())
    outcome = vac("evaluate", f"run={run.path}")
    assert outcome.code == 0 and all(label in outcome.out for label in HOSTILE), outcome
    photo = next((tmp_path / "data" / "all").glob("*.png"))
    outcome = vac("predict", str(photo), f"run={run.path}", f"out={tmp_path / 'out'}", "top_k=7")
    assert outcome.code == 0 and all(label in outcome.out for label in HOSTILE), outcome
    outcome = vac("report", str(run.path), f"out={tmp_path / 'report'}")
    assert outcome.code == 0, outcome.err
    text = (tmp_path / "report" / "report.md").read_text()
    assert "<img" not in text and "&lt;img src=x onerror=alert(1)&gt; \\$\\\\frac{1}\\$ \\[red\\]" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out", "report", "runs"]


def test_a_rows_name_is_text_in_markdown() -> None:
    kept = ["R50+ACfs", "Tiny+ACf_lambda=0.3"]
    names = [*kept, "a|b", "<b>", "[x](javascript:a)", "`c`", "$x$", "_i_", "a\\", "\x1b[0m"]
    assert [table.as_text(name) for name in names] == [
        *kept,
        "a\\|b",
        "&lt;b&gt;",
        "\\[x\\](javascript:a)",
        "\\`c\\`",
        "\\$x\\$",
        "\\_i\\_",
        "a\\\\",
        "\\\\x1b\\[0m",
    ]


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["good", "a\x1b]0;b"], "'a\\x1b]0;b'"),
        (["good", "two\nlines"], "two\\nlines"),
        (["good", ""], "label 1"),
        (["good", " "], "is not a name"),
        (["same", "same"], "'same', is given twice"),
    ],
)
def test_labels_that_are_no_names_are_refused(vac: Vac, tmp_path: Path, names: list[str], named: str) -> None:
    _coco(tmp_path, names)
    outcome = vac("train", *_on(tmp_path))
    refused(outcome, named, "rename")
    assert "\x1b" not in outcome.err


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../../b.png", "/etc/passwd", "..\\..\\b.png", "a\0b", ""])
def test_files_outside_the_folder_of_images_are_refused(vac: Vac, tmp_path: Path, name: str) -> None:
    _coco(tmp_path, ["a"], first=name)
    refused(vac("train", *_on(tmp_path)), "instances_all.json, image 0", "outside")


def test_a_file_name_cannot_steer_the_terminal(vac: Vac, tmp_path: Path) -> None:
    _coco(tmp_path, ["a"], first="x\x1b]0;title\x07.png")
    outcome = vac("train", *_on(tmp_path))
    refused(outcome, "control characters", "x\\x1b]0;title\\x07.png")
    assert "\x1b" not in outcome.err and "\x07" not in outcome.err


def test_rows_of_other_peoples_runs_cannot_steer_the_terminal(vac: Vac, tmp_path: Path) -> None:
    run = _finished(tmp_path / "run", "Tiny\x1b[2J")
    outcome = vac("report", str(run.path))
    assert "\x1b" not in outcome.out + outcome.err
    assert "Tiny\\x1b[2J" in outcome.out
    assert "chosen on &lt;script&gt;" in (run.path / "report.md").read_text()


# Credentials


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ((f"experiment=e-{SECRET}",), "experiment"),
        ((f"+logger.settings={{deep: ['{SECRET}']}}",), "logger.settings"),
        (("experiment=${oc.env:WANDB_API_KEY}",), "experiment"),
        (("+note=a${oc.env:WANDB_API_KEY}b",), "note"),
        ((f"+{SECRET}=1",), "***"),
        ((f"optimizer.{SECRET}=1",), "***"),
        (("-m", f"seed=0,1 variant=a,{SECRET}".split()[0], f"experiment=a,{SECRET}"), "experiment"),
        ((f"hydra.job.name={SECRET}",), "hydra.job.name"),
        (("+logger.api_key=abc",), "logger.api_key"),
        (("logger=wandb", "+logger.api_key=abc"), "logger.api_key"),
        (("+logger={wandb_token: abc}",), "logger.wandb_token"),
        (("+data.password=1234",), "data.password"),
        (("+data.mirror='https://me:pass-word@host/x'",), "data.mirror"),
        (("--cfg", "job", f"+note={SECRET}"), "note"),
    ],
)
def test_a_credential_is_refused_before_anything_is_written_and_not_repeated(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], named: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    outcome = smoke(*given)
    refused(outcome, named)
    assert SECRET not in outcome.err + outcome.out and "pass-word" not in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_credential_in_a_file_is_refused(smoke: Smoke, tmp_path: Path) -> None:
    (tmp_path / "conf" / "theirs").mkdir(parents=True)
    (tmp_path / "conf" / "theirs" / "row.yaml").write_text("# @package _global_\nlogger: {api_key: abc}\n")
    refused(smoke("--config-dir", str(tmp_path / "conf"), "+theirs=row"), "logger.api_key", "wandb login")
    assert not (tmp_path / "runs").exists()


def test_words_that_are_no_credentials_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKEN_FOLDER", str(tmp_path))
    monkeypatch.setenv("MY_TOKEN", "fs")
    monkeypatch.setenv("EMPTY_SECRET", "")
    credentials.check(
        {
            "transform": "fs",
            "backbone": {"class_token": True, "num_tokens": 4, "token": None, "api_key": "???"},
            "data": {"root": str(tmp_path / "data"), "page": "https://host:80/path@2x"},
        },
        ["backbone.class_token=true", "data.token=null", "run=runs/a@b:c"],
    )


def test_a_log_message_that_cannot_be_formatted_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    wrong = logging.LogRecord("x", logging.INFO, "x.py", 1, "%d of %d", ("a",), None)
    assert credentials.Redaction().filter(wrong)
    try:
        raise OSError(SECRET)
    except OSError:
        record = logging.LogRecord("x", logging.INFO, "x.py", 1, "key %s", (SECRET,), sys.exc_info())
    assert credentials.Redaction().filter(record)
    text = logging.Formatter().format(record)
    assert SECRET not in text and text.startswith("key ***") and "OSError: ***" in text


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
def test_no_credential_is_in_anything_a_run_leaves(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("WANDB_MODE", "offline")
    if broken:
        # What a library says when it fails may hold anything.
        def fail(logger: object) -> None:
            monkeypatch.undo()
            os.environ.update(WANDB_API_KEY=SECRET, WANDB_MODE="offline")
            raise OSError(f"https://api:{SECRET}@host refused {SECRET}")

        monkeypatch.setattr("vac_lightning.loggers._start", fail)
    try:
        outcome = smoke("-m", "logger=wandb", "transform=f", "lambda=0,1")
    finally:
        for name in ("WANDB_API_KEY", "WANDB_MODE") if broken else ():
            os.environ.pop(name, None)
    assert outcome.code == 0, outcome.err
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert {"train.log", "config.yaml", "overrides.yaml", "hydra.yaml", "multirun.yaml"} <= {f.name for f in files}
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in outcome.out + outcome.err
    assert not broken or any("***" in path.read_text() for path in files if path.name == "train.log")


# The processes that Lightning starts read the run's own configuration, and pass the same checks.


@pytest.mark.slow
def test_the_options_of_a_further_process_are_read_as_they_stand(smoke: Smoke, tmp_path: Path) -> None:
    """A run folder with two equals signs, such as Tiny+ACf_lambda=0.3/seed=0, is a path and no override."""
    assert smoke("transform=f", "lambda=0.3", "trainer.max_epochs=1").code == 0
    (results,) = (tmp_path / "runs").rglob("results.json")
    options = ["--config-dir", str(results.parent / ".hydra"), "--config-name", "config"]
    assert words.normalised(options) == options
    composition.check_arguments("train", options)
    with pytest.raises(HydraException, match=r"lambda=-1"):
        composition.check_arguments("train", [*options, "lambda=-1"])


def _run_folder(path: Path, config: str) -> None:
    (path / ".hydra").mkdir(parents=True)
    (path / ".hydra" / "config.yaml").write_text(config)
    (path / "checkpoints").mkdir()


def _finished(path: Path, row: str) -> Run:
    """A run folder with the results that a report needs."""
    epoch = {"epoch": 0, "val": {}, "test": dict.fromkeys(SUMMARY, 50.0), "chosen_on": "<script>"}
    results = {"row": row, "experiment": "e", "seed": 0, "config": {}, "metrics": {"best": epoch, "last": epoch}}
    path.mkdir()
    (path / "results.json").write_text(json.dumps(results))
    return Run(path)


def _write_mine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import os, subprocess\nfrom functools import partial\nfrom os import system\nSETTINGS = {}\n"
        "def make():\n    return 1\nclass Thing:\n    pass\nsmall = partial(make)\n"
    )
    (folder / "mine.py").write_text(program)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


def _coco(root: Path, names: list[str], first: str | None = None) -> None:
    """A data set of a few grey images, each with one of the labels; `first` is the first file's name."""
    (root / "annotations").mkdir(parents=True)
    (root / "all").mkdir()
    images, annotations = [], []
    for i in range(max(4, len(names))):
        cv2.imwrite(str(root / "all" / f"{i}.png"), np.full((20, 30, 3), 20 * i, np.uint8))
        images.append({"id": i, "file_name": f"{i}.png" if first is None or i else first})
        annotations.append({"id": i, "image_id": i, "category_id": i % len(names)})
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_all.json").write_text(json.dumps(content))


def _on(root: Path) -> list[str]:
    """Words that train on `_coco`'s data set, if it can be read."""
    splits = "data.splits={train: all, val: all, test: all}"
    return ["data=coco", f"data.root={root}", splits, "logger=csv", f"runs_dir={root / 'runs'}", "backbone=tiny"]
