"""A detector with the layout of YOLOv8 and a sixth of its smallest size."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from layers import C2f, ConvBlock, Sppf  # noqa: E402

STRIDES = (8, 16, 32)
BINS = 16


class Head(nn.Module):
    """For one scale: the four distances to the sides of a box, each as a distribution over `BINS`, and the class scores."""

    def __init__(self, inputs: int, classes: int, stride: int) -> None:
        super().__init__()
        self.box = nn.Sequential(ConvBlock(inputs, 32, 3), ConvBlock(32, 32, 3), nn.Conv2d(32, 4 * BINS, 1))
        self.score = nn.Sequential(ConvBlock(inputs, 32, 3), ConvBlock(32, 32, 3), nn.Conv2d(32, classes, 1))
        nn.init.constant_(self.box[2].bias, 1.0)
        nn.init.constant_(self.score[2].bias, torch.tensor(5 / classes / (640 / stride) ** 2).log().item())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.box(x), self.score(x)), 1)


class Detector(nn.Module):
    """[batch, 3, size, size] RGB in 0..1 to raw maps of the three scales; `decode` makes boxes of them."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(ConvBlock(3, 16, 3, 2), ConvBlock(16, 24, 3, 2), C2f(24, 24, shortcut=True))
        self.p3 = nn.Sequential(ConvBlock(24, 40, 3, 2), C2f(40, 40, shortcut=True))
        self.p4 = nn.Sequential(ConvBlock(40, 56, 3, 2), C2f(56, 56, shortcut=True))
        self.p5 = nn.Sequential(ConvBlock(56, 80, 3, 2), C2f(80, 80, shortcut=True), Sppf(80))
        self.up4, self.up3 = C2f(80 + 56, 56), C2f(56 + 40, 40)
        self.down3, self.out4 = ConvBlock(40, 40, 3, 2), C2f(40 + 56, 56)
        self.down4, self.out5 = ConvBlock(56, 56, 3, 2), C2f(56 + 80, 80)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.heads = nn.ModuleList(Head(width, classes, stride) for width, stride in zip((40, 56, 80), STRIDES))
        self.register_buffer("bins", torch.arange(BINS, dtype=torch.float32).view(1, BINS, 1, 1), persistent=False)
        # Centres of the cells and their strides, in pixels: [1, 2, N] and [1, 1, N].
        centres, strides = [], []
        for stride in STRIDES:
            along = (torch.arange(size // stride, dtype=torch.float32) + 0.5) * stride
            y, x = torch.meshgrid(along, along, indexing="ij")
            centres.append(torch.stack((x.flatten(), y.flatten())))
            strides.append(torch.full((1, x.numel()), float(stride)))
        self.register_buffer("centres", torch.cat(centres, 1)[None], persistent=False)
        self.register_buffer("strides", torch.cat(strides, 1)[None], persistent=False)

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Distances as logits [batch, 4 * BINS, N] and scores as logits [batch, classes, N]."""
        p3 = self.p3(self.stem(images))
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        n4 = self.up4(torch.cat((self.upsample(p5), p4), 1))
        n3 = self.up3(torch.cat((self.upsample(n4), p3), 1))
        n4 = self.out4(torch.cat((self.down3(n3), n4), 1))
        n5 = self.out5(torch.cat((self.down4(n4), p5), 1))
        joined = torch.cat([head(x).flatten(2) for head, x in zip(self.heads, (n3, n4, n5))], 2)
        return tuple(joined.split((4 * BINS, self.classes), 1))  # type: ignore[return-value]

    def corners(self, distances: Tensor) -> Tensor:
        """Boxes [batch, 4, N] as x1, y1, x2, y2 in pixels: the expected distance of each distribution, from the cell's centre."""
        batch, _, cells = distances.shape
        shares = F.softmax(distances.reshape(batch, 4, BINS, cells).transpose(1, 2), 1)
        sides = (shares * self.bins).sum(1) * self.strides
        return torch.cat((self.centres - sides[:, :2], self.centres + sides[:, 2:]), 1)

    def forward(self, images: Tensor) -> Tensor:
        """The output of Ultralytics' export, [batch, 4 + classes, N]: centre, width and height in pixels, then scores in 0..1."""
        distances, scores = self.maps(images)
        first, second = self.corners(distances).chunk(2, 1)
        return torch.cat(((first + second) / 2, second - first, scores.sigmoid()), 1)
