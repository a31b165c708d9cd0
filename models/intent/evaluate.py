"""Scores the intent classifier on the held-out prompts: the share whose best label is right.

    python models/intent/evaluate.py
    python models/intent/evaluate.py --natural     # those that are like what people write, rather than near a border
    python models/intent/evaluate.py --fresh       # the same, by somebody who had seen no other prompt
    python models/intent/evaluate.py --mistakes    # each prompt that it gets wrong
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from safetensors import safe_open

from train import HERE, Prompts, prompts, softmax


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE / "model.safetensors")
    parser.add_argument("--natural", action="store_true", help="those of LABEL-natural.txt")
    parser.add_argument("--fresh", action="store_true", help="those of LABEL-fresh.txt")
    parser.add_argument("--mistakes", action="store_true", help="name each prompt that it gets wrong")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    with safe_open(args.model, "numpy") as file:
        names = file.metadata()["labels"].split(",")
        weight, scale, bias = (file.get_tensor(name) for name in ("weight", "scale", "bias"))
    texts, labels = prompts(HERE / "held-out", "-fresh" if args.fresh else "-natural" if args.natural else "")
    shares = softmax(Prompts(texts).logits(weight.astype(np.float32) * scale[:, None], bias))
    best = shares.argmax(1)
    correct = best == labels
    if args.json:
        print(json.dumps({"metric": "top-1", "value": round(float(correct.mean()), 4), "samples": len(texts)}))
        return
    if args.mistakes:
        for text, label, taken, share in zip(texts, labels, best, shares.max(1)):
            if label != taken:
                print(f"{names[label]} taken for {names[taken]} ({share:.2f}): {text!r}")
    confusions = Counter((names[label], names[taken]) for label, taken in zip(labels, best) if label != taken)
    for (label, taken), count in confusions.most_common():
        print(f"{count:3} x {label} taken for {taken}")
    for number, name in enumerate(names):
        of_label = correct[labels == number]
        print(f"{name:12} {of_label.mean():.3f} of {len(of_label)}" if len(of_label) else f"{name:12} no prompts")
    for least in (0.4, 0.5, 0.6, 0.7):
        sure = shares.max(1) >= least
        print(f"share of at least {least}: {sure.mean():.3f} of the prompts, {correct[sure].mean():.4f} of them right")
    print(f"top-1 {correct.mean():.4f} on {len(texts)} prompts")


if __name__ == "__main__":
    main()
