"""The CAM network: one feature map gives logits and heatmaps, and what its gradient reaches."""

import pytest
import torch
from torch import Tensor, nn

from vac_lightning.networks.backbones import Backbone, timm_model, tiny, torchvision_resnet
from vac_lightning.networks.cam import CAMNetwork


def network(labels: int = 5, **options) -> CAMNetwork:
    torch.manual_seed(0)
    return CAMNetwork(tiny(), labels, **options)


def images(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("detach", [True, False])
def test_the_mean_of_a_heatmap_and_the_bias_are_the_logit(detach):
    cam = network(detach=detach)
    nn.init.normal_(cam.classifier.bias)
    logits, heatmaps = cam(images())
    torch.testing.assert_close(heatmaps.mean((-2, -1)) + cam.classifier.bias, logits)


def test_heatmaps_are_the_weighted_features():
    cam = network().eval()
    features = cam.backbone(images())
    product = cam.classifier.weight[None, :, :, None, None] * features[:, None]  # (B, L, C, h, w)
    assert product.shape == (2, 5, 256, 4, 4)
    torch.testing.assert_close(cam(images()).heatmaps, product.sum(2))


@pytest.mark.parametrize("detach", [True, False])
def test_consistency_trains_the_classifier_only_where_asked(detach):
    cam = network(detach=detach)
    cam(images()).heatmaps.square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in cam.backbone.parameters())
    assert (cam.classifier.weight.grad is None) is detach
    assert cam.classifier.bias.grad is None
    cam(images()).logits.sum().backward()
    assert cam.classifier.weight.grad.abs().sum() > 0


def test_logits_alone():
    cam = network().eval()
    logits, heatmaps = cam(images(), heatmaps=False)
    assert heatmaps is None
    assert torch.equal(logits, cam(images()).logits)


@pytest.mark.parametrize(
    ("backbone", "grids"),
    [
        (tiny, {64: (8, 8), 48: (6, 6)}),
        (lambda: torchvision_resnet("resnet18"), {224: (7, 7), 192: (6, 6)}),
        (lambda: timm_model("vit_tiny_patch16_224", pretrained=False, depth=1), {224: (14, 14), 192: (12, 12)}),
    ],
    ids=["tiny", "r18", "vit"],
)
def test_the_grid_of_a_size(backbone, grids):
    cam = CAMNetwork(backbone(), 3)
    assert {size: cam.grid(size) for size in grids} == grids
    size = min(grids)
    assert cam.eval()(torch.zeros(1, 3, size, size)).heatmaps.shape[-2:] == grids[size]


def test_asking_for_the_grid_leaves_no_trace():
    cam = network().train()
    frozen = cam.backbone.layers[1].eval()
    state = {name: value.clone() for name, value in cam.state_dict().items()}
    modes = [module.training for module in cam.modules()]
    random = torch.get_rng_state()
    cam.grid(64)
    assert [module.training for module in cam.modules()] == modes
    assert not frozen.training
    assert all(torch.equal(value, state[name]) for name, value in cam.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert cam(images()).logits.requires_grad


def test_a_size_that_does_not_fit_leaves_the_mode_alone():
    cam = CAMNetwork(Backbone(nn.Conv2d(3, 4, 9), 4), 2).train()
    with pytest.raises(RuntimeError):
        cam.grid(5)
    assert cam.backbone.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_grid_of_a_network_of_another_precision(dtype):
    assert network().to(dtype).grid(64) == (8, 8)
