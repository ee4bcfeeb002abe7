"""The network of the paper: a backbone and one linear layer that gives logits and heatmaps (Sec. 3.1)."""

from __future__ import annotations

__all__ = ["CAMNetwork", "Output"]

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vac_lightning.networks.backbones import Backbone


class Output(NamedTuple):
    """logits (B, L); heatmaps (B, L, h, w), or None where only logits were asked for."""

    logits: Tensor
    heatmaps: Tensor | None


class CAMNetwork(nn.Module):
    """Logits FC(GAP(F)) and class activation maps M_j = sum_k W_jk F_k of one feature map F.

    mean(M_j) + bias_j = logit_j. The heatmaps are one 1 x 1 convolution, so no (B, L, C, h, w) product is built.

    Args:
        backbone: images (B, C, H, W) -> features (B, channels, h, w).
        num_labels: L.
        detach: keep W out of the heatmaps' gradient, so that consistency trains the backbone alone (authors' code).
        in_channels: C, of the images.
    """

    def __init__(self, backbone: Backbone, num_labels: int, detach: bool = True, in_channels: int = 3) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.channels, num_labels)
        self.detach = detach
        self.in_channels = in_channels

    def forward(self, images: Tensor, heatmaps: bool = True) -> Output:
        features = self.backbone(images)
        logits = self.classifier(features.mean((-2, -1)))
        if not heatmaps:
            return Output(logits, None)
        weight = self.classifier.weight.detach() if self.detach else self.classifier.weight
        return Output(logits, F.conv2d(features, weight[:, :, None, None]))

    @torch.no_grad()
    def grid(self, size: int) -> tuple[int, int]:
        """The heatmap grid (h, w) of square images of `size` pixels, read from the backbone's answer to a blank one."""
        training = [module for module in self.modules() if module.training]
        blank = self.classifier.weight.new_zeros(1, self.in_channels, size, size)
        try:
            features = self.eval().backbone.forward(blank)  # not compiled for one answer
        finally:
            for module in training:  # one by one: a frozen layer stays frozen
                module.training = True
        return features.shape[-2], features.shape[-1]
