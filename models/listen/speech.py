"""Speech by espeak-ng, and what a room does to it. Sound is f32 at 16 kHz."""

from __future__ import annotations

import io
import random
import subprocess
import wave
from dataclasses import dataclass

import numpy as np

from sentences import Sentence

RATE = 16_000
VOICES = {"en": ["en-us", "en-gb", "en-gb-scotland", "en-us-nyc"], "de": ["de"]}
VARIANTS = ["", "+f1", "+f2", "+f3", "+f4", "+m1", "+m2", "+m3", "+m4", "+m5"]


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng, its words per minute, and its pitch (0 to 99)."""

    name: str
    speed: int
    pitch: int


def voice(rng: random.Random, language: str) -> Voice:
    """Any voice of a language."""
    return Voice(rng.choice(VOICES[language]) + rng.choice(VARIANTS), rng.randint(120, 200), rng.randint(25, 75))


def say(text: str, by: Voice) -> np.ndarray:
    """The sound of a text, without silence around it."""
    command = ["espeak-ng", "-v", by.name, "-s", str(by.speed), "-p", str(by.pitch), "--stdout", text]
    said = subprocess.run(command, capture_output=True, check=True, timeout=20).stdout
    with wave.open(io.BytesIO(said)) as file:
        rate = file.getframerate()
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    sound = sound[max(loud[0] - rate // 50, 0):loud[-1] + rate // 20]
    # Below the lower rate's half nothing changes, and above it there is nothing.
    samples = len(sound) * RATE // rate
    return (np.fft.irfft(np.fft.rfft(sound)[:samples // 2 + 1], samples) * (samples / len(sound))).astype(np.float32)


@dataclass(frozen=True)
class Said:
    """A sentence and its sound."""

    sentence: Sentence
    sound: np.ndarray


def recording(rng: random.Random, parts: list[Said], seconds: float) -> tuple[np.ndarray, list[tuple[float, float, Sentence]]]:
    """Sentences one after the other with pauses between them, in a room, in `seconds`; with where each begins and ends, in seconds.
    What has no place is left out."""
    room = np.zeros(int(seconds * RATE), np.float32)
    at, placed = rng.uniform(0.0, 0.5), []
    for part in parts:
        begin, end = int(at * RATE), int(at * RATE) + len(part.sound)
        if end + RATE // 10 > len(room):
            break
        room[begin:end] += part.sound * rng.uniform(0.3, 1.0)
        placed.append((begin / RATE, end / RATE, part.sentence))
        at = end / RATE + rng.uniform(0.4, 1.0)
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(len(room)).astype(np.float32)
    return room + noise * 10 ** rng.uniform(-4.5, -2.2), placed
