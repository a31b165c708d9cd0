"""Scores the detector's ONNX file: mean average precision at an IoU of 0.5, with letterbox and suppression as in the product.

    python models/detect/evaluate.py                 # the committed pictures
    python models/detect/evaluate.py --count 1000    # freshly drawn ones
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import shapes  # noqa: E402

HERE = Path(__file__).parent
Detection = tuple[int, float, np.ndarray]
Truth = tuple[int, np.ndarray]


def letterboxed(picture: Image.Image, size: int) -> tuple[np.ndarray, float, float, float]:
    """The picture inside a grey square as [1, 3, size, size], with the scale and the offsets to undo it."""
    scale = min(size / picture.width, size / picture.height)
    width, height = round(picture.width * scale), round(picture.height * scale)
    left, top = round((size - width) / 2 - 0.1), round((size - height) / 2 - 0.1)
    canvas = Image.new("RGB", (size, size), (114, 114, 114))
    canvas.paste(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR), (left, top))
    return np.asarray(canvas, np.float32).transpose(2, 0, 1)[None] / 255, scale, left, top


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared + 1e-9)


def detect(session: onnxruntime.InferenceSession, picture: Image.Image, least: float = 0.001, same: float = 0.7) -> list[Detection]:
    """(class, score, [x1, y1, x2, y2] in pixels of the picture), best first, after suppression within each class."""
    size = session.get_inputs()[0].shape[2]
    tensor, scale, left, top = letterboxed(picture, size)
    rows = session.run(None, {"images": tensor})[0][0].T
    kinds, scores = rows[:, 4:].argmax(1), rows[:, 4:].max(1)
    boxes = np.concatenate((rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2), 1)
    boxes = np.clip((boxes - [left, top, left, top]) / scale, 0, [picture.width, picture.height] * 2)
    kept: list[Detection] = []
    for index in np.argsort(-scores):
        if scores[index] < least:
            break
        rivals = [box for kind, _, box in kept if kind == kinds[index]]
        if not rivals or iou(boxes[index], np.stack(rivals)).max() <= same:
            kept.append((int(kinds[index]), float(scores[index]), boxes[index]))
    return kept


def mean_average_precision(results: Iterable[tuple[list[Detection], list[Truth]]], classes: int, threshold: float = 0.5) -> tuple[float, list[float]]:
    """mAP and the precision of each class: area under the interpolated curve at 101 recalls, as COCO does it."""
    results = list(results)
    precisions = []
    for kind in range(classes):
        ranked, wanted = [], 0
        for detections, truths in results:
            mine = [box for k, box in truths if k == kind]
            wanted += len(mine)
            free = [True] * len(mine)
            for _, score, box in sorted((d for d in detections if d[0] == kind), key=lambda d: -d[1]):
                overlaps = iou(box, np.stack(mine)) * free if mine else np.zeros(1)
                best = int(overlaps.argmax())
                hit = bool(overlaps[best] >= threshold)
                if hit:
                    free[best] = False
                ranked.append((score, hit))
        hits = np.cumsum([hit for _, hit in sorted(ranked, key=lambda r: -r[0])])
        recall, precision = hits / max(wanted, 1), hits / (np.arange(len(hits)) + 1)
        precisions.append(float(np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)])))
    return float(np.mean(precisions)), precisions


def committed() -> Iterable[tuple[Image.Image, list[Truth]]]:
    for entry in json.loads((HERE / "held-out" / "held-out.json").read_text())["images"]:
        yield Image.open(HERE / "held-out" / entry["file"]), [(shapes.KINDS.index(o["label"]), np.array(o["box"])) for o in entry["objects"]]


def drawn(count: int, seed: int) -> Iterable[tuple[Image.Image, list[Truth]]]:
    for index in range(count):
        rng = random.Random(f"detect held-out {seed} {index}")
        picture, objects = shapes.scene(rng, *rng.choice([(256, 192), (192, 256), (224, 224), (320, 240)]))
        yield picture, [(shapes.KINDS.index(shape.kind), np.array(shape.box)) for shape in objects]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE / "model.onnx")
    parser.add_argument("--count", type=int, help="draw this many fresh pictures instead of reading held-out/")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    session = onnxruntime.InferenceSession(args.model, providers=["CPUExecutionProvider"])
    pictures = list(committed() if args.count is None else drawn(args.count, args.seed))
    results = [(detect(session, picture), truth) for picture, truth in pictures]
    if args.json:
        score, _ = mean_average_precision(results, len(shapes.KINDS))
        print(json.dumps({"metric": "mAP50", "value": round(score, 4), "samples": len(pictures)}))
        return
    for threshold in (0.5, 0.75, 0.9):
        score, each = mean_average_precision(results, len(shapes.KINDS), threshold)
        print(f"mAP{threshold * 100:.0f} {score:.4f} on {len(pictures)} pictures:",
              ", ".join(f"{kind} {value:.3f}" for kind, value in zip(shapes.KINDS, each)))


if __name__ == "__main__":
    main()
