"""From a configuration to the objects of a run: data module, network, task."""

from __future__ import annotations

__all__ = ["compile_backbone", "datamodule", "load_task", "run_config", "task", "test_views", "views"]

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from yaml import YAMLError

from vac_lightning import hardware
from vac_lightning.checkpoints import read_checkpoint
from vac_lightning.commands import words
from vac_lightning.commands.targets import instantiate, takes
from vac_lightning.data.base import check_labels
from vac_lightning.data.datamodule import DataModule
from vac_lightning.networks.cam import CAMNetwork
from vac_lightning.networks.checkpointing import checkpoint_blocks
from vac_lightning.runs import Run
from vac_lightning.task import VACTask
from vac_lightning.views import Views


def views(config: DictConfig) -> Views:
    """The transform set."""
    return instantiate(config.views, "views")


def test_views(config: DictConfig, word: str) -> Views | None:
    """The transform set whose views are averaged at test time, with the letters and sizes of a run; None for "none".

    Raises:
        HydraException: a letter that the run does not know, or given twice.
        ValueError: a small size that is not below the run's image size.
    """
    words.check_letters("test_views", word, config.views.letters)
    return None if word == "none" else instantiate(config.views, "views", transform=word)


def datamodule(
    config: DictConfig,
    sizes: Sequence[int],
    device: str,
    processes: int,
    limits: Mapping[str, float | None] | None = None,
) -> DataModule:
    """The data module, with source images of these sizes, and at most so many evaluation batches of a role.

    device: of the run, as hardware.device_type tells it. processes: of the run on this machine.
    """
    workers = config.num_workers
    pinned = config.get("pin_memory", "auto")  # a run of an earlier version has no such word
    return DataModule(
        instantiate(config.data, "data"),
        sizes,
        batch_size=config.batch_size,
        num_workers=hardware.loading_processes(device, processes) if workers == "auto" else workers,
        drop_last=config.drop_last,
        seed=config.seed,
        limits=limits,
        prefetch_factor=config.get("prefetch_factor", 2),
        pin_memory=device == "cuda" if pinned == "auto" else pinned,
    )


def task(
    config: DictConfig,
    labels: Sequence[str],
    positive_ratio: Tensor,
    channels: int = 3,
    pretrained: bool = True,
    at_test: str = "none",
) -> VACTask:
    """The task for images of so many channels; `pretrained` off where a checkpoint's weights follow.

    at_test: the views that are averaged wherever the task answers.

    Raises:
        ValueError: the backbone takes no images of so many channels, or a word of the configuration is out of range.
    """
    network = _network(config, len(labels), channels, pretrained)
    if config.scheduler is not None and config.scheduler["_target_"].endswith("ReduceLROnPlateau"):
        raise ValueError(
            "scheduler: ReduceLROnPlateau follows a metric, from which a killed run could not go on exactly"
        )
    return VACTask(
        network,
        views(config),
        labels,
        positive_ratio,
        classification_loss=instantiate(config.loss, "loss"),
        lambda_=config["lambda"],
        norm=config.norm,
        optimizer=instantiate(config.optimizer, "optimizer"),
        scheduler=instantiate(config.scheduler, "scheduler"),
        scheduler_interval=config.scheduler_interval,
        protocol=config.protocol,
        seed=config.seed,
        channels_last=config.channels_last,
        channels=channels,
        test_views=test_views(config, at_test),
    )


def compile_backbone(task: VACTask) -> None:
    """Let torch.compile make one program of the backbone for training and one for evaluation, for any batch and size.

    Raises:
        ValueError: there is no C++ compiler, which it needs.
    """
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if sys.platform != "win32" and not any(map(shutil.which, compilers)):
        raise ValueError(
            f"compile=true: needs a C++ compiler, and there is no {' or '.join(compilers)}: install one, such as with"
            " apt install g++, or leave the word out"
        )
    torch.compiler.reset()  # of the sweep's job before, whose programs would count against a limit
    task.network.backbone.compile(dynamic=True)  # type: ignore[union-attr]


def run_config(run: Run) -> DictConfig:
    """The configuration a run was trained with.

    Raises:
        FileNotFoundError: the folder is not one of a run.
        ValueError: its configuration is damaged, or holds code instead of data.
    """
    path = run.path / ".hydra" / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"run={run.path}: not a run folder ({path} is missing); vac train makes one")
    try:
        config = OmegaConf.load(path)
    except YAMLError as error:
        raise ValueError(f"{path} is damaged or not a configuration of vac train, and was not loaded") from error
    if not isinstance(config, DictConfig):
        raise ValueError(f"{path} is not a configuration of vac train")
    return config


def load_task(run: Run, config: DictConfig, checkpoint: str = "best", at_test: str = "none") -> VACTask:
    """The task of a trained run with the weights of its best or last epoch, answering by the mean of test views.

    Raises:
        FileNotFoundError: the run has no such checkpoint.
        HydraException: test views of letters that the run does not know.
        ValueError: the file is not a checkpoint of a run, or holds code instead of data.
    """
    path = run.checkpoints / f"{checkpoint}.ckpt"
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint={checkpoint}: {path} is missing; the run has not saved an epoch yet")
    state = read_checkpoint(path)
    try:
        labels, weights = tuple(state["labels"]), dict(state["state_dict"])
        channels = int(state.get("channels", 3))  # of checkpoints from before there were others
        if channels < 1:
            raise ValueError
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint of vac train, and was not loaded") from error
    check_labels(labels)
    loaded = task(config, labels, torch.zeros(len(labels)), channels, pretrained=False, at_test=at_test)
    try:
        loaded.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the network that {run.path}/.hydra/config.yaml describes") from error
    return loaded


def _network(config: DictConfig, labels: int, channels: int, pretrained: bool) -> CAMNetwork:
    """The network; one of the user's own that knows no word in_channels must take such images by itself."""
    changes: dict[str, Any] = {}
    if not pretrained:
        changes = {word: off for word, off in (("weights", None), ("pretrained", False)) if word in config.backbone}
    told = "in_channels" in config.backbone or (channels != 3 and takes(config.backbone, "backbone", "in_channels"))
    if told:
        changes["in_channels"] = channels
    backbone = instantiate(config.backbone, "backbone", **changes)
    network = CAMNetwork(backbone, labels, detach=config.detach, in_channels=channels)
    if channels != 3 and not told:
        try:
            network.grid(views(config).size)
        except RuntimeError as error:
            raise ValueError(
                f"backbone={config.backbone['_target_']}: the images have {channels} channels, which it does not take:"
                " give it an argument in_channels, the number that its first layer takes"
            ) from error
    if config.get("activation_checkpointing", False):  # runs from before there was the word have none
        checkpoint_blocks(backbone)
    return network
