"""A small residual classifier."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from layers import Bottleneck, ConvBlock  # noqa: E402


class Classifier(nn.Module):
    """[batch, 3, 64, 64] normalised RGB to [batch, classes] logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvBlock(3, 16, 3, 2), Bottleneck(16, shortcut=True),
            ConvBlock(16, 32, 3, 2), Bottleneck(32, shortcut=True),
            ConvBlock(32, 48, 3, 2), Bottleneck(48, shortcut=True),
            ConvBlock(48, 64, 3, 2),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.scores = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(torch.flatten(self.pool(self.features(images)), 1))
