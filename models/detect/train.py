"""Trains the detector from nothing on drawn pictures and writes the ONNX file.

    python models/detect/train.py --out models/detect/model.onnx

One thread, fixed seeds. A pool of pictures is drawn first; each step turns, mirrors and recolours a batch of it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import shapes  # noqa: E402
from export import to_onnx  # noqa: E402
from layers import Average  # noqa: E402
from loss import loss  # noqa: E402
from network import STRIDES, Detector  # noqa: E402

SIZE = 192
MOST = 8


def pool(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures [count, 3, SIZE, SIZE] as bytes, their boxes [count, MOST, 4], kinds [count, MOST], and which of these are real."""
    pictures = torch.empty(count, 3, SIZE, SIZE, dtype=torch.uint8)
    boxes, kinds, real = torch.zeros(count, MOST, 4), torch.zeros(count, MOST, dtype=torch.long), torch.zeros(count, MOST, dtype=torch.bool)
    for index in range(count):
        rng = random.Random(f"detect {seed} {index}")
        # Some pictures are wide or tall inside grey bars, as the letterbox of the product leaves them.
        width, height = rng.choice([(SIZE, SIZE)] * 4 + [(SIZE, SIZE * 3 // 4), (SIZE * 3 // 4, SIZE)])
        picture, drawn = shapes.scene(rng, width, height)
        left, top = (SIZE - width) // 2, (SIZE - height) // 2
        canvas = np.full((SIZE, SIZE, 3), 114, np.uint8)
        canvas[top:top + height, left:left + width] = np.asarray(picture)
        pictures[index] = torch.from_numpy(canvas).permute(2, 0, 1)
        for place, shape in enumerate(drawn):
            boxes[index, place] = torch.tensor(shape.box) + torch.tensor([left, top, left, top])
            kinds[index, place], real[index, place] = shapes.KINDS.index(shape.kind), True
        if (index + 1) % 1000 == 0:
            print(f"{index + 1} of {count} pictures drawn", flush=True)
    return pictures, boxes, kinds, real


def varied(pictures: Tensor, boxes: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
    """The batch mirrored or turned, with its colour channels in another order: the kinds of shapes stay what they are."""
    images = pictures.float() / 255
    if rng.random() < 0.5:
        images, boxes = images.flip(3), torch.stack((SIZE - boxes[..., 2], boxes[..., 1], SIZE - boxes[..., 0], boxes[..., 3]), -1)
    if rng.random() < 0.5:
        images, boxes = images.flip(2), torch.stack((boxes[..., 0], SIZE - boxes[..., 3], boxes[..., 2], SIZE - boxes[..., 1]), -1)
    if rng.random() < 0.5:
        images, boxes = images.transpose(2, 3), boxes[..., [1, 0, 3, 2]]
    return images[:, rng.sample(range(3), 3)], boxes


def pace(step: int, steps: int) -> float:
    """Share of the full learning rate: a short warm-up, then half a cosine."""
    return min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * step / steps)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model.onnx")
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=8)
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    model = Detector(len(shapes.KINDS), SIZE).to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    began = time.process_time()
    pictures, boxes, kinds, real = pool(args.pictures, args.seed)

    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}], lr=3e-3)
    average, total = Average(model), 0.0
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * pace(step, args.steps)
        chosen = torch.tensor(rng.sample(range(args.pictures), args.batch))
        images, truth = varied(pictures[chosen], boxes[chosen], rng)
        value = loss(model, images.contiguous(memory_format=torch.channels_last), truth, kinds[chosen], real[chosen])
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        average.update(model)
        total += value.item()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} of {args.steps}  loss {total / 50:.3f}  {(time.process_time() - began) / 60:.1f} CPU minutes", flush=True)
            total = 0.0
        if (step + 1) % 200 == 0 or step + 1 == args.steps:
            write(average, args.out)


def write(average: Average, path: Path) -> None:
    """Exports the averaged weights with the metadata that Ultralytics' export writes."""
    model = Detector(len(shapes.KINDS), SIZE)
    model.load_state_dict(average.state)
    names = "{" + ", ".join(f"{index}: '{kind}'" for index, kind in enumerate(shapes.KINDS)) + "}"
    metadata = {"description": "pajamas shapes detector, YOLOv8 layout", "author": "pajamas", "license": "MIT OR Apache-2.0",
                "stride": str(max(STRIDES)), "task": "detect", "batch": "1", "imgsz": f"[{SIZE}, {SIZE}]", "names": names, "channels": "3"}
    to_onnx(model, torch.rand(1, 3, SIZE, SIZE), path, inputs="images", outputs="output0", batched=False, metadata=metadata)


if __name__ == "__main__":
    main()
