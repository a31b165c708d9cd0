"""Task-aligned assignment and the three losses of YOLOv8."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from network import BINS, Detector

TOP = 10
BOX_GAIN, SCORE_GAIN, BIN_GAIN = 7.5, 0.5, 1.5


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU of corner boxes along the last dimension."""
    wa, ha, wb, hb = a[..., 2] - a[..., 0], a[..., 3] - a[..., 1], b[..., 2] - b[..., 0], b[..., 3] - b[..., 1]
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    iou = shared / (wa * ha + wb * hb - shared + 1e-7)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    diagonal = hull.square().sum(-1) + 1e-7
    apart = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2).square().sum(-1)
    shape = (4 / math.pi**2) * (torch.atan(wb / (hb + 1e-7)) - torch.atan(wa / (ha + 1e-7))).square()
    with torch.no_grad():
        weight = shape / (shape - iou + 1 + 1e-7)
    return iou - apart / diagonal - weight * shape


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, centres: Tensor, truth: Tensor, kinds: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which cell answers for which shape.

    scores [B, N, C] in 0..1, boxes [B, N, 4], centres [N, 2], truth [B, M, 4], kinds [B, M], real [B, M] (padding is False).
    Returns the index of the shape of each cell [B, N], whether the cell has one [B, N], and target scores [B, N, C].
    """
    batch, cells, classes = scores.shape
    shapes = truth.shape[1]
    inside = torch.cat((centres[None, None] - truth[:, :, None, :2], truth[:, :, None, 2:] - centres[None, None]), -1).amin(-1) > 1e-6
    inside &= real[..., None]
    iou = complete_iou(truth[:, :, None], boxes[:, None]).clamp(min=0) * inside
    own = scores.transpose(1, 2).gather(1, kinds[..., None].expand(-1, -1, cells)) * inside
    metric = own.sqrt() * iou.pow(6)
    best = metric.topk(TOP, dim=-1).indices
    chosen = torch.zeros_like(inside).scatter_(2, best, True) & inside & (metric > 0)
    # A cell wanted by several shapes goes to the one it overlaps most.
    most = iou.argmax(1)
    chosen &= (chosen.sum(1, keepdim=True) <= 1) | (torch.arange(shapes)[None, :, None] == most[:, None])
    index = chosen.int().argmax(1)
    taken = chosen.any(1)
    # The best cell of a shape aims at its overlap, the others in proportion.
    metric, iou = metric * chosen, iou * chosen
    level = (metric * iou.amax(-1, keepdim=True) / (metric.amax(-1, keepdim=True) + 1e-9)).amax(1)
    target = F.one_hot(kinds.gather(1, index), classes) * (level * taken)[..., None]
    return index, taken, target


def loss(model: Detector, images: Tensor, truth: Tensor, kinds: Tensor, real: Tensor) -> Tensor:
    """The training loss of a batch; boxes in pixels, padded as in `assign`."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distances, logits = model.maps(images)
    distances, logits = distances.float(), logits.float().transpose(1, 2)
    boxes = model.corners(distances).transpose(1, 2)
    centres, strides = model.centres[0].T, model.strides[0, 0]
    index, taken, target = assign(logits.sigmoid(), boxes, centres, truth, kinds, real)
    total = target.sum().clamp(min=1)
    score_loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / total
    if not taken.any():
        return SCORE_GAIN * score_loss

    wanted = truth.gather(1, index[..., None].expand(-1, -1, 4))[taken]
    weight = target.sum(-1)[taken]
    box_loss = ((1 - complete_iou(boxes[taken], wanted)) * weight).sum() / total

    cells = taken.nonzero()[:, 1]
    sides = torch.cat((centres[cells] - wanted[:, :2], wanted[:, 2:] - centres[cells]), 1) / strides[cells][:, None]
    sides = sides.clamp(0, BINS - 1.01)
    logits_of_bins = distances.transpose(1, 2)[taken].reshape(-1, BINS)
    left = sides.floor().long().view(-1)
    share = sides.view(-1) - left
    bins = F.cross_entropy(logits_of_bins, left, reduction="none") * (1 - share) + F.cross_entropy(logits_of_bins, left + 1, reduction="none") * share
    bin_loss = (bins.view(-1, 4).mean(-1) * weight).sum() / total
    return BOX_GAIN * box_loss + SCORE_GAIN * score_loss + BIN_GAIN * bin_loss
