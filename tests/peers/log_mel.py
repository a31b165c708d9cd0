#!/usr/bin/env python3
"""The peer of the stage `log-mel`: the feature extractor of transformers.

    log_mel.py golden [ASSETS]   writes wasm-stages/log-mel/tests/golden.json
    log_mel.py time FILE         the milliseconds that it takes for a WAV file of 16 kHz, as JSON

Needs `pip install transformers==5.23.0 numpy==2.4.6 soundfile==0.14.0` (and torch, where its other way is to be timed).
"""
import json, pathlib, sys, time

import numpy as np
import soundfile
from transformers import WhisperFeatureExtractor

OUT = pathlib.Path(__file__).resolve().parents[2] / "wasm-stages/log-mel/tests/golden.json"
PROBES = 400


def features(samples, mels):
    extractor = WhisperFeatureExtractor(feature_size=mels)
    return extractor(samples, sampling_rate=16000, return_tensors="np")["input_features"][0]


def golden(samples, mels):
    made = features(samples, mels)
    at = np.linspace(0, made.size - 1, PROBES).astype(int)
    # Denser where there is sound.
    frames = min(3000, len(samples) // 160 + 2)
    heard = [(b * 3000 + f) for b, f in zip(np.arange(PROBES) % mels, np.linspace(0, frames - 1, PROBES).astype(int))]
    at = sorted({*at.tolist(), *map(int, heard)})
    return {"mels": mels, "shape": list(made.shape), "sum": float(made.sum(dtype=np.float64)), "at": at,
            "probes": [round(float(x), 6) for x in made.ravel()[at]]}


def invented():
    """The same numbers as in the tests of the stage."""
    n = np.arange(100_000, dtype=np.int64)
    return (((n * n // 7) % 200).astype(np.float32) / np.float32(400) - np.float32(0.25)) * (n % 40_000 < 20_000)


def main():
    if sys.argv[1] == "time":
        samples, _ = soundfile.read(sys.argv[2], dtype="float32")
        extractor, best = WhisperFeatureExtractor(feature_size=80), 1e9
        for _ in range(10):
            begun = time.perf_counter()
            extractor(samples, sampling_rate=16000, return_tensors="np")
            best = min(best, time.perf_counter() - begun)
        print(json.dumps({"ms": best * 1e3}))
        return
    entries = {f"invented-{mels}": golden(invented().astype(np.float32), mels) for mels in (80, 128)}
    if len(sys.argv) > 2:
        # transformers computes its filters; Whisper ships them.
        shipped = np.load(pathlib.Path(sys.argv[2]) / "whisper/mel_filters.npz")
        for mels in (80, 128):
            assert abs(WhisperFeatureExtractor(feature_size=mels).mel_filters.T - shipped[f"mel_{mels}"]).max() < 1e-7
        jfk, _ = soundfile.read(pathlib.Path(sys.argv[2]) / "audio/jfk.wav", dtype="float32")
        entries |= {f"jfk.wav-{mels}": golden(jfk, mels) for mels in (80, 128)}
    OUT.parent.mkdir(exist_ok=True)
    lines = (f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}" for name, entry in entries.items())
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
