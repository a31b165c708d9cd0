"""Writes the pictures that are committed: the held-out sets of the detector and the classifier, and the sample of the demo.

    python models/pictures.py

The seeds are not those of training. The detector's pictures carry a palette of 64 colours and no noise, which keeps the files small.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

import shapes

HERE = Path(__file__).parent
DETECT_SIZES = [(256, 192), (192, 256), (224, 224), (320, 240)]

# kind, colour, centre, radius, angle in turns: the demo's picture, 640 x 480.
SAMPLE = [
    ("moon", (250, 222, 110), (118, 112), 74, 0.06), ("star", (255, 244, 190), (292, 78), 42, 0.03),
    ("star", (240, 130, 170), (548, 96), 58, 0.95), ("heart", (226, 62, 80), (424, 196), 66, 0.98),
    ("circle", (86, 190, 220), (212, 262), 58, 0.0), ("triangle", (250, 150, 60), (100, 390), 66, 0.02),
    ("square", (120, 210, 130), (344, 372), 62, 0.04), ("circle", (244, 240, 230), (548, 360), 72, 0.0),
]


def held_out_detect(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for index in range(count):
        size = DETECT_SIZES[index % len(DETECT_SIZES)]
        picture, drawn = shapes.scene(random.Random(f"detect committed {index}"), *size, noise=0.0)
        name = f"{index:02}.png"
        picture.quantize(64, dither=Image.Dither.NONE).save(folder / name, optimize=True)
        entries.append({"file": name, "width": size[0], "height": size[1],
                        "objects": [{"label": shape.kind, "box": [round(v, 2) for v in shape.box]} for shape in drawn]})
    describe(folder, entries)


def held_out_classify(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = list(itertools.product(shapes.COLOURS, shapes.KINDS))
    random.Random("classify committed").shuffle(names)
    entries = []
    for index in range(count):
        colour, kind = names[index % len(names)]
        name = f"{index:02}.png"
        shapes.portrait(random.Random(f"classify committed {index}"), 64, kind, colour).save(folder / name, optimize=True)
        entries.append({"file": name, "label": f"{colour} {kind}"})
    describe(folder, entries)


def describe(folder: Path, entries: list[dict[str, object]]) -> None:
    lines = ",\n".join("    " + json.dumps(entry) for entry in entries)
    (folder / "held-out.json").write_text(f'{{\n  "images": [\n{lines}\n  ]\n}}\n', encoding="utf-8")


def sample(path: Path) -> None:
    """A night sky with eight shapes."""
    width, height = 640 * shapes.OVERSAMPLE, 480 * shapes.OVERSAMPLE
    share = np.linspace(0, 1, height)[:, None, None]
    sky = np.array((24, 28, 66)) * (1 - share) + np.array((74, 58, 118)) * share
    picture = Image.fromarray(np.repeat(sky.astype(np.uint8), width, axis=1))
    plain = random.Random(3)
    for kind, colour, (x, y), radius, turns in SAMPLE:
        shapes.paint(plain, picture, shapes.placed(kind, x, y, radius, turns * 2 * np.pi), colour)
    picture.reduce(shapes.OVERSAMPLE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detect", type=int, default=24)
    parser.add_argument("--classify", type=int, default=48)
    args = parser.parse_args()
    held_out_detect(HERE / "detect" / "held-out", args.detect)
    held_out_classify(HERE / "classify" / "held-out", args.classify)
    sample(HERE / "sample.png")


if __name__ == "__main__":
    main()
