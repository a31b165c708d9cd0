"""Writes the texts that quantizing is measured with: conversations without their markup.

    python models/families/texts.py

`train.txt` is of the kind that the models were trained on; in `held-out.txt` every last question is one that no training
conversation contains.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "chat"))
import generate  # noqa: E402

BYTES = 48_000


def write(name: str, seed: int, *, held: bool) -> None:
    rng, text = random.Random(seed), ""
    while len(text) < BYTES:
        drawn = generate.conversation(rng, turns=rng.choice([1, 1, 2, 3]), held=held)
        if drawn is not None:
            text += "\n".join(message["content"] for message in drawn[0]) + "\n\n"
    (Path(__file__).parent / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write("train.txt", 41, held=False)
    write("held-out.txt", 42, held=True)
