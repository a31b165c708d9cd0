"""What is said: digits, colours and short commands, in English and German, each with its English meaning."""

from __future__ import annotations

import random
from dataclasses import dataclass

DIGITS = [("zero", "null"), ("one", "eins"), ("two", "zwei"), ("three", "drei"), ("four", "vier"), ("five", "fünf"),
          ("six", "sechs"), ("seven", "sieben"), ("eight", "acht"), ("nine", "neun")]
COLOURS = [("red", "rot"), ("green", "grün"), ("blue", "blau"), ("yellow", "gelb"), ("black", "schwarz"), ("white", "weiß")]
PLACES = ["kitchen", "garden", "bedroom", "cellar"]
THINGS = ["light", "door", "window", "music", "heater"]
WAYS = ["left", "right", "up", "down"]


@dataclass(frozen=True)
class Sentence:
    """A sentence, the code of its language, and its words in English."""

    text: str
    language: str
    english: str


def _command(rng: random.Random) -> str:
    thing, place, way = rng.choice(THINGS), rng.choice(PLACES), rng.choice(WAYS)
    colour, digit = rng.choice(COLOURS)[0], rng.choice(DIGITS)[0]
    return rng.choice([
        f"open the {place} {thing}", f"close the {thing}", f"turn the {thing} on", f"turn the {thing} off", f"go {way}", f"go {way} {digit} times",
        f"make the light {colour}", f"start the {thing} in the {place}", f"stop the {thing}", "stop", "wait", f"the {thing} is {colour}",
    ])


def sentence(rng: random.Random, longest: int = 6) -> Sentence:
    """A sentence of at most `longest` words, if it lists words."""
    kind = rng.random()
    if kind < 0.35:
        text = _command(rng)
        if len(text.split()) <= max(longest, 2):
            return Sentence(text, "en", text)
    words = rng.choices(DIGITS, k=rng.randint(1, longest)) if kind < 0.8 else rng.choices(COLOURS, k=rng.randint(1, min(longest, 4)))
    english = " ".join(word for word, _ in words)
    if rng.random() < 0.3:
        return Sentence(" ".join(word for _, word in words), "de", english)
    return Sentence(english, "en", english)


def words() -> list[str]:
    """Every word that occurs, in both languages."""
    pairs = [word for pair in DIGITS + COLOURS for word in pair]
    return sorted({*pairs, *PLACES, *THINGS, *WAYS, *"open the close turn on off go times make light start in stop wait is".split()})
