"""How well the model writes down speech that it has not heard: the share of words that are wrong.

    python models/listen/evaluate.py models/listen/hf
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

import tokens
from features import RATE, log_mel
from network import Whisper
from sentences import sentence
from speech import Said, recording, say, voice
from train import load

# No seed of the training's.
SEED = 77_777


def listen(network: Whisper, tokenizer: Tokenizer, sound: np.ndarray, language: str, task: str = "transcribe", timed: bool = False) -> list[int]:
    """The tokens of a recording, the likeliest one by one."""
    at = tokenizer.token_to_id
    ids = [at(tokens.START), at(f"<|{language}|>"), at(f"<|{task}|>"), *([] if timed else [at("<|notimestamps|>")])]
    with torch.inference_mode():
        heard = network.encoder(log_mel(torch.from_numpy(sound)[None]))
        while len(ids) < network.config.max_target_positions:
            ids.append(int(network.decoder(torch.tensor([ids]), heard)[0, -1].argmax()))
            if ids[-1] == at(tokens.END):
                break
    return ids


def errors(said: list[str], heard: list[str]) -> int:
    """Words to be changed, added or taken away."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1]


def rate(network: Whisper, tokenizer: Tokenizer, count: int, most: int, seconds: float = 30.0, task: str = "transcribe") -> float:
    """The share of wrong words in so many recordings of at most `most` sentences."""
    rng = random.Random(SEED + most)
    wrong = words = 0
    while count > 0:
        language = "de" if task == "translate" else rng.choice(["en", "en", "de"])
        parts: list[Said] = []
        while len(parts) < most:
            one = sentence(rng)
            if one.language == language:
                parts.append(Said(one, say(one.text, voice(rng, language))))
        sound, placed = recording(rng, parts, seconds)
        if not placed:
            continue
        text = lambda one: one.english if task == "translate" else one.text
        wanted = " ".join(text(one) for _, _, one in placed).split()
        ids = listen(network, tokenizer, sound, language, task)
        heard = tokenizer.decode(ids).split()
        wrong, words, count = wrong + errors(wanted, heard), words + len(wanted), count - 1
    return wrong / words


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    network, tokenizer = load(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    for name, settings in {"one sentence": (60, 1), "three in a row": (20, 3)}.items():
        print(f"{name}: {rate(network, tokenizer, *settings):.1%} of the words are wrong")
    print(f"translated: {rate(network, tokenizer, 30, 1, task='translate'):.1%}")


if __name__ == "__main__":
    main()
