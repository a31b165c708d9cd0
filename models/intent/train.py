"""Trains the intent classifier on the labelled prompts and writes model.safetensors and golden.json.

    python models/intent/train.py
    python models/intent/train.py --cross-validate    # how well it does on a fifth of the prompts that it did not see; writes nothing
    python models/intent/train.py --search            # the same for several decays; writes nothing

Softmax regression by L-BFGS from zero, so that nothing is random; then each class's weights are rounded to eight bits with one scale.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

import features

HERE = Path(__file__).parent
LABELS = ["chat", "code", "maths", "summarising", "tool-use", "translation"]
GOLDEN = [
    "Write a function that adds 2 numbers.", "¿Qué tiempo hace en Sevilla?", "fix this:\n\n\tprint(1", "", "Straße 12\u00a0ΟΔΟΣ 翻译",
    "Summarise this in 3 lines:" + " The council met. It talked\u2014at length." * 80 + "\n\nBriefly, please",
]
# Of the form of these features: another one is refused by who reads the weights.
FORM = "2"

Array = NDArray[np.float32]


class Prompts:
    """Features of many prompts: those that are not zero, one prompt after the other, as three columns."""

    def __init__(self, texts: list[str]) -> None:
        found = [features.features(text) for text in texts]
        self.sizes = np.array([len(one) for one in found])
        self.buckets = np.concatenate([np.fromiter(one, np.int64, len(one)) for one in found])
        self.values = np.concatenate([np.fromiter(one.values(), np.float32, len(one)) for one in found])
        self.count = len(texts)

    def of(self, chosen: NDArray[np.bool_]) -> Prompts:
        part, every = object.__new__(Prompts), np.repeat(chosen, self.sizes)
        part.sizes, part.buckets, part.values = self.sizes[chosen], self.buckets[every], self.values[every]
        part.count = int(chosen.sum())
        return part

    def logits(self, weights: Array, bias: Array) -> Array:
        """Of each prompt for each class."""
        # A prompt always has features: the two spaces around it at least.
        starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        return np.stack([np.add.reduceat(row[self.buckets] * self.values, starts) for row in weights], 1) + bias

    def spread(self, errors: Array) -> Array:
        """The errors of each prompt, put on the weights that made them."""
        owners = np.repeat(np.arange(self.count), self.sizes)
        return np.stack([np.bincount(self.buckets, self.values * error[owners], features.BUCKETS) for error in errors.T])


def prompts(folder: Path, ending: str = "") -> tuple[list[str], NDArray[np.int64]]:
    """The prompts of one folder's files LABEL + ending, a line each with \\n for line feeds, and the numbers of their labels."""
    texts, labels = [], []
    for number, label in enumerate(LABELS):
        file = folder / f"{label}{ending}.txt"
        # Only line feeds end a line: other separators may be part of a prompt.
        lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()] if file.exists() else []
        texts += [line.replace("\\n", "\n") for line in lines]
        labels += [number] * len(lines)
    return texts, np.array(labels)


def softmax(logits: Array) -> Array:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def lowest(loss: Callable[[Array], tuple[float, Array]], start: Array, steps: int, memory: int = 8) -> Array:
    """Where a convex function is lowest, by L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.5) with halved steps."""
    point, (value, slope) = start, loss(start)
    moves: list[tuple[Array, Array]] = []
    for _ in range(steps):
        way, shares = slope.copy(), []
        for move, turn in reversed(moves):
            share = np.vdot(move, way) / np.vdot(move, turn)
            way -= share * turn
            shares.append(share)
        if moves:
            move, turn = moves[-1]
            way *= np.vdot(move, turn) / np.vdot(turn, turn)
        for (move, turn), share in zip(moves, reversed(shares)):
            way += move * (share - np.vdot(turn, way) / np.vdot(move, turn))
        length, descent = 1.0, np.vdot(slope, way)
        while True:
            next_point = point - length * way
            next_value, next_slope = loss(next_point)
            if next_value <= value - 1e-4 * length * descent or length < 1e-6:
                break
            length /= 2
        move, turn = next_point - point, next_slope - slope
        if np.vdot(move, turn) > 1e-12:
            moves = [*moves[-(memory - 1) :], (move, turn)]
        done = value - next_value < 1e-7
        point, value, slope = next_point, next_value, next_slope
        if done:
            break
    return point


