"""Writes the recordings of `held-out/`, by seeds of their own, and what is said in them.

    python models/listen/held_out.py
"""

from __future__ import annotations

import json
import random
import wave
from pathlib import Path

import numpy as np

from evaluate import SEED
from sentences import sentence
from speech import RATE, Said, recording, say, voice

HERE = Path(__file__).parent / "held-out"
# Sentences in each recording.
COUNTS = [1] * 12 + [2] * 4


def main() -> None:
    HERE.mkdir(exist_ok=True)
    rng = random.Random(SEED)
    said = []
    for number, count in enumerate(COUNTS, 1):
        language = "de" if number % 4 == 0 else "en"
        parts: list[Said] = []
        while len(parts) < count:
            one = sentence(rng)
            if one.language == language:
                parts.append(Said(one, say(one.text, voice(rng, language))))
        seconds = 0.6 + sum(len(part.sound) / RATE + 1.0 for part in parts)
        sound, placed = recording(rng, parts, seconds)
        assert len(placed) == count
        name = f"{number:02}.wav"
        with wave.open(str(HERE / name), "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(RATE)
            file.writeframes((np.clip(sound, -1, 1) * 32767).astype(np.int16).tobytes())
        said.append({"file": name, "language": language, "text": " ".join(one.text for _, _, one in placed),
                     "english": " ".join(one.english for _, _, one in placed)})
    (HERE / "said.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in said), encoding="utf-8")


if __name__ == "__main__":
    main()
