#!/usr/bin/env python3
"""The peer of `pajamas bench --image`: a plain detection with Pillow, numpy and onnxruntime, timed step by step.

Prints one JSON object: the steps of the fastest of the repetitions, in milliseconds, and its detections.
"""
import argparse, io, json, time

import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps


def letterbox(image, width, height):
    scale = min(width / image.width, height / image.height)
    size = (round(image.width * scale), round(image.height * scale))
    canvas = Image.new("RGB", (width, height), (114, 114, 114))
    at = (round((width - size[0]) / 2 - 0.1), round((height - size[1]) / 2 - 0.1))
    canvas.paste(image.resize(size, Image.Resampling.BILINEAR), at)
    return canvas, scale, at


def decode(output, scale, at, size, confidence):
    rows = output[0].T if output.shape[1] < output.shape[2] else output[0]
    scores = rows[:, 4:84]
    classes = scores.argmax(1)
    best = scores[np.arange(len(rows)), classes]
    keep = best >= confidence
    boxes, best, classes = rows[keep, :4], best[keep], classes[keep]
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    corners = (corners - np.array([*at, *at])) / scale
    return np.clip(corners, 0, [size[0], size[1], size[0], size[1]]), best, classes


def suppress(boxes, scores, classes, iou):
    order, kept = scores.argsort()[::-1], []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while order.size:
        first, rest = order[0], order[1:]
        kept.append(first)
        low = np.maximum(boxes[first, :2], boxes[rest, :2])
        high = np.minimum(boxes[first, 2:], boxes[rest, 2:])
        both = np.prod(np.clip(high - low, 0, None), 1)
        overlap = both / (areas[first] + areas[rest] - both)
        order = rest[(overlap <= iou) | (classes[rest] != classes[first])]
    return kept


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=10)
    args = parser.parse_args()

    options = ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
    spec = session.get_inputs()[0]
    height, width = spec.shape[2:]
    content = open(args.image, "rb").read()

    fastest = None
    for _ in range(args.repeat + 1):
        marks = [time.perf_counter()]
        mark = lambda: marks.append(time.perf_counter())
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
        mark()
        canvas, scale, at = letterbox(image, width, height)
        mark()
        tensor = np.ascontiguousarray((np.asarray(canvas, np.float32) / 255.0).transpose(2, 0, 1)[None])
        mark()
        output = session.run(None, {spec.name: tensor})[0]
        mark()
        boxes, scores, classes = decode(output, scale, at, image.size, 0.25)
        mark()
        kept = suppress(boxes, scores, classes, 0.7)
        mark()
        names = ["image-decode", "letterbox", "image-normalize", "model", "yolo-decode", "nms"]
        steps = [{"step": n, "ms": (b - a) * 1e3} for n, a, b in zip(names, marks, marks[1:])]
        total = (marks[-1] - marks[0]) * 1e3
        if fastest is None or total < fastest["total_ms"]:
            fastest = {"total_ms": total, "steps": steps, "detections": len(kept)}
    print(json.dumps(fastest))


if __name__ == "__main__":
    main()
