"""Trains the intent classifier on the labelled prompts and writes model.safetensors and golden.json.

    python models/intent/train.py
    python models/intent/train.py --cross-validate    # how well it does on a fifth of the prompts that it did not see; writes nothing

Softmax regression by full-batch Adam from zero, so that nothing is random; then each class's weights are rounded to eight bits with one scale.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

import features

HERE = Path(__file__).parent
LABELS = ["chat", "code", "maths", "summarising", "tool-use", "translation"]
GOLDEN = ["Write a function that adds 2 numbers.", "¿Qué tiempo hace en Sevilla?", "fix this:\n\n\tprint(1", "", "Straße 12\u00a0ΟΔΟΣ 翻译"]

Array = NDArray[np.float32]


def prompts(folder: Path) -> tuple[list[str], NDArray[np.int64]]:
    """The prompts of one folder, a line each with \\n for line feeds, and the numbers of their labels."""
    texts, labels = [], []
    for number, label in enumerate(LABELS):
        lines = (folder / f"{label}.txt").read_text(encoding="utf-8").splitlines()
        texts += [line.replace("\\n", "\n") for line in lines]
        labels += [number] * len(lines)
    return texts, np.array(labels)


def softmax(logits: Array) -> Array:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def fitted(inputs: Array, labels: NDArray[np.int64], steps: int, rate: float, decay: float) -> tuple[Array, Array]:
    """Weights [classes, buckets] and biases [classes] that minimise cross-entropy plus decay / 2 times the weights' square."""
    # Fewer prompts than buckets: the best weights are a mix of the prompts, so it is trained in the space that the prompts span.
    sizes, axes = np.linalg.eigh(inputs @ inputs.T)
    axes, sizes = axes[:, sizes > 1e-4], np.sqrt(sizes[sizes > 1e-4])
    points, wanted = axes * sizes, np.eye(len(LABELS), dtype=np.float32)[labels]
    parameters = [np.zeros((len(LABELS), points.shape[1]), np.float32), np.zeros(len(LABELS), np.float32)]
    means, squares = ([np.zeros_like(p) for p in parameters] for _ in range(2))
    for step in range(1, steps + 1):
        error = (softmax(points @ parameters[0].T + parameters[1]) - wanted) / len(points)
        gradients = [error.T @ points + decay * parameters[0], error.sum(0)]
        speed = rate * (1 - (step - 1) / steps)
        for parameter, gradient, mean, square in zip(parameters, gradients, means, squares):
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            parameter -= speed * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return (parameters[0] / sizes) @ axes.T @ inputs, parameters[1]


def rounded(weights: Array) -> tuple[NDArray[np.int8], Array]:
    """Eight-bit weights and one scale for each class: weight = integer * scale."""
    scale = np.abs(weights).max(1) / 127
    return np.rint(weights / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def right(inputs: Array, labels: NDArray[np.int64], weights: NDArray[np.int8], scale: Array, bias: Array) -> float:
    logits = inputs @ weights.T.astype(np.float32) * scale + bias
    return float((logits.argmax(1) == labels).mean())


def cross_validated(inputs: Array, labels: NDArray[np.int64], steps: int, rate: float, decay: float) -> float:
    parts, scores = np.arange(len(labels)) % 5, []
    for part in range(5):
        weights, bias = fitted(inputs[parts != part], labels[parts != part], steps, rate, decay)
        scores.append(right(inputs[parts == part], labels[parts == part], *rounded(weights), bias))
    return float(np.mean(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "model.safetensors")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=0.2)
    parser.add_argument("--decay", type=float, default=1e-4)
    parser.add_argument("--cross-validate", action="store_true")
    args = parser.parse_args()
    began = time.process_time()
    texts, labels = prompts(HERE / "prompts")
    inputs = np.stack([features.vector(text) for text in texts])
    if args.cross_validate:
        print(f"cross-validated {cross_validated(inputs, labels, args.steps, args.rate, args.decay):.4f} on {len(texts)} prompts")
        return
    weights, bias = fitted(inputs, labels, args.steps, args.rate, args.decay)
    whole, scale = rounded(weights)
    metadata = {"labels": ",".join(LABELS), "bits": str(features.BITS), "longest": str(features.LONGEST), "words": str(features.WORDS),
                "limit": str(features.LIMIT), "description": "pajamas intent classifier", "license": "MIT OR Apache-2.0"}
    save_file({"weight": whole, "scale": scale, "bias": bias}, args.out, metadata)
    golden = []
    for text in GOLDEN:
        found = features.vector(text)
        logits = found @ whole.T.astype(np.float32) * scale + bias
        golden.append({"text": text, "buckets": {str(i): round(float(found[i]), 6) for i in np.flatnonzero(found)},
                       "logits": [round(float(logit), 4) for logit in logits]})
    if args.out.parent == HERE:
        (HERE / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{len(texts)} prompts, {(time.process_time() - began):.0f} CPU seconds")


if __name__ == "__main__":
    main()
