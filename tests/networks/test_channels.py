"""First convolutions for other than 3 channels: what stays of the response to RGB, and what cannot follow."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models._api import WeightsEnum

from vac_lightning.networks.backbones import timm_model, tiny, torchvision_resnet, widened
from vac_lightning.networks.cam import CAMNetwork
from vac_lightning.task import VACTask
from vac_lightning.transforms import random_flip
from vac_lightning.views import Views


def photograph(channels: int = 3, n: int = 2, size: int = 64) -> Tensor:
    """Uint8 noise (n, 3, s, s), of which further channels repeat red, green and blue."""
    rgb = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return rgb[:, torch.arange(channels) % 3]


def grey(channels: int = 3) -> Tensor:
    return photograph(1).expand(-1, channels, -1, -1)


def normalised(images: Tensor) -> Tensor:
    views = Views("none", 64, (), {"f": random_flip}, {})
    return VACTask(CAMNetwork(tiny(), 1), views, "a", torch.ones(1), channels=images.shape[1]).normalise(images)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A stand-in for ImageNet's weights of resnet18 on disk."""
    torch.manual_seed(0)
    network = resnet18()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
    path = tmp_path_factory.mktemp("weights") / "r18.pth"
    torch.save(network.state_dict(), path)
    return str(path)


def test_features_of_a_stacked_grey_photograph_are_those_of_its_rgb(weights: str) -> None:
    expected = torchvision_resnet("resnet18", weights).eval()(normalised(grey()))
    features = torchvision_resnet("resnet18", weights, 4).eval()(normalised(grey(4)))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("image", [grey, photograph])
@pytest.mark.parametrize("channels", [3, 4, 5, 6, 8])
def test_a_stacked_image_has_the_response_of_its_rgb(image, channels: int) -> None:
    filters = torch.randn(8, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    expected = F.conv2d(normalised(image()), filters)
    torch.testing.assert_close(
        F.conv2d(normalised(image(channels)), widened(filters, channels)), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_channels_normalised_alike_have_the_response_of_rgb(channels: int) -> None:
    filters = torch.randn(8, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    alike = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = F.conv2d(alike.expand(-1, 3, -1, -1), filters)
    response = F.conv2d(alike.expand(-1, channels, -1, -1), widened(filters, channels))
    torch.testing.assert_close(response, expected, rtol=1e-4, atol=1e-4)


def test_filters_are_rgbs_in_turn() -> None:
    filters = torch.randn(8, 3, 3, 3)
    torch.testing.assert_close(widened(filters, 1), filters.sum(1, keepdim=True))
    torch.testing.assert_close(widened(filters, 6), filters.repeat(1, 2, 1, 1) / 2)
    red, green, blue = filters.unbind(1)
    torch.testing.assert_close(widened(filters, 4), torch.stack([red / 2, green, blue, red / 2], 1))
    torch.testing.assert_close(widened(filters, 2), torch.stack([red + blue / 2, green + blue / 2], 1))
    assert torch.equal(widened(filters, 3), filters)


@pytest.mark.slow
def test_named_weights_follow_and_those_that_fit_are_taken_as_they_are(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.load(weights, weights_only=True)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *args, **options: dict(state))
    named = torchvision_resnet("resnet18", "IMAGENET1K_V1", 4).layers.conv1.weight
    assert torch.equal(named, widened(state["conv1.weight"], 4))
    own = torch.randn(64, 4, 7, 7)
    torch.save(state | {"conv1.weight": own}, tmp_path / "stains.pth")
    assert torch.equal(torchvision_resnet("resnet18", str(tmp_path / "stains.pth"), 4).layers.conv1.weight, own)
    with pytest.raises(ValueError, match=r"stains\.pth: not a state dict of resnet18"):
        torchvision_resnet("resnet18", str(tmp_path / "stains.pth"), 5)


def test_three_channels_leave_networks_as_they_were() -> None:
    states = []
    for make in (resnet18, lambda: torchvision_resnet("resnet18", in_channels=3).layers):
        torch.manual_seed(0)
        states.append({name: x for name, x in make().state_dict().items() if not name.startswith("fc.")})
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(x, states[1][name]) for name, x in states[0].items())


def test_random_weights_of_further_channels_are_their_own() -> None:
    for network in (tiny(4), torchvision_resnet("resnet18", in_channels=4), timm_model("convnext_atto", False, 4)):
        first = next(x for x in network.parameters() if x.ndim == 4)
        assert first.shape[1] == 4
        assert not torch.allclose(first[:, 0], first[:, 3])


@pytest.mark.parametrize(
    ("name", "options"), [("vit_tiny_patch16_224", {"depth": 1}), ("convnext_atto", {"depths": (1, 1, 1, 1)})]
)
def test_timm_models_follow(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    torch.save(timm.create_model(name, num_classes=0, **options).state_dict(), tmp_path / "weights.pth")
    file = {"checkpoint_path": str(tmp_path / "weights.pth")}
    with torch.no_grad():
        expected = timm_model(name, False, **options, **file).eval()(normalised(photograph()))
        features = timm_model(name, False, 4, **options, **file).eval()(normalised(photograph(4)))
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_timm_model_whose_first_layer_is_no_convolution_on_rgb_is_refused(tmp_path: Path) -> None:
    name = "tresnet_m"  # its first convolution is on blocks of 4 x 4 pixels
    torch.save(timm.create_model(name, num_classes=0).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"backbone\.name={name}: the images have 4 channels, and its first layer"):
        timm_model(name, False, 4, checkpoint_path=str(tmp_path / "weights.pth"))


def test_images_of_another_number_of_channels_are_refused() -> None:
    views = Views("none", 64, (), {"f": random_flip}, {})
    task = VACTask(CAMNetwork(tiny(4), 1, in_channels=4), views, "a", torch.ones(1), channels=4)
    assert task(photograph(4)).logits.shape == (2, 1)
    assert (task.mean.flatten() / 255).tolist() == pytest.approx([0.485, 0.456, 0.406, 0.485])
    assert (task.std.flatten() / 255).tolist() == pytest.approx([0.229, 0.224, 0.225, 0.229])
    for channels in (1, 3):  # one would broadcast
        with pytest.raises(ValueError, match=rf"images of {channels} channels: the network was made for 4"):
            task(photograph(channels))
