"""Trains the classifier from nothing on drawn pictures and writes the ONNX file.

    python models/classify/train.py --out models/classify/model.onnx

One thread, fixed seeds. The classes are every colour with every kind of shape ("red star").
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import shapes  # noqa: E402
from export import to_onnx  # noqa: E402
from layers import Average  # noqa: E402
from network import Classifier  # noqa: E402

SIZE = 64
MEAN, STD = 0.5, 0.25
CLASSES = [f"{colour} {kind}" for colour, kind in itertools.product(shapes.COLOURS, shapes.KINDS)]


def pool(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures [count, 3, SIZE, SIZE] as bytes and their classes [count]."""
    pictures, labels = torch.empty(count, 3, SIZE, SIZE, dtype=torch.uint8), torch.arange(count) % len(CLASSES)
    for index, label in enumerate(labels.tolist()):
        colour, kind = CLASSES[label].split()
        picture = shapes.portrait(random.Random(f"classify {seed} {index}"), SIZE, kind, colour)
        pictures[index] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return pictures, labels


def normalised(pictures: Tensor) -> Tensor:
    return (pictures.float() / 255 - MEAN) / STD


def varied(images: Tensor, rng: random.Random) -> Tensor:
    """Mirrored, turned and moved by a few pixels: neither colour nor kind changes."""
    if rng.random() < 0.5:
        images = images.flip(3)
    if rng.random() < 0.5:
        images = images.transpose(2, 3)
    return images.roll((rng.randint(-3, 3), rng.randint(-3, 3)), (2, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model.onnx")
    parser.add_argument("--pictures", type=int, default=10_800)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=4)
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    model = Classifier(len(CLASSES)).to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(CLASSES)} classes", flush=True)
    began = time.process_time()
    pictures, labels = pool(args.pictures, args.seed)
    print(f"{args.pictures} pictures drawn, {(time.process_time() - began) / 60:.1f} CPU minutes", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=args.steps, pct_start=0.1)
    average, total = Average(model), 0.0
    for step in range(args.steps):
        chosen = torch.tensor(rng.sample(range(args.pictures), args.batch))
        images = varied(normalised(pictures[chosen]), rng).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(images)
        value = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        schedule.step()
        average.update(model)
        total += value.item()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} of {args.steps}  loss {total / 100:.3f}  {(time.process_time() - began) / 60:.1f} CPU minutes", flush=True)
            total = 0.0

    final = Classifier(len(CLASSES))
    final.load_state_dict(average.state)
    names = "{" + ", ".join(f"{index}: '{name}'" for index, name in enumerate(CLASSES)) + "}"
    # The host's default pipeline reads how to prepare a picture from these.
    metadata = {"description": "pajamas classifier of coloured shapes", "author": "pajamas", "license": "MIT OR Apache-2.0",
                "task": "classify", "imgsz": f"[{SIZE}, {SIZE}]", "names": names, "channels": "3", "resize": "exact",
                "mean": str([MEAN] * 3), "std": str([STD] * 3)}
    to_onnx(final, torch.randn(2, 3, SIZE, SIZE), args.out, inputs="input", outputs="logits", batched=True, metadata=metadata)


if __name__ == "__main__":
    main()
