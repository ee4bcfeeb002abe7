"""Backbones: features of the right shape and place, weights from disk, and errors that say what to do."""

import pickle
import sys
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
from torch import Tensor
from torchvision.models import ResNet18_Weights, resnet18, resnet34, resnet50
from torchvision.models._api import WeightsEnum

from vac_lightning.networks.backbones import timm_model, tiny, torchvision_resnet


def images(size: int, n: int = 1) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_tiny_features():
    backbone = tiny()
    for size, side in ((64, 8), (48, 6), (32, 4)):
        assert backbone(images(size)).shape == (1, backbone.channels, side, side)
    assert sum(parameter.numel() for parameter in backbone.parameters()) < 2e6


def test_a_state_dict_on_disk_gives_the_features_of_torchvision(tmp_path: Path):
    network = resnet18().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
    torch.save(network.state_dict(), tmp_path / "r18.pth")
    backbone = torchvision_resnet("resnet18", str(tmp_path / "r18.pth")).eval()
    ours = backbone(images(96, 2))
    assert ours.shape == (2, backbone.channels, 3, 3)
    assert torch.equal(network.fc(ours.mean((-2, -1))), network(images(96, 2)))
    # Files in use lack the classifier, have one of another task, or are older than num_batches_tracked.
    for left_out in (("fc.",), ("num_batches_tracked",)):
        state = {name: x for name, x in network.state_dict().items() if not any(part in name for part in left_out)}
        torch.save(state | {"fc.bias": torch.zeros(7)}, tmp_path / "other.pth")
        assert torch.equal(torchvision_resnet("resnet18", str(tmp_path / "other.pth")).eval()(images(96, 2)), ours)


def test_named_weights_are_those_of_torchvision(monkeypatch: pytest.MonkeyPatch):
    network = resnet18().eval()
    asked = []

    def get(self, *args, **options):
        asked.append((self, options.get("check_hash")))
        return network.state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get)
    backbone = torchvision_resnet("resnet18", "IMAGENET1K_V1").eval()
    assert asked == [(ResNet18_Weights.IMAGENET1K_V1, True)]
    assert torch.equal(network.fc(backbone(images(64)).mean((-2, -1))), network(images(64)))


@pytest.mark.parametrize("name", ["resnet5O", "squeezenet1_1"])
def test_a_network_that_is_no_resnet_is_refused(name):
    with pytest.raises(ValueError, match=rf"backbone\.name={name}: expected a ResNet of torchvision, such as resnet50"):
        torchvision_resnet(name)


def test_unknown_weights_name_both_ways(tmp_path: Path):
    with pytest.raises(ValueError, match=r"neither a file on disk nor one of resnet18's weights \(IMAGENET1K_V1"):
        torchvision_resnet("resnet18", str(tmp_path / "missing.pth"))


@pytest.mark.parametrize(
    "error",
    [URLError("no route"), OSError("disk full"), TimeoutError(), RuntimeError('invalid hash value (expected "f")')],
)
def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, error):
    def fail(self, *args, **options):
        raise error

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with pytest.raises(ValueError, match=r"could not be downloaded \(.+\)") as raised:
        torchvision_resnet("resnet18", "IMAGENET1K_V1")
    for remedy in ("https://download.pytorch.org/models/resnet18-", "=/path/to/file.pth", "backbone.weights=null"):
        assert remedy in str(raised.value)


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize(
    "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_weights_that_would_run_code_are_refused(tmp_path: Path, save):
    save({"conv1.weight": Malicious(tmp_path / "trace")}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth: not a file of tensors alone"):
        torchvision_resnet("resnet18", str(tmp_path / "weights.pth"))
    assert not (tmp_path / "trace").exists()
    with suppress(RuntimeError):
        torch.load(tmp_path / "weights.pth", weights_only=False)
    assert (tmp_path / "trace").exists(), "the trap itself does not work"


@pytest.mark.parametrize("content", [b"", b"<html>Not Found</html>", b"PK\x03\x04 cut short"])
def test_a_broken_file_is_refused(tmp_path: Path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pth: not a file of tensors alone"):
        torchvision_resnet("resnet18", str(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    "content",
    [
        lambda: resnet34().state_dict(),
        lambda: resnet50().state_dict(),
        lambda: {"state_dict": resnet18().state_dict()},
        lambda: {},
        lambda: torch.zeros(3),
    ],
    ids=["more layers", "other shapes", "a checkpoint", "empty", "a tensor"],
)
def test_other_state_dicts_are_refused(tmp_path: Path, content):
    torch.save(content(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth: not a state dict of resnet18 \(.+\)"):
        torchvision_resnet("resnet18", str(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [
        ("resnet18", {}, {192: 6, 64: 2}),
        ("mobilenetv3_small_050", {}, {224: 7, 64: 2}),
        ("convnext_atto", {}, {192: 6, 64: 2}),
        ("vit_tiny_patch16_224", {"depth": 2}, {224: 14, 192: 12, 64: 4}),
        ("deit_tiny_distilled_patch16_224", {"depth": 1}, {224: 14, 64: 4}),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1)}, {224: 7, 192: 6}),
    ],
)
def test_timm_features_have_one_shape(name, options, sizes):
    backbone = timm_model(name, pretrained=False, **options).eval()
    with torch.no_grad():
        for size, side in sizes.items():
            assert backbone(images(size)).shape == (1, backbone.channels, side, side)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"depth": 2}),
        ("deit_tiny_distilled_patch16_224", {"depth": 2}),
        ("vit_tiny_patch16_224", {"depth": 2, "reg_tokens": 3}),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1)}),
    ],
)
def test_tokens_are_put_back_on_their_grid(name, options):
    backbone = timm_model(name, pretrained=False, **options).eval()
    model = backbone.layers.model
    with torch.no_grad():
        nchw = model.forward_intermediates(
            images(192), indices=1, output_fmt="NCHW", norm=True, intermediates_only=True
        )[-1]
        ours = backbone(images(192))
        if "swin" in name:
            assert torch.equal(ours, model.forward_features(images(192)).permute(0, 3, 1, 2))
        else:
            torch.testing.assert_close(ours, nchw)


def test_a_patch_of_the_image_answers_in_its_own_cell():
    backbone = timm_model("vit_tiny_patch16_224", pretrained=False, depth=1).eval()
    model = backbone.layers.model
    model.blocks = torch.nn.Identity()
    before = images(96)
    after = before.clone()
    after[:, :, 16:32, 64:80] += 1  # row 1, column 4
    with torch.no_grad():
        change = (backbone(after) - backbone(before)).abs().sum(1)[0]
    assert change.nonzero().tolist() == [[1, 4]]


def test_unknown_timm_names_are_refused():
    with pytest.raises(ValueError, match=r"backbone\.name=resnet_1800: timm has no such model; near it: \w*resnet"):
        timm_model("resnet_1800")


def test_timm_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch):
    def fail(*args, **options):
        raise OSError("no route to the hub")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ValueError, match=r"no route to the hub.*checkpoint_path=FILE backbone\.pretrained=false"):
        timm_model("resnet18")
    with pytest.raises(OSError, match="no route"):
        timm_model("resnet18", pretrained=False)


def test_timm_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r'pip install "vac_lightning\[timm\]"'):
        timm_model("resnet18")
