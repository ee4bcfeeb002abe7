"""Backbones: images (B, C, H, W) -> features (B, channels, h, w), with the number of features' `channels` known."""

from __future__ import annotations

__all__ = ["Backbone", "timm_model", "tiny", "torchvision_resnet", "widened"]

import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.models.resnet import BasicBlock, ResNet


class Backbone(nn.Module):
    """A trunk of layers and the number of feature channels that leave it."""

    def __init__(self, layers: nn.Module, channels: int) -> None:
        super().__init__()
        self.layers = layers
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def tiny(in_channels: int = 3) -> Backbone:
    """A compact ResNet for demos, tests and sweeps without a GPU: 8 x 8 features of 256 channels at 64 pixels.

    A 3 x 3 stem of stride 2, then one basic block each of widths 32, 64, 128, 256 and strides 1, 2, 2, 1.
    """
    stem = nn.Conv2d(in_channels, 32, 3, 2, 1, bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    inputs = 32
    for width, stride in zip((32, 64, 128, 256), (1, 2, 2, 1), strict=True):
        shortcut = None
        if stride > 1 or width != inputs:
            shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        layers.append(BasicBlock(inputs, width, stride, shortcut))
        inputs = width
    return Backbone(nn.Sequential(*layers), inputs)


def torchvision_resnet(name: str, weights: str | None = None, in_channels: int = 3) -> Backbone:
    """A ResNet of torchvision without its pooling and classifier.

    Args:
        name: such as "resnet50".
        weights: a member of torchvision's weights enum such as "IMAGENET1K_V1" (the paper's generation), which is
            downloaded on first use; a path to a state dict on disk; or None for random weights.
        in_channels: of the images. A first convolution of RGB weights follows, see `widened`; one on disk that has
            this number of channels already is taken as it is.

    Raises:
        ValueError: weights that are neither, cannot be fetched, or do not fit; the message says both ways.
    """
    network = get_model(name, weights=None) if name in list_models() else None
    if not isinstance(network, ResNet):
        raise ValueError(f"backbone.name={name}: expected a ResNet of torchvision, such as resnet50")
    channels = network.fc.in_features
    if in_channels != 3:
        network.conv1 = nn.Conv2d(in_channels, network.conv1.out_channels, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's
    if weights is not None:
        state = {key: value for key, value in _weights(name, weights).items() if key not in ("fc.weight", "fc.bias")}
        first = state.get("conv1.weight")
        if in_channels != 3 and first is not None and first.shape[1:2] == (3,):
            state["conv1.weight"] = widened(first, in_channels)
        try:
            missing, unexpected = network.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise ValueError(f"backbone.weights={weights}: not a state dict of {name} ({error})") from error
        if problems := sorted({*missing, *unexpected} - {"fc.weight", "fc.bias"}):
            raise ValueError(f"backbone.weights={weights}: not a state dict of {name} ({problems[0]} does not match)")
    layers = nn.Sequential()
    for part, module in network.named_children():
        if part not in ("avgpool", "fc"):
            layers.add_module(part, module)
    return Backbone(layers, channels)


def widened(weight: Tensor, in_channels: int) -> Tensor:
    """The filters (D, 3, k, k) of a first convolution on RGB, for images of C = in_channels channels: (D, C, k, k).

    Channel c takes the filter of red, green or blue, whichever c mod 3 is, divided by the number of channels that take
    it; a colour that no channel takes (C < 3) is shared by all. So for C = 1 it is the sum of the three, for C a
    multiple of 3 each filter times 3 / C, and the filters' sum is always RGB's.

    With channel c normalised as RGB's channel c mod 3 is, an image whose channel c is RGB's channel c mod 3, such as
    a grey image stacked C times, has exactly the response of its RGB image for every C >= 3. For C = 1 and 2 that
    holds of images with equal channels after normalisation; a grey photograph comes near, as mean and deviation of
    ImageNet differ a little between the colours.
    """
    colours = torch.arange(in_channels, device=weight.device) % 3
    shares = torch.bincount(colours, minlength=3)
    wide = weight[:, colours] / shares[colours].view(1, -1, 1, 1).to(weight)
    return wide + weight[:, shares == 0].sum(1, keepdim=True) / in_channels


def timm_model(name: str, pretrained: bool = True, in_channels: int = 3, **options: Any) -> Backbone:
    """Any CNN or vision transformer of timm by name; a transformer's tokens are put back on their grid.

    Needs the extra "timm". `options` go to timm.create_model, such as checkpoint_path for weights on disk. For images
    of other than 3 channels the first layer of RGB weights follows, see `widened`, not timm's own rule, which does not
    keep the response to a grey image.

    Raises:
        ValueError: timm is not installed, the name is unknown, its weights cannot be fetched, or a file of weights is
            broken, does not fit or would run code, or the first layer cannot follow `in_channels`.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ValueError('backbone=timm: timm is not installed; pip install "vac_lightning[timm]"') from error
    if not timm.is_model(name.split(".")[0]):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        raise ValueError(f"backbone.name={name}: timm has no such model; near it: {near}")
    follows = in_channels != 3 and (pretrained or "checkpoint_path" in options)
    if in_channels != 3 and not follows:
        options = {**options, "in_chans": in_channels}
    try:
        model = _create(timm, name, pretrained=pretrained, num_classes=0, **options)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        if "checkpoint_path" in options:
            raise ValueError(
                f"backbone.checkpoint_path={options['checkpoint_path']}: not a file of {name}'s weights alone"
                f" ({_first_line(error)})"
            ) from error
        if not pretrained:
            raise
        raise ValueError(
            f"backbone.name={name}: its weights could not be fetched ({_first_line(error)}); on a machine without"
            " internet, copy them and set +backbone.checkpoint_path=FILE backbone.pretrained=false"
        ) from error
    if follows:
        model = _widened_model(timm, name, model, in_channels, options)
    return Backbone(_TimmFeatures(model), model.num_features)


class _TimmFeatures(nn.Module):
    """forward_features of a timm model, always as (B, C, h, w)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        features = self.model.forward_features(images)
        if not isinstance(features, Tensor):
            raise ValueError(f"backbone.name: {type(self.model).__name__} of timm gives no single feature map")
        if features.ndim == 3:
            tokens = features[:, getattr(self.model, "num_prefix_tokens", 0) :].transpose(1, 2)
            side = math.isqrt(tokens.shape[-1])
            if side * side != tokens.shape[-1]:
                raise ValueError(
                    f"backbone.name: the {tokens.shape[-1]} tokens of {type(self.model).__name__} fill no square grid"
                )
            return tokens.unflatten(2, (side, side))
        if features.shape[1] != self.model.num_features:
            return features.permute(0, 3, 1, 2)
        return features


def _create(timm: Any, name: str, **options: Any) -> Any:
    """A timm model that accepts several image sizes: a transformer must be told to interpolate its positions."""
    try:
        return timm.create_model(name, dynamic_img_size=True, **options)
    except TypeError:
        return timm.create_model(name, **options)


def _widened_model(timm: Any, name: str, rgb: Any, in_channels: int, options: dict[str, Any]) -> Any:
    """A timm model of images with other than 3 channels, with the weights of one of RGB."""
    options = {word: value for word, value in options.items() if word != "checkpoint_path"}
    model = _create(timm, name, pretrained=False, num_classes=0, in_chans=in_channels, **options)
    state, own = rgb.state_dict(), model.state_dict()
    for key, weight in state.items():
        if own[key].shape != weight.shape:
            if weight.ndim != 4 or weight.shape[1] != 3:
                raise ValueError(
                    f"backbone.name={name}: the images have {in_channels} channels, and its first layer, {key} of shape"
                    f" {tuple(weight.shape)}, is no convolution on RGB that could follow; choose another model"
                )
            state[key] = widened(weight, in_channels)
    model.load_state_dict(state)
    return model


def _weights(name: str, weights: str) -> dict[str, Tensor]:
    enum = get_model_weights(name)
    if weights in enum.__members__:
        try:
            return dict(enum[weights].get_state_dict(progress=True, check_hash=True))
        except (OSError, RuntimeError) as error:  # RuntimeError: what came is not what was asked for
            raise ValueError(
                f"backbone.weights={weights}: could not be downloaded ({_first_line(error)}). On a machine without"
                f" internet, fetch {enum[weights].url} elsewhere and set backbone.weights=/path/to/file.pth, or train"
                " from random weights with backbone.weights=null"
            ) from error
    path = Path(weights)
    if not path.is_file():
        raise ValueError(
            f"backbone.weights={weights}: neither a file on disk nor one of {name}'s weights"
            f" ({', '.join(enum.__members__)}); null trains from random weights"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"backbone.weights={weights}: not a file of tensors alone, which torch.save(network.state_dict(), path)"
            " writes; it is broken, or would run code when read"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"backbone.weights={weights}: not a state dict of {name} (it holds a {type(state).__name__})")
    return dict(state)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
