"""Scores the classifier's ONNX file: the share of pictures whose best class is right.

    python models/classify/evaluate.py                 # the committed pictures
    python models/classify/evaluate.py --count 3600    # freshly drawn ones
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import shapes  # noqa: E402

HERE = Path(__file__).parent


def committed() -> Iterable[tuple[Image.Image, str]]:
    for entry in json.loads((HERE / "held-out" / "held-out.json").read_text())["images"]:
        yield Image.open(HERE / "held-out" / entry["file"]), entry["label"]


def drawn(count: int, seed: int, size: int, names: list[str]) -> Iterable[tuple[Image.Image, str]]:
    for index in range(count):
        colour, kind = names[index % len(names)].split()
        yield shapes.portrait(random.Random(f"classify held-out {seed} {index}"), size, kind, colour), names[index % len(names)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE / "model.onnx")
    parser.add_argument("--count", type=int, help="draw this many fresh pictures instead of reading held-out/")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    session = onnxruntime.InferenceSession(args.model, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    names = list(ast.literal_eval(metadata["names"]).values())
    mean, std = (np.array(ast.literal_eval(metadata[key]), np.float32) for key in ("mean", "std"))
    width, height = ast.literal_eval(metadata["imgsz"])
    right, total, mistakes = 0, 0, Counter()
    for picture, label in committed() if args.count is None else drawn(args.count, args.seed, width, names):
        pixels = (np.asarray(picture.convert("RGB").resize((width, height)), np.float32) / 255 - mean) / std
        best = names[int(session.run(None, {"input": pixels.transpose(2, 0, 1)[None]})[0][0].argmax())]
        right, total = right + (best == label), total + 1
        if best != label:
            mistakes[f"{label} taken for {best}"] += 1
    if args.json:
        print(json.dumps({"metric": "top-1", "value": round(right / total, 4), "samples": total}))
        return
    for mistake, count in mistakes.most_common(8):
        print(f"{count:3} x {mistake}")
    print(f"top-1 {right / total:.4f} on {total} pictures")


if __name__ == "__main__":
    main()