def fitted(inputs: Prompts, labels: NDArray[np.int64], steps: int, decay: float) -> tuple[Array, Array]:
    """Weights [classes, buckets] and biases [classes] that minimise cross-entropy plus decay / 2 times the weights' square."""
    wanted = np.eye(len(LABELS))[labels]
    # Labels of few prompts count as much as those of many.
    weight = (len(labels) / len(LABELS) / np.maximum(wanted.sum(0), 1))[labels]

    def loss(parameters: Array) -> tuple[float, Array]:
        weights, bias = parameters[:, :-1], parameters[:, -1]
        shares = softmax(inputs.logits(weights, bias))
        value = -float((weight * np.log(shares[np.arange(len(labels)), labels] + 1e-12)).mean()) + decay / 2 * float(np.vdot(weights, weights))
        error = (shares - wanted) * weight[:, None] / len(labels)
        return value, np.concatenate([inputs.spread(error) + decay * weights, error.sum(0)[:, None]], 1)

    found = lowest(loss, np.zeros((len(LABELS), features.BUCKETS + 1)), steps)
    return found[:, :-1].astype(np.float32), found[:, -1].astype(np.float32)


def rounded(weights: Array) -> tuple[NDArray[np.int8], Array]:
    """Eight-bit weights and one scale for each class: weight = integer * scale."""
    scale = np.abs(weights).max(1) / 127
    return np.rint(weights / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def right(inputs: Prompts, labels: NDArray[np.int64], weights: NDArray[np.int8], scale: Array, bias: Array) -> float:
    logits = inputs.logits(weights.astype(np.float32) * scale[:, None], bias)
    return float((logits.argmax(1) == labels).mean())


def cross_validated(inputs: Prompts, labels: NDArray[np.int64], steps: int, decay: float) -> float:
    parts, scores = np.arange(len(labels)) % 5, []
    for part in range(5):
        weights, bias = fitted(inputs.of(parts != part), labels[parts != part], steps, decay)
        scores.append(right(inputs.of(parts == part), labels[parts == part], *rounded(weights), bias))
    return float(np.mean(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "model.safetensors")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--decay", type=float, default=1e-5)
    parser.add_argument("--cross-validate", action="store_true")
    parser.add_argument("--search", action="store_true")
    args = parser.parse_args()
    began = time.process_time()
    texts, labels = prompts(HERE / "prompts")
    inputs = Prompts(texts)
    if args.cross_validate or args.search:
        for decay in [3e-6, 1e-5, 3e-5, 1e-4] if args.search else [args.decay]:
            score = cross_validated(inputs, labels, args.steps, decay)
            print(f"decay {decay:g}: cross-validated {score:.4f} on {len(texts)} prompts, {time.process_time() - began:.0f} CPU seconds", flush=True)
        return
    weights, bias = fitted(inputs, labels, args.steps, args.decay)
    whole, scale = rounded(weights)
    metadata = {"form": FORM, "labels": ",".join(LABELS), "bits": str(features.BITS), "longest": str(features.LONGEST), "edge": str(features.EDGE),
                "words": str(features.WORDS), "edges": str(features.EDGES), "limit": str(features.LIMIT),
                "description": "pajamas intent classifier", "license": "MIT OR Apache-2.0"}
    save_file({"weight": whole, "scale": scale, "bias": bias}, args.out, metadata)
    golden = []
    for text in GOLDEN:
        found, read = features.features(text), Prompts([text])
        logits = read.logits(whole.astype(np.float32) * scale[:, None], bias)[0]
        # A long text has thousands: their number and their sum stand for those that are not written.
        shown = dict(list(found.items())[:400])
        golden.append({"text": text, "count": len(found), "sum": round(sum(found.values()), 4),
                       "buckets": {str(i): round(value, 6) for i, value in shown.items()},
                       "logits": [round(float(logit), 4) for logit in logits]})
    if args.out.parent == HERE:
        (HERE / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{len(texts)} prompts, {(time.process_time() - began):.0f} CPU seconds")


if __name__ == "__main__":
    main()
