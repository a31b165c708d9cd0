#!/usr/bin/env python3
"""The peers of the stage `resample`: soxr (very high quality) and scipy's resample_poly.

    resample.py golden ASSETS   writes wasm-stages/resample/tests/golden.json, and says how far the two are apart
    resample.py time            the milliseconds that they take for a minute of 44.1 kHz, as JSON

Needs `pip install soxr==1.1.0 scipy==1.17.1 numpy==2.4.6 soundfile==0.14.0`.
"""
import json, math, pathlib, sys, time

import numpy as np
import scipy.signal
import soundfile
import soxr

OUT = pathlib.Path(__file__).resolve().parents[2] / "wasm-stages/resample/tests/golden.json"
PROBES = 300


def by_soxr(x, rate, to):
    return soxr.resample(x, rate, to, quality="VHQ")


def by_scipy(x, rate, to):
    g = math.gcd(rate, to)
    return scipy.signal.resample_poly(x, to // g, rate // g)


def invented(rate):
    """A second of a chord within the band: the same numbers as in the tests of the stage."""
    t = np.arange(rate) / rate
    return sum(0.2 * np.sin(2 * np.pi * hz * t) for hz in (97, 440, 1500, 6300) if hz < 0.45 * rate)


def golden(x, rate, to):
    one, two = by_soxr(x, rate, to), by_scipy(x, rate, to)
    n = min(len(one), len(two))
    print(f"{rate} to {to}: soxr and scipy differ by {abs(one[:n] - two[:n])[400:-400].max():.2e}")
    at = np.linspace(400, n - 400, PROBES).astype(int)
    return {"rate": rate, "to": to, "at": at.tolist(), "probes": [round(float(v), 7) for v in one[at]]}


def main():
    if sys.argv[1] == "time":
        x = np.tile(invented(44100), 60).astype(np.float32)
        best = {}
        for name, f in {"soxr": by_soxr, "scipy": by_scipy}.items():
            for _ in range(5):
                begun = time.perf_counter()
                f(x, 44100, 16000)
                best[name] = min(best.get(name, 1e9), (time.perf_counter() - begun) * 1e3)
        print(json.dumps(best))
        return
    entries = {}
    for rate, to in [(44100, 16000), (48000, 16000), (8000, 16000), (22050, 16000), (11025, 24000), (44099, 16000)]:
        entries[f"invented-{rate}-{to}"] = golden(invented(rate), rate, to)
    speech, rate = soundfile.read(pathlib.Path(sys.argv[2]) / "audio/uberi/english.wav")
    entries["uberi/english.wav"] = golden(speech, rate, 16000)
    OUT.parent.mkdir(exist_ok=True)
    lines = (f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}" for name, entry in entries.items())
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
