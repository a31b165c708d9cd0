#!/usr/bin/env python3
"""The peer of `pajamas segment`: a YOLO segmentation model with Pillow, numpy and onnxruntime, without Ultralytics.

    segment.py MODEL PICTURE…    an object: picture to [label, score, box, mask as COCO's RLE], for each object above 0.35

`segment.py ../shared/assets/yolo/yolov8n-seg_int8.onnx …` made tests/fixtures/segments.json. Masks are made another way than in
the stage mask-decode: the whole map of logits is scaled to the picture by Pillow, and then cut at zero and at the box.
"""
import ast, json, pathlib, sys

import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps

from detect import letterbox, suppress

CONFIDENCE, IOU = 0.35, 0.7


def compressed(mask):
    """COCO's RLE: runs down the columns, five bits in a character (cocoapi, maskApi.c)."""
    flat = np.concatenate([[0], mask.T.ravel().astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(flat))
    runs = np.diff(np.concatenate([[0], edges, [mask.size]]))
    if len(runs) % 2 == 0 and runs[-1] == 0:
        runs = runs[:-1]
    text = ""
    for i, run in enumerate(runs.tolist()):
        rest = run - (runs[i - 2].item() if i > 2 else 0)
        while True:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


def segments(session, names, path):
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    spec = session.get_inputs()[0]
    height, width = spec.shape[2:]
    canvas, scale, at = letterbox(image, width, height)
    tensor = np.ascontiguousarray((np.asarray(canvas, np.float32) / 255.0).transpose(2, 0, 1)[None])
    output, prototypes = session.run(None, {spec.name: tensor})
    rows, prototypes = output[0].T, prototypes[0]
    classes = len(rows[0]) - 4 - len(prototypes)
    scores = rows[:, 4:4 + classes]
    best = scores.argmax(1)
    score = scores[np.arange(len(rows)), best]
    keep = score >= CONFIDENCE
    rows, best, score = rows[keep], best[keep], score[keep]
    corners = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], 1)
    boxes = np.clip((corners - np.array([*at, *at])) / scale, 0, [*image.size, *image.size])
    found = []
    stride = width / prototypes.shape[2]
    for i in suppress(boxes, score, best, IOU):
        logits = np.tensordot(rows[i, 4 + classes:], prototypes, 1)
        # The picture without its margins, in cells; `box` takes parts of cells.
        margins = (at[0] / stride, at[1] / stride, (at[0] + round(image.width * scale)) / stride,
                   (at[1] + round(image.height * scale)) / stride)
        scaled = Image.fromarray(logits.astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR, box=margins)
        mask = np.asarray(scaled) > 0
        x1, y1, x2, y2 = boxes[i]
        columns, lines = np.arange(image.width), np.arange(image.height)
        mask &= ((columns >= x1) & (columns < x2))[None, :] & ((lines >= y1) & (lines < y2))[:, None]
        rle = {"size": [image.height, image.width], "counts": compressed(mask)}
        found.append([names[int(best[i])], round(float(score[i]), 4), [round(float(v), 1) for v in boxes[i]], rle])
    return found


session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
names = ast.literal_eval(session.get_modelmeta().custom_metadata_map["names"])
print("{\n" + ",\n".join(
    f"{json.dumps(pathlib.Path(path).name)}: {json.dumps(segments(session, names, path), separators=(',', ':'))}"
    for path in sys.argv[2:]) + "\n}")
