"""Activation checkpointing: fewer activations are kept, and not a bit of the result differs."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from vac_lightning.networks.backbones import Backbone, timm_model, tiny, torchvision_resnet
from vac_lightning.networks.cam import CAMNetwork
from vac_lightning.networks.checkpointing import blocks, checkpoint_blocks

BACKBONES: dict[str, tuple[Callable[[], Backbone], int]] = {
    "tiny": (tiny, 4),
    "resnet18": (lambda: torchvision_resnet("resnet18"), 8),
    "with stochastic depth": (lambda: timm_model("resnet10t", pretrained=False, drop_path_rate=0.5), 4),
    "rows in rows": (lambda: timm_model("efficientnet_lite0", pretrained=False, drop_path_rate=0.2), 16),
    "stages": (lambda: timm_model("convnext_atto", pretrained=False), 12),
    "transformer": (lambda: timm_model("test_vit", pretrained=False, proj_drop_rate=0.2), 6),
}


def trained(network: CAMNetwork, autocast: bool = False) -> tuple[list[float], dict[str, Tensor], int]:
    """The losses of two steps on images of two sizes, the state after them, and the most bytes kept for backward."""
    torch.manual_seed(0)
    images = [torch.randn(4, 3, size, size) for size in (64, 32)]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    losses, kept = [], 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    for step in range(2):
        torch.manual_seed(step)
        kept = 0
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                outputs = [network(x) for x in images]
                loss = sum(o.logits.float().square().mean() + o.heatmaps.float().square().mean() for o in outputs)
            most = kept
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, network.state_dict(), most


@pytest.mark.parametrize("name", BACKBONES)
def test_two_steps_are_the_same_to_the_last_bit_with_fewer_activations(name: str) -> None:
    make, expected = BACKBONES[name]
    torch.manual_seed(1)
    network = CAMNetwork(make(), num_labels=5).train()
    other = deepcopy(network)
    assert len(blocks(other.backbone)) == expected
    checkpoint_blocks(other.backbone)
    copied = deepcopy(other)  # as a moving average of the weights is made
    losses, state, kept = trained(network)
    for checkpointed in (other, copied):
        its_losses, its_state, its_kept = trained(checkpointed)
        assert its_losses == losses
        assert list(its_state) == list(state)
        for key, value in state.items():
            assert torch.equal(its_state[key], value), key
        assert its_kept < 0.6 * kept
    assert [n for n, _ in other.named_parameters()] == [n for n, _ in network.named_parameters()]
    for key, value in other.state_dict().items():  # the copy trained weights of its own
        assert value.data_ptr() != copied.state_dict()[key].data_ptr()


def test_two_steps_in_bfloat16_are_the_same_to_the_last_bit() -> None:
    torch.manual_seed(1)
    network = CAMNetwork(tiny(), num_labels=5).train()
    other = deepcopy(network)
    checkpoint_blocks(other.backbone)
    losses, state, _ = trained(network, autocast=True)
    its_losses, its_state, _ = trained(other, autocast=True)
    assert its_losses == losses
    assert all(torch.equal(its_state[key], value) for key, value in state.items())


def test_nothing_is_computed_twice_in_evaluation() -> None:
    backbone = tiny().eval()
    checkpoint_blocks(backbone)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        backbone(torch.randn(1, 3, 32, 32))
    plain = len(kept)
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        backbone.train()(torch.randn(2, 3, 32, 32))
    assert len(kept) < plain / 2


def test_a_backbone_without_blocks_is_refused_with_the_remedy() -> None:
    plain = Backbone(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())), channels=8)
    with pytest.raises(ValueError, match="set activation_checkpointing=false"):
        checkpoint_blocks(plain)


@pytest.mark.slow
def test_a_compiled_network_updates_its_running_statistics_once_too() -> None:
    torch.manual_seed(1)
    network = CAMNetwork(tiny(), num_labels=5).train()
    other = deepcopy(network)
    checkpoint_blocks(other.backbone)
    for each in (network, other):
        each.compile(backend="aot_eager")
    losses, state, _ = trained(network)
    its_losses, its_state, _ = trained(other)
    assert its_losses == pytest.approx(losses, rel=1e-6)
    for key, value in state.items():
        torch.testing.assert_close(its_state[key], value, rtol=1e-4, atol=1e-6, msg=key)
    assert its_state["backbone.layers.3.bn1.num_batches_tracked"] == 4
